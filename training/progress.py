"""How far a run has come: what progress.json holds beside the tensors of a checkpoint."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from errors import UserError, listed
from storage.json_files import Between, Count, checked, read_record, record


@dataclass
class Best:
    """What Progress.best holds once there was an evaluation."""

    epoch: Count
    step: Count
    overall: float
    scores: dict[str, float]  # task -> score


@dataclass
class Progress:
    """All state of the loop that is no tensor."""

    run: str = ""  # whose it is, as in run.json
    step: Count = 0  # steps done
    total: Count = 0  # steps of the whole run
    seconds: Annotated[float, Between(0, 1e12)] = 0.0
    stale: Count = 0  # evaluations since the best one
    best: dict[str, Any] = field(default_factory=dict)  # see Best; empty before an evaluation
    best_manifest: str = ""  # SHA-256 of best/manifest.json: which model it is
    history: list[tuple[Count, float]] = field(default_factory=list)  # (step, overall dev score)
    drawn: dict[str, Count] = field(default_factory=dict)  # task -> examples given out

    # The step from which the rate warmed up anew, as after an extension without the optimizer's
    # state; 0: it never did.
    warmed_from: Count = 0

    # Since the last line of the log; the sums stay tensors until they are saved.
    sums: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Annotated[int, Between(1, 2**53)]] = field(default_factory=dict)

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

    def is_over(self, patience: int) -> bool:
        """Whether no step is to come: all are done, or --patience ran out."""
        return self.step == self.total or 0 < patience <= self.stale

    def to_dict(self) -> dict[str, Any]:
        """As saved in progress.json."""
        return {**asdict(self), "sums": {name: float(value) for name, value in self.sums.items()}}


def read_progress(path: Path, run: str, total: int, tasks: Collection[str]) -> Progress:
    """What progress.json holds; UserError where it can't be of this run.

    `total`: the steps of the whole run, as many as it had or more. `tasks`: those that it trains.
    """
    held = read_record(path, Progress)
    if held.run != run:
        raise UserError(f"{path}: of another run")

    # What belongs together.
    checked(held.sums, dict[str, float], f"{path}: sums")
    if not held.step <= held.total <= total:
        raise UserError(f"{path}: step {held.step} of {held.total}, beyond {total}; damaged?")
    if any(step > held.step for step in (held.warmed_from, *(step for step, _ in held.history))):
        raise UserError(f"{path}: step {held.step} with later ones; damaged?")
    if set(held.sums) != set(held.counts):
        raise UserError(f"{path}: sums of {listed(held.sums)}, counts of {listed(held.counts)}")
    if held.step and set(held.drawn) != set(tasks):
        raise UserError(f"{path}: drawn from {listed(held.drawn)}, expected {listed(tasks)}")

    # The best evaluation, where there was one.
    if held.best:
        best = record(Best, held.best, f"{path}: best")
        if set(best.scores) != set(tasks) or best.step > held.step:
            raise UserError(f"{path}: best is not one of this run's evaluations; damaged?")
    return held
