"""How long a step of each row of a table takes, in steps of its base row.

    python benchmarks/row_speed.py --out results/row-budget --data_dir DATA

The rows of the record take turns in one process, with the flags that the record has for all rows;
the median of the ratios within each round counts. So that memory suffices, some rows at a time
race, the base row among them. Writes speed.json beside the record, which ablate.py --tables shows.
Nothing else may compute meanwhile.
"""

import gc
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablation.record import read_lines
from ablation.summaries import SPEED
from benchmarks import common, race
from benchmarks.train_speed import our_side
from errors import UserError, run_main
from options import Options
from storage.json_files import write_json
from tokenizer import BertTokenizer
from training.environment import environment, keep_freed_memory, pick_device
from training.repeatable import settle_arithmetic
from training.start import model_for

WARM_UP = 2  # steps


def options_of(table: Path, data: Options) -> dict[str, Options]:
    """The recorded options of each row of a table, on the files that `data` names."""
    found = {}
    for line in read_lines(table):
        if line.flags is None or line.is_baseline:  # these have no steps of ours
            continue
        options = Options(**{**line.options, "data_dir": data.data_dir, "seed": 1})
        if "model" not in line.flags:
            options = replace(options, model=data.model)
        found[line.row] = replace(options, model=model_for(options))
    if not found:
        raise UserError(f"{table}: no runs in its record")
    return found


def prepare(options: Options, steps: int, rounds: int) -> Callable[[], Any]:
    """Some steps of the main job under these options, warmed up, to be done again and again."""
    tokenizer = BertTokenizer.from_pretrained(options.model)
    data, _ = common.load(options, tokenizer, ("train",))
    side = our_side(options, data["train"], steps * rounds + WARM_UP)
    drawn = common.draw_steps(options, data["train"], steps)
    side(drawn[:WARM_UP])
    return partial(side, drawn)


def heats(rows: Mapping[str, Options], base: str, most: int) -> list[list[str]]:
    """The rows' names in lists of at most `most`, each with the base row at its beginning."""
    others = [name for name in rows if name != base]
    size = most - 1
    return [[base, *others[i : i + size]] for i in range(0, max(len(others), 1), size)]


def heat(
    names: list[str], rows: Mapping[str, Options], steps: int, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Some rows race: {row: the seconds of a step, in each round}."""
    turns = {}
    for name in names:
        print(f"preparing {name}", flush=True)
        turns[name] = partial(race.timed, prepare(rows[name], steps, rounds), device)
    seconds = race.interleaved(turns, dict.fromkeys(turns, rounds))
    return {name: [whole / steps for whole in times] for name, times in seconds.items()}


def main(argv: list[str]) -> None:
    """The command line."""
    own = common.own_parser()
    own.add_argument("--out", type=Path, required=True, help="the table's folder")
    own.add_argument("--base", default="default", help="the row that is 1 [default]")
    own.add_argument("--rounds", type=int, default=5, help="[5]")
    own.add_argument("--steps", type=int, default=6, help="steps of a round [6]")
    own.add_argument("--at_once", type=int, default=12, help="rows that race together [12]")
    mine, options = common.arguments(argv, own, __doc__.split("\n\n")[0])
    for name, least in ("rounds", 1), ("steps", 1), ("at_once", 2):
        if getattr(mine, name) < least:
            raise UserError(f"--{name} {getattr(mine, name)}: expected at least {least}")

    # As in training.
    device = pick_device(options.use_gpu)
    keep_freed_memory()
    settle_arithmetic()
    rows = options_of(mine.out, options)
    if mine.base not in rows:
        raise UserError(f"{mine.out}: no row {mine.base} in its record; name another --base")

    # A row's time is compared with the base row's of the same heat alone.
    step_time = {mine.base: 1.0}
    typical: dict[str, float] = {}
    for names in heats(rows, mine.base, mine.at_once):
        seconds = heat(names, rows, mine.steps, mine.rounds, device)
        for name in names:
            step_time[name] = race.ratio(seconds, name, mine.base)
            typical.setdefault(name, statistics.median(seconds[name]))
        gc.collect()  # models are in cycles, and the next heat needs the memory

    facts = environment(device)
    facts.pop("command")  # it names a folder of this machine
    record = {**facts, "base": mine.base, "rounds": mine.rounds, "steps": mine.steps}
    write_json(mine.out / SPEED, {**record, "seconds": typical, "step_time": step_time})
    for name, times in sorted(step_time.items(), key=lambda pair: pair[1]):
        print(f"{name:<24} {times:.2f}")


if __name__ == "__main__":
    run_main(main)
