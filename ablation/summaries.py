"""What a record says of each row: its runs taken together."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.compare import Comparison, read_comparisons
from ablation.record import Line, read_lines
from commandline.words import typed
from errors import UserError
from storage.json_files import read_json, record

SPEED = "speed.json"  # what benchmarks/row_speed.py measured
DEFAULTS = "default flags"


@dataclass(frozen=True)
class Summary:
    """A row of the table: numbers over its seeds."""

    name: str
    title: str  # its flags as typed, in Markdown
    what: str  # the row in words
    seeds: list[int]
    scores: dict[str, list[float]]  # task -> best epoch's, one a seed
    overall: list[float]
    last: list[float]  # overall score of the last epoch, for which nothing was chosen on dev
    change: list[float]  # mean change of the overall score between epochs; none for one epoch
    loss: list[float]  # of the last epoch, all tasks together
    seconds: list[float]
    memory: int | None  # MiB, the most at once
    trained: int | None  # parameters
    comparison: Comparison | None  # with the base row
    speed: float | None  # its step's time, in steps of the base row

    @property
    def key(self) -> float:
        """By which rows are sorted."""
        return statistics.mean(self.overall)


def mean_change(scores: Sequence[float]) -> float:
    """How much a score moves from one epoch to the next, on average."""
    return statistics.mean(
        abs(after - before) for before, after in zip(scores, scores[1:], strict=False)
    )


def title_of(line: Line) -> str:
    """What a row is called: its flags as typed, or what it is where it is not the main job's."""
    if line.flags is None:
        return line.what
    return f"`{' '.join(typed(line.flags))}`" if line.flags else DEFAULTS


def last_loss(line: Line) -> float:
    """A run's training loss in its last epoch, of all tasks together; 0 where there is none."""
    return sum(line.epochs[-1].training_loss.values())


def summary_of(
    lines: Sequence[Line], comparison: Comparison | None, speed: float | None
) -> Summary:
    """A row of its runs."""
    first = lines[0]
    return Summary(
        name=first.row,
        title=title_of(first),
        what=first.what,
        seeds=[line.seed for line in lines],
        scores={task: [line.best.scores[task] for line in lines] for task in first.best.scores},
        overall=[line.best.overall for line in lines],
        last=[line.epochs[-1].overall for line in lines],
        change=[
            mean_change([epoch.overall for epoch in line.epochs])
            for line in lines
            if len(line.epochs) > 1
        ],
        loss=[last_loss(line) for line in lines if last_loss(line)],
        seconds=[line.seconds for line in lines],
        memory=max([line.peak_memory_mib or 0 for line in lines]) or None,
        trained=first.parameters["trained"] if first.parameters else None,
        comparison=comparison,
        speed=speed,
    )


@dataclass
class Speed:
    """What benchmarks/row_speed.py measured."""

    base: str
    step_time: dict[str, float]  # of each row, in steps of the base row


def read_speed(table: Path, base: str) -> dict[str, float]:
    """{row: the time of its step, in steps of the base row}; none where it was not measured."""
    path = table / SPEED
    if not path.exists():
        return {}
    held = record(Speed, read_json(path), str(path), others_too=True)
    return held.step_time if held.base == base else {}


def summaries_of(table: Path, base: str) -> list[Summary]:
    """All rows of a table: the base row, then the others that learn its tasks, the best first.

    Rows of fewer tasks follow, since their overall scores are of these only. UserError where there
    are no runs.
    """
    lines = sorted(read_lines(table), key=lambda line: line.seed)
    by_row: dict[str, list[Line]] = {}
    for line in lines:
        by_row.setdefault(line.row, []).append(line)
    if not by_row:
        raise UserError(f"{table}: no runs in its record")
    comparisons, speeds = read_comparisons(table, lines, base), read_speed(table, base)
    rows = [
        summary_of(runs, comparisons.get(name), speeds.get(name)) for name, runs in by_row.items()
    ]
    most = max(len(row.scores) for row in rows)
    return sorted(rows, key=lambda row: (row.name != base, len(row.scores) < most, -row.key))
