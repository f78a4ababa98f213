"""BitFit trains biases and nothing else; oracle: the names that the paper gives."""

from pathlib import Path

import pytest
import torch

from adapters import bitfit
from multitask_bert import MultitaskBERT
from tests.multitask import BASE, close, logits, make, texts

LINEARS = ("query", "key", "value")


def trained(model: MultitaskBERT) -> set[str]:
    """The encoder's parameters that train."""
    return {name for name, p in model.bert.named_parameters() if p.requires_grad}


def biases_of(layer: int, up: tuple[str, ...] = ("interm_dense",)) -> set[str]:
    """b_q, b_k, b_v; b_m1, b_m2, b_m3; and both norms'."""
    parts = [*(f"self_attention.{x}" for x in LINEARS), "attention_dense", *up, "out_dense"]
    parts += ["attention_layer_norm", "out_layer_norm"]
    return {f"bert_layers.{layer}.{part}.bias" for part in parts}


def test_all_biases(tiny: Path):
    model = make(tiny, bitfit="all")
    others = {"embed_layer_norm.bias", "pooler_dense.bias"}
    assert trained(model) == biases_of(0) | biases_of(1) | others
    assert all(p.requires_grad for p in model.pipelines.parameters())
    assert bitfit.counts(model) == "BitFit: 18 of BERT's 18 biases train"


@pytest.mark.parametrize("change", [{}, {"swiglu": "encoder"}])
def test_the_paper_s_subset(tiny: Path, change: dict[str, str]):
    up = ("interm_dense.gate", "interm_dense.value") if change else ("interm_dense",)
    model = make(tiny, bitfit="query_mlp", **change)
    parts = ("self_attention.query", *up)
    assert trained(model) == {f"bert_layers.{i}.{x}.bias" for i in range(2) for x in parts}
    total = 20 if change else 18
    assert bitfit.counts(model) == f"BitFit: {2 * len(parts)} of BERT's {total} biases train"


def test_it_adds_nothing(tiny: Path):
    plain, model = make(tiny), make(tiny, bitfit="all")
    for task in BASE.tasks:
        assert torch.equal(logits(model, task, texts(task)), logits(plain, task, texts(task)))
    with torch.no_grad():
        for p in model.bert.parameters():
            if p.requires_grad:
                p += torch.randn_like(p)
    before = logits(model, "sts", texts("sts"))
    assert model.merge() == [] and not model.extended
    assert torch.equal(logits(model, "sts", texts("sts")), before)


def test_beside_lora(tiny: Path):
    """Updates and biases train, and an export holds both."""
    model = make(tiny, lora=True, bitfit="query_mlp")
    ends = {name.rsplit(".", 1)[1] for name in trained(model)}
    assert ends == {"lora_A", "lora_B", "bias"}
    assert "bert_layers.1.self_attention.query.base.bias" in trained(model)
    assert "bert_layers.1.self_attention.key.base.bias" not in trained(model)
    assert bitfit.counts(model) == "BitFit: 4 of BERT's 18 biases train"
    with torch.no_grad():
        for p in model.bert.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    before = logits(model, "para", texts("para"))
    assert model.merge() == [] and not model.extended
    close(logits(model, "para", texts("para")), before)
