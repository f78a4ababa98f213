"""A task's dev examples, and what a run's best model made of them.

The examples come from the data file that the run read, if that is still as it was: run.json has its
SHA-256. The predictions stand beside the best model.
"""

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from errors import UserError
from examples import Example
from reporting.runs import ShownRun
from storage.files import LARGEST_TEXT, read_text, sha256_of
from tasks import Labels, Task
from text.data_files import BUILT_IN, find_files
from text.prediction_files import prediction_file, probabilities_file
from text.reading import read_file

PROBABILITY = Labels(0, 1, whole=False)


@dataclass
class Dev:
    """The dev set of a task; what of it can't be had is empty, and a note says why."""

    task: Task
    examples: list[Example] = field(default_factory=list)
    predictions: np.ndarray | None = None  # [examples]
    probabilities: np.ndarray | None = None  # [examples, classes]
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> np.ndarray:
        """[examples], the right ones."""
        return np.array([example.label for example in self.examples])

    @property
    def classes(self) -> int:
        """How many classes there are; 0 where labels are any number of a range."""
        labels = self.task.labels
        return round(labels.high - labels.low) + 1 if labels.whole else 0


def read_dev(row: ShownRun, name: str) -> Dev:
    """What is known of a task's dev set in a run."""
    task = row.tasks[name]
    dev = Dev(task)
    if not isinstance(task.labels, Labels):
        dev.notes.append("its examples have more than one label each, which is not shown here")
        return dev
    try:
        dev.examples = read_gold(row, name, task)
        read_found(row, name, dev)
    except UserError as error:
        dev.notes.append(str(error))
    return dev


def read_gold(row: ShownRun, name: str, task: Task) -> list[Example]:
    """The dev examples that a run was scored on; UserError where they are not there any more."""
    kept = row.identity.data.get(f"{name}_dev")
    if kept is None:
        raise UserError(f"{row.folder / 'run.json'}: no file {name}_dev in it; damaged?")

    # Where the file may stand by now: as the run named it, as the built-in one if it was that, or
    # as the run's options find it from here.
    places = [Path(kept.path)]
    if row.facts.built_in_corpus:
        places.append(BUILT_IN / Path(kept.path).name)
    with contextlib.suppress(UserError):
        found, _ = find_files(row.options, ("dev",), optional=("dev",))
        places += [path for place, path in found.items() if place == (name, "dev")]

    # Any of them will do that holds the same bytes. The run printed what there is to say of the
    # file, as that some rows have no label: here read_file() is to be silent.
    there = [path for path in places if path.is_file()]
    for path in there:
        if sha256_of(path) == kept.sha256:
            with contextlib.redirect_stdout(io.StringIO()):
                return read_file(path, task, "dev", row.options.limit).examples
    reason = "changed since the run" if there else "not there any more"
    raise UserError(f"{kept.path}: {reason}, so what needs its texts or labels is left out")


def read_found(row: ShownRun, name: str, dev: Dev) -> None:
    """Add a run's predictions, and their probabilities where the task has some."""
    best = row.folder / "best"
    path = best / prediction_file(name, "dev")
    if not path.exists():
        dev.notes.append("no dev predictions yet: they come with the first evaluation")
        return
    ids = [example.id for example in dev.examples]
    dev.predictions = read_numbers(path, ids, 1, dev.task.labels)[:, 0]

    # The probabilities of all classes, or of the second of two.
    path = best / probabilities_file(name, "dev")
    if not dev.classes:
        return
    if not path.exists():
        dev.notes.append(
            f"no {path.name} beside its best model, so it is not known how sure its mistakes were"
        )
        return
    found = read_numbers(path, ids, dev.task.columns_of_probabilities, PROBABILITY)
    dev.probabilities = found if found.shape[1] > 1 else np.hstack([1 - found, found])


def read_numbers(path: Path, ids: list[str], columns: int, legal: Labels) -> np.ndarray:
    """The numbers behind the ids of a file of predictions or probabilities, [examples, columns].

    UserError, which names the line, where it has other ids than these, or what is not legal.
    """
    _, *lines = read_text(path, LARGEST_TEXT).rstrip("\n").split("\n")
    if len(lines) != len(ids):
        raise UserError(f"{path}: {len(lines)} rows, expected {len(ids)} as in the dev file")
    numbers = np.empty((len(ids), columns))
    for row, (line, identity) in enumerate(zip(lines, ids, strict=True)):
        where = f"{path}:{row + 2}"
        first, *cells = [cell.strip() for cell in line.split(",")]
        if first != identity or len(cells) != columns:
            raise UserError(f"{where}: expected id {identity} and {columns} numbers; damaged?")
        try:
            numbers[row] = [legal.parse(cell) for cell in cells]
        except ValueError as error:
            raise UserError(f"{where}: {error}; damaged?") from None
    return numbers
