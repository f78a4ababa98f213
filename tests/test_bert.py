"""Oracle: transformers.BertModel, which is given our random weights or its own, hidden state by
hidden state.
"""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from base_bert import BertConfig
from bert import FEED_FORWARDS, NORMS, BertModel, LayerNorm
from casting import cast_linears
from packing import WIDTHS, Packed, Tokens, pack
from tests.multitask import unlabelled

transformers = pytest.importorskip("transformers")

# hidden, heads, intermediate: odd widths, one head, heads of one number, a feed-forward narrower
# than the hidden size
SHAPES = [(39, 3, 17), (13, 1, 49), (49, 7, 7), (7, 7, 13)]


def random_pair(
    hidden: int, heads: int, width: int, folder: Path
) -> tuple[BertModel, torch.nn.Module]:
    """A transformers model with every parameter random (norms and biases too), and ours loaded from
    what it saved.
    """
    torch.manual_seed(hidden)
    config = transformers.BertConfig(
        vocab_size=101,
        hidden_size=hidden,
        num_hidden_layers=3,
        num_attention_heads=heads,
        intermediate_size=width,
        max_position_embeddings=200,
    )
    theirs = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(folder)
    return BertModel.from_pretrained(folder), theirs


def random_batch(longest: int, count: int = 7, vocab: int = 101) -> tuple[Tensor, Tensor, Tensor]:
    """Padded pairs: ids, mask, token types [B, T]. The first is of full length, the second a single
    token.
    """
    lengths = [longest, 1] + torch.randint(1, longest + 1, (count - 2,)).tolist()
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    seconds = (torch.arange(longest) >= torch.tensor(lengths)[:, None] // 2).long()
    return torch.randint(1, vocab, (count, longest)) * mask, mask, seconds * mask


def unpadded(ids: Tensor, mask: Tensor, types: Tensor) -> list[Tokens]:
    return [
        Tokens(i[m.bool()].numpy(), t[m.bool()].numpy())
        for i, m, t in zip(ids, mask, types, strict=True)
    ]


def pack_tasks(**sequences: list[Tokens]) -> Packed:
    """Sequences under names of tasks, one an example."""
    return pack({task: unlabelled(task, tokens, each=1) for task, tokens in sequences.items()})


def at_tokens(packed: Packed, states: list[Tensor]) -> list[list[Tensor]]:
    """Each sequence's own tokens, for each hidden state."""
    spans = list(zip(packed.starts.tolist(), packed.lengths.tolist(), strict=True))
    return [[state[start : start + length] for start, length in spans] for state in states]


def close(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


def check(ours: BertModel, theirs: torch.nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """All hidden states and the pooler, padded and packed, without gradients (fused path) and with
    (plain path).
    """
    ids, mask, types = batch
    with torch.no_grad():
        oracle = theirs(
            input_ids=ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True
        )
    sequences = unpadded(*batch)
    packed = pack_tasks(a=sequences[:3], b=sequences[3:])
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            out = ours(ids, mask, types, output_hidden_states=True)
            flat = ours.encode_packed(packed)
            first = ours.pool(flat[-1][packed.starts])
        assert len(out["hidden_states"]) == len(oracle.hidden_states) == len(flat)
        for padded, state in zip(out["hidden_states"], oracle.hidden_states, strict=True):
            close(padded[mask.bool()], state[mask.bool()])
            close(
                padded, state, atol=1e-4
            )  # what stands in the padding rounds a little further off
        assert torch.equal(out["last_hidden_state"], padded)
        close(out["pooler_output"], oracle.pooler_output)
        close(first, oracle.pooler_output)
        for sequences_of_state, state in zip(
            at_tokens(packed, flat), oracle.hidden_states, strict=True
        ):
            for sequence, row, m in zip(sequences_of_state, state, mask.bool(), strict=True):
                close(sequence, row[m])


@pytest.mark.parametrize("shape", SHAPES)
def test_random_configurations_equal_transformers(shape: tuple[int, int, int], tmp_path: Path):
    ours, theirs = random_pair(*shape, tmp_path)
    for longest in (7, 13, 140):  # 140: packed rows of 64, 128 and 256
        check(ours, theirs, random_batch(longest))


@pytest.fixture(scope="module")
def pretrained(embedded: Path) -> BertModel:
    return BertModel.from_pretrained(embedded)


TEXTS = [
    "A warm, funny, engaging film.",
    "No.",
    "How do I learn Python?",
    ("How do I learn Python?", "Is Python easy to learn?"),
    ("A man plays a guitar.", "A man is playing the guitar on a stage."),
    "the " * 70,
]


def test_embedded_weights_equal_transformers(pretrained: BertModel, embedded: Path):
    tokenizer = Tokenizer.from_file(str(embedded / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(TEXTS)
    batch = tuple(
        torch.tensor([getattr(e, k) for e in encoded])
        for k in ("ids", "attention_mask", "type_ids")
    )
    assert batch[2].any(), "no pair among the texts"
    check(pretrained, transformers.BertModel.from_pretrained(embedded).eval(), batch)


def test_gradients_equal_transformers(tmp_path: Path):
    """Packed, through the path that training takes."""
    ours, theirs = random_pair(39, 3, 17, tmp_path)
    ids, mask, types = random_batch(13)
    packed = pack_tasks(a=unpadded(ids, mask, types))
    weights = torch.randn(39)
    sum(
        ((x @ weights) ** 2).sum() for x in at_tokens(packed, ours.encode_packed(packed))[-1]
    ).backward()
    out = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
    (((out @ weights) ** 2) * mask).sum().backward()
    layer, oracle = ours.bert_layers[0], theirs.encoder.layer[0]
    pairs = [
        (ours.word_embedding, theirs.embeddings.word_embeddings),
        (ours.pos_embedding, theirs.embeddings.position_embeddings),
        (layer.self_attention.query, oracle.attention.self.query),
        (layer.interm_dense, oracle.intermediate.dense),
        (layer.out_layer_norm, oracle.output.LayerNorm),
    ]
    for a, b in pairs:
        assert b.weight.grad.abs().max() > 1e-2, "the oracle's gradient says nothing"
        scale = b.weight.grad.abs().max()
        close(a.weight.grad / scale, b.weight.grad / scale)


def test_neighbours_and_padding_do_not_change_a_result(pretrained: BertModel):
    ids, mask, types = random_batch(40, vocab=30522)
    sequences = unpadded(ids, mask, types)
    with torch.no_grad():
        alone = [pretrained.encode_packed(pack_tasks(a=[x]))[-1][: len(x)] for x in sequences]
        together = pack_tasks(a=sequences[::-1])
        for a, b in zip(
            alone, at_tokens(together, pretrained.encode_packed(together))[-1][::-1], strict=True
        ):
            close(a, b)
        wider = [torch.nn.functional.pad(x, (0, 13)) for x in (ids, mask, types)]
        wider[0][wider[1] == 0] = 7  # what stands in the padding does not matter either
        narrow, wide = (pretrained(*x)["last_hidden_state"] for x in ((ids, mask, types), wider))
        for row, (a, b) in enumerate(zip(narrow, wide, strict=True)):
            close(a[mask[row].bool()], b[:40][mask[row].bool()])
        for row, expected in enumerate(alone):
            close(narrow[row][mask[row].bool()], expected)


def test_a_row_that_is_all_padding_is_finite(pretrained: BertModel):
    ids = torch.full((2, 7), 5)
    mask = torch.tensor([[1] * 7, [0] * 7])
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert torch.isfinite(pretrained(ids, mask)["last_hidden_state"]).all()


def test_token_types_default_to_zero(pretrained: BertModel):
    ids, mask, types = random_batch(13, vocab=30522)
    with torch.no_grad():
        assert torch.equal(
            pretrained(ids, mask)["pooler_output"],
            pretrained(ids, mask, types * 0)["pooler_output"],
        )
        assert not torch.equal(
            pretrained(ids, mask)["pooler_output"], pretrained(ids, mask, types)["pooler_output"]
        )
        assert set(pretrained(ids, mask)) == {"last_hidden_state", "pooler_output"}


def test_bf16_is_close_to_fp32(pretrained: BertModel):
    packed = pack_tasks(a=unpadded(*random_batch(70, vocab=30522)))
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            wide, narrow = (
                pretrained.encode_packed(packed),
                pretrained.encode_packed(packed, torch.bfloat16),
            )
        assert {x.dtype for x in narrow} == {torch.bfloat16}
        for a, b in zip(wide, narrow, strict=True):
            real = torch.cat(
                [torch.arange(s, s + n) for s, n in zip(packed.starts, packed.lengths, strict=True)]
            )
            a, b = a[real].detach(), b[real].detach().float()
            assert torch.cosine_similarity(a, b).min() > 0.999
            assert (a - b).norm() / a.norm() < 0.02


def test_kernels_agree(pretrained: BertModel):
    """Whichever is asked for, with gradients and without, in the padded face and the packed one."""
    ids, mask, types = random_batch(13, vocab=30522)
    packed = pack_tasks(a=unpadded(ids, mask, types))
    found = []
    for kernel in ("softmax", "sdpa", "auto"):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                pretrained.kernel = kernel
                padded = pretrained(ids, mask, types)["last_hidden_state"][mask.bool()]
                found.append((padded, *at_tokens(packed, pretrained.encode_packed(packed))[-1]))
    assert pretrained.kernel == "auto"
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            close(a, b)


def test_plain_attention_has_second_derivatives(pretrained: BertModel):
    """What it is for; and the choice from before is back afterwards, errors or not."""
    pretrained.kernel = "sdpa"
    ids, mask, _ = random_batch(7, vocab=30522)
    weight = pretrained.bert_layers[0].self_attention.query.weight
    with pretrained.plain_attention():
        assert pretrained.pick_kernel() == "softmax"
        loss = pretrained(ids, mask)["last_hidden_state"].square().mean()
    (first,) = torch.autograd.grad(loss, weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    assert second.any() and torch.isfinite(second).all()
    assert pretrained.kernel == "sdpa"
    with pytest.raises(KeyError), pretrained.plain_attention():
        raise KeyError
    assert pretrained.kernel == "sdpa"
    pretrained.kernel = "auto"


@pytest.mark.parametrize(
    "which", ["embed_dropout", "attention_dropout", "out_dropout", "self_attention.dropout"]
)
def test_each_dropout_is_alive_in_training_only(which: str):
    shape = {
        "hidden_size": 13,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 7,
    }
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertModel(BertConfig(vocab_size=11, **shape, **rates))
    holder = model if which == "embed_dropout" else model.bert_layers[0]
    holder.get_submodule(which).p = 0.5
    ids = torch.randint(1, 11, (3, 7))
    mask = torch.ones_like(ids)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            train = [model.train()(ids, mask)["last_hidden_state"] for _ in range(2)]
            evaluated = [model.eval()(ids, mask)["last_hidden_state"] for _ in range(2)]
        assert not torch.equal(*train) and torch.equal(*evaluated)


def test_the_shape_seam_is_literal_and_small():
    assert set(NORMS) == {"layernorm", "rmsnorm"} and set(FEED_FORWARDS) == {"gelu", "swiglu"}
    assert BertConfig().norm in NORMS and BertConfig().feed_forward in FEED_FORWARDS
    assert WIDTHS[-1] == BertConfig().max_position_embeddings


def test_initial_weights():
    """BERT's: normal(0, initializer_range), zero biases, identity norms, a zero [PAD]."""
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            hidden_size=130, num_hidden_layers=1, num_attention_heads=13, initializer_range=0.05
        )
    )
    for name, x in model.named_parameters():
        if "norm" in name:
            assert (x == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert not x.any(), name
        elif "tk_type" not in name:  # 260 numbers are too few for the next line
            assert x.std().item() == pytest.approx(0.05, rel=0.02) and x.mean().abs() < 2e-3, name
    assert not model.word_embedding.weight[0].any()


def test_norm_follows_the_input_dtype():
    norm = LayerNorm(13)
    out = norm(torch.randn(3, 13).bfloat16())
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert norm.weight.grad.dtype == torch.float32


def test_bf16_products_have_fp32_masters(pretrained: BertModel):
    """All parameters stay fp32 and get fp32 gradients, close to those of fp32 products."""
    packed = pack_tasks(a=unpadded(*random_batch(13, vocab=30522)))
    weights = torch.randn(384)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        last = at_tokens(packed, pretrained.encode_packed(packed, dtype))[-1]
        assert {x.dtype for x in last} == {dtype}
        torch.cat(last).float().matmul(weights).square().mean().backward()
        named = {n: p for n, p in pretrained.named_parameters() if "pooler" not in n}
        assert {p.dtype for p in named.values()} == {torch.float32}
        found.append({name: p.grad for name, p in named.items()})
        assert {grad.dtype for grad in found[-1].values()} == {torch.float32}
        pretrained.zero_grad()
    for name, exact in found[0].items():
        if not name.endswith("key.bias"):  # whose gradient is zero but for rounding
            similar = torch.cosine_similarity(exact.flatten(), found[1][name].flatten(), dim=0)
            assert similar > 0.99, name


def test_cast_linears_is_empty_in_fp32_and_whole_in_bf16(pretrained: BertModel):
    layer = pretrained.bert_layers[0]
    assert cast_linears(layer, torch.float32) == {}
    cast = cast_linears(layer, torch.bfloat16)
    linears = [name for name in layer.state_dict() if "norm" not in name]
    assert set(cast) == set(linears) and len(linears) == 12
    assert {x.dtype for x in cast.values()} == {torch.bfloat16}


def test_config_keeps_every_field(tmp_path: Path):
    changed = {"norm": "rmsnorm", "feed_forward": "swiglu", "layer_norm_eps": 1e-6}
    config = BertConfig(hidden_size=26, num_attention_heads=13, **changed)
    config.save(tmp_path)
    assert asdict(BertConfig.from_pretrained(tmp_path)) == asdict(config)
