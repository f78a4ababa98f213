"""fp16: what it trains is near fp32's, an overflow skips a step, nothing else sees the scale.

A scale is a power of two, so gradients that were multiplied and divided by it are the same bits:
runs in fp32 with the scaler on and off are each other's oracle.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.torch_version import TorchVersion

import multitask_classifier
from errors import UserError
from multitask_classifier import Learner, train, update
from options import Options
from tests.newcomers import Curved
from tests.test_surgery import Formula, drawn_by, learner_of, total
from tests.test_train import losses, same, weights
from training import optimizers
from training.scaling import Scaler, make_scaler
from training.surgery import COMBINERS

CPU = torch.device("cpu")
Patch = pytest.MonkeyPatch


def scaled(monkeypatch: Patch, scale: float) -> None:
    """Have every run scale its loss, whatever its dtype."""
    monkeypatch.setattr(
        multitask_classifier, "make_scaler", lambda *_: Scaler("cpu", init_scale=scale)
    )


def log_of(folder: str | Path) -> list[dict]:
    """The lines of steps in log.jsonl."""
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "lr" in line]


def test_only_fp16_is_scaled() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        off = make_scaler(CPU, dtype)
        loss = torch.ones(())
        assert off.scale(loss) is loss and off.state_dict() == {} and off.get_scale() == 1
    assert make_scaler(CPU, torch.float16).get_scale() == 2**16


@pytest.mark.parametrize(("version", "can"), [("2.7.1", False), ("2.8.0", True), ("2.13.0", True)])
def test_fp16_on_mps_takes_a_torch_that_scales_there(
    monkeypatch: Patch, version: str, can: bool
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    mps = torch.device("mps")
    assert not make_scaler(mps, torch.float32).is_enabled()
    if can:
        assert make_scaler(mps, torch.float16).is_enabled()
    else:
        with pytest.raises(UserError, match="fp16 on MPS takes torch 2.8 or newer, this is 2.7.1"):
            make_scaler(mps, torch.float16)


def test_a_scaler_goes_on_where_it_was() -> None:
    first, second = Scaler("cpu", growth_interval=2), Scaler("cpu")
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p], lr=0.1)

    def go(scaler: Scaler) -> None:
        scaler.scale(p.sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    for _ in range(3):
        go(first)
    state = first.state_dict()
    assert all(isinstance(x, Tensor) for x in state.values()) and state["_growth_tracker"] == 1
    second.load_state_dict(state)
    go(first)
    go(second)
    assert first.state_dict() == second.state_dict() and second.get_scale() == 2**18


def test_fp16_trains_as_fp32(options: Options) -> None:
    plain = replace(options, steps_per_epoch=6, hidden_dropout_prob=0.0)
    exact = train(plain)
    narrow = train(replace(plain, precision="fp16"))
    assert losses(narrow["folder"]) != losses(exact["folder"])
    assert losses(narrow["folder"]) == pytest.approx(losses(exact["folder"]), rel=5e-3)
    assert narrow["best"]["scores"] == pytest.approx(exact["best"]["scores"], abs=0.1)
    assert narrow["dtype"] == "torch.float16"


@pytest.mark.parametrize(
    "change", [{}, {"lora": True, "rmsnorm": "all", "swiglu": "all"}, {"pooling": "mean"}]
)
def test_fp16_in_every_layer(options: Options, change: dict) -> None:
    folder = train(replace(options, precision="fp16", **change))["folder"]
    assert all("norm" in line for line in log_of(folder))


def hessian_diagonal(monkeypatch: Patch) -> dict:
    monkeypatch.setitem(optimizers.OPTIMIZERS, "curved", lambda groups, options: Curved(groups))
    return {"optimizer": "curved"}


def remembering(monkeypatch: Patch) -> dict:
    monkeypatch.setitem(COMBINERS, "norms", lambda options: Formula(by_size))
    return {"combiner": "norms"}


def by_size(values: Tensor) -> Tensor:
    """A combiner that sees how long gradients are."""
    return (values * values.norm(dim=1, keepdim=True).tanh()).sum(0)


@pytest.mark.parametrize("change", [lambda _: {"accumulation": 2}, hessian_diagonal, remembering])
def test_nothing_else_notices_the_scale(
    options: Options, monkeypatch: Patch, change: Callable[[Patch], dict]
) -> None:
    asked = replace(options, **change(monkeypatch))
    plain = train(asked)["folder"]
    scaled(monkeypatch, 2.0**10)
    other = train(asked)["folder"]
    assert same(weights(plain), weights(other))
    norms = [[line["norm"] for line in log_of(folder)] for folder in (plain, other)]
    assert norms[0] == norms[1]


def test_a_step_that_overflows_is_skipped(options: Options, monkeypatch: Patch) -> None:
    """It takes its place in the schedule, the run goes on, and the checkpoint has the scale."""
    asked = replace(options, steps_per_epoch=8, precision="fp16", warmup=0.0)
    scaled(monkeypatch, 2.0**21)
    done = train(asked)
    lines = log_of(done["folder"])
    skipped = [line["step"] for line in lines if "norm" not in line]
    assert skipped[0] == 1 and len(skipped) < 8
    assert [line["lr"] for line in lines] == pytest.approx([1e-3 * (8 - i) / 8 for i in range(8)])
    state = load_file(Path(done["folder"]) / "last" / "scaler.safetensors")
    assert state["scale"] == 2.0 ** (21 - len(skipped))
    assert state["_growth_tracker"] == 8 - skipped[-1]


def learner(options: Options, monkeypatch: Patch, scale: float) -> Learner:
    """In fp32, but with a scaler."""
    scaled(monkeypatch, scale)
    return learner_of(options)


def test_a_skipped_step_leaves_all_as_it_was(options: Options, monkeypatch: Patch) -> None:
    """Weights, moments, and what a combiner and an optimizer with curvature remember."""
    combiner = Formula(total)
    monkeypatch.setitem(COMBINERS, "spy", lambda _: combiner)
    change = {"combiner": "spy", **hessian_diagonal(monkeypatch)}
    found = learner(replace(options, **change), monkeypatch, 2.0**127)
    before = {name: p.clone() for name, p in found.model.named_parameters()}
    done = update(found, drawn_by(found.training, sst=3, para=3, sts=3), 0)
    assert done.norm is None and not combiner.seen and not found.optimizer.state
    assert found.scaler.get_scale() == 2.0**126
    for name, p in found.model.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None


def test_a_gradient_that_always_overflows_ends_the_run(
    options: Options, monkeypatch: Patch
) -> None:
    found = learner(options, monkeypatch, 0.5)
    next(found.model.pipelines.parameters()).register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(UserError, match="overflows fp16 whatever .* --precision fp32"):
        update(found, drawn_by(found.training, sst=3), 0)
