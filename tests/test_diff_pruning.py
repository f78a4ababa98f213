"""Oracles: the formulas of both papers written out, and sampling where they state expectations."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from adapters import diff_pruning
from adapters.diff_pruning import SPEED, DiffLinear, OpenGates, diffs_of, largest
from adapters.hard_concrete import CLOSED, OPEN, expected, open_probability, sampled
from casting import cast_linears
from errors import Interrupted
from multitask_bert import MultitaskBERT
from multitask_classifier import train
from optimizer import parameter_groups
from options import Options
from tests.multitask import BASE, close, logits, make, texts
from training.run import Run

KINDS = ("structured", "unstructured")


def moved(tiny: Path, kind: str) -> MultitaskBERT:
    """A model whose changes are large, with gates of all kinds."""
    model = make(tiny, diff_pruning=kind)
    with torch.no_grad():
        for diff in diffs_of(model):
            diff.diff.normal_(0, 0.1)
            diff.gates.normal_(0, 2 / SPEED)
            if diff.group is not None:
                diff.group.fill_(0.4 / SPEED)
    return model


# ---- gates


def test_gates_are_the_paper_s():
    """Equations 10 to 13 of Louizos et al., in float64, from the same uniform numbers."""
    log_alpha = torch.linspace(-6, 6, 13, dtype=torch.float64)
    torch.manual_seed(0)
    u = torch.rand_like(log_alpha)
    s = 1 / (1 + torch.exp(-(u.log() - (1 - u).log() + log_alpha)))
    torch.manual_seed(0)
    torch.testing.assert_close(sampled(log_alpha), (s * 3 - 1.5).clamp(0, 1))
    middle = (3 / (1 + torch.exp(-log_alpha)) - 1.5).clamp(0, 1)
    torch.testing.assert_close(expected(log_alpha), middle)


def test_the_share_of_open_gates():
    """Counted over draws."""
    torch.manual_seed(0)
    for value in (-3.0, 0.0, 1.5):
        log_alpha = torch.full((40_000,), value)
        share = (sampled(log_alpha) > 0).float().mean()
        assert abs(share - open_probability(log_alpha[0])) < 0.01


def test_fixed_gates_ignore_the_noise():
    for value, gate in ((OPEN, 1.0), (CLOSED, 0.0)):
        log_alpha = torch.full((100_000,), value, requires_grad=True)
        z = sampled(log_alpha)
        z.sum().backward()
        assert (z == gate).all() and not log_alpha.grad.any()


# ---- the change


def test_a_change_is_the_paper_s():
    """z * w, or z_group * z * w (section 3.3), and the expected counts."""
    torch.manual_seed(0)
    for structured in (False, True):
        linear = DiffLinear(nn.Linear(13, 7), structured).eval()
        diff = linear.weight
        nn.init.normal_(diff.diff)
        nn.init.normal_(diff.gates, std=3 / SPEED)
        z, count = expected(diff.gates * SPEED), torch.sigmoid(diff.gates * SPEED).sum()
        if structured:
            nn.init.constant_(diff.group, 0.5 / SPEED)
            z = z * expected(torch.tensor(0.5))
            count = count * torch.sigmoid(torch.tensor(0.5))
        change = (z * diff.diff).view(7, 13)
        close(diff(), change)
        close(diff.expected_count(), count)
        x = torch.randn(5, 13)
        close(linear(x), x @ (linear.base.weight + change).T + linear.base.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_identity(tiny: Path, kind: str):
    plain, model = make(tiny), make(tiny, diff_pruning=kind)
    for training in (False, True):
        for one in (plain, model):
            for module in one.modules():
                if isinstance(module, DiffLinear | diff_pruning.Diff):
                    module.train(training)
        for task in BASE.tasks:
            close(logits(model, task, texts(task)), logits(plain, task, texts(task)))
    linears = 6 * 2
    wanted = {"diff", "gates", "group"} if kind == "structured" else {"diff", "gates"}
    names = [name for name, p in model.bert.named_parameters() if p.requires_grad]
    assert {name.rsplit(".", 1)[1] for name in names} == wanted
    assert len(names) == linears * 2 * len(wanted)
    numbers = sum(p.numel() for layer in plain.bert.bert_layers for p in layer.parameters())
    norms = 2 * 4 * 32
    assert diff_pruning.counts(model).endswith(f"{(numbers - norms) / 1e6:.2f}M weights")


def test_nothing_of_it_decays(tiny: Path):
    groups = parameter_groups(make(tiny, diff_pruning="structured").bert, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_computes_the_same(tiny: Path, kind: str):
    model = moved(tiny, kind)
    before = {task: logits(model, task, texts(task)) for task in BASE.tasks}
    assert model.merge() == [] and not model.extended
    for task in BASE.tasks:
        close(logits(model, task, texts(task)), before[task])


def test_a_small_change_survives_bf16():
    """1e-4 of a weight is lost if the sum is made of rounded numbers."""
    base = nn.Linear(13, 7)
    layer = DiffLinear(base, structured=False).eval()
    nn.init.constant_(layer.weight.diff, 1e-4)
    cast = cast_linears(layer, torch.bfloat16)
    out = functional_call(layer, cast, torch.eye(13).bfloat16())
    exact = (base.weight + layer.weight() + 0).to(torch.bfloat16).T + base.bias.to(torch.bfloat16)
    torch.testing.assert_close(out, exact)
    moved = copy.deepcopy(layer).double()
    assert moved.master[0] is moved.base.weight and moved.master[0].dtype == torch.float64


def test_neighbours_change_nothing(tiny: Path):
    model = moved(tiny, "structured")
    some = texts("sst")
    alone = torch.cat([logits(model, "sst", [text]) for text in some])
    close(logits(model, "sst", some), alone)


# ---- penalty and pruning


def test_the_penalty(tiny: Path):
    model = moved(tiny, "unstructured")
    (name, term), *more = OpenGates(0.5)(model, None, None).items()
    count = sum(torch.sigmoid(diff.gates * SPEED).sum() for diff in diffs_of(model))
    assert name == "open_gates" and not more
    torch.testing.assert_close(term, 0.5 * count)
    off = Options(diff_pruning="structured", diff_pruning_penalty=0.0)
    assert diff_pruning.penalty(model, off) is diff_pruning.penalty(model, Options()) is None


def test_the_largest_changes_stay(tiny: Path):
    """Oracle: all changes sorted."""
    model = moved(tiny, "structured").train()
    diffs = diffs_of(model)
    kept = largest(diffs, 0.1)
    assert all(diff.training for diff in diffs)
    whole = torch.cat([diff.eval()().flatten() for diff in diffs])
    order = whole.abs().argsort(descending=True)
    count = int(0.1 * len(whole))
    expected_ones = torch.zeros_like(whole)
    expected_ones[order[:count]] = whole[order[:count]]
    assert torch.equal(torch.cat(kept), expected_ones) and count > 100


def changed(model: MultitaskBERT) -> Tensor:
    """The changes of a model, flat."""
    with torch.no_grad():
        return torch.cat([diff.eval()().flatten() for diff in diffs_of(model)])


@pytest.mark.parametrize("fix", [0.5, 1.0])
def test_a_run_ends_with_the_target_and_goes_on_after_a_stop(
    options: Options, monkeypatch: pytest.MonkeyPatch, fix: float
):
    options = replace(options, diff_pruning="structured", diff_pruning_target=0.02)
    options = replace(options, diff_pruning_fix=fix, epochs=2, steps_per_epoch=2, name="whole")
    whole = Path(train(options)["folder"])
    model = MultitaskBERT.load(whole)
    share = (changed(model) != 0).float().mean().item()
    assert 0.015 < share <= 0.02

    # Fixed gates train no more; what they leave open does.
    last = load_file(whole / "last" / "model.safetensors")
    gates = torch.cat([x for name, x in last.items() if name.endswith(".gates")]) * SPEED
    assert bool((gates.abs() == OPEN).all()) == (fix < 1)
    line = json.loads((whole / "log.jsonl").read_text().splitlines()[0])
    assert 0 < line["loss_open_gates"] < 0.1

    # Stopped after the gates were fixed, and resumed: the same bytes.
    log = Run.log

    def log_and_stop(self: Run, number: int, *rest: Any) -> None:
        log(self, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", log_and_stop)
    options = replace(options, name="stopped", save_every=1)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(options)
    monkeypatch.setattr(Run, "log", log)
    (stopped,) = Path("runs").glob("*-stopped")
    train(Options(resume=str(stopped)))
    again = load_file(stopped / "last" / "model.safetensors")
    assert all(torch.equal(x, again[name]) for name, x in last.items())
