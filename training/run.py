"""A run: its folder, its progress, what was best, and how it ends; train() holds only training."""

import math
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from datasets import Split
from errors import UserError
from json_files import read_json, write_json
from multitask_bert import MultitaskBERT
from options import Options
from training.checkpoint import load_last, replace_folder, save_last
from training.console import Console
from training.environment import check_writable, environment
from training.log import Log


@dataclass
class Progress:
    """All state of the loop that is no tensor: what progress.json holds."""

    step: int = 0  # steps done
    seconds: float = 0.0
    stale: int = 0  # evaluations since the best one
    best: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, float]] = field(default_factory=list)  # (step, overall dev score)
    drawn: dict[str, int] = field(default_factory=dict)  # task -> examples given out
    sums: dict[str, Any] = field(default_factory=dict)  # since the last line of the log
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """One more value for the log's next mean; it stays on its device."""
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The means since the last call."""
        found = {name: float(self.sums[name]) / count for name, count in self.counts.items()}
        self.sums.clear()
        self.counts.clear()
        return found


def resumed(options: Options) -> Options:
    """The options of the run to be resumed; the caller chooses only CUDA or not."""
    given = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name in ("resume", "use_gpu") or value != option.default:
            given[option.name] = value
    return Options.of_run(Path(options.resume or "")).of_same_run(given)


def new_folder(options: Options) -> Path:
    """runs/<date>-<name>, with a number behind it if that exists."""
    check_writable(Path(options.runs_dir))
    for number in range(1, 10_000):
        suffix = "" if number == 1 else f"-{number}"
        folder = Path(options.runs_dir) / f"{datetime.now():%Y-%m-%d}-{options.name}{suffix}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise UserError(
        f"{options.runs_dir}: ten thousand runs of this name today; choose another --name"
    )


def check_same_data(folder: Path, now: dict[str, str]) -> None:
    """UserError where a run's data files have changed; they may stand elsewhere."""
    then = read_json(folder / "run.json")["data"].values()  # in the same order, names of then
    changed = [path for (path, new), old in zip(now.items(), then, strict=True) if new != old]
    if changed:
        raise UserError(
            f"--resume {folder}: the data changed since: {', '.join(changed)}; "
            "put it back, or begin a new run"
        )


class Run:
    """A run between its first step and its last, or until it is interrupted.

    `pieces`: {name: object}, all that has a state of tensors (model, optimizer, ...): what of them
    has a state_dict() is saved and restored. `training`: the readers, whose positions are too.
    `total`: the steps of the whole run.
    """

    def __init__(
        self,
        options: Options,
        device: torch.device,
        facts: dict[str, Any],
        pieces: Mapping[str, Any],
        training: dict[str, Split],
        total: int,
    ):
        self.options = options
        self.pieces = pieces
        self.training = training
        self.total = total
        self.progress = Progress()
        self.interrupted = False
        self.tokens = 0  # since the last line of the log
        self.busy = 0.0  # seconds of training since then
        if options.resume:
            self.folder = Path(options.resume)
            check_same_data(self.folder, facts["data"])
            self.restore()
        else:
            self.folder = new_folder(options)
            write_json(self.folder / "run.json", {**environment(device), **facts})
            # Last: from here on the run can be resumed.
            write_json(self.folder / "options.json", options.to_dict())

    def restore(self) -> None:
        """Put everything back as the last checkpoint has it; without one the run begins anew."""
        held = load_last(self.folder / "last", self.pieces)
        if held is not None:
            if not isinstance(held, dict) or set(held) != {f.name for f in fields(Progress)}:
                raise UserError(f"{self.folder}/last/progress.json: not a run's progress; damaged?")
            self.progress = Progress(**held)
            self.progress.history = [(step, score) for step, score in held["history"]]
            for task, drawn in self.progress.drawn.items():
                self.training[task].drawn = drawn
        print(f"resuming {self.folder} after step {self.progress.step}")

    # ---- from the first step to the last

    def __enter__(self) -> "Run":
        """Open the log, and take over the signals.

        The first Ctrl-C or SIGTERM ends the run after the step, saved, and the second at once.
        """
        done = self.progress.step
        tasks = self.pieces["model"].tasks
        self.console = Console(done, self.total, self.options.log_every, tasks)
        self.log_file = Log(self.folder, done, self.options.tensorboard)
        self.tick = time.monotonic()
        self.began = self.tick - self.progress.seconds
        self.handlers: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.handlers[number] = signal.signal(number, self.stop)
            except ValueError:  # not in the main thread
                break
        return self

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler: stop after this step; the next signal has its old meaning."""
        self.interrupted = True
        print("\nstopping after this step; once more stops at once, unsaved", file=sys.stderr)
        signal.signal(number, self.handlers[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.console.close()
        self.log_file.close()

    def steps(self) -> range:
        """The steps still to be done."""
        return range(self.progress.step, self.total)

    def should_stop(self) -> bool:
        """Whether the user asked to stop, or the score has not risen for --patience evaluations."""
        stale = 0 < self.options.patience <= self.progress.stale
        if stale:
            self.console.say(
                f"no better overall score for {self.progress.stale} evaluations: "
                "stopping early (--patience)"
            )
        return stale or self.interrupted

    # ---- after a step

    def log(
        self, step: int, losses: dict[str, Tensor], norm: Tensor, lr: float, tokens: int
    ) -> None:
        """Take note of a step, and every --log_every steps write a line.

        It has the mean of the steps' losses, and each term's over the steps that it was in. Nothing
        is read from the device before.
        """
        self.progress.step = step + 1
        for name, loss in losses.items():
            self.progress.add(f"loss_{name}", loss)
        self.progress.add("loss", torch.stack(list(losses.values())).sum())
        self.progress.add("norm", norm)
        self.tokens += tokens
        now = time.monotonic()
        self.busy += now - self.tick
        self.tick = now
        self.console.step()
        if (step + 1) % self.options.log_every == 0 or step + 1 == self.total:
            self.check_finite()
            speed = round(self.tokens / self.busy)
            record = {"step": step + 1, **self.progress.means(), "lr": lr, "tokens_per_s": speed}
            self.log_file.write(record)
            self.console.show(record)
            self.tokens = 0
            self.busy = 0.0

    def check_finite(self) -> None:
        """UserError where a loss was not a finite number: nothing after it may be kept."""
        for name, value in self.progress.sums.items():
            if not math.isfinite(float(value)):
                raise UserError(
                    f"step {self.progress.step}: {name} is {float(value)}; "
                    "lower --lr, or --precision fp32"
                )

    def keep_best(self, epoch: int, scores: dict[str, Any], model: MultitaskBERT) -> None:
        """Log and show an epoch's dev scores, and keep the model if it is the best so far."""
        self.check_finite()
        progress = self.progress
        overall = scores["overall"]
        of_tasks = {task: scores[task]["score"] for task in self.options.tasks}
        seconds = time.monotonic() - self.began
        self.log_file.write(
            {
                "step": progress.step,
                "epoch": epoch,
                "seconds": round(seconds, 1),
                **{f"dev_{task}": score for task, score in of_tasks.items()},
                "dev_overall": overall,
                "dev": {task: scores[task] for task in of_tasks},
            }
        )
        progress.history.append((progress.step, overall))
        better = not progress.best or overall > progress.best["overall"]
        progress.stale = 0 if better else progress.stale + 1
        if better:
            progress.best = {
                "epoch": epoch,
                "step": progress.step,
                "overall": overall,
                "scores": of_tasks,
            }
            replace_folder(self.folder / "best", model.save)
        self.console.score_row(epoch, progress.step, scores, seconds, better)
        self.tick = time.monotonic()  # scoring is not training time

    def save(self) -> None:
        """Write the last checkpoint."""
        self.check_finite()
        self.progress.seconds = time.monotonic() - self.began
        self.progress.drawn = {task: split.drawn for task, split in self.training.items()}
        held = asdict(self.progress)
        held["sums"] = {name: float(value) for name, value in held["sums"].items()}
        save_last(self.folder / "last", self.pieces, held)
        self.tick = time.monotonic()

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the results and the time to run.json, and return its contents."""
        facts = read_json(self.folder / "run.json")
        facts.update(results, seconds=round(time.monotonic() - self.began, 1))
        write_json(self.folder / "run.json", facts)
        return facts
