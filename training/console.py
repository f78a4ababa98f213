"""What a run shows while it goes: a progress bar or lines, and the table of its evaluations.

A bar needs a terminal with a width. Elsewhere (a pipe, a log file, a terminal that knows no width)
there are about ten lines a run, and one before each evaluation.
"""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from tqdm import tqdm

from tasks import Task
from training.time_left import TimeLeft

LINES_A_RUN = 10  # where there is no terminal for a bar
NARROWEST = 20  # columns; a terminal that says less does not know its width


def has_width(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a bar can be drawn."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns >= NARROWEST
    except (OSError, ValueError):
        return False


def as_time(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some: "02:05", "1:02:05"."""
    return tqdm.format_interval(round(seconds))


def prediction_bar(what: str, tokens: int, shown: bool) -> tqdm:
    """A bar over the tokens that are to be predicted, gone when it is closed."""
    return tqdm(
        total=tokens,
        desc=f"predicting {what}",
        disable=not shown,
        leave=False,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]",
    )


class StepBar(tqdm):
    """A bar of steps; the time left is told from outside, since it counts evaluations too."""

    left = 0.0  # seconds

    @property
    def format_dict(self) -> dict[str, Any]:
        """What may stand in bar_format: tqdm's, and "left"."""
        return {**super().format_dict, "left": as_time(self.left)}


class Console:
    """The progress of `total` steps of which `done` were done before."""

    def __init__(
        self, done: int, total: int, log_every: int, tasks: Mapping[str, Task], time_left: TimeLeft
    ):
        self.total = total
        self.log_every = log_every
        self.tasks = tasks
        self.time_left = time_left
        self.table_open = False
        self.bars = has_width(sys.stderr)
        self.bar = StepBar(
            total=total,
            initial=done,
            disable=not self.bars,
            leave=False,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}{postfix}]",
        )
        self.tick = time.monotonic()

        # A warning must not land on the line of a bar.
        self.show_warning = warnings.showwarning
        if self.bars:
            warnings.showwarning = self.warn

    # ---- steps

    def step(self, tokens: int) -> None:
        """One more step, of so many tokens, is done."""
        now = time.monotonic()
        self.time_left.trained(tokens, now - self.tick)
        self.tick = now
        self.bar.update()

    def show(self, record: dict[str, Any]) -> None:
        """The record of the last steps: on the bar, or ten times a run as a line of its own."""
        step = record["step"]
        left = self.time_left.after(step)
        speed = f"{record['tokens_per_s']} tokens/s"
        if self.bars:
            self.bar.left = left
            self.bar.set_postfix_str(f"loss {record['loss']:.3f} lr {record['lr']:.1e} {speed}")
            return
        a_tenth = self.total // LINES_A_RUN // self.log_every * self.log_every
        if step % max(self.log_every, a_tenth) and step != self.total:
            return
        print(
            f"step {step:>6}/{self.total}  loss {record['loss']:.3f}  lr {record['lr']:.2e}  "
            f"{speed:>15}  {as_time(left)} left",
            flush=True,
        )

    # ---- evaluations

    @contextlib.contextmanager
    def predicting(self, split: str) -> Iterator[Callable[[int], object]]:
        """Inside, "dev" or "test" is predicted; yields what to call with the tokens of each batch.

        A bar of its own below the steps', gone afterwards; or a line before it.
        """
        tokens = self.time_left.tokens[split]
        expected = self.time_left.to_predict(tokens)
        if not self.bars:
            about = f", about {as_time(expected)}" if expected else ""
            print(f"predicting {split}{about}", flush=True)
        bar = prediction_bar(split, tokens, self.bars)
        began = time.monotonic()
        try:
            yield bar.update
        finally:
            bar.close()
            self.tick = time.monotonic()
        self.time_left.predicted(tokens, self.tick - began)

    def score_row(
        self, epoch: int, step: int, scores: dict[str, Any], seconds: float, best: bool
    ) -> None:
        """A line of the table of evaluations; before the first one, its head."""
        if not self.table_open:
            self.table_open = True
            self.say("epoch    step  " + "  ".join(self.heads().values()) + "  overall seconds")
        row = f"{epoch:>5}  {step:>6}  {self.cells(scores)} {seconds:>7.0f}"
        self.say(row + ("  best" if best else ""))

        # Below it, of several encoders (experts.py), how much each had of a task.
        for name, task in self.tasks.items():
            if weights := scores[name].get("experts"):
                shown = "  ".join(f"{weight:.3f}" for weight in weights)
                self.say(f"{'experts':>13}  {task.title}: {shown}")

    def train_row(self, scores: dict[str, Any]) -> None:
        """A line below it: the scores on training examples."""
        self.say(f"{'of train':>13}  {self.cells(scores)}")

    def heads(self) -> dict[str, str]:
        """What stands above each task's scores."""
        return {name: f"{task.title} {task.metric_name}" for name, task in self.tasks.items()}

    def cells(self, scores: dict[str, Any]) -> str:
        """Each task's score below its head, and the overall score."""
        cells = [f"{scores[name]['score']:>{len(head)}.3f}" for name, head in self.heads().items()]
        return f"{'  '.join(cells)}  {scores['overall']:>7.3f}"

    # ---- lines between

    def say(self, line: str) -> None:
        """A line that does not break a bar."""
        tqdm.write(line)
        sys.stdout.flush()

    def warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """A warning that does not break a bar; in the place of warnings.showwarning."""
        text = warnings.formatwarning(message, category, filename, lineno, line)
        tqdm.write(text, file=sys.stderr, end="")

    def close(self) -> None:
        """End the bar of the steps; nothing of it is left, since its times would be old."""
        if self.bars:
            warnings.showwarning = self.show_warning
        self.bar.close()
