"""Kills, interrupts and disk errors at every file operation of a run, and two runs on one folder.

    python -m tests.faults --all             every operation with every fault, 50 tries of two runs
    python -m tests.faults --only kills      one sweep of: kills, two, runs, vouched, models
    python -m tests.faults --seed 3          another sample

Each case is a child process (faults_child.py) in an empty folder. After a fault the run is resumed,
or begun anew where nothing was saved, and must then hold the bytes of a run that nothing disturbed:
weights, optimizer, predictions; without a file more, and without a traceback on the way. What
damaged files do say faults_runs.py and faults_models.py.
"""

import argparse
import random
import re
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

from tests import faults_models, faults_runs
from tests.faults_bench import Bench, Case, run_folders
from tests.faults_child import EXPECTED, KINDS, TORN, Operations, command, run, scratch, start

SAMPLE = 120  # operations that meet a fault in the test suite, each one

# ---- the sweep over operations


def faulted(bench: Bench, number: int, kind: str) -> list[str]:
    """The problems of one fault at one operation, and of going on after it."""
    folder = bench.folder()

    def work() -> None:
        Operations(number, kind).install()
        command(*bench.argv())()

    ending = run(work, folder)
    problems = [ending.problem(*EXPECTED[kind])]
    after = bench.resume(folder)
    problems.append(f"resumed: {problem}" if (problem := after.problem(0)) else "")
    if not problem:
        problems += bench.differences(folder) + bench.lost(folder, number)
    shutil.rmtree(folder)
    return [problem for problem in problems if problem]


def worth_a_fault(operations: list[str], every: int) -> list[int]:
    """The operations' numbers, but of many writes one after the other only one in `every`, the
    first and the last.
    """
    numbers = []
    for number in range(1, len(operations) + 1):
        inner = operations[number - 2 : number + 1] == ["file.write"] * 3
        if not inner or number % every == 0:
            numbers.append(number)
    return numbers


def fault_cases(bench: Bench, seed: int, everything: bool) -> Iterator[Case]:
    """Every operation with every fault that fits it; or a sample of both."""
    kinds = list(KINDS)
    rng = random.Random(seed)
    rng.shuffle(kinds)
    numbers = worth_a_fault(bench.operations, 5 if everything else 20)
    if not everything:
        numbers = sorted(rng.sample(numbers, min(SAMPLE, len(numbers))))
    for number in numbers:
        operation = bench.operations[number - 1]
        writes = operation.split()[0] in ("write", "file.write", "save_file")
        fitting = [kind for kind in kinds if kind != TORN or writes]
        for kind in fitting if everything else [fitting[number % len(fitting)]]:
            yield f"{kind} at {number} ({operation})", partial(faulted, bench, number, kind)


# ---- two processes on one folder


def two_at_once(bench: Bench, number: int) -> list[str]:
    """The problems of resuming a run that waits in another process, at an operation."""
    folder = bench.folder()
    here, there = socket.socketpair()

    def work() -> None:
        here.close()
        Operations(number, there).install()
        command(*bench.argv())()

    first = start(work, folder)
    there.close()
    waits = here.recv(1)
    problems = []
    if run_folders(folder):
        second = bench.resume(folder)
        problems.append(f"second: {second.problem(2)}")
        if "is running it" not in second.errors:
            problems.append(f"second: not refused ({second.last_line[:120]})")
    if waits:
        try:
            here.send(b"go on")
        except BrokenPipeError:
            problems.append("first: died while it waited")
    problem = first.wait().problem(0)
    here.close()
    problems += [f"first: {problem}"] if problem else bench.differences(folder)
    shutil.rmtree(folder)
    return [problem for problem in problems if not problem.endswith(": ")]


def two_cases(bench: Bench, seed: int, everything: bool) -> Iterator[Case]:
    """Tries at operations spread over the run, from the moment that it can be resumed."""
    first = 1 + next(
        number for number, name in enumerate(bench.operations) if name.endswith("options.json")
    )
    numbers = range(first + 1, len(bench.operations) + 1)
    for number in sorted(random.Random(seed).sample(numbers, 50 if everything else 5)):
        name = f"at {number} ({bench.operations[number - 1]})"
        yield name, partial(two_at_once, bench, number)


# ---- all of them


def kind_of(problem: str) -> str:
    """A problem without what differs from case to case: random names, a traceback's message."""
    problem = re.sub(r"(traceback \S+ [\w.]+).*", r"\1", problem)
    problem = re.sub(r"\S*(tmp|minbert-)\w+\S*(, )?", "*", problem)
    return re.sub(r"(?<!:)\b\d{3,}", "N", problem)


def sweep(title: str, cases: Iterable[Case], verbose: bool) -> int:
    """Run cases, print a line for each with a problem and a line in the end; how many had one."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for name, find in cases:
        problems = find()
        counts["cases"] += 1
        counts["bad"] += bool(problems)
        for problem in problems:
            counts[kind_of(problem)] += 1
        if problems and (verbose or counts["bad"] <= 20):
            print(f"  {title}: {name}: {'; '.join(problems)}", flush=True)
    bad = counts.pop("bad", 0)
    seconds = time.monotonic() - began
    print(f"{title}: {counts.pop('cases')} cases, {bad} bad, {seconds:.0f} s", flush=True)
    for problem, count in counts.most_common(40):
        print(f"  {count:>5}  {problem}")
    return bad


def main() -> None:
    """The command line; exit status 1 where a case went wrong."""
    sweeps = {
        "kills": fault_cases,
        "two": two_cases,
        "runs": faults_runs.run_cases,
        "vouched": faults_runs.vouched_cases,
        "models": faults_models.model_cases,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--all", action="store_true", help="every case, not a sample")
    parser.add_argument("--only", choices=list(sweeps), nargs="+", default=list(sweeps))
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--verbose", action="store_true", help="every case with a problem")
    given = parser.parse_args()
    root = scratch()
    try:
        bench = Bench(root)
        bad = 0
        for name in given.only:
            cases = sweeps[name](bench, given.seed, given.all)
            bad += sweep(name, cases, given.verbose)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(int(bad > 0))


if __name__ == "__main__":
    main()
