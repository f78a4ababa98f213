"""Dev scores of the main job under several sets of options, over seeds; and their table beside the
reference's.

    python benchmarks/quality.py --data_dir DATA --seeds 1 2 3 --sets default lora "all three"
    python benchmarks/quality.py --table        # of both records, for the README

Takes the main job's flags for all runs, and its own. A run adds a JSON line to --record, which
holds runs on the same data only; what stands there is not run again. The runs' folders and
predictions are thrown away. A run's score is that of its best epoch on dev, as the main job keeps
it.
"""

import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common
from errors import UserError, run_main
from multitask_classifier import train
from options import Options
from pretrained import default_pretrained
from tasks import TASKS

# Name of a set -> the options in which it differs from the command line's.
SETS: dict[str, dict[str, Any]] = {
    "default": {},
    "lora": {"lora": True},
    "rmsnorm heads": {"rmsnorm": "heads"},
    "rmsnorm encoder": {"rmsnorm": "encoder"},
    "swiglu heads": {"swiglu": "heads"},
    "swiglu encoder": {"swiglu": "encoder"},
    "all three": {"lora": True, "rmsnorm": "all", "swiglu": "all"},
    "linear head": {"head": "linear"},
    "mean pooling": {"pooling": "mean"},
    "bi-encoder": {"pair_encoding": "bi"},
    "round robin": {"sampler": "round_robin"},
    "round robin, 1020 updates": {"sampler": "round_robin", "steps_per_epoch": 340},
    "pretrain": {"option": "pretrain"},
}

# The records that are read and written by default; the README's table is of both.
RECORD, REFERENCE = "benchmarks/records/quality.jsonl", "benchmarks/records/reference.jsonl"

# Options that say where things are: they don't change a score.
PLACES = {"files", "predictions", "runs_dir", "data_dir", "name"}


def essence(options: dict[str, Any]) -> dict[str, Any]:
    """What a run's options, or those that a record holds, mean today.

    One that a line of an older version lacks has its default, one that is no more is left out, and
    so are those that only say where files are; common.check_joins compares the data.
    """
    # Today's options decide what is compared.
    known = Options().to_dict()
    meant = {name: options.get(name, default) for name, default in known.items()}

    # JSON has no tuples: a line read back holds lists.
    return {
        name: list(x) if isinstance(x, tuple) else x
        for name, x in meant.items()
        if name not in PLACES
    }


def measured(name: str, options: Options, held: list[dict[str, Any]]) -> bool:
    """Whether a record holds this set and seed; UserError where it does under other options."""
    for line in held:
        # A run under other options must not pass for this one, nor stand beside it.
        if (line["name"], line["seed"]) == (name, options.seed):
            now, then = essence(options.to_dict()), essence(line["options"])
            differ = [f"{k} {then[k]}, not {v}" for k, v in now.items() if then[k] != v]
            if differ:
                what = f"{name}, seed {options.seed}, with {'; '.join(differ)}"
                raise UserError(f"the record holds {what}: give another --record")
            return True
    return False


def measure(name: str, options: Options) -> dict[str, Any]:
    """Run train(options) in a temporary folder; the record of the run."""
    # The log is read before the folder goes: it alone holds every epoch's scores.
    with tempfile.TemporaryDirectory() as folder:
        results = train(
            replace(options, runs_dir=folder, predictions=f"{folder}/{{task}}-{{split}}.csv")
        )
        log = common.read(Path(results["folder"]) / "log.jsonl")

    # Only the lines with dev scores close an epoch.
    epochs = [
        {
            "epoch": x["epoch"],
            "scores": {t: x[f"dev_{t}"] for t in options.tasks},
            "overall": x["dev_overall"],
        }
        for x in log
        if "dev_overall" in x
    ]
    return {
        "name": name,
        "flags": SETS[name],
        "seed": options.seed,
        "best": results["best"],
        "epochs": epochs,
        "seconds": results["seconds"],
        "options": options.to_dict(),
        **common.facts(options, results["built_in_corpus"]),
    }


def mean_sd(values: list[float]) -> str:
    """Several values as ".812 ± .004", one as ".812"."""
    # One value has no standard deviation.
    numbers = [statistics.mean(values)] + ([statistics.stdev(values)] if len(values) > 1 else [])
    return " ± ".join(f"{x:.3f}".removeprefix("0") for x in numbers)


def title(name: str, set_flags: dict[str, Any] | None) -> str:
    """What a row is called: the flags as typed; the reference by its name."""
    # The reference's lines have no flags.
    if set_flags is None:
        return name
    typed = " ".join(
        f"--{flag}" if value is True else f"--{flag} {value}" for flag, value in set_flags.items()
    )
    return f"`{typed}`" if typed else "default flags"


def table(paths: list[str]) -> str:
    """The records' runs as Markdown, a row a set: mean ± standard deviation over the seeds.

    Of each run its best epoch counts. The last column is of the last epoch, for which nothing was
    chosen on the dev set. Seconds are in the records only: other work may have shared the machine.
    """
    # Runs that differ in their seed only share a row; rows stand in the records' order.
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    held = [line for path in paths for line in common.read(path)]
    if not held:
        raise UserError(f"no runs in {', '.join(paths)}")
    for line in held:
        rows[title(line["name"], line.get("flags"))].append(line)

    # Scores on different data can't share a table.
    sources = sorted({common.source(x["options"], x["built_in_corpus"]) for x in held})
    if len(sources) > 1:
        raise UserError(
            f"the records are of different data ({'; '.join(sources)}): "
            "give another --record or --reference"
        )

    # Columns: each task's score, their mean, and the mean that no choice on dev has raised.
    tasks = list(held[0]["best"]["scores"])
    heads = [f"{TASKS[t].title} {TASKS[t].metric_name}" for t in tasks]
    table = [["dev scores", "seeds", *heads, "overall", "overall, last epoch"]]
    table.append(["---"] * len(table[0]))

    # The reference may have fewer seeds than the sets, so each row says its number.
    for name, lines in rows.items():
        scores = [mean_sd([x["best"]["scores"][t] for x in lines]) for t in tasks]
        overall = mean_sd([x["best"]["overall"] for x in lines])
        last = mean_sd([x["epochs"][-1]["overall"] for x in lines])
        table.append([name, str(len(lines)), *scores, overall, last])
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def main(argv: list[str]) -> None:
    """The command line."""
    # What to run, and where the results are kept.
    own = common.own_parser()
    own.add_argument(
        "--sets",
        nargs="+",
        choices=SETS,
        default=["default"],
        help="names of option sets [default]",
    )
    own.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="[1 2 3]")
    own.add_argument(
        "--record",
        default=RECORD,
        help=f"the file of JSON lines that grows by a line a run [{RECORD}]",
    )
    own.add_argument(
        "--table",
        action="store_true",
        help="print the table of --record and the reference's, run nothing",
    )
    own.add_argument(
        "--reference",
        default=REFERENCE,
        help=f"the reference's record, for the table [{REFERENCE}]",
    )

    # The table needs the records only.
    mine, options = common.arguments(argv, own, __doc__.split("\n\n")[0])
    if mine.table:
        print(table([mine.reference, mine.record]))
        return
    if options.model == "auto":
        options = replace(options, model=default_pretrained())

    # Seed by seed, so that a stop leaves all sets compared; bad options show before any run.
    runs = [
        (name, replace(options, seed=seed, **SETS[name]).check())
        for seed in mine.seeds
        for name in mine.sets
    ]
    common.check_joins(mine.record, options)

    # Each run is written at once: after a stop the same command goes on.
    for name, one in runs:
        if measured(name, one, common.read(mine.record)):
            print(f"{name}, seed {one.seed}: in {mine.record} already")
            continue
        print(f"{name}, seed {one.seed}:", flush=True)
        common.append(mine.record, measure(name, one))


if __name__ == "__main__":
    run_main(main)
