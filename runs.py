"""A run: its folder, log, checkpoints, console and signals, so that train() holds nothing but
training.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoint import Log, load_last, read_json, replace_folder, save_last, write_json
from datasets import Split
from errors import UserError
from multitask_bert import MultitaskBERT
from optimizer import AdamW
from options import Options
from tasks import TASKS

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to repeat the run: command, commit, versions, device."""
    here = Path(__file__).parent
    try:
        describe = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git on this machine
        commit = ""
    packages = ("torch", "numpy", "tokenizers", "scikit-learn", "safetensors")
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu
        )
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0] or "-"), *sys.argv[1:]]),
        "commit": commit or "not a git checkout",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{cpu}, {torch.get_num_threads()} threads",
    }


def typed(path: str | Path) -> str:
    """A path as one would type it here: relative where it is below the current folder."""
    absolute = Path(
        path
    ).absolute()  # not resolved: an environment's python is a link to the system's
    return (
        str(absolute.relative_to(Path.cwd()))
        if absolute.is_relative_to(Path.cwd())
        else str(absolute)
    )


def checksums(paths: dict[tuple[str, str], Path]) -> dict[str, str]:
    """The SHA-256 of each data file."""
    return {typed(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()}


def check_writable(folder: Path) -> None:
    """UserError where files can't be made in a folder: better now than after an hour of
    training.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: can't be written ({error.strerror}); choose another folder"
        ) from None


def keep_freed_memory() -> None:
    """Have glibc keep what is freed. It hands large blocks back to the system, and then each step
    faults the embedding's gradient and the activations in anew, a tenth of a step. Elsewhere than
    on Linux nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def resumed(options: Options) -> Options:
    """The options of the run to be resumed. Only where it goes on, on CUDA or not, is the caller's
    choice.
    """
    given = {
        k: v
        for k, v in asdict(options).items()
        if k in ("resume", "use_gpu") or v != getattr(Options, k)
    }
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


class Run:
    """The state of a run beside the model: what is done, what was best, and where it is written."""

    def __init__(self, options: Options, device: torch.device, facts: dict[str, Any]):
        self.options = options
        self.folder = Path(options.resume) if options.resume else new_folder(options)
        if not options.resume:
            write_json(self.folder / "run.json", {**environment(device), **facts})
            write_json(
                self.folder / "options.json", options.to_dict()
            )  # last: from here on the run can be resumed
        else:
            then = read_json(self.folder / "run.json")[
                "data"
            ].values()  # in the same order, under names of then
            changed = [
                path
                for (path, new), old in zip(facts["data"].items(), then, strict=True)
                if new != old
            ]
            if changed:
                names = ", ".join(changed)
                raise UserError(
                    f"--resume {self.folder}: the data changed since: {names}; put it back, or begin a new run"
                )
        self.step, self.seconds, self.stale = 0, 0.0, 0
        self.best: dict[str, Any] = {}
        self.sums: dict[str, Any] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.tokens = 0
        self.interrupted = False
        self.table_open = False

    def restore(self, model: MultitaskBERT, optimizer: AdamW, train: dict[str, Split]) -> None:
        """Put everything back as the last checkpoint has it; from the beginning if the run had none
        yet.
        """
        last = load_last(self.folder / "last") if self.options.resume else None
        if last:
            weights, moments, progress = last
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:  # its message has a line for each name
                raise UserError(
                    f"{self.folder}/last: not this model's weights ({' '.join(str(error).split())})"
                ) from None
            optimizer.load_named_state(moments)
            for task, drawn in progress["drawn"].items():
                train[task].drawn = drawn
            self.step, self.seconds, self.stale, self.best = (
                progress[k] for k in ("step", "seconds", "stale", "best")
            )
            self.sums.update(progress["sums"])
            self.counts.update(progress["counts"])
        if self.options.resume:
            print(f"resuming {self.folder} after step {self.step}")

    def __enter__(self) -> "Run":
        """Open the log; from here the first Ctrl-C or SIGTERM ends the run after the step, saved,
        and the second at once.
        """
        self.log_file = Log(self.folder, self.step, self.options.tensorboard)
        self.tick = time.monotonic()
        self.began, self.busy = self.tick - self.seconds, 0.0
        self.handlers: dict[int, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            print("\nstopping after this step; once more stops at once, unsaved", file=sys.stderr)
            signal.signal(number, self.handlers[number])

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.handlers[number] = signal.signal(number, stop)
            except ValueError:  # not in the main thread
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.bar.close()
        self.log_file.close()

    def steps(self, total: int) -> range:
        """The steps still to be done, behind a progress bar on a terminal."""
        self.total = total
        self.bar = tqdm(
            total=total, initial=self.step, disable=None, unit="step", dynamic_ncols=True
        )
        self.mark = (time.monotonic(), self.step)
        return range(self.step, total)

    def should_stop(self) -> bool:
        """Whether the user asked to stop, or the score has not risen for --patience evaluations."""
        stale = 0 < self.options.patience <= self.stale
        if stale:
            tqdm.write(
                f"no better overall score for {self.stale} evaluations: stopping early (--patience)"
            )
        return stale or self.interrupted

    def log(
        self, step: int, seen: list[dict[str, Tensor]], norm: Tensor, lr: float, tokens: int
    ) -> None:
        """Add a step to the sums, on the device, and every --log_every steps read them and write a
        line: the mean of the steps' losses, and each task's over the forward passes that it was
        in.
        """
        self.step = step + 1
        values = [(f"loss_{task}", loss) for losses in seen for task, loss in losses.items()]
        for name, value in [
            *values,
            *(("loss", sum(losses.values())) for losses in seen),
            ("norm", norm),
        ]:
            self.sums[name] = self.sums[name] + value
            self.counts[name] += 1
        self.tokens += tokens
        now = time.monotonic()
        self.busy, self.tick = self.busy + now - self.tick, now
        self.bar.update()
        if self.step % self.options.log_every == 0 or self.step == self.total:
            self.check_finite()
            means = {name: float(self.sums[name]) / count for name, count in self.counts.items()}
            record = {
                "step": self.step,
                **means,
                "lr": lr,
                "tokens_per_s": round(self.tokens / self.busy),
            }
            self.log_file.write(record)
            self.sums.clear()
            self.counts.clear()
            self.tokens, self.busy = 0, 0.0
            self.show(record)

    def check_finite(self) -> None:
        """UserError where a loss since the last look was not a finite number: nothing after it may
        be kept.
        """
        for name, value in self.sums.items():
            if not math.isfinite(float(value)):
                raise UserError(
                    f"step {self.step}: {name} is {float(value)}; lower --lr, or --precision fp32"
                )

    def show(self, record: dict[str, Any]) -> None:
        """The record on the progress bar, or ten times a run as a line of its own."""
        if not self.bar.disable:
            self.bar.set_postfix_str(
                f"loss {record['loss']:.3f} lr {record['lr']:.1e} {record['tokens_per_s']} tokens/s"
            )
            return
        every = self.options.log_every
        if (
            self.step % max(every, self.total // 10 // every * every) == 0
            or self.step == self.total
        ):
            began, done = self.mark
            left = (time.monotonic() - began) / max(1, self.step - done) * (self.total - self.step)
            print(
                f"step {self.step:>6}/{self.total}  loss {record['loss']:.3f}  lr {record['lr']:.2e}  "
                f"{record['tokens_per_s']:>6} tokens/s  {left:.0f} s left",
                flush=True,
            )

    def judge(self, epoch: int, scores: dict[str, Any], model: MultitaskBERT) -> None:
        """Log and show the dev scores of an epoch, and keep the model if its overall score is the
        best so far.
        """
        self.check_finite()
        flat = {task: scores[task]["score"] for task in self.options.tasks}
        seconds = time.monotonic() - self.began
        self.log_file.write(
            {
                "step": self.step,
                "epoch": epoch,
                "seconds": round(seconds, 1),
                **{f"dev_{t}": s for t, s in flat.items()},
                "dev_overall": scores["overall"],
                "dev": {t: scores[t] for t in flat},
            }
        )
        better = not self.best or scores["overall"] > self.best["overall"]
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = {
                "epoch": epoch,
                "step": self.step,
                "overall": scores["overall"],
                "scores": flat,
            }
            replace_folder(self.folder / "best", model.save)
        if not self.table_open:
            self.table_open = True
            names = [f"{TASKS[t].title} {TASKS[t].metric_name}" for t in flat]
            tqdm.write("epoch    step  " + "  ".join(names) + "  overall  seconds")
        cells = [
            f"{s:>{len(TASKS[t].title) + len(TASKS[t].metric_name) + 1}.3f}"
            for t, s in flat.items()
        ]
        tqdm.write(
            f"{epoch:>5}  {self.step:>6}  {'  '.join(cells)}  {scores['overall']:>7.3f}  {seconds:>7.0f}"
            + ("  best" if better else "")
        )
        self.tick = time.monotonic()  # scoring is not training time

    def save(self, model: MultitaskBERT, optimizer: AdamW, train: dict[str, Split]) -> None:
        """Write the last checkpoint."""
        self.check_finite()
        progress = {
            "step": self.step,
            "seconds": time.monotonic() - self.began,
            "stale": self.stale,
            "best": self.best,
            "drawn": {task: split.drawn for task, split in train.items()},
            "sums": {name: float(value) for name, value in self.sums.items()},
            "counts": dict(self.counts),
        }
        save_last(self.folder / "last", model.state_dict(), optimizer.named_state(), progress)
        self.tick = time.monotonic()

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the results and the time to run.json, and return its contents."""
        facts = read_json(self.folder / "run.json")
        facts.update(results, seconds=round(time.monotonic() - self.began, 1))
        write_json(self.folder / "run.json", facts)
        return facts
