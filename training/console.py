"""What a run shows while it goes: a progress bar or lines, and the table of its evaluations."""

import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from tasks import Task

LINES_A_RUN = 10  # where there is no terminal for a bar


class Console:
    """The progress of `total` steps of which `done` were done before."""

    def __init__(self, done: int, total: int, log_every: int, tasks: Mapping[str, Task]):
        self.total = total
        self.log_every = log_every
        self.tasks = tasks
        self.bar = tqdm(total=total, initial=done, disable=None, unit="step", dynamic_ncols=True)
        self.began = time.monotonic()
        self.began_at = done
        self.table_open = False

    def step(self) -> None:
        """One more step is done."""
        self.bar.update()

    def show(self, record: dict[str, Any]) -> None:
        """The record of the last steps: on the bar, or ten times a run as a line of its own."""
        step = record["step"]
        speed = f"{record['tokens_per_s']} tokens/s"
        if not self.bar.disable:
            self.bar.set_postfix_str(f"loss {record['loss']:.3f} lr {record['lr']:.1e} {speed}")
            return
        a_tenth = self.total // LINES_A_RUN // self.log_every * self.log_every
        if step % max(self.log_every, a_tenth) and step != self.total:
            return
        seconds = (time.monotonic() - self.began) / max(1, step - self.began_at)
        left = seconds * (self.total - step)
        print(
            f"step {step:>6}/{self.total}  loss {record['loss']:.3f}  lr {record['lr']:.2e}  "
            f"{speed:>15}  {left:.0f} s left",
            flush=True,
        )

    def score_row(
        self, epoch: int, step: int, scores: dict[str, Any], seconds: float, best: bool
    ) -> None:
        """A line of the table of evaluations; before the first one, its head."""
        names = {name: f"{task.title} {task.metric_name}" for name, task in self.tasks.items()}
        if not self.table_open:
            self.table_open = True
            tqdm.write("epoch    step  " + "  ".join(names.values()) + "  overall  seconds")
        cells = [f"{scores[name]['score']:>{len(head)}.3f}" for name, head in names.items()]
        row = f"{epoch:>5}  {step:>6}  {'  '.join(cells)}  "
        row += f"{scores['overall']:>7.3f}  {seconds:>7.0f}"
        tqdm.write(row + ("  best" if best else ""))

    def say(self, line: str) -> None:
        """A line that does not break the bar."""
        tqdm.write(line)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()
