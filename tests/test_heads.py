"""Poolings and heads on states made by hand: what belongs to a sequence, and nothing else,
counts.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from base_bert import BertConfig
from bert import LayerNorm
from dropout import Dropout
from forward import Encoded
from heads.base import HeadConfig, Pooling
from heads.pipeline import HEADS, POOLINGS
from options import Options
from rmsnorm import RMSNorm
from swiglu import SwiGLU
from tests.test_forward import encoded, sequences

CONFIG = BertConfig(hidden_size=6, num_attention_heads=1)


def config(features: int, dropout: float, norm="layernorm", feed_forward="gelu") -> HeadConfig:
    """Of a head with five outputs."""
    return HeadConfig(features, 12, 5, dropout, norm, feed_forward, "sst", Options())


def pooling(name: str) -> Pooling:
    return POOLINGS[name](CONFIG, Options(), "sst")


def test_poolings_by_hand():
    texts = sequences()
    torch.testing.assert_close(pooling("cls")(encoded()), torch.stack([x[0] for x in texts]))
    torch.testing.assert_close(pooling("mean")(encoded()), torch.stack([x.mean(0) for x in texts]))


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_see_neither_padding_nor_neighbours(name):
    pool = pooling(name)
    plain = pool(encoded())
    assert plain.shape == (4, 6)
    for other in (
        encoded(order=[3, 1, 0, 2]),
        encoded(gap=4, fill=1e4),
        encoded(gap=1, fill=-1e4, longest=40),
    ):
        torch.testing.assert_close(pool(other), plain, rtol=1e-5, atol=1e-5)
    for i, x in enumerate(sequences()):
        alone = pool(Encoded([x], torch.tensor([0]), torch.tensor([len(x)]), len(x)))
        torch.testing.assert_close(alone[0], plain[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_reach_own_tokens_only(name):
    given = encoded(gap=2)
    given.layers[-1].requires_grad_()
    pooling(name)(given)[2].sum().backward()
    touched = given.layers[-1].grad.abs().sum(1) > 0
    begin = int(given.starts[2])
    assert touched[begin] and not touched[:begin].any() and not touched[begin + 13 :].any()


def test_what_poolings_need_and_give():
    """`needs` decides how much of the last layer is computed: it must not say too little."""
    given = encoded()
    only_first = replace(given, last_first=given.first())
    for name in POOLINGS:
        pool = pooling(name)
        assert pool(given).shape == (4, pool.size) and pool(given).dtype == torch.float32
        assert pool(encoded(dtype=torch.bfloat16)).dtype == torch.float32
        if pool.needs == "cls":
            assert torch.equal(pool(only_first), pool(given))
        else:
            with pytest.raises(RuntimeError, match="only"):
                pool(only_first)
    assert {name: pooling(name).needs for name in POOLINGS} == {"cls": "cls", "mean": "tokens"}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    "norm,gated", [("layernorm", False), ("rmsnorm", False), ("layernorm", True), ("rmsnorm", True)]
)
def test_heads(name, norm, gated):
    """Shapes, each row on its own, dropout only in training, and the norm and activation that were
    asked for.
    """
    torch.manual_seed(0)
    head = HEADS[name](config(24, 0.3, norm=norm, feed_forward="swiglu" if gated else "gelu"))
    x = torch.randn(7, 24)
    kinds = {type(module) for module in head.modules()}
    if name == "mlp":
        assert (RMSNorm in kinds, LayerNorm in kinds) == (norm == "rmsnorm", norm == "layernorm")
        assert (SwiGLU in kinds, head.activation is nn.functional.gelu) == (gated, not gated)
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
    head, x = HEADS["mlp"](config(6, 0.0)).eval(), torch.randn(7, 6)
    hidden = nn.functional.gelu(x @ head.dense.weight.T + head.dense.bias)
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (
        hidden.var(1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    torch.testing.assert_close(head(x), hidden @ head.out.weight.T + head.out.bias)
