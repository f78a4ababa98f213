"""Bottleneck adapters. Oracle: the papers' equations in float64, around BERT's written out."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.bottleneck import DEVIATION, Bottleneck
from models.counts import print_counts
from multitask_bert import MultitaskBERT
from tests.multitask import BASE, FROZEN_FILES, batch, close, logits, make, texts
from tests.plain_layers import norm64, plain_layers

KINDS = ("houlsby", "pfeiffer")


def moved(model: MultitaskBERT) -> MultitaskBERT:
    """The same model, whose trained tensors are far from where they started."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.3 * torch.randn_like(p)
    return model


def ids() -> Tensor:
    return torch.randint(1000, 2000, (2, 13), generator=torch.Generator().manual_seed(0))


def of(model: MultitaskBERT, place: str, activation: str, layer: int, x: Tensor) -> Tensor:
    """up(f(down(x))) of one layer's adapter, in float64."""
    state = model.bert.state_dict()
    part = f"bert_layers.{layer}.{place}.bottleneck"
    w = {n: state[f"{part}.{n}"].double() for n in ("down.weight", "down.bias", "up.weight")}
    low = x @ w["down.weight"].T + w["down.bias"]
    low = low.clamp(min=0) if activation == "relu" else F.gelu(low)
    return low @ w["up.weight"].T + state[f"{part}.up.bias"].double()


def test_houlsby_equals_the_formula(tiny: Path) -> None:
    model = moved(make(tiny, adapter="houlsby", adapter_size=7))
    with torch.no_grad():
        for row in ids():
            expected = plain_layers(
                model.bert,
                model.bert.embed(row),
                after_attention=lambda i, x: x + of(model, "attention_dropout", "gelu", i, x),
                after_feed_forward=lambda i, x: x + of(model, "out_dropout", "gelu", i, x),
            )
            states = model.bert(row[None], torch.ones(1, 13))["last_hidden_state"]
            close(states[0].double(), expected)


def test_pfeiffer_equals_the_formula(tiny: Path) -> None:
    model = moved(make(tiny, adapter="pfeiffer", adapter_size=7))
    bert = model.bert
    weights = {name.replace(".base.", "."): x.double() for name, x in bert.state_dict().items()}

    def adapted(i: int, total: Tensor) -> Tensor:
        normed = norm64(bert, weights, f"bert_layers.{i}.out_layer_norm", total)
        return total + of(model, "out_layer_norm", "relu", i, normed)

    with torch.no_grad():
        for row in ids():
            expected = plain_layers(bert, bert.embed(row), before_last_norm=adapted)
            states = bert(row[None], torch.ones(1, 13))["last_hidden_state"]
            close(states[0].double(), expected)


@pytest.mark.parametrize("change", [{}, {"rmsnorm": "encoder", "swiglu": "encoder"}])
@pytest.mark.parametrize("kind", KINDS)
def test_identity_at_first(tiny: Path, kind: str, change: dict[str, str]) -> None:
    plain, model = make(tiny, **change), make(tiny, adapter=kind, **change)
    model.bert.kernel = plain.bert.kernel = "softmax"
    for dtype in (torch.float32, torch.bfloat16):
        plain.compute_dtype = model.compute_dtype = dtype
        for x, y in zip(states(plain), states(model), strict=True):
            assert torch.equal(x, y)
    moved(model)
    assert not torch.equal(states(plain)[-1], states(model)[-1])


@torch.no_grad()
def states(model: MultitaskBERT) -> list[Tensor]:
    return model(model.pack({"sst": batch(model, "sst", texts("sst"))})).states


def test_the_start(tiny: Path) -> None:
    """`down` as Houlsby has it: a normal, cut off at two deviations."""
    torch.manual_seed(0)
    down = Bottleneck(130, 490, F.gelu).down.weight
    assert down.abs().max() <= 2 * DEVIATION
    # The deviation of a standard normal cut off at two is .88.
    assert down.std().item() == pytest.approx(0.88 * DEVIATION, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_what_trains(tiny: Path, kind: str, capsys: pytest.CaptureFixture) -> None:
    model = make(tiny, adapter=kind, adapter_size=7)
    print_counts(model)
    count = 4 if kind == "houlsby" else 2
    assert capsys.readouterr().out.startswith(f"adapter: {count} of width 7\n")
    learns = {name for name, p in model.bert.named_parameters() if p.requires_grad}
    own = {name for name in learns if ".bottleneck." in name}
    norms = {name for name in learns if "layer_norm" in name and ".bottleneck." not in name}
    assert learns == own | norms
    assert len(own) == 4 * count and len(norms) == (8 if kind == "houlsby" else 0)
    assert not any(name.startswith("embed") for name in learns)
    assert all(p.requires_grad for p in model.pipelines.parameters())
    # All of it is reached by a loss.
    moved(model).train()
    logits_of = model.predict_sentiment(ids(), torch.ones(2, 13))
    logits_of.sum().backward()
    reached = {name for name, p in model.bert.named_parameters() if p.grad is not None}
    assert reached == learns


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_and_padding_change_nothing(tiny: Path, kind: str, pooling: str) -> None:
    model = moved(make(tiny, adapter=kind, pooling=pooling, pair_encoding="bi"))
    some = texts("sts", longest=80)
    together = logits(model, "sts", some)
    model.row_multiple = 8
    close(torch.cat([logits(model, "sts", [x]) for x in some]), together)


@pytest.mark.parametrize("change", KINDS)
def test_saved_and_merged(tiny: Path, tmp_path: Path, change: str) -> None:
    """Alone, and beside the encoder's weights: it has no merged form."""
    saved_and_merged(moved(make(tiny, adapter=change, adapter_size=7)), tmp_path, "--adapter")


def saved_and_merged(model: MultitaskBERT, folder: Path, flag: str) -> None:
    """Saved as a run does and as an export does, a model with an adapter computes the same."""
    before = {task: logits(model, task, texts(task)) for task in BASE.tasks}
    for name in ("kept", "whole"):
        (folder / name).mkdir()
        model.save(folder / name)
        loaded = MultitaskBERT.load(folder / name)
        for task in BASE.tasks:
            close(logits(loaded, task, texts(task)), before[task])
        assert model.merge() == [flag]  # from here on it is saved whole
    assert {path.name for path in (folder / "kept").iterdir()} == FROZEN_FILES
    assert json.loads((folder / "whole" / "config.json").read_text())["model_type"] == "minbert"
    assert not (folder / "whole" / "modules.json").exists()
