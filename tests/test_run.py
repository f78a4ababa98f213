"""A run from its folder to its end: stopped, killed and resumed it gives what it would have given
undisturbed, and what can't be gone on with is refused.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import multitask_classifier
from errors import Interrupted, UserError
from evaluation import Evaluation
from forward import Forward
from losses.extras import EXTRAS
from multitask_classifier import MultitaskBERT, main, train
from options import Options
from packing import Batch
from storage import files
from storage.tensor_files import read_tensors
from tasks import LEADERBOARD
from tests.test_train import ROOT, flags, same, weights
from training.gradients import Gradients
from training.hook import Hook
from training.hooks import HOOKS
from training.manifest import write_manifest
from training.run import Run, new_folder
from training.surgery import COMBINERS


def interrupted(options: Options, steps: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that Ctrl-C stopped after so many of its six steps."""
    log = Run.log

    def interrupt(self: Run, number: int, *rest: object) -> None:
        log(self, number, *rest)  # type: ignore[arg-type]
        if number + 1 == steps:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupt)
        message = f"after step {steps} of 6; go on with:\n.*_classifier.py --resume runs/"
        with pytest.raises(Interrupted, match=message) as stopped:
            train(options)
    return Path(str(stopped.value).split("--resume ")[1])


KEPT = ("last", "previous")


def log_lines(folder: Path) -> list[dict]:
    """log.jsonl."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def six_steps(options: Options) -> Options:
    """With dropout, so that the random states count too."""
    return replace(options, epochs=2, hidden_dropout_prob=0.3, accumulation=2, save_every=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_interrupted_and_resumed_equals_undisturbed(
    six_steps: Options, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(six_steps, precision=precision)
    whole = train(options)
    folder = interrupted(options, 4, monkeypatch)
    steps: list[int] = []
    log = Run.log

    def count(self: Run, number: int, *rest: object) -> None:
        steps.append(number)
        log(self, number, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", count)
        resumed = train(replace(Options(), resume=str(folder)))
    assert steps == [4, 5] and same(weights(whole["folder"]), weights(folder))
    assert resumed["best"] == whole["best"]
    undisturbed, gone_on = log_lines(Path(whole["folder"])), log_lines(folder)
    assert [r["step"] for r in undisturbed] == [r["step"] for r in gone_on]
    assert [r.get("loss") for r in undisturbed] == [r.get("loss") for r in gone_on]


def test_a_checkpoint_is_not_written_twice(
    six_steps: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it would be gone."""
    folder = interrupted(six_steps, 4, monkeypatch)  # just when one is due
    steps = [json.loads((folder / name / "progress.json").read_text())["step"] for name in KEPT]
    assert steps == [4, 3]


# ---- further pieces of a run


class Drifting(Hook):
    """A hook with a state: it moves a bias by more in each step."""

    def __init__(self, model: nn.Module, options: Options):
        self.bias: Tensor = model.pipelines["sst"].head.out.bias  # type: ignore[assignment, index, union-attr]
        self.steps = torch.zeros(())

    def after_step(self, step: int) -> None:
        self.steps += 1
        self.bias.data += 0.01 * self.steps

    def state_dict(self) -> dict[str, Tensor]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.steps.copy_(state["steps"])


class Remembering:
    """A combiner whose state begins with its first step: what it adds of each task fades."""

    def __init__(self, options: Options):
        self.seen: dict[str, Tensor] = {}

    def combine(self, gradients: Gradients) -> Tensor:
        combined = torch.zeros_like(gradients.values[0])
        for task, value in zip(gradients.tasks, gradients.values, strict=True):
            self.seen[task] = self.seen.get(task, torch.zeros(())) + 1
            combined += value / self.seen[task]
        return combined

    def state_dict(self) -> dict[str, Tensor]:
        return self.seen

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.seen = dict(state)


class Scaled(nn.Module):
    """An extra with a parameter: it draws the logits to a point that is learned too."""

    def __init__(self, model: nn.Module, options: Options):
        super().__init__()
        self.point = nn.Parameter(torch.full((), 3.0))

    def forward(
        self, model: nn.Module, forward: Forward, batches: Mapping[str, Batch]
    ) -> dict[str, Tensor]:
        far = [(logits - self.point).square().mean() for logits in forward.logits.values()]
        return {"far": torch.stack(far).sum()}


@pytest.fixture
def further(six_steps: Options, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A run with one of each."""
    monkeypatch.setitem(HOOKS, "drifting", Drifting)
    monkeypatch.setitem(EXTRAS, "scaled", Scaled)
    monkeypatch.setitem(COMBINERS, "remembering", Remembering)
    return replace(six_steps, combiner="remembering")


def test_further_pieces_are_resumed(further: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks, combiners and extras go on from their states, bit for bit."""
    whole = Path(train(further)["folder"])
    folder = interrupted(further, 4, monkeypatch)
    train(replace(Options(), resume=str(folder)))
    for name in ("model", "optimizer", "extras", "combiner", "drifting"):
        undisturbed = read_tensors(whole / "last" / f"{name}.safetensors")
        assert same(undisturbed, read_tensors(folder / "last" / f"{name}.safetensors")), name
    assert read_tensors(whole / "last" / "drifting.safetensors")["steps"] == 6
    assert read_tensors(whole / "last" / "extras.safetensors")["scaled.point"] != 3.0
    assert read_tensors(whole / "last" / "combiner.safetensors")["sts"] == 6
    assert all("loss_far" in line for line in log_lines(whole) if "loss" in line)


# ---- killed, refused, stopped


@pytest.mark.slow
def test_kill_9_at_any_moment_then_resume(options: Options) -> None:
    options = replace(options, epochs=3, steps_per_epoch=4, save_every=1)
    whole = weights(train(options)["folder"])
    command = [
        sys.executable,
        str(ROOT / "multitask_classifier.py"),
        *flags(replace(options, name="killed")),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    folder = None
    while (
        not folder or not (folder / "last").exists()
    ):  # killed somewhere between the first checkpoint and the end
        time.sleep(0.01)
        folder = next(iter(Path("runs").glob("*-killed")), None)
    for delay in (0.05, 0.3):
        time.sleep(delay)
        process.kill()
        process.wait()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "multitask_classifier.py"), "--resume", str(folder)],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(2.5)
    assert process.wait(60) == 0
    assert same(whole, weights(folder))


def test_resume_refuses_other_options_and_other_folders(options: Options) -> None:
    folder = train(options)["folder"]
    with pytest.raises(UserError, match="--batch_size was 13, not 96"):  # 96 is the default
        main(["--resume", folder, "--batch_size", "96"])
    with pytest.raises(UserError, match="--lr was 0.001, not 1e-05"):
        train(Options(resume=folder, lr=1e-5))
    with pytest.raises(UserError, match="^nowhere: no options.json in it"):
        main(["--resume", "nowhere"])


def test_resume_refuses_changed_data(options: Options) -> None:
    Path("sst.csv").write_bytes((Path(options.data_dir) / "ids-sst-train.csv").read_bytes())
    folder = train(replace(options, files={"sst_train": "sst.csv"}))["folder"]
    with open("sst.csv", "a", encoding="utf-8") as file:
        file.write("99\tabc\tA further film .\t3\n")
    with pytest.raises(UserError, match="the data changed since: sst.csv; put it back"):
        train(replace(Options(), resume=folder))


def test_resume_takes_the_same_data_from_another_place(options: Options) -> None:
    """A checkout that was moved: checksums count, not paths."""
    folder = Path(train(options)["folder"])
    shutil.copytree(options.data_dir, "moved")
    resumed = train(Options(resume=str(folder), data_dir="moved"))
    assert same(weights(folder), weights(resumed["folder"]))


def test_a_lora_run_is_loaded_and_resumed_from_any_folder(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its pretrained model was named by a relative path, and all was moved."""
    Path("here").mkdir()
    shutil.copytree(options.model, "here/base")
    monkeypatch.chdir("here")
    folder = Path(train(replace(options, lora=True, model="base"))["folder"])
    monkeypatch.chdir("..")
    before = MultitaskBERT.load("here" / folder).predict("sts", [("A film .", "A lovely film .")])
    Path("here").rename("there")
    monkeypatch.chdir("there")
    main(["--resume", str(folder), "--model", "base"])
    assert MultitaskBERT.load(folder).predict("sts", [("A film .", "A lovely film .")]) == before


def test_a_log_that_was_emptied_is_told(
    six_steps: Options, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Unless no line was due yet."""
    folder = interrupted(replace(six_steps, log_every=3), 2, monkeypatch)
    train(Options(resume=str(folder)))
    assert not [warning for warning in recwarn if "are gone" in str(warning.message)]
    (folder / "log.jsonl").write_text("")
    with pytest.warns(UserWarning, match="^runs/.*/log.jsonl: its lines up to step 6 are gone$"):
        train(Options(resume=str(folder)))


# ---- what was damaged is refused, or fallen back from


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def edit(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=2) + "\n")


@pytest.fixture
def stopped(six_steps: Options, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after five steps: last/ is of step 5, previous/ of 4."""
    return interrupted(six_steps, 5, monkeypatch)


def test_a_damaged_checkpoint_is_fallen_back_from(six_steps: Options, stopped: Path) -> None:
    """To the same weights in the end; what can be damaged in which way: test_checkpoint.py."""
    flip(stopped / "last" / "optimizer.safetensors")
    pattern = (
        "last/optimizer.safetensors: changed.*: going on from the checkpoint before it, step 4"
    )
    with pytest.warns(UserWarning, match=pattern):
        train(Options(resume=str(stopped)))
    whole = train(replace(six_steps, name="whole"))
    assert same(weights(whole["folder"]), weights(stopped))
    steps = [line["step"] for line in log_lines(stopped)]
    assert steps == [line["step"] for line in log_lines(Path(whole["folder"]))]
    assert not {"previous", "damaged"} & {path.name for path in stopped.iterdir()}


def test_the_checkpoint_of_another_run_is_not_taken(stopped: Path) -> None:
    """Though it is whole."""
    edit(stopped / "last" / "progress.json", run="another")
    write_manifest(stopped / "last")
    with pytest.warns(UserWarning, match="progress.json: of another run.*step 4"):
        train(Options(resume=str(stopped)))


def test_without_a_good_checkpoint_the_message_says_how_to_go_on(stopped: Path) -> None:
    for name in ("last", "previous"):
        flip(stopped / name / "model.safetensors")
    for ending in ("best/ is good: use it with MultitaskBERT.load.*or begin a new run", "either"):
        with pytest.raises(UserError, match=f"last/model.safetensors: changed.*{ending}"):
            train(Options(resume=str(stopped)))
        flip(stopped / "best" / "model.safetensors")
    assert {"last", "previous", "best"} <= {path.name for path in stopped.iterdir()}


def test_a_damaged_best_is_told_at_once_and_may_be_deleted(stopped: Path) -> None:
    flip(stopped / "best" / "model.safetensors")
    with pytest.raises(UserError, match="best/model.safetensors: changed.*; delete .*best and res"):
        train(Options(resume=str(stopped)))
    shutil.rmtree(stopped / "best")
    assert train(Options(resume=str(stopped)))["best"]["epoch"] == 2
    shutil.rmtree(stopped / "best")
    with pytest.raises(UserError, match="best: missing; the training is over.*begin a new run"):
        train(Options(resume=str(stopped)))


def test_a_best_of_another_epoch_is_not_taken_for_the_checkpoint_s(
    stopped: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the two, or where another run's was copied in: it is whole. The
    epochs to come replace it even with a lower score.
    """
    fix_scores([0.0], monkeypatch)
    edit(stopped / "best" / "options.json", name="another")
    write_manifest(stopped / "best")
    assert train(Options(resume=str(stopped)))["best"]["epoch"] == 2
    assert "best: not the model of the checkpoint's best epoch; the best" in capsys.readouterr().out
    write_manifest(stopped / "best")  # the same once more
    train(Options(resume=str(stopped)))
    edit(stopped / "best" / "options.json", name="another")
    write_manifest(stopped / "best")
    with pytest.raises(UserError, match="not the model of .*; the training is over"):
        train(Options(resume=str(stopped)))


@pytest.mark.parametrize("values", [{"seed": 5}, {"precision": "fp8"}, {"head": "linear"}])
def test_edited_options_are_refused(stopped: Path, values: dict[str, object]) -> None:
    edit(stopped / "options.json", **values)
    with pytest.raises(UserError, match="options.json was changed since|--precision fp8: expected"):
        train(Options(resume=str(stopped)))


def test_a_run_on_other_weights_or_threads(stopped: Path) -> None:
    was = json.loads((stopped / "run.json").read_text())["base_weights"]
    edit(stopped / "run.json", base_weights="other")
    with pytest.raises(UserError, match="the pretrained weights of --model changed"):
        train(Options(resume=str(stopped)))
    edit(stopped / "run.json", base_weights=was, device="a CPU of then, 64 threads")
    with pytest.warns(UserWarning, match="device was a CPU of then, 64 threads, is .* now"):
        train(Options(resume=str(stopped)))


def test_a_run_that_runs_is_not_resumed(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it harmed; and its lock ends with it."""
    refused: list[str] = []
    log = Run.log

    def resume_meanwhile(self: Run, number: int, *rest: object) -> None:
        log(self, number, *rest)  # type: ignore[arg-type]
        if number == 1:
            with pytest.raises(UserError, match=f"process {os.getpid()} on .* is running it"):
                train(Options(resume=str(self.folder)))
            refused.append(str(self.folder))

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", resume_meanwhile)
        folder = train(options)["folder"]
    assert refused == [folder]
    train(Options(resume=folder))


# ---- folders that can't be made


@pytest.mark.parametrize("broken", ["mkdir", "run.json", "options.json"])
def test_a_run_folder_that_cannot_be_made_is_one_line(
    options: Options, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves nothing."""

    def full(path: Path, *_: object, **__: object) -> None:
        if broken == path.name:
            raise UserError(f"{path}: can't be written (No space left on device)")
        if broken == "mkdir" and path.parent == Path("runs"):
            raise OSError(28, "No space left on device")
        real(path, *_, **__)

    owner, name = (Path, "mkdir") if broken == "mkdir" else (files, "write_bytes")
    real = getattr(owner, name)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr(owner, name, full)
        train(options)
    assert list(Path("runs").iterdir()) == []


def test_a_name_that_is_too_long_is_one_line(options: Options) -> None:
    with pytest.raises(UserError, match="File name too long.*; choose another --name"):
        new_folder(replace(options, name="n" * 300))


def fix_scores(overall: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Have evaluations give these overall scores, one after the other; those not given yet."""
    scores = iter(overall)

    def fixed(*_: object) -> Evaluation:
        score = next(scores)
        own = {task: {"score": score} for task in LEADERBOARD}
        return Evaluation({**own, "overall": score}, {})

    monkeypatch.setattr(multitask_classifier, "evaluate", fixed)
    return scores


def test_patience_stops(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = fix_scores([0.5, 0.4, 0.3, 0.9], monkeypatch)
    result = train(replace(options, epochs=4, steps_per_epoch=1, patience=2))
    assert result["best"]["epoch"] == 1 and next(scores) == 0.9


def test_a_run_that_patience_stopped_does_not_train_on(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its best model was merged since, so that it is not the one that was kept."""
    fix_scores([0.5, 0.4], monkeypatch)
    changes = {"epochs": 4, "steps_per_epoch": 1, "patience": 1, "lora": True, "lora_merge": True}
    stopped = train(replace(options, **changes))  # type: ignore[arg-type]
    resumed = train(Options(resume=stopped["folder"]))
    assert resumed["best"] == stopped["best"]
    shutil.rmtree(Path(stopped["folder"]) / "best")
    with pytest.raises(UserError, match="best: missing; the training is over"):
        train(Options(resume=stopped["folder"]))
