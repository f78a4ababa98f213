"""A run: its folder, its progress, what was best, and how it ends; train() holds only training."""

import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets import Split
from errors import Interrupted, UserError
from multitask_bert import MultitaskBERT
from options import Options
from storage.files import clear_unfinished, reason_of, write_text
from storage.json_files import write_json
from training.checkpoint import (
    best_sum,
    fault_of_best,
    load_last,
    recover,
    replace_folder,
    save_last,
    whole_last,
)
from training.console import Console
from training.environment import check_writable, environment
from training.identity import check_same, new_identity, read_facts
from training.lock import take_lock
from training.log import Log
from training.progress import Progress, read_progress
from training.signals import Signals, interrupted


def resumed(options: Options) -> Options:
    """The options of the run to be resumed; the caller chooses only the device and the files."""
    given = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name in ("resume", "use_gpu") or value != option.default:
            given[option.name] = value
    folder = Path(options.resume or "")
    own = Options.of_run(folder).of_same_run(given)
    read_facts(folder)  # refuses edited options before anything is built from them
    return own


def new_folder(options: Options) -> Path:
    """runs/<date>-<name>, with a number behind it if that exists."""
    check_writable(Path(options.runs_dir))
    # What kills left of runs that never began; nobody resumes those.
    for folder in Path(options.runs_dir).glob("*"):
        if not os.path.exists(folder / "options.json"):
            clear_unfinished(folder)

    for number in range(1, 10_000):
        suffix = "" if number == 1 else f"-{number}"
        folder = Path(options.runs_dir) / f"{datetime.now():%Y-%m-%d}-{options.name}{suffix}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{folder}: can't be made ({reason_of(error)}); choose another --name or --runs_dir"
            ) from None
    raise UserError(
        f"{options.runs_dir}: ten thousand runs of this name today; choose another --name"
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
        # What the run is made of.
        self.options = options
        self.pieces = pieces
        self.training = training
        self.total = total
        self.signals = Signals()
        self.saved = -1  # the step of last/; before the first save there is none
        self.tokens = 0  # since the last line of the log
        self.busy = 0.0  # seconds of training since then

        # Its folder: one that is there, and must be of the same run, or a new one.
        text = options.to_json() + "\n"
        now = {**environment(device), **facts, **new_identity(text, pieces["model"].base)}
        if options.resume:
            self.folder = Path(options.resume)
            take_lock(self.folder)
            self.facts = read_facts(self.folder)
            check_same(self.folder, self.facts, now)
            self.restore()
        else:
            self.folder = new_folder(options)
            self.facts = now
            self.progress = Progress(run=now["run"])
            self.begin(text)

    def begin(self, options_text: str) -> None:
        """Fill the new folder; where that fails, nothing of it is left."""
        try:
            take_lock(self.folder)
            write_json(self.folder / "run.json", self.facts)
            # Last: from here on the run can be resumed.
            write_text(self.folder / "options.json", options_text)
        except UserError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def restore(self) -> None:
        """Put everything back as the last checkpoint has it; without one the run begins anew."""
        run, tasks = self.facts["run"], self.options.tasks
        held = whole_last(self.folder, lambda path: read_progress(path, run, self.total, tasks))
        self.progress = held or Progress(run=run)
        if held:
            self.check_best()
            load_last(self.folder / "last", self.pieces)
            self.saved = held.step
            for task, drawn in held.drawn.items():
                self.training[task].drawn = drawn
        else:
            print(f"{self.folder}: no checkpoint in it, the training begins anew")
        print(f"resuming {self.folder} after step {self.progress.step}")

    def check_best(self) -> None:
        """See to it that best/ is whole, now rather than at the end of the run.

        Where it is missing, or newer than the checkpoint, the best of the epochs to come takes its
        place. UserError where it is damaged, or no epoch is to come.
        """
        best, progress = self.folder / "best", self.progress
        recover(best)
        done = progress.step == self.total or self.out_of_patience
        if not (progress.best or done):
            return

        # What is wrong with it, if anything; a finished run's may have been merged since.
        merged = done and self.pieces["model"].merge_wanted
        expected = progress.best_manifest if progress.best else ""
        reason, damaged = fault_of_best(best, expected, merged)
        if not reason:
            return

        # What becomes of the run then.
        if done:
            raise UserError(
                f"{reason}; the training is over, so nothing replaces it; begin a new run"
            )
        coming = "the best of the epochs still to come takes its place"
        if damaged:
            raise UserError(f"{reason}; delete {best} and resume: {coming}")
        print(f"{reason}; {coming}")
        progress.best, progress.stale = {}, 0

    # ---- from the first step to the last

    def __enter__(self) -> "Run":
        """Clear what a kill left, open the log, and take over the signals (signals.py)."""
        for folder in (self.folder, self.folder / "predictions"):
            clear_unfinished(folder)
        done = self.progress.step
        tasks = self.pieces["model"].tasks
        self.console = Console(done, self.total, self.options.log_every, tasks)
        self.log_file = Log(self.folder, done, self.options.tensorboard)
        self.tick = time.monotonic()
        self.began = self.tick - self.progress.seconds
        self.signals.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.signals.stop()
        self.console.close()
        self.log_file.close()

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the run to end."""
        return self.signals.number > 0

    def ended_early(self) -> Interrupted:
        """What an interrupted run ends with."""
        when = f"after step {self.progress.step} of {self.total}"
        return interrupted(self.folder, when, self.signals.number)

    def steps(self) -> range:
        """The steps still to be done."""
        return range(self.progress.step, self.total)

    @property
    def out_of_patience(self) -> bool:
        """Whether the score has not risen for --patience evaluations."""
        return 0 < self.options.patience <= self.progress.stale

    def should_stop(self) -> bool:
        """Whether the user asked to stop, or --patience does."""
        if self.out_of_patience:
            self.console.say(
                f"no better overall score for {self.progress.stale} evaluations: "
                "stopping early (--patience)"
            )
        return self.out_of_patience or self.interrupted

    # ---- after a step

    def log(
        self, step: int, losses: dict[str, Tensor], norm: Tensor | None, lr: float, tokens: int
    ) -> None:
        """Take note of a step, and every --log_every steps write a line.

        It has the mean of the steps' losses, and each term's over the steps that it was in, and of
        the gradient's norm, None where the step was skipped. Nothing is read from the device
        before.
        """
        # The sums stay on the device until a line is due.
        self.progress.step = step + 1
        for name, loss in losses.items():
            self.progress.add(f"loss_{name}", loss)
        self.progress.add("loss", torch.stack(list(losses.values())).sum())
        if norm is not None:
            self.progress.add("norm", norm)
        self.tokens += tokens

        # Time between two calls is training time; scoring and saving reset the clock.
        now = time.monotonic()
        self.busy += now - self.tick
        self.tick = now
        self.console.step()

        # A line for the log and the console.
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
            progress.best_manifest = best_sum(self.folder / "best")
        self.console.score_row(epoch, progress.step, scores, seconds, better)
        self.tick = time.monotonic()  # scoring is not training time

    def save(self) -> None:
        """Write the last checkpoint, unless it is there: twice it would push out the one before."""
        if self.saved == self.progress.step:
            return
        self.check_finite()
        self.progress.seconds = time.monotonic() - self.began
        self.progress.drawn = {task: split.drawn for task, split in self.training.items()}
        save_last(self.folder, self.pieces, self.progress.to_dict())
        self.saved = self.progress.step
        self.tick = time.monotonic()

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the results and the time to run.json, and return its contents."""
        self.facts.update(results, seconds=round(time.monotonic() - self.began, 1))
        write_json(self.folder / "run.json", self.facts)
        return self.facts
