"""Tables: rows x seeds, each a run of the main job.

    python ablate.py @presets/tables/row-budget.txt --data_dir DATA
    python ablate.py --out results/mine --rows default lora my.txt --seeds 1 2 3 --epochs 2
    python ablate.py --out results/mine --tables    # from the record, no runs
    python ablate.py --readme                       # README.md's tables

A row is a file of flags, presets/NAME.txt; without --rows all in presets/ are
run. Flags of the main job hold for all rows. What the record holds is not run
again, so after a stop the same command goes on; several may work on one table.
Writes to --out: runs.jsonl (the record), table.md, table.csv, a picture.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablation.compare import Labels, compare, read_labels, write_comparisons
from ablation.readme import write_readme
from ablation.record import append_line, check_joins, is_recorded, own_files, read_lines
from ablation.rows import Row, all_rows, options_of_row, read_row
from ablation.runs import Failed, claimed, clear, measure, name_of
from ablation.table import write_tables
from commandline.parser import page_parser
from commandline.values import number
from commandline.words import expand
from errors import UserError, run_main
from flags import read_flags
from options import WITHOUT_NETWORK, Options
from storage.files import sha256_of
from text.data_files import find_files
from training.environment import check_writable
from training.start import model_for

SHOWN = {"test": False}  # test files say nothing here, so they are not read unless one asks


@dataclass(frozen=True)
class Job:
    """A run that is wanted."""

    row: Row
    options: Options
    sums: dict[str, str]  # {"sst_train": SHA-256, ...} of its files

    @property
    def title(self) -> str:
        """As it is told."""
        return f"{self.row.name}, seed {self.options.seed}"


def read_arguments(argv: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """This script's own flags, and those of the main job as typed for all rows."""
    parser = page_parser(__doc__)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="presets, by name or path [all]")
    parser.add_argument("--seeds", nargs="+", metavar="SEED", type=number("seeds", int), help="[1]")
    parser.add_argument("--base", metavar="ROW", help="the row to compare with [default]")
    parser.add_argument("--out", metavar="FOLDER", help="the table's folder, results/NAME")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    parser.add_argument("--readme", action="store_true", help="fill in README.md's tables")
    parser.set_defaults(rows=[], seeds=[1], base="default", out="", tables=False, readme=False)
    mine, rest = parser.parse_known_args(expand(argv))
    if not mine.out and not mine.readme:
        raise UserError("--out: expected the table's folder, such as results/mine")
    shared = read_flags(rest, "")
    for name in ("seed", "name", "resume", "runs_dir", "predictions"):
        if name in shared:
            raise UserError(f"--{name}: ablate.py sets it for each run; drop it")
    return mine, shared


@functools.cache
def sum_of(path: Path) -> str:
    """A file's SHA-256; many rows read the same files."""
    return sha256_of(path)


def jobs_of(rows: Sequence[Row], seeds: Sequence[int], shared: Mapping[str, Any]) -> list[Job]:
    """All runs, seed by seed, so that a stop leaves rows that can be compared.

    UserError where the options of any can't work: that should not show after an hour.
    """
    jobs = []
    for seed in seeds:
        for row in rows:
            options = options_of_row(row, {**SHOWN, **shared}, seed)
            if options.option not in WITHOUT_NETWORK:
                options = replace(options, model=model_for(options))
            paths, _ = find_files(options)
            sums = {f"{task}_{split}": sum_of(path) for (task, split), path in paths.items()}
            jobs.append(Job(row, options, sums))
    return jobs


def rows_of(words: Sequence[str]) -> list[Row]:
    """The rows that were asked for, each once; UserError where two have a name."""
    rows: dict[str, Row] = {}
    for row in [read_row(word) for word in words] or all_rows():
        if rows.setdefault(row.name, row) != row:
            raise UserError(f"--rows: two of them are called {row.name}; rename a file")
    return list(rows.values())


def is_done(table: Path, job: Job) -> bool:
    """Whether the record holds a run; UserError where it holds another one under its name."""
    return is_recorded(read_lines(table), job.row.name, job.options, job.sums)


def run_all(table: Path, jobs: Sequence[Job], shared: dict[str, Any]) -> list[str]:
    """Run what the record does not hold, and say what failed: the titles of those."""
    failed = []
    for place_in_line, job in enumerate(jobs, 1):
        place = table / "unfinished" / name_of(job.row.name, job.options.seed)
        if is_done(table, job):
            print(f"{job.title}: in the record")
            continue
        with claimed(place) as claim:
            if claim is None:
                print(f"{job.title}: another process is running it")
                continue
            # It may have been recorded while this process came to it.
            if not is_done(table, job):
                print(f"==== {job.title} ({place_in_line} of {len(jobs)})", flush=True)
                try:
                    append_line(table, measure(job.row, job.options, shared, table, claim))
                except Failed:
                    failed.append(job.title)
                    continue
            clear(job.row, job.options.seed, table)
            print(f"{job.title}: in the record", flush=True)
    return failed


def labels_of(jobs: Sequence[Job]) -> dict[str, Labels]:
    """The labels of the dev files of all tasks."""
    labels: dict[str, Labels] = {}
    for job in jobs:
        paths, _ = find_files(job.options)
        for task in job.options.tasks:
            if task not in labels:
                values = read_labels(paths[task, "dev"], task, job.options.limit)
                labels[task] = Labels(values, job.sums[f"{task}_dev"])
    return labels


def main(argv: list[str]) -> None:
    """The command line."""
    mine, shared = read_arguments(argv)
    if mine.readme:
        write_readme()
        return
    table = Path(mine.out)
    if mine.tables:
        write_tables(table, mine.base)
        return

    # All that can go wrong does so before anything runs.
    check_writable(table)
    jobs = jobs_of(rows_of(mine.rows), list(dict.fromkeys(mine.seeds)), shared)
    for job in jobs:
        of_data = {name: x for name, x in job.sums.items() if name not in own_files(job.row.flags)}
        check_joins(table, read_lines(table), shared, of_data)
        is_done(table, job)

    failed = run_all(table, jobs, shared)
    if lines := read_lines(table):
        write_comparisons(table, compare(table, lines, labels_of(jobs), mine.base))
        write_tables(table, mine.base)
    if failed:
        print(f"failed, and not in the table: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
