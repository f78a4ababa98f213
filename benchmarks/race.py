"""Races: sides that do the same work take turns, each in a process of its own.

What comes out is medians of the rounds, ratios and peak memory. The benchmark starts itself once
more for every side, with `--worker SIDE`, and tells these processes when to work.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ablation.readme import speed_table
from benchmarks import common
from errors import UserError
from storage.json_files import write_json
from training.environment import keep_freed_memory, peak_memory

KEEPERS = ("ours", "ours_fp32", "eager_kept")  # sides that keep freed memory, as train() does


def own_parser(sides: Iterable[str], default: list[str]) -> argparse.ArgumentParser:
    """A parser with the flags of every race."""
    own = common.own_parser()

    # How much is timed, and where the result goes.
    own.add_argument("--record", help="write the result to this JSON file")
    rounds_help = "rounds of every side but the course's [5]"
    own.add_argument("--rounds", type=int, default=5, help=rounds_help)
    course_help = "rounds of the course-style loop [3]"
    own.add_argument("--course_rounds", type=int, default=3, help=course_help)

    # Ours always runs; --worker is for the processes that race() starts.
    sides_help = f"what is timed beside ours [{' '.join(default)}]"
    own.add_argument("--sides", nargs="+", choices=sides, default=default, help=sides_help)
    own.add_argument("--worker", choices=sides, help="be the process of this side")
    return own


def check(mine: argparse.Namespace, amount: str) -> None:
    """UserError where the race can't be run or recorded.

    `amount` is the flag of a round's length, 0 for all there is.
    """
    # The parent and every worker check this, before anything slow is done.
    for name, least in ("rounds", 1), ("course_rounds", 1), (amount, 0):
        if getattr(mine, name) < least:
            raise UserError(f"--{name} {getattr(mine, name)}: expected at least {least}")
    common.check_place(mine.record)


class Worker:
    """A side in a process of its own, as its user would run it, that works only when told to."""

    def __init__(self, script: str, side: str, argv: list[str]):
        # The same command line, so that the worker sees the same data and options.
        self.side = side
        command = [sys.executable, script, *argv, "--worker", side]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

        # Wait until it is warmed up: workers get ready one by one, not in each other's way.
        self.read("ready")

    def read(self, word: str) -> float:
        """The number that the worker prints behind a word."""
        # Lines of anything else that the worker prints are passed over.
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(word + " "):
                return float(line.split()[1])
        raise RuntimeError(f"{self.side}: the worker ended without a word of {word}")

    def tell(self, order: str, word: str) -> float:
        """Give the worker an order, and wait for its answer."""
        assert self.process.stdin
        print(order, file=self.process.stdin, flush=True)
        return self.read(word)


def serve(side: str, prepare: Callable[[], Callable[[], Any]], device: torch.device) -> None:
    """What a worker does: time the work that prepare() returns, warmed up, at every "go".

    Any other order prints the peak memory and ends it.
    """
    # This is a setting of the process, hence made before the first large allocation.
    if side in KEEPERS:
        keep_freed_memory()
    work = prepare()
    print("ready 0", flush=True)
    while sys.stdin.readline().strip() == "go":
        print(f"seconds {timed(work, device)}", flush=True)
    print(f"peak {peak_memory(device)}", flush=True)


def race(
    script: str, argv: list[str], mine: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Every side's seconds a round, and its peak memory in MiB."""
    # Ours comes first, and once, even where --sides names it.
    names = list(dict.fromkeys(["ours", *mine.sides]))
    workers = {name: Worker(script, name, argv) for name in names}

    # The course-style loop is the slowest by far: it has a number of rounds of its own.
    turns: dict[str, Callable[[], float]] = {}
    rounds = {}
    for name, worker in workers.items():
        turns[name] = partial(worker.tell, "go", "seconds")
        rounds[name] = mine.course_rounds if name == "course" else mine.rounds

    # All workers stay alive through all rounds, so caches and allocators are warm in each.
    seconds = interleaved(turns, rounds)

    # The order that is not "go" makes a worker report its memory and end.
    peaks = {name: worker.tell("end", "peak") for name, worker in workers.items()}
    return seconds, peaks


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    # Kernels run on after their launch returns; a clock read without this says nothing.
    if device.type != "cpu":
        torch.accelerator.synchronize()


def interleaved(
    sides: Mapping[str, Callable[[], float]], rounds: Mapping[str, int]
) -> dict[str, list[float]]:
    """What each side returns in each round, its seconds; they run A B C A B C ...

    A side with fewer rounds drops out.
    """
    # In turn, so that a machine that slows down or warms up does so for all sides alike.
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(max(rounds.values())):
        for name, side in sides.items():
            if number < rounds[name]:
                took = side()
                seconds[name].append(took)
                print(f"round {number + 1}  {name:<28} {took:8.2f} s", flush=True)
    return seconds


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that `work` takes, the device's part too."""
    # Work left over from before must not count, and this work's own must.
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times faster `fast` is: the median of the ratios within each round that both ran."""
    # Within a round both met the same machine; rounds that only one ran drop out.
    both = zip(seconds[slow], seconds[fast], strict=False)
    return statistics.median(a / b for a, b in both)


def summarise(
    seconds: dict[str, list[float]],
    tokens: int,
    examples: int,
    peaks: dict[str, float],
    titles: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """What was measured of each side, "ours" first."""
    rows = {}
    for name, times in seconds.items():
        # The median leaves out a round that something else on the machine disturbed.
        typical = statistics.median(times)
        rows[name] = {
            "title": titles[name],
            "tokens_per_s": tokens / typical,
            "examples_per_s": examples / typical,
            "ours_faster": ratio(seconds, name, "ours"),
            "peak_mib": peaks[name],
            "seconds": [round(x, 3) for x in times],
        }
    return rows


def report(record: dict[str, Any], what: str, path: str | None) -> None:
    """Print the table, of what was timed, and write the record; without a path print it."""
    print(f"\n{record['device']}; {record['model']}; {what}\n\n{speed_table(record['sides'])}")

    # Folders are made here, as late as that: check_place() has seen that they can be.
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(path), record)
    else:
        print(json.dumps(record))
