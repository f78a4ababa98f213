"""progress.json: what can't be a run's is refused by its name."""

import json
from pathlib import Path
from typing import Any

import pytest

from errors import UserError
from training.progress import Progress, read_progress

TASKS = ("sst", "sts")
GOOD: dict[str, Any] = {
    "run": "ab",
    "step": 4,
    "total": 6,
    "seconds": 1.5,
    "stale": 0,
    "best": {"epoch": 1, "step": 3, "overall": 0.5, "scores": {"sst": 0.4, "sts": 0.6}},
    "history": [[3, 0.5]],
    "drawn": {"sst": 12, "sts": 8},
    "sums": {"loss": 1.25},
    "counts": {"loss": 1},
}


def read(folder: Path, values: Any) -> Progress:
    """Progress from a file that holds these values."""
    (folder / "progress.json").write_text(json.dumps(values))
    return read_progress(folder / "progress.json", "ab", 6, TASKS)


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    held = read(tmp_path, GOOD)
    assert held.history == [(3, 0.5)] and read(tmp_path, held.to_dict()) == held
    assert read(tmp_path, {"run": "ab"}) == Progress(run="ab")


BAD: dict[str, Any] = {
    "progress.json is \\[\\], expected an object": [],
    "unknown here": {**GOOD, "stpe": 1},
    "of another run": {**GOOD, "run": "cd"},
    "step is 10+.*, expected 0": {**GOOD, "step": 10**400},
    "step is -1": {**GOOD, "step": -1},
    "step is true": {**GOOD, "step": True},
    "step is 4.0": {**GOOD, "step": 4.0},
    "step 7 of 6, beyond 6": {**GOOD, "step": 7},
    "step 4 of 7, beyond 6": {**GOOD, "total": 7},
    "step 4 of 3, beyond 6": {**GOOD, "total": 3},
    "step 4 with later ones": {**GOOD, "warmed_from": 5},
    "step 2 with later ones": {**GOOD, "step": 2},
    "seconds is NaN": {**GOOD, "seconds": float("nan")},
    "history\\[0\\] is": {**GOOD, "history": [[1]]},
    "sums.loss is .many.": {**GOOD, "sums": {"loss": "many"}},
    "sums of loss, counts of ": {**GOOD, "counts": {}},
    "counts.loss is 0": {**GOOD, "counts": {"loss": 0}},
    "drawn from sst, expected sst, sts": {**GOOD, "drawn": {"sst": 12}},
    "drawn.sst is -1": {**GOOD, "drawn": {"sst": -1, "sts": 8}},
    "best: no epoch": {**GOOD, "best": {"step": 3}},
    "best is not one of this run's": {**GOOD, "best": {**GOOD["best"], "scores": {"qqp": 1}}},
    "best is not one .*": {**GOOD, "best": {**GOOD["best"], "step": 5}},
}


@pytest.mark.parametrize("message", BAD)
def test_what_no_run_wrote_is_refused(tmp_path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, BAD[message])
