"""The learning curves of a run, from its log.jsonl."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from reporting.runs import MOST_STEPS
from storage.json_files import parse_json
from training.log import kept_lines

MOST_POINTS = 200  # of a curve; a picture shows no more
LARGEST = 1e30  # number that can be drawn; larger ones overflow on the way

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Log:
    """The lines of a log: some for every few steps, and one for each evaluation."""

    lines: list[dict[str, Any]]

    def points(self, name: str, over: str = "step") -> Points:
        """Where a line has both, the values `over`, "step" or "epoch", and those of a name."""
        found = [(line.get(over), line.get(name)) for line in self.lines]
        return [(float(x), float(y)) for x, y in found if is_number(x) and is_number(y)]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value can be drawn; NaN can't."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST


def read_log(folder: Path) -> Log:
    """A run's log; empty where it has none yet. Damaged lines are left out, with a warning."""
    # kept_lines() keeps those up to a step, for a run that goes on from there; here all are wanted.
    text = kept_lines(folder / "log.jsonl", MOST_STEPS).decode("utf-8", errors="replace")
    return Log([parse_json(line, "log.jsonl") for line in text.split("\n") if line])


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most so many points, each the mean of neighbours."""
    size = math.ceil(len(points) / most)
    if size < 2:
        return points
    means = []
    for begin in range(0, len(points), size):
        xs, ys = zip(*points[begin : begin + size], strict=True)
        means.append((sum(xs) / len(xs), sum(ys) / len(ys)))
    return means
