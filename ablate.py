"""Tables: rows x seeds, each a run of the main job.

    python ablate.py @presets/tables/row-budget.txt --data_dir DATA
    python ablate.py --out results/mine --rows default lora my.txt --seeds 1 2 3
    python ablate.py --out results/mine --tables   # from the record, no runs
    python ablate.py --readme                      # README's tables, likewise

A row is a file of flags whose first line says what it is, in presets/ (by name)
or elsewhere (by path):

    # LoRA on every linear of the encoder
    --lora

Flags of the main job (its own --help lists them) hold for all rows: --epochs 2,
--data_dir DATA, --use_gpu. What the record holds is not run again, so after a
stop the same command goes on, and several may work on one table. Runs of
another machine join it: add their lines to runs.jsonl and their files to
predictions/, and give the command again. To repeat a run delete its line.

Writes to --out: runs.jsonl (the record), predictions/, table.md, table.csv, a
picture. How long a step takes, is measured by benchmarks/row_speed.py.
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

from ablation.compare import Gold, compare, read_labels, write_comparisons
from ablation.readme import write_readme
from ablation.record import (
    Line,
    Terms,
    append_line,
    check_joins,
    is_recorded,
    locked,
    read_lines,
    terms,
)
from ablation.rows import (
    Row,
    all_rows,
    flags_for_runs,
    options_of_row,
    plain,
    read_row,
    recorded_flags,
)
from ablation.runs import Failed, claimed, clear, measure, name_of
from ablation.table import write_tables
from choices.run import WITHOUT_NETWORK
from commandline.parser import page_parser
from commandline.values import number
from commandline.words import expand
from errors import UserError, listed, run_main
from options import Options
from storage.files import sha256_of
from text.data_files import find_files
from training.environment import check_writable
from training.start import model_for

# Test files say nothing in a table, so they are not read unless one asks for them.
WITHOUT_TEST = {"test": False}


@dataclass(frozen=True)
class Wanted:
    """A run that is wanted."""

    row: Row
    options: Options
    sums: dict[str, str]  # {"sst_train": SHA-256, ...} of its files
    terms: Terms  # what it has in common with the table

    @property
    def title(self) -> str:
        """As it is told."""
        return f"{self.row.name}, seed {self.options.seed}"


# ---- what is wanted


def read_arguments(argv: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """This script's own flags, and those of the main job as typed for all rows."""
    parser = page_parser(__doc__)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="presets, by name or path [all]")
    seed = number("seeds", int, several=True)
    parser.add_argument("--seeds", nargs="+", metavar="SEED", type=seed, help="of each row [1]")
    parser.add_argument("--base", metavar="ROW", help="the row to compare with [default]")
    parser.add_argument("--out", metavar="FOLDER", help="the table's folder, results/NAME")
    parser.add_argument("--tables", action="store_true", help="write the tables anew, run nothing")
    parser.add_argument("--readme", action="store_true", help="fill README's tables, run nothing")
    parser.set_defaults(rows=[], seeds=[1], base="default", out="", tables=False, readme=False)
    mine, rest = parser.parse_known_args(expand(argv))
    if mine.readme:
        return mine, {}
    if not mine.out:
        raise UserError("--out: expected the table's folder, such as results/mine")
    return mine, flags_for_runs(rest, vars(mine))


def rows_of(words: Sequence[str]) -> list[Row]:
    """The rows that were asked for, each once; UserError where two have a name."""
    rows: dict[str, Row] = {}
    for row in [read_row(word) for word in words] or all_rows():
        if rows.setdefault(row.name, row) != row:
            raise UserError(f"--rows: two of them are called {row.name}; rename a file")
    return list(rows.values())


@functools.cache
def sum_of(path: Path) -> str:
    """A file's SHA-256; many rows read the same files."""
    return sha256_of(path)


def job_of(row: Row, seed: int, shared: Mapping[str, Any]) -> Wanted:
    """A run of a row; UserError where its options can't work, or its files are not there."""
    options = options_of_row(row, {**WITHOUT_TEST, **shared}, seed)
    if options.option not in WITHOUT_NETWORK:
        options = replace(options, model=model_for(options))
    paths, _ = find_files(options)
    sums = {f"{task}_{split}": sum_of(path) for (task, split), path in paths.items()}
    flags = recorded_flags(row, shared)
    common = terms(shared, flags, plain(options.to_dict()), "", sums)
    return Wanted(row, options, sums, common)


def check_base(base: str, jobs: Sequence[Wanted], lines: Sequence[Line]) -> None:
    """UserError where a row to compare with is neither in the table nor will be."""
    names = dict.fromkeys([*(line.row for line in lines), *(job.row.name for job in jobs)])
    if base not in names:
        raise UserError(
            f"--base {base}: no such row; expected one of {listed(names)}, with which the others "
            "are compared"
        )


# ---- the runs


def is_done(table: Path, job: Wanted) -> bool:
    """Whether the record holds a run; UserError where it holds another one under its name."""
    return is_recorded(read_lines(table), job.row.name, job.options, job.sums)


def run_all(table: Path, jobs: Sequence[Wanted], shared: dict[str, Any]) -> list[str]:
    """Run what the record does not hold, and say what failed: the titles of those."""
    failed = []
    for place_in_line, job in enumerate(jobs, 1):
        place = table / "unfinished" / name_of(job.row.name, job.options.seed)
        if is_done(table, job) and not place.exists():
            print(f"{job.title}: in the record")
            continue
        with claimed(place) as claim:
            if claim is None:
                print(f"{job.title}: another process is running it")
                continue
            # Whoever had the claim before may have recorded it.
            if not is_done(table, job):
                check_joins(table, read_lines(table), job.terms)
                print(f"==== {job.title} ({place_in_line} of {len(jobs)})", flush=True)
                try:
                    append_line(table, measure(job.row, job.options, shared, table, claim))
                except Failed:
                    failed.append(job.title)
                    continue
            clear(job.row, job.options.seed, table)
            print(f"{job.title}: in the record", flush=True)
    return failed


# ---- the tables


def gold_of(tasks: Sequence[str], options: Options, files: Mapping[str, str]) -> dict[str, Gold]:
    """The labels of these tasks' dev files; none where one of them is not there.

    `options` say where data is and how much of it, `files` which files were named.
    """
    gold = {}
    for task in tasks:
        named = {name: path for name, path in files.items() if name == f"{task}_dev"}
        own = replace(options, tasks=(task,), files=tuple(named.items()))
        try:
            paths, _ = find_files(own, ("dev",))
        except UserError as error:
            print(f"not compared anew: {error}", file=sys.stderr)
            return {}
        path = paths[task, "dev"]
        gold[task] = Gold(read_labels(path, task, options.limit), sum_of(path))
    return gold


def compare_and_write(table: Path, options: Options, files: Mapping[str, str], base: str) -> None:
    """Compare all rows of the record with the base row, and write the tables."""
    with locked(table):  # so that of two processes the last one writes what both have run
        lines = read_lines(table)
        if not lines:
            return
        tasks = list(dict.fromkeys(task for line in lines for task in line.best.scores))
        gold = gold_of(tasks, options, files)
        if gold:
            write_comparisons(table, compare(table, lines, gold, base))
        write_tables(table, base)


def main(argv: list[str]) -> None:
    """The command line."""
    mine, shared = read_arguments(argv)
    table = Path(mine.out)
    if mine.readme:
        write_readme()
        return
    if mine.tables:
        check_base(mine.base, [], read_lines(table))
        write_tables(table, mine.base)
        return

    # All that can go wrong does so before anything runs.
    rows = rows_of(mine.rows)
    jobs = [job_of(row, seed, shared) for seed in dict.fromkeys(mine.seeds) for row in rows]
    lines = read_lines(table)
    check_base(mine.base, jobs, lines)
    for job in jobs:
        check_joins(table, lines, job.terms)
        is_done(table, job)
    check_writable(table)

    failed = run_all(table, jobs, shared)
    compare_and_write(table, jobs[0].options, shared.get("files", {}), mine.base)
    if failed:
        print(
            f"failed, and not in the table: {', '.join(failed)}; the errors stand above",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
