"""Prediction files, the leaderboard's byte for byte.

A header, then a line an example, in the order of the data file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from storage.files import write_text
from tasks import TASKS


def prediction_file(task: str, split: str) -> str:
    """The name of a prediction file where a run keeps it."""
    return f"{task}-{split}-output.csv"


def as_text(prediction: Any) -> str:
    """A prediction as it stands in a file: one number, or several with spaces between."""
    if isinstance(prediction, np.ndarray):
        return " ".join(str(number) for number in prediction)
    return f"{prediction}"


def write_predictions(
    path: str | Path, task: str, ids: list[str], predictions: Iterable[Any]
) -> None:
    """A prediction file, written whole or not at all; UserError where it can't be."""
    # The blanks before and behind the separators are part of the format.
    lines = [
        f"id \t {TASKS[task].header} \n",
        *(f"{i} , {as_text(p)} \n" for i, p in zip(ids, predictions, strict=True)),
    ]
    write_text(Path(path), "".join(lines))
