"""Runs that are extended, and what a finished run keeps. Stopped and resumed: test_run.py."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import training.restore
from errors import UserError
from losses.extras import EXTRAS
from multitask_bert import MultitaskBERT
from multitask_classifier import main, train
from options import Options
from storage.files import sha256_of
from storage.tensor_files import read_tensors
from tests.test_run import Drifting, Remembering, Scaled, fix_scores, flip, log_lines
from tests.test_train import same, weights
from training.hooks import HOOKS
from training.run import Run
from training.schedules import SCHEDULES, linear
from training.surgery import COMBINERS
from training.warmup import Schedule

THIN = {"progress.json", "random.safetensors", "manifest.json"}


class Killed(BaseException):
    """Nothing may catch it."""


def names(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in folder.iterdir()}


def held(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run."""
    return json.loads((folder / name).read_text())


def sums(folder: Path, pattern: str) -> dict[str, str]:
    """The checksums of some of a folder's files."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in folder.glob(pattern)
        if path.is_file()
    }


def copy_of(folder: Path, name: str) -> Path:
    """A copy of a run."""
    return Path(shutil.copytree(folder, folder.with_name(name)))


@pytest.fixture
def two_epochs(options: Options) -> Options:
    """Six steps with dropout, so that the random states count too."""
    return replace(options, epochs=2, hidden_dropout_prob=0.3)


@pytest.fixture
def finished(two_epochs: Options) -> Path:
    """A run that has kept its best model and positions only."""
    return Path(train(replace(two_epochs, keep_last=False))["folder"])


def extend(folder: Path, **more: Any) -> Path:
    """The run, extended to four epochs."""
    train(Options(resume=str(folder), epochs=4, **more))
    return folder


# ---- what a finished run keeps


def test_a_finished_run_keeps_its_best_model_and_positions(finished: Path) -> None:
    left = {"options.json", "run.json", "log.jsonl", "lock", "best", "last", "predictions"}
    assert names(finished) == left and names(finished / "last") == THIN
    before = sums(finished, "predictions/*")
    shutil.rmtree(finished / "predictions")
    best = held(finished, "run.json")["best"]
    assert train(Options(resume=str(finished)))["best"] == best
    assert sums(finished, "predictions/*") == before


def test_what_was_asked_to_be_kept_stays(
    two_epochs: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a resumed run was, too: the next one that has nothing to do deletes nothing."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "log", killing([4], Run.log))
        train(replace(two_epochs, keep_last=False))
    folder = next(Path("runs").iterdir())
    train(Options(resume=str(folder), keep_last=True))
    whole = names(folder / "last")
    assert whole > THIN
    results = held(folder, "run.json")["best"]
    train(Options(resume=str(folder)))
    assert names(folder / "last") == whole
    main(["--resume", str(folder), "--no-keep_last"])
    assert names(folder / "last") == THIN and held(folder, "run.json")["best"] == results


def killing(left: list[int], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that can be called `left` times; then the process is as good as dead."""

    def one(*args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return function(*args, **more)

    return one


# ---- extended from last/


def in_two_parts(total_steps: int, warmup_steps: int) -> Schedule:
    """The rates of a run of six steps that is extended to twelve."""
    return lambda step, history: linear(6 if step < 6 else total_steps, 1)(step, history)


@pytest.mark.parametrize("stop", [0, 4])
def test_with_the_optimizer_a_run_goes_on_exactly(
    two_epochs: Options, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a run of four epochs, but for the rates of the first two. Finished or not."""
    monkeypatch.setitem(HOOKS, "drifting", Drifting)
    monkeypatch.setitem(EXTRAS, "scaled", Scaled)
    monkeypatch.setitem(COMBINERS, "remembering", Remembering)
    two = replace(two_epochs, combiner="remembering", save_every=2)
    with monkeypatch.context() as patch:
        patch.setitem(SCHEDULES, "linear", in_two_parts)
        oracle = Path(train(replace(two, epochs=4, name="oracle"))["folder"])

    if stop:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Run, "log", killing([stop], Run.log))
            train(two)
        with monkeypatch.context() as patch:
            patch.setitem(SCHEDULES, "linear", in_two_parts)
            folder = extend(next(Path("runs").glob("*-multitask")))
    else:
        folder = extend(Path(train(two)["folder"]))
    assert sums(folder, "last/*.safetensors") == sums(oracle, "last/*.safetensors")
    assert sums(folder, "predictions/*") == sums(oracle, "predictions/*")
    told = [[x.get("lr"), x.get("loss"), x.get("dev_overall")] for x in log_lines(folder)]
    assert told == [[x.get("lr"), x.get("loss"), x.get("dev_overall")] for x in log_lines(oracle)]


# ---- extended from best/


def not_trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extend a run, up to its first step."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "steps", killing([0], Run.steps))
        extend(folder)


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_without_the_optimizer_it_starts_from_the_best_model(
    two_epochs: Options,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setitem(HOOKS, "drifting", Drifting)
    fix_scores([0.5, 0.4, 0.3, 0.2], monkeypatch)  # the first epoch's is the best
    folder = Path(train(replace(two_epochs, keep_last=False, **change))["folder"])
    then, positions = (
        held(folder, "last/progress.json"),
        read_tensors(folder / "last/random.safetensors"),
    )
    not_trained(folder, monkeypatch)

    # The first checkpoint is of the model as it will be trained on.
    best = MultitaskBERT.load(folder)
    assert then["best"]["epoch"] == 1 and same(weights(folder), best.state_dict())
    moments = read_tensors(folder / "last/optimizer.safetensors")
    assert not any(tensor.any() for tensor in moments.values())
    assert read_tensors(folder / "last/drifting.safetensors")["steps"] == 0
    assert same(read_tensors(folder / "last/random.safetensors"), positions)
    now = held(folder, "last/progress.json")
    assert now == {**then, "total": 12, "warmed_from": 6, "stale": 0}

    train(Options(resume=str(folder)))
    shown = capsys.readouterr().out.splitlines()
    assert f"extending {folder} from 2 to 4 epochs" in shown
    # Three processes each built a model; loading best/ says nothing.
    assert sum("parameters train" in line for line in shown) == 3
    assert sum("LoRA: adapted" in line for line in shown) == (3 if "lora" in change else 0)
    assert "starts from best/ (epoch 1): a new optimizer; steps of warm-up: 1" in shown
    assert held(folder, "last/progress.json")["drawn"] == {
        task: 2 * drawn for task, drawn in then["drawn"].items()
    }


def test_the_rate_warms_up_anew(options: Options) -> None:
    folder = Path(train(replace(options, warmup=0.5, keep_last=False))["folder"])
    train(Options(resume=str(folder), epochs=4))
    rates = [line["lr"] / options.lr for line in log_lines(folder) if "lr" in line]  # type: ignore[operator]
    first = [1 / 2, 1, 1 / 2]  # 3 steps: a warm-up of round(1.5) = 2, of which linear has the rest
    # Of 12 steps the first 6 warm up; the second warm-up is half of the 9 to come, 4 steps.
    then = [4 / 6 * 1 / 4, 5 / 6 * 2 / 4, 3 / 4, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert rates[3:] == pytest.approx(then) and rates[:2] == pytest.approx(first[:2])


def test_patience_begins_anew(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    fix_scores([0.5, 0.4, 0.6, 0.3], monkeypatch)
    options = replace(options, epochs=3, steps_per_epoch=1, patience=1, keep_last=False)
    folder = Path(train(options)["folder"])
    assert held(folder, "last/progress.json")["step"] == 2
    result = train(Options(resume=str(folder), epochs=4))
    assert result["best"]["epoch"] == 3 and held(folder, "last/progress.json")["step"] == 4


def test_merged_adapters(two_epochs: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can't be taken out of best/ again, but may be kept; best/ is merged all the same."""
    options = replace(two_epochs, lora=True, lora_merge=True, keep_last=False)
    folder = Path(train(options)["folder"])
    before = sums(folder, "**/*")
    with pytest.raises(UserError, match="folded its adapters .* last/ was not kept .*begin a new"):
        extend(folder)
    assert sums(folder, "**/*") == before
    fix_scores([0.5, 0.4, 0.3, 0.2], monkeypatch)
    kept = Path(train(replace(options, keep_last=True))["folder"])
    merged = MultitaskBERT.load(kept).state_dict()
    not_trained(kept, monkeypatch)
    assert train(Options(resume=str(kept)))["best"]["epoch"] == 1
    assert same(MultitaskBERT.load(kept).state_dict(), merged)


def test_a_finished_run_without_a_checkpoint_does_not_begin_anew(finished: Path) -> None:
    """As where last/ was deleted to save space."""
    shutil.rmtree(finished / "last")
    with pytest.raises(UserError, match="last: missing, though the run has finished; best/ is goo"):
        train(Options(resume=str(finished)))


def test_without_its_best_model_it_is_not_extended(finished: Path) -> None:
    flip(finished / "best" / "model.safetensors")
    with pytest.raises(UserError, match="best/model.safetensors: changed .*; begin a new run"):
        extend(finished)
    assert held(finished, "options.json")["epochs"] == 2


# ---- what is recorded


def test_an_extended_run_is_a_run_of_more_epochs(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to as many as are the default, by the command line."""
    then, own = held(finished, "run.json"), held(finished, "options.json")
    shutil.rmtree("predictions")
    monkeypatch.setattr("sys.argv", ["m.py", "--resume", str(finished)])
    main(["--resume", str(finished), "--epochs", "2"])  # as many as it had
    assert (
        held(finished, "run.json")["commands"] == then["commands"]
        and not Path("predictions").exists()
    )
    main(["--resume", str(finished), "--epochs", "3"])
    assert held(finished, "options.json") == {**own, "epochs": 3}
    now = held(finished, "run.json")
    assert now["commands"] == [*then["commands"], f"python m.py --resume {finished}"]
    assert now["epochs"] == 3 and "options_before" not in now and then.keys() == now.keys()
    assert [line["step"] for line in log_lines(finished) if "loss" in line] == [*range(1, 10)]
    assert len(names(Path("predictions"))) == 6  # copied anew
    with pytest.raises(UserError, match="--epochs 2: the run has 3"):
        main(["--resume", str(finished), "--epochs", "2"])

    # And once more.
    extend(finished)
    now = held(finished, "last/progress.json")
    assert (now["step"], now["total"], now["warmed_from"]) == (12, 12, 9)
    assert len(held(finished, "run.json")["commands"]) == 3


def test_a_run_without_a_checkpoint_is_extended_too(
    two_epochs: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "log", killing([0], Run.log))
        train(two_epochs)
    folder = extend(next(Path("runs").iterdir()))
    assert same(weights(folder), weights(train(replace(two_epochs, epochs=4))["folder"]))


@pytest.mark.parametrize("plain", [False, True])
def test_a_kill_before_the_first_step_of_an_extension(
    finished: Path, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed by the same command, or without --epochs where its options are written, it ends as
    one that nothing disturbed; before that it is the run that it was.
    """
    before = sums(finished, "*/*.safetensors")
    wanted = sums(extend(copy_of(finished, "extended")), "*/*.safetensors")
    for name in ("write_json", "write_text", "save_last"):
        folder = copy_of(finished, f"killed-{name}")
        real = getattr(training.restore, name)

        def killed(*args: Any, real: Callable[..., Any] = real) -> None:
            real(*args)
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(training.restore, name, killed)
            extend(folder)
        if plain:
            train(Options(resume=str(folder)))
        else:
            extend(folder)
        unchanged = plain and name == "write_json"
        assert sums(folder, "*/*.safetensors") == (before if unchanged else wanted), name
        assert names(folder) == names(finished)
        train(Options(resume=str(folder)))  # which any finished run allows


def test_an_extension_is_resumed_bit_for_bit(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second step and at its first evaluation, when best/ is newer than last/."""
    wanted = sums(extend(copy_of(finished, "extended")), "*/*.safetensors")
    for name, moment in (("log", 1), ("save", 0)):
        folder = copy_of(finished, f"{name}-{moment}")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Run, name, killing([moment], getattr(Run, name)))
            extend(folder)
        train(Options(resume=str(folder)))
        assert sums(folder, "*/*.safetensors") == wanted, (name, moment)


# ---- who may read it


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_are_readable_as_the_umask_says(options: Options, umask: int, mode: int) -> None:
    pytest.importorskip("tensorboard")
    before = os.umask(umask)
    try:
        folder = Path(train(replace(options, tensorboard=True))["folder"])
        train(replace(options, lora=True, keep_last=False))
    finally:
        os.umask(before)
    files = [path for place in ("runs", "predictions") for path in Path(place).rglob("*")]
    wrong = {path: oct(path.stat().st_mode & 0o777) for path in files if path.is_file()}
    assert {path: found for path, found in wrong.items() if found != oct(mode)} == {}
    assert {oct(path.stat().st_mode & 0o777) for path in files if path.is_dir()} == {
        oct(0o777 & ~umask)
    }
    assert any((folder / "tensorboard").iterdir()) and len(files) > 40
