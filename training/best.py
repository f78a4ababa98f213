"""The best model of a run: best/, with the predictions of dev that it was chosen by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Split
from multitask_bert import MultitaskBERT
from storage.files import LARGEST_TEXT, read_bytes, write_bytes
from text.prediction_files import prediction_file, write_predictions
from training.checkpoint import replace_folder
from training.model_card import write_card


def save_best(
    best: Path,
    model: MultitaskBERT,
    facts: dict[str, Any],
    found: dict[str, Any],
    dev: Mapping[str, Split],
    predictions: Mapping[str, Sequence[Any]],
) -> None:
    """Replace best/ by a model and what it predicts of dev, {task: predictions}.

    `facts` is what run.json holds, `found` the evaluation as progress.json has it.
    """

    def write(new: Path) -> None:
        for task, own in predictions.items():
            if model.tasks[task].header:
                path = new / prediction_file(task, "dev")
                write_predictions(path, task, dev[task].ids, own)
        model.save(new)  # last: its manifest holds all files that are there
        write_card(new, model.options, facts, found)

    replace_folder(best, write)


def merge_best(
    best: Path, model: MultitaskBERT, facts: dict[str, Any], found: dict[str, Any]
) -> None:
    """Fold the adapters of the best model, loaded as `model`, into its weights.

    The predictions of dev stay those that it was chosen by. `facts`, `found`: as for save_best().
    """

    def write(new: Path) -> None:
        for path in best.glob(prediction_file("*", "dev")):
            write_bytes(new / path.name, read_bytes(path, LARGEST_TEXT))
        model.save(new)  # last, as above
        write_card(new, model.options, facts, found)

    model.merge()
    replace_folder(best, write)
