"""Runs side by side: their dev scores, and the flags in which they differ.

    python report.py                            # all runs in runs/
    python report.py other-runs                 # all in another folder
    python report.py runs/2026-11-21-multitask runs/2026-11-21-lora

The best come first. Runs on other data, or with other tasks, have a table of
their own: their scores can't be compared.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from errors import UserError, run_main
from options import WITHOUT_EFFECT, Options
from storage.json_files import read_json, record
from tasks import TASKS
from training.console import as_time
from training.identity import Identity
from training.progress import Best, Progress, read_progress

MOST_STEPS = 2**53  # that a run may have; how many this one has, its data would say


@dataclass(frozen=True)
class Row:
    """A run as the tables show it."""

    folder: Path
    options: Options
    data: tuple[tuple[str, int], ...]  # SHA-256 and examples of each dev file
    title: str  # what these files are
    best: Best | None  # none before the first evaluation
    step: int  # optimizer steps done
    seconds: float

    @property
    def overall(self) -> float:
        """By which runs are sorted; those without a score come last."""
        return self.best.overall if self.best else float("-inf")


def read_run(folder: Path) -> Row:
    """A run's options and results, finished or not; UserError where it can't be read."""
    options = Options.of_run(folder)
    facts = read_json(folder / "run.json")
    identity = record(Identity, facts, str(folder / "run.json"), others_too=True)

    # Scores on different dev files, or of different tasks, say nothing about one another.
    dev = [file for name, file in sorted(identity.data.items()) if name.endswith("_dev")]
    if not dev:
        raise UserError(f"{folder / 'run.json'}: no dev files in it; is the file damaged?")
    source = str(Path(dev[0].path).parent)
    if facts.get("built_in_corpus"):
        source = "the built-in corpus"
    if options.limit:
        source += f", first {options.limit} rows"
    title = f"dev files of {source} (SHA-256 {' '.join(file.sha256[:6] for file in dev)})"

    # How far it has come is in its last checkpoint.
    progress = Progress()
    path = folder / "last" / "progress.json"
    if path.exists():
        progress = read_progress(path, identity.run, MOST_STEPS, options.tasks)
    best = record(Best, progress.best, str(path)) if progress.best else None
    data = tuple((file.sha256, file.examples) for file in dev)
    return Row(folder, options, data, title, best, progress.step, progress.seconds)


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


def table(rows: Iterable[Row]) -> list[str]:
    """The lines of a table of runs with the same tasks and data, the best first."""
    ordered = sorted(rows, key=lambda row: -row.overall)
    tasks = ordered[0].options.tasks
    width = max(len(row.folder.name) for row in ordered)

    # Flags that all of them share say nothing here.
    flags = [typed(row.options) for row in ordered]
    shared = set(flags[0]).intersection(*flags[1:]) if len(flags) > 1 else set()
    heads = "".join(f"{TASKS[task].title:>8}" for task in tasks)
    lines = [f"{'run':<{width}} overall{heads}  epoch   step   time  flags"]
    for row, own in zip(ordered, flags, strict=True):
        scores = f"{'-':>8}" * (1 + len(tasks)) + f"{'-':>7}"
        if row.best:
            of_tasks = "".join(f"{row.best.scores[task]:>8.3f}" for task in tasks)
            scores = f"{row.best.overall:>8.3f}{of_tasks}{row.best.epoch:>7}"
        different = " ".join(flag for flag in own if flag not in shared)
        lines.append(
            f"{row.folder.name:<{width}}{scores}{row.step:>7}{as_time(row.seconds):>7}  {different}"
        )
    if shared:
        lines.append(f"all with {' '.join(flag for flag in flags[0] if flag in shared)}")
    return [line.rstrip() for line in lines]


def runs_of(place: Path) -> list[Path]:
    """The folders of the runs in a folder; none where it is a run's own."""
    if os.path.exists(place / "options.json") or not any(place.glob("*/options.json")):
        return []
    return sorted(place.glob("*/"))


def main(argv: list[str]) -> None:
    """The command line: folders of runs, or folders with such in them; none: runs/."""
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return
    if any(word.startswith("-") for word in argv):
        raise UserError("report.py takes the folders of runs, and no flags")

    # A run that was asked for must be one; of those in a folder, what can be read is shown.
    tables: dict[Any, list[Row]] = defaultdict(list)
    for place in argv or ["runs"]:
        inside = runs_of(Path(place))
        if not argv and not inside:
            raise UserError("runs: no runs in it; begin one, or name the folders of runs")
        for folder in inside or [Path(place)]:
            try:
                row = read_run(folder)
                tables[row.data, row.options.tasks].append(row)
            except UserError as error:
                if not inside:
                    raise
                print(f"left out: {error}", file=sys.stderr)
    for rows in tables.values():
        print(rows[0].title)
        print("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    run_main(main)
