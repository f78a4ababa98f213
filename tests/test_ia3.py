"""Oracles: the paper's formula written out, and PEFT (test_peers.py, which loads what is saved)."""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from adapters import ia3
from adapters.ia3 import ScaledInput, ScaledOutput
from attention import padded_rows
from casting import cast_linears
from multitask_bert import MultitaskBERT
from tests.multitask import BASE, close, logits, make, texts


def moved(tiny: Path) -> MultitaskBERT:
    """A model whose vectors are far from one."""
    model = make(tiny, ia3=True)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ScaledOutput | ScaledInput):
                module.ia3_l += torch.randn_like(module.ia3_l)
    return model


def test_it_begins_as_the_identity(tiny: Path):
    plain, model = make(tiny), make(tiny, ia3=True)
    for task in BASE.tasks:
        assert torch.equal(logits(model, task, texts(task)), logits(plain, task, texts(task)))
    names = {name for name, p in model.bert.named_parameters() if p.requires_grad}
    linears = ("self_attention.key", "self_attention.value", "out_dense")
    assert names == {f"bert_layers.{i}.{x}.ia3_l" for i in range(2) for x in linears}
    assert ia3.counts(model) == "(IA)^3: 6 vectors, 256 numbers"


def test_a_layer_is_the_paper_s(tiny: Path):
    """Section 3.3, in float64, one head at a time."""
    model = moved(tiny).double()
    layer = model.bert.bert_layers[0]
    attention = layer.self_attention
    hidden = torch.randn(1, 7, 32, dtype=torch.float64)
    rows = padded_rows(torch.ones(1, 7), "softmax", torch.float64)
    q, k, v = attention.query, attention.key, attention.value
    queries = q(hidden)[0]
    keys = (hidden[0] @ k.base.weight.T + k.base.bias) * k.ia3_l
    values = (hidden[0] @ v.base.weight.T + v.base.bias) * v.ia3_l
    heads = []
    for head in range(4):
        place = slice(8 * head, 8 * head + 8)
        scores = queries[:, place] @ keys[:, place].T / 8**0.5
        heads.append(scores.softmax(-1) @ values[:, place])
    x = layer.attention_layer_norm(hidden[0] + layer.attention_dense(torch.cat(heads, 1)))
    down = layer.out_dense
    inner = down.ia3_l * F.gelu(layer.interm_dense(x))
    expected = layer.out_layer_norm(x + inner @ down.base.weight.T + down.base.bias)
    torch.testing.assert_close(layer(hidden, rows)[0], expected)


def test_merged_it_computes_the_same(tiny: Path):
    model = moved(tiny)
    before = {task: logits(model, task, texts(task)) for task in BASE.tasks}
    assert model.merge() == [] and not model.extended
    assert type(model.bert.bert_layers[1].out_dense) is nn.Linear
    for task in BASE.tasks:
        close(logits(model, task, texts(task)), before[task])


def test_neighbours_change_nothing(tiny: Path):
    model = moved(tiny)
    some = texts("sst")
    alone = torch.cat([logits(model, "sst", [text]) for text in some])
    close(logits(model, "sst", some), alone)


def test_bf16(tiny: Path):
    layer = copy.deepcopy(moved(tiny).bert.bert_layers[0].out_dense)
    x = torch.randn(5, 64)
    out = functional_call(layer, cast_linears(layer, torch.bfloat16), x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), atol=0.05, rtol=0.05)
