"""How often the first call of one of MKL's functions is inexact, with and without settling it.

    python benchmarks/first_calls.py --tries 400 --record benchmarks/records/first_calls.json

Forks processes, eight at a time, each with several threads, which compute a function twice; both
must be equal to the last bit. training/repeatable.py says why they may not be, and settles it.

On processors that are not Intel's MKL takes other kernels, without this fault. A library that says
`int mkl_serv_intel_cpu_true(void) { return 1; }`, named in LD_PRELOAD, has MKL take those of Intel.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from errors import run_main  # noqa: E402
from storage.json_files import write_json  # noqa: E402
from training.environment import environment  # noqa: E402
from training.repeatable import settle_arithmetic  # noqa: E402

AT_ONCE = 8  # processes, so that they disturb one another
SIZE = 512 * 512  # elements; several threads share them


def differs(function: str, threads: int, settled: bool) -> bool:
    """Whether a function's first result differs from its second, in this fresh process."""
    torch.set_num_threads(threads)
    if settled:
        settle_arithmetic()
    x = torch.arange(1, SIZE + 1, dtype=torch.float32)
    first, second = getattr(torch, function)(x), getattr(torch, function)(x)
    return not torch.equal(first, second)


def count(function: str, threads: int, settled: bool, tries: int) -> int:
    """In how many of `tries` processes they differ."""
    found = 0
    for begin in range(0, tries, AT_ONCE):
        children = []
        for _ in range(min(AT_ONCE, tries - begin)):
            child = os.fork()
            if child == 0:
                os._exit(differs(function, threads, settled))
            children.append(child)
        for child in children:
            _, status = os.waitpid(child, 0)
            found += os.waitstatus_to_exitcode(status)
    return found


def main(argv: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tries", type=int, default=400, help="processes a row")
    parser.add_argument("--functions", nargs="+", default=["sqrt", "sin"])
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--record", help="a JSON file for the counts")
    args = parser.parse_args(argv)

    rows: list[dict[str, Any]] = []
    for function in args.functions:
        for threads in args.threads:
            row: dict[str, Any] = {"function": function, "threads": threads, "tries": args.tries}
            row["differ"] = count(function, threads, False, args.tries)
            row["differ, settled"] = count(function, threads, True, args.tries)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if args.record:
        facts = {**environment(torch.device("cpu")), "preload": os.environ.get("LD_PRELOAD", "")}
        write_json(Path(args.record), {**facts, "system": platform.platform(), "rows": rows})


if __name__ == "__main__":
    run_main(main)
