"""Layers of attention on top of BERT: torch's own as oracle, padding, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from heads.attention import AttentionSublayer
from heads.cross_attention import CrossAttention
from heads.self_attention import SelfAttentionLayers
from multitask_bert import MultitaskBERT, build
from options import Options
from tests.multitask import batch, close, logits, make, texts
from tests.test_seams import survives

LENGTHS = [5, 1, 13, 7, 2, 13]
CONFIG = BertConfig(
    vocab_size=9, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
)


@pytest.fixture(params=["softmax", "sdpa"])
def bert(request: pytest.FixtureRequest) -> BertModel:
    torch.manual_seed(0)
    model = BertModel(CONFIG).eval()
    model.kernel = request.param
    return model


def random_states() -> tuple[Tensor, Tensor]:
    """States [6, 13, 24], 0 at padding, and their mask [6, 13]."""
    mask = torch.arange(13) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(6, 13, 24) * mask[:, :, None], mask


def spread(layer: nn.Module) -> None:
    """Weights far enough from zero for attention to choose."""
    for p in layer.parameters():
        nn.init.normal_(p, std=0.4)


def by_torch(layer: AttentionSublayer, x: Tensor, y: Tensor, mask: Tensor, heads: int) -> Tensor:
    """nn.MultiheadAttention and F.layer_norm with the layer's weights."""
    oracle = nn.MultiheadAttention(24, heads, batch_first=True)
    own = layer.attention
    with torch.no_grad():
        parts = (own.query, own.key, own.value)
        oracle.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        oracle.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        oracle.out_proj.load_state_dict(layer.dense.state_dict())
    attended, _ = oracle(x, y, y, key_padding_mask=~mask)
    return nn.functional.layer_norm(x + attended, (24,), layer.norm.weight, layer.norm.bias, 1e-12)


@pytest.mark.parametrize("heads", [1, 2, 3, 12])
def test_self_attention_by_torch(bert: BertModel, heads: int):
    layers = SelfAttentionLayers(bert, 2, heads).eval()
    spread(layers)
    states, mask = random_states()
    found = layers(states, mask, torch.arange(6))
    expected = states
    for layer in layers.layers:
        expected = by_torch(layer, expected, expected, mask, heads)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_cross_attention_by_torch(bert: BertModel):
    cross = CrossAttention(bert).eval()
    spread(cross)
    states, mask = random_states()
    found = cross(states, mask, torch.arange(6) // 2)
    partner = [1, 0, 3, 2, 5, 4]
    expected = by_torch(cross.layer, states, states[partner], mask[partner], 2)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_second_derivatives(bert: BertModel):
    """Through the kernel that BERT was told to use."""
    layer = SelfAttentionLayers(bert, 1, 2).layers[0]
    states, mask = random_states()
    states.requires_grad_()
    with bert.plain_attention():
        out = layer(states, states, mask)
    (first,) = torch.autograd.grad(out.square().sum(), states, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), states)
    assert second.isfinite().all() and second.any()


@pytest.mark.parametrize("task", ["sst", "sts"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_other_texts_change_nothing(tiny: Path, task: str, pooling: str):
    """Nor longer ones, which give a sentence padding; of pairs neither sentence's."""
    change = {"pooling": pooling, "attention_layers": "2", "attention_heads": "1"}
    model = make(tiny, pair_encoding="bi", cross_attention=True, **change)
    for pipeline in model.pipelines.values():
        spread(pipeline.token_layers)
    some = texts(task)
    together = logits(model, task, some)
    close(logits(model, task, some[::-1]), together.flip(0))
    for place in (0, 5, 12):
        close(logits(model, task, [some[place]]), together[place : place + 1])


def test_the_partner_counts(tiny: Path):
    """A sentence's own vector depends on its partner, alike from both sides."""
    model = make(tiny, pair_encoding="bi", cross_attention=True)
    spread(model.pipelines["sts"].token_layers)

    def pooled(first: str, second: str) -> Tensor:
        some = [(first, second)]
        with torch.no_grad():
            return model.forward_of({"sts": batch(model, "sts", some)}).pooled["sts"]

    ab, ba, ac = pooled("a film", "is fine"), pooled("is fine", "a film"), pooled("a film", "dull")
    close(ab, ba.flip(0))
    assert (ab[0] - ac[0]).abs().max() > 1e-3


def test_only_the_tasks_that_ask(tiny: Path):
    model = make(tiny, attention_layers="0 sts=3", attention_heads="same sts=8")
    names = {name for name, _ in model.named_parameters() if "token_layers" in name}
    assert names and all(name.startswith("pipelines.sts.") for name in names)
    assert len(model.pipelines["sts"].token_layers["attention_layers"].layers) == 3
    cross = make(tiny, pair_encoding="bi", cross_attention=True)
    assert [len(cross.pipelines[t].token_layers) for t in ("sst", "para", "sts")] == [0, 1, 1]


def test_heads_that_do_not_fit(tiny: Path):
    options = Options(model=str(tiny), attention_layers=1, attention_heads="same sst=36")
    message = (
        "--attention_heads 36: the encoder is 32 wide, and 32 / 36 is no whole number; expected a "
        "divisor"
    )
    with pytest.raises(UserError, match=f"^{message}$"):
        build(options)
    build(replace(options, attention_layers="1 sst=0"))


def test_rmsnorm_of_the_encoder_is_theirs(tiny: Path):
    model: MultitaskBERT = make(tiny, attention_layers=1, rmsnorm="encoder")
    kinds = {type(m).__name__ for m in model.pipelines["sst"].token_layers.modules()}
    assert "RMSNorm" in kinds and "LayerNorm" not in kinds


def test_a_run(options: Options, monkeypatch: pytest.MonkeyPatch):
    state = survives(
        replace(options, pair_encoding="bi", cross_attention=True, lora=True), monkeypatch
    )
    assert "model:pipelines.sts.token_layers.cross_attention.layer.dense.weight" in state
