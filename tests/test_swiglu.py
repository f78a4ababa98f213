from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from base_bert import BertConfig
from bert import BertModel, Linear
from packing import Packed, pad
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
    "The quick brown fox jumps over the lazy dog while the band plays on and the audience waits for the encore .",
]


def batch(folder: Path) -> Packed:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(SENTENCES)
    return pad(
        torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])
    )


@torch.no_grad()
def pooled(model: BertModel, folder: Path) -> list[Tensor]:
    """The mean over the tokens of each hidden state: (layers + 1) of [B, H]."""
    packed = batch(folder)
    mask = packed.groups[0].mask.view(len(SENTENCES), -1, 1)
    states = (x.view(len(SENTENCES), mask.shape[1], -1) for x in model.encode(packed))
    return [(x * mask).sum(1) / mask.sum(1) for x in states]


def test_formula():
    """Equation 6 of the paper, written out."""
    torch.manual_seed(0)
    layer, x = SwiGLU(7, 13), torch.randn(3, 5, 7)
    gate, value = (
        x @ layer.gate.weight.T + layer.gate.bias,
        x @ layer.value.weight.T + layer.value.bias,
    )
    torch.testing.assert_close(layer(x), gate * torch.sigmoid(gate) * value)


def test_two_thirds_keeps_the_parameter_count():
    for size, width in [(384, 1536), (768, 3072), (1024, 4096)]:
        with_gelu = nn.Sequential(nn.Linear(size, width), nn.Linear(width, size))
        with_swiglu = nn.Sequential(
            SwiGLU(size, two_thirds(width)), nn.Linear(two_thirds(width), size)
        )
        counts = [sum(p.numel() for p in x.parameters()) for x in (with_gelu, with_swiglu)]
        assert two_thirds(width) % 8 == 0
        assert abs(counts[1] / counts[0] - 1) < 0.01
    assert [two_thirds(w) for w in (12, 13, 24)] == [8, 16, 16]


def test_start_from_gelu_is_the_old_layer_up_to_the_approximation():
    """|GELU(h) - h sigmoid(1.702 h)| <= 0.0204 everywhere, so an output moves by at most 0.0204
    |W2| 1.
    """
    torch.manual_seed(0)
    up, down = nn.Linear(13, 49), nn.Linear(49, 13)
    state = {
        f"{n}.{p}": x.detach()
        for n, m in (("up", up), ("down", down))
        for p, x in m.named_parameters()
    }
    start_from_gelu(state, "up", "down")
    swiglu = nn.ModuleDict({"up": SwiGLU(13, 49), "down": nn.Linear(49, 13)})
    swiglu.load_state_dict(state)  # strict: the names are exactly SwiGLU's
    x = torch.randn(70, 13) * 5
    old, new = down(nn.functional.gelu(up(x))), swiglu["down"](swiglu["up"](x))
    assert ((old - new).abs() <= 0.0204 * down.weight.abs().sum(1)).all()
    assert (old - new).norm() / old.norm() < 0.02


def test_start_in_a_pretrained_encoder(embedded: Path):
    """Cosine of mean-pooled outputs with the GELU encoder's. Measured over ten sentences: at worst
    .9991 after the first layer and .9938 after the sixth, .9970 on average; a feed-forward's own
    output moves by 0.6 to 3.2 %.
    """
    config = replace(BertConfig.from_pretrained(embedded), feed_forward="swiglu")
    old, new = BertModel.from_pretrained(embedded), BertModel.from_pretrained(embedded, config)
    cosines = [
        torch.cosine_similarity(a, b)
        for a, b in zip(pooled(old, embedded), pooled(new, embedded), strict=True)
    ]
    assert cosines[0].min() > 1 - 1e-6  # the embeddings are the same
    assert cosines[1].min() > 0.998 and cosines[-1].min() > 0.99
    packed = batch(embedded)
    with torch.no_grad():
        for x, a, b in zip(old.encode(packed)[:-1], old.bert_layers, new.bert_layers, strict=True):
            x = x[packed.groups[0].mask.flatten()]
            ours, theirs = (
                b.out_dense(b.interm_af(b.interm_dense(x))),
                a.out_dense(a.interm_af(a.interm_dense(x))),
            )
            assert (ours - theirs).norm() / theirs.norm() < 0.04
    assert isinstance(new.bert_layers[0].interm_dense.gate, Linear)


def test_random_start(embedded: Path):
    """Two thirds of the width, feed-forwards as initialised, the rest pretrained, the parameter
    count kept.
    """
    plain = BertConfig.from_pretrained(embedded)
    config = replace(
        plain, feed_forward="swiglu", intermediate_size=two_thirds(plain.intermediate_size)
    )
    old, new = (
        BertModel.from_pretrained(embedded),
        BertModel.from_pretrained(embedded, config, start_swiglu=False),
    )
    counts = [sum(p.numel() for p in model.parameters()) for model in (old, new)]
    assert abs(counts[1] / counts[0] - 1) < 0.01
    layer = new.bert_layers[5]
    for linear in (layer.interm_dense.gate, layer.interm_dense.value, layer.out_dense):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02) and not linear.bias.any()
    assert torch.equal(
        layer.self_attention.query.weight, old.bert_layers[5].self_attention.query.weight
    )
    assert torch.equal(layer.out_layer_norm.weight, old.bert_layers[5].out_layer_norm.weight)
