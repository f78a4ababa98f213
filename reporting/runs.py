"""What a run's folder says of it, read for tables and pages; how runs are grouped and sorted."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from commandline.words import typed
from errors import UserError, one_line
from options import WITHOUT_EFFECT, Options
from storage.json_files import Between, Count, read_json, record
from tasks import Task, tasks_of
from training.identity import Identity
from training.progress import Best, read_progress

MOST_STEPS = 2**53  # stands for a run's number of steps, which only its training data would tell
PAGE = "index.html"
SORTS = ("overall", "date", "time", "name")  # by what a list can be sorted, beside tasks


@dataclass(frozen=True)
class Facts:
    """What is shown of run.json beside its Identity; most of it is there once the run is over."""

    built_in_corpus: bool = False
    best: Best | None = None
    seconds: Annotated[float, Between(0, 1e12)] = 0.0

    # What older versions did not record.
    parameters: dict[str, Count] = field(default_factory=dict)  # "all" and "trained"
    peak_memory_mib: Count | None = None


@dataclass(frozen=True)
class ShownRun:
    """A run as the tables and pages show it."""

    folder: Path
    options: Options
    identity: Identity
    facts: Facts
    flags: tuple[str, ...]  # as typed, those that differ from the defaults
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
        return self.facts.best is not None

    def score(self, name: str) -> float:
        """The dev score of a task or "overall"; -inf where there is none, which sorts it last."""
        if self.best is None:
            return float("-inf")
        return self.best.overall if name == "overall" else self.best.scores.get(name, float("-inf"))


def read_run(folder: Path) -> ShownRun:
    """A run's options and results, finished or not; UserError where it can't be read."""
    # What it was asked to do, and what it recorded.
    options = Options.of_run(folder)
    try:
        tasks_of(options)
        flags = flags_of(options)
    except UserError as error:
        raise UserError(f"{folder / 'options.json'}: {error}") from None
    path = folder / "run.json"
    held = read_json(path)
    identity = record(Identity, held, str(path), others_too=True)
    facts = record(Facts, held, str(path), others_too=True)

    # Scores on different dev files, or of different tasks, say nothing about one another.
    dev = [file for name, file in sorted(identity.data.items()) if name.endswith("_dev")]
    if not dev:
        raise UserError(f"{path}: no dev files in it; is the file damaged?")
    sums = " ".join(file.sha256[:6] for file in dev)
    title = f"dev files of {data_name(options, identity, facts)} (SHA-256 {sums})"
    data = tuple((file.sha256, file.examples) for file in dev)

    # How far it has come is in its last checkpoint, finished or not. Where a folder has none, as a
    # copy without last/, the results of a finished run are in run.json too.
    best, seconds = facts.best, facts.seconds
    step = best.step if best else 0
    checkpoint = folder / "last" / "progress.json"
    if checkpoint.exists():
        progress = read_progress(checkpoint, identity.run, MOST_STEPS, options.tasks)
        best = record(Best, progress.best, str(checkpoint)) if progress.best else None
        step, seconds = progress.step, progress.seconds
    if best and set(best.scores) != set(options.tasks):
        raise UserError(f"{path}: best has not the scores of this run's tasks; damaged?")
    return ShownRun(folder, options, identity, facts, flags, data, title, best, step, seconds)


def data_name(options: Options, identity: Identity, facts: Facts) -> str:
    """What a run's data is, in words."""
    paths = [file.path for name, file in sorted(identity.data.items()) if name.endswith("_dev")]
    name = "the built-in corpus" if facts.built_in_corpus else one_line(str(Path(paths[0]).parent))
    return f"{name}, first {options.limit} rows" if options.limit else name


def flags_of(options: Options) -> tuple[str, ...]:
    """The options that differ from the defaults and can change a score, as one would type them."""
    values = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name not in WITHOUT_EFFECT and value != option.default:
            values[option.name] = value
    return tuple(typed(values))


def shared_flags(rows: Iterable[ShownRun]) -> list[str]:
    """The flags that several runs have in common, which say nothing where these are compared."""
    first, *others = rows
    if not others:
        return []
    return [flag for flag in first.flags if all(flag in other.flags for other in others)]


def own_flags(row: ShownRun, shared: list[str]) -> list[str]:
    """The flags of a run that are not those of all beside it."""
    return [flag for flag in row.flags if flag not in shared]


# ---- several


def runs_of(place: Path) -> list[Path]:
    """The folders of the runs in a folder; none where it is a run's own."""
    if os.path.exists(place / "options.json") or not any(place.glob("*/options.json")):
        return []
    return sorted(folder for folder in place.glob("*/") if not is_report(folder))


def list_page(tag: str = "") -> str:
    """The name of the page with the list of all runs, or of those with a tag."""
    return f"index-{tag}.html" if tag else PAGE


def is_report(place: Path) -> bool:
    """Whether a path is what report.py wrote beside the runs, which `runs/*` names too."""
    if os.path.exists(place / "options.json"):
        return False
    return re.fullmatch(r"index(-.*)?\.html|report-.*", place.name) is not None


def sorted_rows(rows: Iterable[ShownRun], by: str) -> list[ShownRun]:
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


def comparable(rows: Iterable[ShownRun], by: str = "overall") -> list[list[ShownRun]]:
    """The runs in groups with the same tasks and dev data, each sorted."""
    groups: dict[Any, list[ShownRun]] = defaultdict(list)
    for row in rows:
        groups[row.data, row.options.tasks].append(row)
    return [sorted_rows(group, by) for group in groups.values()]
