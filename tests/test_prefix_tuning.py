"""Prefix-tuning, and the prefixes that P-tuning v2 has too. Oracle: the
MLP and attention over a prefix, written out in float64.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from errors import UserError
from options import Options
from tests.multitask import batch, close, logits, make, padded, texts
from tests.plain_layers import plain_layers
from tests.test_bottleneck import ids, moved, saved_and_merged
from tests.test_seams import exported, survives

SMALL = {"prefix_tuning_length": 3, "prefix_tuning_width": 7}
KINDS = [{"prefix_tuning": True, **SMALL}, {"p_tuning": "v2", "p_tuning_length": 3}]


def test_the_mlp_equals_the_formula(tiny: Path) -> None:
    """One MLP for all layers: the pieces of its last matrix stand below one another."""
    model = moved(make(tiny, **KINDS[0]))
    shared = model.bert.get_submodule("reparametrisation")
    prefixes = [layer.self_attention.prefix for layer in model.bert.bert_layers]
    weight = torch.cat([prefix.source.out.weight for prefix in prefixes]).double()  # [2 * 2H, 7]
    bias = torch.cat([prefix.source.out.bias for prefix in prefixes]).double()
    dense = shared.dense
    low = torch.tanh(shared.matrix.double() @ dense.weight.double().T + dense.bias.double())
    expected = (low @ weight.T + bias).view(3, 4, 32)  # keys and values of each layer
    group = model.pack({"sst": batch(model, "sst", texts("sst"))}).groups[0]
    ours = [x for prefix in prefixes for x in prefix(group)]
    for row in range(group.rows):
        close(torch.stack([x[row] for x in ours], 1).double(), expected)


@pytest.mark.parametrize("change", KINDS)
def test_states_equal_the_formula(tiny: Path, change: dict) -> None:
    """By both kernels, whose masks are of two kinds."""
    model = moved(make(tiny, **change))

    def prefix(layer: int) -> tuple[Tensor, Tensor]:
        pair = model.bert.bert_layers[layer].self_attention.prefix.source().double()
        return pair[:, :32], pair[:, 32:]

    with torch.no_grad():
        for row in ids():
            expected = plain_layers(model.bert, model.bert.embed(row), prefix=prefix)
            for model.bert.kernel in ("softmax", "sdpa"):
                states = model.bert(row[None], torch.ones(1, 13))["last_hidden_state"]
                close(states[0].double(), expected)


@pytest.mark.parametrize("change", KINDS)
def test_what_trains(tiny: Path, change: dict) -> None:
    model = make(tiny, **change)
    learns = {name for name, p in model.bert.named_parameters() if p.requires_grad}
    kinds = {name.removeprefix("bert_layers.").lstrip("01") for name in learns}
    place = ".self_attention.prefix.source"
    shared = {f"reparametrisation.{x}" for x in ("matrix", "dense.weight", "dense.bias")}
    expected = shared | {f"{place}.out.weight", f"{place}.out.bias"}
    assert kinds == (expected if "prefix_tuning" in change else {f"{place}.table"})
    # A loss reaches all of it, in bf16 too, and nothing else of the encoder.
    model.compute_dtype = torch.bfloat16
    moved(model).train()
    model.predict_sentiment(ids(), torch.ones(2, 13)).sum().backward()
    reached = {name for name, p in model.bert.named_parameters() if p.grad is not None}
    assert reached == learns
    assert all(p.grad.any() for p in model.bert.parameters() if p.requires_grad)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("change", KINDS)
def test_neighbours_and_padding_change_nothing(tiny: Path, change: dict, pooling: str) -> None:
    model = moved(make(tiny, **change, pooling=pooling))
    some = texts("para", longest=80)
    together = logits(model, "para", some)
    model.row_multiple = 8
    close(torch.cat([logits(model, "para", [x]) for x in some]), together)

    # The padded face gives the same states, whichever task.
    sentences = texts("sst", size=7)
    tokens, mask = padded(model.tokenizer, [x for (x,) in sentences], width=5)
    with torch.no_grad():
        by_rows = model.bert(tokens, mask)["last_hidden_state"]
        first, seen = by_rows[:, 0], mask[:, :, None]
        expected = first if pooling == "cls" else (by_rows * seen).sum(1) / seen.sum(1)
        packed = model.pack({"sst": batch(model, "sst", sentences)})
        close(model(packed).pooled["sst"], expected)


@pytest.mark.parametrize("change", KINDS)
def test_saved_and_merged(tiny: Path, tmp_path: Path, change: dict) -> None:
    flag = "--prefix_tuning" if "prefix_tuning" in change else "--p_tuning"
    saved_and_merged(moved(make(tiny, **change)), tmp_path, flag)


def test_trained_resumed_and_exported(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    state = survives(replace(options, **KINDS[0]), monkeypatch)
    assert "model:bert.bert_layers.1.self_attention.prefix.source.out.weight" in state
    assert state["optimizer:exp_avg.model.bert.reparametrisation.matrix"].any()
    exported(next(Path("runs").glob("*-newcomer")), "whole", options)


def test_beside_lora(tiny: Path) -> None:
    with pytest.raises(UserError, match="^--lora and --prefix_tuning are two adapters, .* drop"):
        make(tiny, lora=True, prefix_tuning=True)


def test_a_copied_layer_keeps_the_shared_mlp(tiny: Path) -> None:
    """It alone is trained and saved: a copy's own would be drawn anew by each build."""
    model = make(tiny, prefix_tuning=True, task_layers=1)
    for layer in model.bert.bert_layers[-1].by_task.values():
        hidden = layer.self_attention.prefix.source.hidden()
        assert torch.equal(hidden, model.bert.reparametrisation())
