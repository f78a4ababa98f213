"""No fault of the disk, no kill, no second process and no damaged file loses a run, changes its
result or ends in a traceback.

Each sweep is a process of its own, since its children are forked: `python -m tests.faults`. Here it
takes a sample; `--all` takes every case.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import faults, faults_bench, faults_child
from tests.faults_child import ROOT, Ending, Operations


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kills", "extended", "two", "runs", "vouched", "models"])
def test_sweep(name: str) -> None:
    line = [sys.executable, "-m", "tests.faults", "--only", name, "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 bad" in done.stdout


# ---- the sweeps can fail


@pytest.mark.parametrize(
    ("ending", "expected", "problem"),
    [
        (Ending(0, "a warning\n"), (0,), ""),
        (Ending(2, "a warning\nerror: x: expected y\n"), (0, 2), ""),
        (Ending(-9, ""), (-9,), ""),
        (Ending(0, ""), (2,), "exit status 0, expected (2,)"),
        (Ending(2, ""), (0, 2), "exit status 2 without an error"),
        (Ending(2, "error: a\nerror: b\n"), (2,), "more than one line"),
        (Ending(2, f"error: {'x' * 400}\n"), (2,), "a line of 407 characters"),
        (Ending(-14, ""), (0,), "no end within"),
        (Ending(0, "Exception ignored in: <x>"), (0,), "traceback"),
        (
            Ending(1, f'Traceback ...\n  File "{ROOT}/bert.py", line 7, in f\nKeyError: 3\n'),
            (1,),
            "traceback bert.py:7 KeyError: 3",
        ),
    ],
)
def test_what_is_wrong_with_an_ending(ending: Ending, expected: tuple, problem: str) -> None:
    found = ending.problem(*expected)
    assert found.startswith(problem) and bool(found) == bool(problem)


def write_a_file() -> None:
    """Six operations: open, write, close and flush in it, replace, unlink."""
    with open("x.new", "w") as file:
        file.write("0123456789")
    os.replace("x.new", "x")
    os.unlink("x")


def faulted(tmp_path: Path, number: int, kind: str, work: Callable[[], object]) -> Ending:
    def both() -> None:
        Operations(number, kind).install()
        work()

    return faults_child.run(both, tmp_path)


@pytest.mark.parametrize(
    ("number", "kind", "code", "left"),
    [
        (1, "kill before", -9, {}),
        (1, "kill after", -9, {"x.new": ""}),
        (2, "torn", -9, {"x.new": "01234"}),
        (2, "EIO", 1, {"x.new": ""}),
        (2, "full", 1, {"x.new": ""}),
        (5, "kill before", -9, {"x.new": "0123456789"}),
        (5, "kill after", -9, {"x": "0123456789"}),
        (6, "ENOSPC", 1, {"x": "0123456789"}),
        (6, "interrupt after", 1, {}),
        (7, "kill before", 0, {}),
    ],
)
def test_a_fault_strikes_where_it_should(
    tmp_path: Path, number: int, kind: str, code: int, left: dict[str, str]
) -> None:
    assert faulted(tmp_path, number, kind, write_a_file).code == code
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == left


def test_a_child_that_waits_for_ever_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults_child, "TIME_LIMIT", 1)
    assert faults_child.run(signal.pause, tmp_path).problem(0) == "no end within 1 s"


def test_a_sweep_counts(capsys: pytest.CaptureFixture) -> None:
    cases = [
        ("one", lambda: []),
        ("two", lambda: ["differs: x"]),
        ("three", lambda: ["differs: x"]),
    ]
    assert faults.sweep("planted", cases, False) == 2
    assert "planted: 3 cases, 2 bad" in capsys.readouterr().out


def test_what_is_left_over(tmp_path: Path) -> None:
    for name in ("last", "lock", "last.new"):
        (tmp_path / "runs" / "2026-01-01-x" / name).mkdir(parents=True)
    found = faults_bench.paths_below(tmp_path)
    assert found == {
        f"runs{x}" for x in ("", "/RUN", *map("/RUN/".__add__, ("last", "lock", "last.new")))
    }
    assert [path for path in sorted(found) if faults_bench.is_kept(path)] == ["runs/RUN/lock"]
