"""What a run's folder says of it, read for tables and pages; how runs are grouped and sorted."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from errors import UserError, one_line
from options import WITHOUT_EFFECT, Options
from storage.json_files import read_json, record
from tasks import TASKS, Task, tasks_of
from training.identity import Identity
from training.progress import Best, Progress, read_progress

MOST_STEPS = 2**53  # that a run may have; how many this one has, its data would say
PAGE = "index.html"
SORTS = ("overall", "date", "time", "name", *TASKS)  # by what a list can be sorted


@dataclass(frozen=True)
class Row:
    """A run as the tables and pages show it."""

    folder: Path
    options: Options
    identity: Identity
    facts: dict[str, Any]  # all of run.json
    data: tuple[tuple[str, int], ...]  # SHA-256 and examples of each dev file
    title: str  # what these files are
    best: Best | None  # none before the first evaluation
    step: int  # optimizer steps done
    seconds: float

    @property
    def name(self) -> str:
        """The folder's name, also where it was given as `.`; it can be shown and encoded."""
        return one_line(Path(os.path.abspath(self.folder)).name)

    @property
    def date(self) -> str:
        """The day on which it began, as the folder's name has it; "" where it has none."""
        found = re.match(r"\d{4}-\d\d-\d\d", self.name)
        return found[0] if found else ""

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks that it learns."""
        return tasks_of(self.options)

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return "best" in self.facts

    def score(self, name: str) -> float:
        """The dev score of a task or "overall"; -inf where there is none, which sorts it last."""
        if self.best is None:
            return float("-inf")
        return self.best.overall if name == "overall" else self.best.scores.get(name, float("-inf"))


def read_run(folder: Path) -> Row:
    """A run's options and results, finished or not; UserError where it can't be read."""
    options = Options.of_run(folder)
    tasks_of(options)
    facts = read_json(folder / "run.json")
    identity = record(Identity, facts, str(folder / "run.json"), others_too=True)

    # Scores on different dev files, or of different tasks, say nothing about one another.
    dev = [file for name, file in sorted(identity.data.items()) if name.endswith("_dev")]
    if not dev:
        raise UserError(f"{folder / 'run.json'}: no dev files in it; is the file damaged?")
    sums = " ".join(file.sha256[:6] for file in dev)
    title = f"dev files of {data_name(options, identity, facts)} (SHA-256 {sums})"
    data = tuple((file.sha256, file.examples) for file in dev)

    # How far it has come is in its last checkpoint; what has none wrote its results only.
    progress = Progress()
    path = folder / "last" / "progress.json"
    if path.exists():
        progress = read_progress(path, identity.run, MOST_STEPS, options.tasks)
    found, source = progress.best, str(path)
    if not found and "best" in facts:
        found, source = facts["best"], str(folder / "run.json")
    best = record(Best, found, f"{source}: best") if found else None
    if best and set(best.scores) != set(options.tasks):
        raise UserError(f"{source}: best has not the scores of this run's tasks; damaged?")
    step = progress.step or (best.step if best else 0)
    seconds = progress.seconds or seconds_of(facts)
    return Row(folder, options, identity, facts, data, title, best, step, seconds)


def data_name(options: Options, identity: Identity, facts: dict[str, Any]) -> str:
    """What a run's data is, in words."""
    paths = [file.path for name, file in sorted(identity.data.items()) if name.endswith("_dev")]
    name = "the built-in corpus" if facts.get("built_in_corpus") else str(Path(paths[0]).parent)
    return f"{name}, first {options.limit} rows" if options.limit else name


def seconds_of(facts: dict[str, Any]) -> float:
    """How long a run took, as run.json has it; 0 where it does not say."""
    seconds = facts.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def typed(options: Options) -> list[str]:
    """The options that differ from the defaults, each as one would type it."""
    flags = []
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name in WITHOUT_EFFECT or value == option.default:
            continue
        if isinstance(value, bool):
            flags.append(f"--{option.name}" if value else f"--no-{option.name}")
        else:
            words = " ".join(value) if isinstance(value, tuple) else str(value)
            flags.append(f"--{option.name} {words}")
    return flags


def shared_flags(rows: Iterable[Row]) -> list[str]:
    """The flags that several runs have in common, which say nothing where these are compared."""
    flags = [typed(row.options) for row in rows]
    if len(flags) < 2:
        return []
    return [flag for flag in flags[0] if all(flag in others for others in flags)]


def own_flags(row: Row, shared: list[str]) -> list[str]:
    """The flags of a run that are not those of all beside it."""
    return [flag for flag in typed(row.options) if flag not in shared]


# ---- several


def runs_of(place: Path) -> list[Path]:
    """The folders of the runs in a folder; none where it is a run's own."""
    if os.path.exists(place / "options.json") or not any(place.glob("*/options.json")):
        return []
    return sorted(folder for folder in place.glob("*/") if not is_report(folder))


def is_report(place: Path) -> bool:
    """Whether a path is what report.py wrote beside the runs, which `runs/*` names too."""
    if place.name == PAGE:
        return True
    return place.name.startswith("report-") and not os.path.exists(place / "options.json")


def sorted_rows(rows: Iterable[Row], by: str) -> list[Row]:
    """The best, newest or shortest first, or by name; those without a score come last."""
    if by == "name":
        return sorted(rows, key=lambda row: row.name)
    if by == "time":
        return sorted(rows, key=lambda row: row.seconds)
    if by == "date":
        # Of one day's, the one whose options were written last.
        began = {row.folder: os.stat(row.folder / "options.json").st_mtime for row in rows}
        return sorted(rows, key=lambda row: (row.date, began[row.folder]), reverse=True)
    return sorted(rows, key=lambda row: -row.score(by))


def comparable(rows: Iterable[Row], by: str = "overall") -> list[list[Row]]:
    """The runs in groups with the same tasks and dev data, each sorted."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.data, row.options.tasks].append(row)
    return [sorted_rows(group, by) for group in groups.values()]
