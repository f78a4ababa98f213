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
from errors import UserError
from forward import Encoded
from heads.activations import ACTIVATIONS
from heads.base import HeadConfig, Pooling
from heads.pipeline import HEADS, POOLINGS
from options import Options
from rmsnorm import RMSNorm
from swiglu import SwiGLU
from tests.multitask import make
from tests.test_forward import POOLER, encoded, sequences

PLAIN = Options()
CONFIG = BertConfig(hidden_size=6, num_attention_heads=1, num_hidden_layers=1)


def config(
    features: int, dropout: float, norm="layernorm", feed_forward="gelu", options=PLAIN
) -> HeadConfig:
    """Of a head with five outputs."""
    return HeadConfig(features, 12, 5, dropout, norm, feed_forward, "sst", options)


def pooling(name: str, options: Options = PLAIN, layers: int = 1) -> Pooling:
    """A pooling whose parameters, where it has some, are not at their start."""
    torch.manual_seed(0)
    made = POOLINGS[name](replace(CONFIG, num_hidden_layers=layers), options, "sst")
    for p in made.parameters():
        nn.init.normal_(p)
    return made


def test_poolings_by_hand():
    texts = sequences()
    expected = {
        "cls": [x[0] for x in texts],
        "mean": [x.mean(0) for x in texts],
        "max": [x.max(0).values for x in texts],
        "pooler": [(x[0] @ POOLER).tanh() for x in texts],
    }
    for name, vectors in expected.items():
        torch.testing.assert_close(pooling(name)(encoded()), torch.stack(vectors))


def test_max_pooling_of_values_below_zero():
    """Padding, which is zero, is none of them."""
    given = encoded(gap=2)
    below = replace(given, layers=[x - 50 for x in given.layers])
    texts = sequences()
    expected = torch.stack([(x - 50).max(0).values for x in texts])
    torch.testing.assert_close(pooling("max")(below), expected)


def test_attention_pooling_by_hand():
    """Oracle: the paper's equations 5 to 7 in float64, text by text."""
    pool = pooling("attention")
    weight, bias, query = (p.detach().double() for p in (*pool.dense.parameters(), pool.query))
    expected = []
    for x in sequences():
        x = x.double()
        scores = torch.tanh(x @ weight.T + bias) @ query
        shares = scores.exp() / scores.exp().sum()
        expected.append((shares[:, None] * x).sum(0))
    torch.testing.assert_close(pool(encoded()), torch.stack(expected).float())


def test_attention_pooling_starts_as_the_mean():
    made = POOLINGS["attention"](CONFIG, PLAIN, "sst")
    torch.testing.assert_close(made(encoded(longest=40)), pooling("mean")(encoded()))


def deep(only_first: bool) -> Encoded:
    """States after five layers; of the last perhaps those of [CLS] alone."""
    given = encoded(order=[2, 0, 3, 1], gap=3, fill=7.0)
    last = given.layers[-1]
    layers = [last + 100, *(last * factor for factor in (2, 3, 5, 7)), last]
    given = replace(given, layers=layers)
    if not only_first:
        return given
    return replace(given, layers=[*layers[:-1], given.first()], last_first=given.first())


@pytest.mark.parametrize("only_first", [False, True])
@pytest.mark.parametrize(
    ("chosen", "factor"),
    [
        ("last4", (3 + 5 + 7 + 1) / 4),
        ("first4", (2 + 3 + 5 + 7) / 4),
        ("all", (2 + 3 + 5 + 7 + 1) / 5),
        ("4", 1),
        ("0,3", (2 + 7) / 2),
        ("last4 sst=4,1", (1 + 3) / 2),
    ],
)
def test_cls_layers(chosen, factor, only_first):
    """The mean over layers numbered from 0, without the embeddings."""
    options = Options(pooling="cls_layers", pooling_layers=chosen)
    given = deep(only_first)
    pool = pooling("cls_layers", options, layers=5)
    torch.testing.assert_close(pool(given), given.first() * factor)


@pytest.mark.parametrize("only_first", [False, True])
def test_the_layer_mix_by_hand(only_first):
    """ELMo's equation 1; and it starts as the mean."""
    given = deep(only_first)
    pool = pooling("layer_mix", layers=5)
    shares = pool.weights.exp() / pool.weights.exp().sum()
    factor = (shares * torch.tensor([2.0, 3.0, 5.0, 7.0, 1.0])).sum() * pool.scale
    torch.testing.assert_close(pool(given), given.first() * factor)

    start = POOLINGS["layer_mix"](replace(CONFIG, num_hidden_layers=5), PLAIN, "sst")
    torch.testing.assert_close(start(given), given.first() * 3.6)


@pytest.mark.parametrize("chosen", ["5", "0,0", "last3", "1,-1"])
def test_layers_that_there_are_not(chosen):
    options = Options(pooling="cls_layers", pooling_layers=chosen)
    with pytest.raises(UserError, match=f'^--pooling_layers "{chosen}": expected'):
        pooling("cls_layers", options, layers=5)


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
        layers, place = [x + 100, x], torch.tensor([0])
        own = Encoded(layers, place, torch.tensor([len(x)]), len(x), pooler=encoded().pooler)
        alone = pool(own)
        torch.testing.assert_close(alone[0], plain[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_reach_own_tokens_only(name):
    given = encoded(gap=2)
    given.layers[-1].requires_grad_()
    pooling(name)(given)[2].sum().backward()
    touched = given.layers[-1].grad.abs().sum(1) > 0
    begin = int(given.starts[2])
    own = slice(begin, begin + 13)
    assert touched[own].any() and touched[own].sum() == touched.sum()


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
    needs = {name for name in POOLINGS if pooling(name).needs == "tokens"}
    assert needs == {"mean", "max", "attention"}


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
    head, x = HEADS["mlp"](config(6, 0.0)).eval(), torch.randn(7, 6)
    hidden = nn.functional.gelu(x @ head.dense.weight.T + head.dense.bias)
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (
        hidden.var(1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    torch.testing.assert_close(head(x), hidden @ head.out.weight.T + head.out.bias)


# ---- deeper heads


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("gelu", nn.GELU),
        ("relu", nn.ReLU),
        ("leakyrelu", nn.LeakyReLU),
        ("rrelu", nn.RReLU),
        ("elu", nn.ELU),
        ("celu", nn.CELU),
        ("selu", nn.SELU),
        ("silu", nn.SiLU),
        ("hardswish", nn.Hardswish),
        ("tanh", nn.Tanh),
        ("none", nn.Identity),
    ],
)
def test_activations(name, oracle):
    """Of the head of one task; the head around it by hand."""
    options = Options(activation=f"selu sst={name}", head_norm=False)
    head = HEADS["mlp"](config(6, 0.0, options=options)).eval()
    assert type(head.activation) is oracle and set(ACTIVATIONS) >= {name}
    x = torch.randn(7, 6)
    expected = head.out(oracle().eval()(head.dense(x)))
    assert torch.equal(head(x), expected)


def test_every_activation_is_another_function():
    x = torch.linspace(-4, 4, 33)
    values = [make().eval()(x) for make in ACTIVATIONS.values()]
    different = {tuple(value.tolist()) for value in values}
    # CELU is ELU where alpha is 1, as it is by default.
    assert len(different) == len(ACTIVATIONS) - 1


def test_rrelu_draws_in_training_only():
    options = Options(activation="rrelu", head_norm=False)
    head, x = HEADS["mlp"](config(6, 0.0, options=options)), torch.randn(7, 6)
    assert not torch.equal(head.train()(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_deep_heads(depth):
    """Oracle: torch's own modules in a row, with the head's weights."""
    options = Options(head_layers=f"3 sst={depth}", head_width="13", activation="leakyrelu")
    torch.manual_seed(0)
    head, x = HEADS["mlp"](config(6, 0.0, options=options)).eval(), torch.randn(7, 6)
    rows = []
    for layer in [head, *head.deeper]:
        rows += [layer.dense, nn.LeakyReLU(), layer.norm]
    assert len(rows) == 3 * depth and head.out.weight.shape == (5, 13)
    assert torch.equal(head(x), nn.Sequential(*rows, head.out)(x))
    head(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_the_names_of_a_head_of_one_layer_are_those_of_old_models():
    names = set(HEADS["mlp"](config(6, 0.0)).state_dict())
    assert names == {f"{x}.{y}" for x in ("dense", "norm", "out") for y in ("weight", "bias")}


def test_a_head_without_norms():
    options = Options(head_norm=False, head_layers="2")
    head = HEADS["mlp"](config(6, 0.0, options=options))
    assert not any(isinstance(module, LayerNorm) for module in head.modules())
    assert set(head.state_dict()) == {
        f"{x}.{y}" for x in ("dense", "deeper.0.dense", "out") for y in ("weight", "bias")
    }


def test_the_width_of_a_gated_head():
    """As wide as is said; else two thirds of the encoder, so that its two matrices are as large."""
    for width, expected in (("encoder", 8), ("encoder sst=7", 7)):
        head = HEADS["mlp"](config(6, 0.0, "layernorm", "swiglu", Options(head_width=width)))
        assert head.out.in_features == expected


@pytest.mark.parametrize("name", HEADS)
def test_dropout_of_the_heads_alone(tiny, name):
    model = make(tiny, head=name, head_dropout="same sst=0.5", hidden_dropout_prob=0.25)
    for task, p in (("sst", 0.5), ("para", 0.25)):
        head = model.pipelines[task].head
        assert {m.p for m in head.modules() if isinstance(m, Dropout)} == {p}
    assert model.bert.embed_dropout.p == 0.25
