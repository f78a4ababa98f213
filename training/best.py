"""The best model of a run: best/, with what it says of dev, by which it was chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation import Evaluation
from multitask_bert import MultitaskBERT
from storage.files import LARGEST_TEXT, read_bytes, write_bytes
from tasks import TASKS
from text.prediction_files import (
    prediction_file,
    probabilities_file,
    write_predictions,
    write_probabilities,
)
from training.checkpoint import replace_folder
from training.model_card import write_card


def write_dev(folder: Path, ids: Mapping[str, list[str]], found: Evaluation) -> None:
    """Write the predictions of dev, and the probabilities behind them, of tasks that have files.

    `ids`: task -> those of its dev examples.
    """
    for task, predictions in found.predictions.items():
        if not TASKS[task].header:
            continue
        write_predictions(folder / prediction_file(task, "dev"), task, ids[task], predictions)
        if task in found.probabilities:
            path = folder / probabilities_file(task, "dev")
            write_probabilities(path, ids[task], found.probabilities[task])


def save_best(
    best: Path,
    model: MultitaskBERT,
    facts: dict[str, Any],
    record: dict[str, Any],
    ids: Mapping[str, list[str]],
    found: Evaluation,
) -> None:
    """Replace best/ by a model and what it says of dev.

    `facts` is what run.json holds, `record` the evaluation as progress.json has it, `ids` as for
    write_dev().
    """

    def write(new: Path) -> None:
        write_dev(new, ids, found)
        model.save(new)  # last: its manifest holds all files that are there
        write_card(new, model.options, facts, record)

    replace_folder(best, write)


def merge_best(
    best: Path, model: MultitaskBERT, facts: dict[str, Any], record: dict[str, Any]
) -> None:
    """Fold the adapters of the best model, loaded as `model`, into its weights.

    What it says of dev stays that by which it was chosen. `facts`, `record`: as for save_best().
    """

    def write(new: Path) -> None:
        for name in (prediction_file("*", "dev"), probabilities_file("*", "dev")):
            for path in best.glob(name):
                write_bytes(new / path.name, read_bytes(path, LARGEST_TEXT))
        model.save(new)  # last, as above
        write_card(new, model.options, facts, record)

    model.merge()
    replace_folder(best, write)
