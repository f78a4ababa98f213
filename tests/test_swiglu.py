"""SwiGLU against its formula, and against the GELU feed-forward that it starts from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from base_bert import BertConfig
from bert import BertModel
from swiglu import SwiGLU, start_from_gelu, two_thirds

SENTENCES = [
    "A warm , funny , engaging film .",
    "The cat sat on the mat.",
    "How do I learn Python quickly?",
    "What is the best way to learn Python fast?",
    "Unflinchingly bleak and desperate",
    "It 's a charming and often affecting journey .",
    "A man is playing a guitar.",
    "Gorgeous and deceptively minimalist .",
    "No , no , no .",
    "The quick brown fox jumps over the lazy dog while the band plays on and the audience waits "
    "for the encore .",
]


def batch(folder: Path) -> tuple[Tensor, Tensor]:
    """The sentences as one padded batch: ids and mask."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(SENTENCES)
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    return ids, mask


@torch.no_grad()
def pooled(model: BertModel, folder: Path) -> list[Tensor]:
    """The mean over the tokens of each hidden state: (layers + 1) of [B, H]."""
    ids, mask = batch(folder)
    states = model(ids, mask, output_hidden_states=True)["hidden_states"]
    return [(x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True) for x in states]


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_formula():
    """Equation 6 of the paper, written out."""
    torch.manual_seed(0)
    layer = SwiGLU(7, 13)
    x = torch.randn(3, 5, 7)
    gate = x @ layer.gate.weight.T + layer.gate.bias
    value = x @ layer.value.weight.T + layer.value.bias
    torch.testing.assert_close(layer(x), gate * torch.sigmoid(gate) * value)


def test_two_thirds_keeps_the_parameter_count():
    for size, width in [(384, 1536), (768, 3072), (1024, 4096)]:
        narrow = two_thirds(width)
        with_gelu = nn.Sequential(nn.Linear(size, width), nn.Linear(width, size))
        with_swiglu = nn.Sequential(SwiGLU(size, narrow), nn.Linear(narrow, size))
        assert narrow % 8 == 0
        assert abs(parameter_count(with_swiglu) / parameter_count(with_gelu) - 1) < 0.01
    assert [two_thirds(w) for w in (12, 13, 24)] == [8, 16, 16]


def test_start_from_gelu_is_the_old_layer_up_to_the_approximation():
    """An output moves by at most 0.0204 times the sum of its weights' magnitudes.

    |GELU(h) - h sigmoid(1.702 h)| <= 0.0204 everywhere.
    """
    torch.manual_seed(0)
    gelu = nn.ModuleDict({"up": nn.Linear(13, 49), "down": nn.Linear(49, 13)})
    state = {name: x.clone() for name, x in gelu.state_dict().items()}
    start_from_gelu(state, "up", "down")
    swiglu = nn.ModuleDict({"up": SwiGLU(13, 49), "down": nn.Linear(49, 13)})
    swiglu.load_state_dict(state)  # strict: the names are exactly SwiGLU's
    x = torch.randn(70, 13) * 5
    old = gelu["down"](nn.functional.gelu(gelu["up"](x)))
    new = swiglu["down"](swiglu["up"](x))
    assert ((old - new).abs() <= 0.0204 * gelu["down"].weight.abs().sum(1)).all()
    assert (old - new).norm() / old.norm() < 0.02


def test_start_in_a_pretrained_encoder(embedded: Path):
    """Cosine of mean-pooled outputs with the GELU encoder's.

    Measured over ten sentences: at worst .9991 after the first layer and .9938 after the sixth,
    .9970 on average; a feed-forward's own output moves by 0.6 to 3.2 %.
    """
    config = replace(BertConfig.from_pretrained(embedded), feed_forward="swiglu")
    old = BertModel.from_pretrained(embedded)
    new = BertModel.from_pretrained(embedded, config)
    both = zip(pooled(old, embedded), pooled(new, embedded), strict=True)
    cosines = [torch.cosine_similarity(a, b) for a, b in both]
    assert cosines[0].min() > 1 - 1e-6  # the embeddings are the same
    assert cosines[1].min() > 0.998
    assert cosines[-1].min() > 0.99

    # Each layer's feed-forward alone, on the same states.
    ids, mask = batch(embedded)
    real = mask.bool()
    with torch.no_grad():
        inputs = old(ids, mask, output_hidden_states=True)["hidden_states"][:-1]
        for x, a, b in zip(inputs, old.bert_layers, new.bert_layers, strict=True):
            theirs = a.out_dense(a.interm_af(a.interm_dense(x[real])))
            ours = b.out_dense(b.interm_af(b.interm_dense(x[real])))
            assert (ours - theirs).norm() / theirs.norm() < 0.04
    assert type(new.bert_layers[0].interm_dense.gate) is nn.Linear


def test_random_start(embedded: Path):
    """Feed-forwards as initialised, two thirds as wide; the rest pretrained; as many parameters."""
    plain = BertConfig.from_pretrained(embedded)
    narrow = two_thirds(plain.intermediate_size)
    config = replace(plain, feed_forward="swiglu", intermediate_size=narrow)
    old = BertModel.from_pretrained(embedded)
    new = BertModel.from_pretrained(embedded, config, afresh=True)
    assert abs(parameter_count(new) / parameter_count(old) - 1) < 0.01

    before = old.bert_layers[5]
    after = new.bert_layers[5]
    for linear in (after.interm_dense.gate, after.interm_dense.value, after.out_dense):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()
    assert torch.equal(after.self_attention.query.weight, before.self_attention.query.weight)
    assert torch.equal(after.out_layer_norm.weight, before.out_layer_norm.weight)
