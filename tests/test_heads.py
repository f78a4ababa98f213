"""Poolings and heads on states made by hand: what belongs to a sequence, and nothing else,
counts.
"""

import pytest
import torch
from torch import Tensor, nn

from bert import LayerNorm
from dropout import Dropout
from heads import HEADS, POOLINGS, Encoded, pair_features
from rmsnorm import RMSNorm
from swiglu import SwiGLU

LENGTHS = [5, 1, 13, 7]


def encoded(
    lengths: list[int] = LENGTHS,
    order: list[int] | None = None,
    gap: int = 0,
    longest: int = 0,
    fill: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Encoded:
    """Sequence i has the same states wherever it is laid; between the sequences are `gap` rows of
    `fill`.
    """
    texts = [
        torch.randn(n, 6, generator=torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)
    ]
    rows: list[Tensor] = [torch.full((gap, 6), fill)]
    starts = [0] * len(lengths)
    for i in order or range(len(lengths)):
        starts[i] = sum(map(len, rows))
        rows += [texts[i], torch.full((gap, 6), fill)]
    return Encoded(
        torch.cat(rows).to(dtype),
        torch.tensor(starts),
        torch.tensor(lengths),
        longest or max(lengths),
    )


def sequences(lengths: list[int] = LENGTHS) -> list[Tensor]:
    return [
        torch.randn(n, 6, generator=torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
@pytest.mark.parametrize("gap", [0, 3])
def test_first_and_tokens(order, gap):
    given = encoded(order=order, gap=gap, fill=7.0)
    texts = sequences()
    assert torch.equal(given.first(), torch.stack([x[0] for x in texts]))
    states, mask = given.tokens()
    assert states.shape == (4, 13, 6) and mask.shape == (4, 13) and mask.dtype == torch.bool
    for x, row, keep in zip(texts, states, mask, strict=True):
        assert torch.equal(row[: len(x)], x) and not row[len(x) :].any()
        assert keep.tolist() == [True] * len(x) + [False] * (13 - len(x))


def test_states_come_out_in_fp32():
    given = encoded(dtype=torch.bfloat16)
    assert given.first().dtype == given.tokens()[0].dtype == torch.float32
    assert all(pool(given).dtype == torch.float32 for pool in POOLINGS.values())


def test_poolings_by_hand():
    texts = sequences()
    torch.testing.assert_close(POOLINGS["cls"](encoded()), torch.stack([x[0] for x in texts]))
    torch.testing.assert_close(POOLINGS["mean"](encoded()), torch.stack([x.mean(0) for x in texts]))


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_see_neither_padding_nor_neighbours(name):
    pool = POOLINGS[name]
    plain = pool(encoded())
    assert plain.shape == (4, 6)
    for other in (
        encoded(order=[3, 1, 0, 2]),
        encoded(gap=4, fill=1e4),
        encoded(gap=1, fill=-1e4, longest=40),
    ):
        torch.testing.assert_close(pool(other), plain, rtol=1e-5, atol=1e-5)
    for i, x in enumerate(sequences()):
        alone = pool(Encoded(x, torch.tensor([0]), torch.tensor([len(x)]), len(x)))
        torch.testing.assert_close(alone[0], plain[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_reach_own_tokens_only(name):
    given = encoded(gap=2)
    given.states.requires_grad_()
    POOLINGS[name](given)[2].sum().backward()
    touched = given.states.grad.abs().sum(1) > 0
    begin = int(given.starts[2])
    assert touched[begin] and not touched[:begin].any() and not touched[begin + 13 :].any()


def test_pair_features():
    u, v = torch.randn(2, 3, 6).unbind(0)
    features = pair_features(torch.stack([u, v], 1).flatten(0, 1))  # u0 v0 u1 v1 ...
    assert torch.equal(features, torch.cat([u, v, (u - v).abs(), u * v], 1)) and features.shape == (
        3,
        24,
    )


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    "norm,gated", [("layernorm", False), ("rmsnorm", False), ("layernorm", True), ("rmsnorm", True)]
)
def test_heads(name, norm, gated):
    """Shapes, each row on its own, dropout only in training, and the norm and activation that were
    asked for.
    """
    torch.manual_seed(0)
    head = HEADS[name](24, 12, 5, 0.3, norm, gated)
    x = torch.randn(7, 24)
    kinds = {type(module) for module in head.modules()}
    if name == "mlp":
        assert (RMSNorm in kinds, LayerNorm in kinds) == (norm == "rmsnorm", norm == "layernorm")
        assert (SwiGLU in kinds, nn.GELU in kinds) == (gated, not gated)
    assert (
        all(module.p == 0.3 for module in head.modules() if isinstance(module, Dropout))
        and Dropout in kinds
    )
    assert not torch.equal(head.train()(x), head(x))
    out = head.eval()(x)
    assert out.shape == (7, 5) and torch.equal(out, head(x))
    torch.testing.assert_close(torch.cat([head(row[None]) for row in x]), out)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_the_mlp_head_by_hand():
    torch.manual_seed(0)
    head, x = HEADS["mlp"](6, 12, 5, 0.0, "layernorm", False).eval(), torch.randn(7, 6)
    hidden = nn.functional.gelu(x @ head.dense[0].weight.T + head.dense[0].bias)
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (
        hidden.var(1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    torch.testing.assert_close(head(x), hidden @ head.out.weight.T + head.out.bias)
