"""A short seeded fuzz of all that reads a file or a command line; tests/fuzz.py says more."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from tests import fuzz
from tests.faults_child import ROOT

SEED = 11711


def test_only_user_errors_come_out() -> None:
    line = [sys.executable, "tests/fuzz.py", "--cases", "1000", "--seed", str(SEED)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_follows_from_its_seed() -> None:
    text = '{"a": [1, {"b": null}], "c": "d"}'
    made = [[fuzz.mutated_json(text, random.Random(seed)) for seed in range(40)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 30


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (UserError("a\nb"), ""),
        (SystemExit(0), ""),
        (SystemExit(1), "exit status 1"),
        (ValueError("x"), "x"),
    ],
)
def test_what_is_no_user_error_is_found(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, problem: str
) -> None:
    def target(base: Path, rng: random.Random) -> None:
        raise error

    monkeypatch.setattr(fuzz, "TARGETS", {"planted": target})
    if problem:
        with pytest.raises((ValueError, AssertionError), match=problem):
            fuzz.run_case(Path(), SEED, 0)
    else:
        assert fuzz.run_case(Path(), SEED, 0) == "planted"
