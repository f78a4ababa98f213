"""A run: its folder, its progress, what was best, and how it ends; train() holds only training."""

import math
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.kinds import merge_flag
from datasets import Data
from errors import Interrupted, UserError
from evaluation import Evaluation
from multitask_bert import MultitaskBERT
from options import Options
from storage.files import clear_unfinished, reason_of, write_text
from storage.json_files import write_json
from training.best import save_best
from training.checkpoint import best_sum, clear_checkpoints, save_last
from training.console import Console
from training.environment import check_writable, environment, peak_memory
from training.identity import check_same, new_identity, read_facts
from training.lock import take_lock
from training.log import Log, evaluation_line
from training.progress import Progress
from training.restore import changed_record, check_start, load, stand_of
from training.signals import Signals, interrupted
from training.time_left import time_left_of
from training.warmup import Schedule, steps_of_warmup, warmed_up_again


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
    has a state_dict() is saved and restored. `data`: the readers; the positions of train's are too.
    `total`: the steps of the whole run, `epoch` those of an epoch. `signals`: taken over before, so
    that Ctrl-C ends a folder that is being begun or extended as it ends a step.
    """

    def __init__(
        self,
        options: Options,
        device: torch.device,
        facts: dict[str, Any],
        pieces: Mapping[str, Any],
        data: Data,
        total: int,
        epoch: int,
        signals: Signals,
    ):
        # What the run is made of.
        self.options = options
        self.device = device
        self.pieces = pieces
        self.data = data
        self.total = total
        self.time_left = time_left_of(data, total, epoch)
        self.signals = signals
        self.saved = -1  # the step of last/; before the first save there is none
        self.tokens = 0  # since the last line of the log
        self.busy = 0.0  # seconds of training since then

        # Its folder: one that is there, and must be of the same run, or a new one.
        text = options.to_json() + "\n"
        here = environment(device)
        commands = [here.pop("command")]  # and those that extend it later
        identity = new_identity(text, pieces["model"].base)
        now = {"commands": commands, **here, **facts, **identity}
        if options.resume:
            self.folder = Path(options.resume)
            take_lock(self.folder)
            self.facts = read_facts(self.folder)
            check_same(self.folder, self.facts, now)
            self.progress = self.restore(now)
        else:
            self.folder = new_folder(options)
            self.facts = now
            self.progress = Progress(run=now["run"], total=total)
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

    def restore(self, now: dict[str, Any]) -> Progress:
        """Go on from the last checkpoint, extended if that is wanted; see restore.py.

        Without a checkpoint the run begins anew. `now`: what a new run would record.
        """
        stand = stand_of(self.folder, self.facts, self.options, self.total)
        if stand:
            check_start(stand, merge_flag(self.options))
        self.facts = changed_record(self.folder, self.options, self.facts, now)
        if stand:
            progress = load(stand, self.options, self.total, self.pieces, self.data["train"])
            self.saved = progress.step
        else:
            progress = Progress(run=self.facts["run"], total=self.total)
            print(f"{self.folder}: no checkpoint in it, the training begins anew")
        print(f"resuming {self.folder} after step {progress.step}")
        return progress

    # ---- from the first step to the last

    def __enter__(self) -> "Run":
        """Clear what a kill left, open the log, begin to show what happens."""
        for folder in (self.folder, self.folder / "predictions"):
            clear_unfinished(folder)
        done = self.progress.step
        self.log_file = Log(self.folder, done, self.options.tensorboard)
        if done >= self.options.log_every and not self.log_file.path.stat().st_size:
            warnings.warn(
                f"{self.log_file.path}: its lines up to step {done} are gone", stacklevel=2
            )
        # Last: whatever failed after a bar was begun would be told on its line.
        tasks = self.pieces["model"].tasks
        self.console = Console(done, self.total, self.options.log_every, tasks, self.time_left)
        self.tick = time.monotonic()
        self.began = self.tick - self.progress.seconds
        return self

    def __exit__(self, *_: object) -> None:
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

    def warmed_up(self, schedule: Schedule) -> Schedule:
        """The schedule, with a second warm-up where the run was extended with a new optimizer."""
        begin = self.progress.warmed_from
        steps = steps_of_warmup(self.options.warmup, self.total - begin)
        return warmed_up_again(schedule, begin, steps)

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
        self.console.step(tokens)

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

    def keep_best(self, epoch: int, found: Mapping[str, Evaluation], model: MultitaskBERT) -> None:
        """Log and show an epoch's scores, and keep the model if it is the best so far on dev.

        `found`: of "dev", and with --train_scores of "train".
        """
        self.check_finite()
        progress, scores = self.progress, found["dev"].scores
        overall = scores["overall"]
        of_tasks = {task: scores[task]["score"] for task in self.options.tasks}
        seconds = time.monotonic() - self.began
        self.log_file.write(evaluation_line(progress.step, epoch, seconds, found))
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
            ids = {task: split.ids for task, split in self.data["dev"].items()}
            save_best(self.folder / "best", model, self.facts, progress.best, ids, found["dev"])
            progress.best_manifest = best_sum(self.folder / "best")
        self.console.score_row(epoch, progress.step, scores, seconds, better)
        if "train" in found:
            self.console.train_row(found["train"].scores)
        self.tick = time.monotonic()  # scoring is not training time

    def save(self) -> None:
        """Write the last checkpoint, unless it is there: twice it would push out the one before."""
        if self.saved == self.progress.step:
            return
        self.check_finite()
        self.progress.seconds = time.monotonic() - self.began
        self.progress.drawn = {task: split.drawn for task, split in self.data["train"].items()}
        save_last(self.folder, self.pieces, self.progress.to_dict())
        self.saved = self.progress.step
        self.tick = time.monotonic()

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the results and the time to run.json, and return its contents.

        With that the run is complete, and what only training needs goes.
        """
        self.facts.pop("options_before", None)
        seconds = round(time.monotonic() - self.began, 1)
        memory = round(peak_memory(self.device))  # since it began, or was resumed
        self.facts.update(results, seconds=seconds, peak_memory_mib=memory)
        self.facts["epochs"] = self.options.epochs
        write_json(self.folder / "run.json", self.facts)
        clear_checkpoints(self.folder, self.options.keep_last)
        return self.facts
