"""Where the predictions of a run go: into its own folder, and from there a copy to the user's."""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from datasets import Data, Split
from errors import UserError, listed
from evaluation import predict
from multitask_bert import MultitaskBERT
from options import Options
from pretrained import TOKENIZER_FILES, find_pretrained
from storage.files import (
    LARGEST_TEXT,
    check_replaceable,
    clear_unfinished,
    open_regular,
    read_bytes,
    write_bytes,
    write_together,
)
from storage.json_files import read_json
from tasks import LEADERBOARD, TASKS, tasks_of
from text.data_files import SPLITS, data_folder, find_files, splits_of
from text.prediction_files import is_ours, prediction_file, write_predictions
from training.console import Console
from training.environment import check_writable, display_path
from training.manifest import NAME as MANIFEST

# Where one of these stands, a run or a model was saved.
SIGNS = ["run.json", MANIFEST]
MODEL_FILES = ["config.json", "model.safetensors", "pytorch_model.bin", *TOKENIZER_FILES]


class Output(NamedTuple):
    """A prediction file."""

    task: str
    split: str  # "dev" or "test"
    name: str  # in the folder `predictions` of the run's own
    copy: Path  # where --predictions or --sst_dev_out and so on want it


def output_path(options: Options, task: str, split: str) -> Path:
    """Where the predictions of a task and split go."""
    given = options.file(f"{task}_{split}_out")
    if given:
        return Path(given)
    return Path(options.predictions.format(task=task, split=split))


def outputs_of(options: Options) -> list[Output]:
    """The prediction files of a run; tasks without a header have none."""
    names = [name for name, task in tasks_of(options).items() if task.header]
    splits = [split for split in splits_of(options) if split != "train"]
    return [
        Output(name, split, prediction_file(name, split), output_path(options, name, split))
        for split in splits
        for name in names
    ]


# ---- before a run


def identity(path: Path) -> object:
    """Equal for two paths of one file, through links (hard ones too) and whether it exists yet."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except OSError:
        return os.path.realpath(path)


def inputs_of(options: Options) -> list[Path]:
    """The files that a run reads, those of other tasks in its data folder, and its weights."""
    paths, _ = find_files(options)
    return [*paths.values(), *kept_files(options)]


def kept_files(options: Options) -> list[Path]:
    """All tasks' files in a run's data folder, there or not, and its pretrained weights."""
    files = []
    for task in TASKS.values():
        files += [data_folder(options) / task.files.format(word) for word in SPLITS.values()]
    with contextlib.suppress(UserError):  # building the model will say it
        folder = find_pretrained(options.model, local_only=True)
        files += [folder / name for name in MODEL_FILES]
    return files


def check_outputs(*runs: Options) -> None:
    """UserError where predictions can't be written, or would replace what these runs need.

    That is what they read, another one's predictions, and whatever a run's folder holds. Else
    the folders are there, cleared of what killed runs left.
    """
    outputs = [output.copy for options in runs for output in outputs_of(options)]
    check_places(outputs, [path for options in runs for path in inputs_of(options)])


def check_places(outputs: list[Path], inputs: list[Path]) -> None:
    """UserError where these outputs can't be written, or would replace what must stay.

    Else their folders are there, cleared of what killed runs left.
    """
    # What is there already is looked at before anything is made.
    for path in outputs:
        check_replaceable(path)
    check_apart(outputs, inputs)
    check_outside(outputs)
    for path in outputs:
        check_predictions(path)

    # Once the folders are made, one of them may stand where another prediction file should.
    folders = folders_of(outputs)
    for folder in folders:
        check_writable(folder)
    for path in outputs:
        check_replaceable(path)
    for folder in folders:
        clear_unfinished(folder)


def check_apart(outputs: list[Path], inputs: list[Path]) -> None:
    """UserError where two outputs, or an output and an input, are one file."""
    read = {identity(path): path for path in inputs}
    written: dict[object, Path] = {}
    for path in outputs:
        own = identity(path)
        if own in read:
            raise UserError(
                f"{path}: predictions would replace {read[own]}, which is data or weights; "
                "name another file"
            )
        if own in written:
            raise UserError(
                f"{written[own]} and {path}: two prediction files would be one; "
                "put {task} and {split} into --predictions"
            )
        written[own] = path


def check_predictions(path: Path) -> None:
    """UserError where a file stands at an output's place that is no prediction file.

    It is the user's then: an @file, a thesis.
    """
    if not os.path.exists(path):
        return
    with open_regular(path) as file:
        first = file.readline(200)
    if first.strip() and not is_ours(first):
        raise UserError(
            f"{path}: is there, but is no prediction file, so it is not replaced; "
            "name another file, or delete it"
        )


def check_outside(outputs: list[Path]) -> None:
    """UserError where an output lies in the folder of a run, this one or another, or of a model."""
    for path in outputs:
        for folder in Path(os.path.realpath(path)).parents:
            if any((folder / name).exists() for name in SIGNS):
                raise UserError(
                    f"{path}: lies in {display_path(folder)}, the folder of a run or a model; "
                    "name another file"
                )


def has_finished(folder: Path, epochs: int) -> bool:
    """Whether a run of so many epochs came to its end: then run.json has its results."""
    facts = read_json(folder / "run.json")
    return isinstance(facts, dict) and "best" in facts and facts.get("epochs") == epochs


# ---- after it


def write_outputs(
    folder: Path,
    options: Options,
    model: MultitaskBERT,
    data: Data,
    console: Console,
) -> Path:
    """Put all prediction files into a run's folder, and copy them to the user's places.

    Returns the folder in the run's.
    """
    own = folder / "predictions"
    outputs = outputs_of(options)
    for split in ("dev", "test"):
        # What stands beside the best model was predicted when that was found.
        to_predict = []
        for output in outputs:
            ready = folder / "best" / output.name
            if output.split == split and ready.exists():
                write_bytes(own / output.name, read_bytes(ready, LARGEST_TEXT))
            elif output.split == split:
                to_predict.append(output)
        predict_outputs(own, to_predict, model, data.get(split, {}), console)
    return hand_out(folder, options)


def hand_out(folder: Path, options: Options) -> Path:
    """Copy the prediction files of a run's folder to the user's places.

    Returns the folder in the run's. A run that has finished before copies nothing: newer runs may
    have written there since.
    """
    own, outputs = folder / "predictions", outputs_of(options)
    place = place_of(outputs)
    if options.limit:
        print(
            f"predictions kept in {own}\n"
            "  not copied: --limit leaves most rows out, so they are incomplete"
        )
        return own
    if has_finished(folder, options.epochs):
        print("this run had ended before, so its predictions are not copied again; to do so:")
        print(f"cp {own}/* {place or 'WHERE'}")
        return own
    copy_outputs(own, outputs)
    for copy in [place] if place else [output.copy for output in outputs]:
        print(f"predictions copied to {copy}")
    if others := others_beside(options):
        print(f"  another run's stay beside them: {listed(others, 1)}")
    return own


def others_beside(options: Options) -> list[str]:
    """The names of predictions that stand beside a run's, of tasks and splits that it had not."""
    tasks = tuple(dict.fromkeys([*options.tasks, *LEADERBOARD]))
    written = {output.copy for output in outputs_of(options)}
    names = []
    for output in outputs_of(replace(options, tasks=tasks, test=True)):
        if output.copy not in written and output.copy.exists():
            names.append(output.copy.name)
    return names


def predict_outputs(
    own: Path,
    outputs: list[Output],
    model: MultitaskBERT,
    splits: Mapping[str, Split],
    console: Console,
) -> None:
    """Predict the files of one split, {task: split}, into a run's own folder."""
    if not outputs:
        return
    with console.predicting(outputs[0].split) as seen:
        for output in outputs:
            split = splits[output.task]
            predictions = predict(model, split, seen)
            write_predictions(own / output.name, output.task, split.ids, predictions)


def place_of(outputs: list[Output]) -> str:
    """The one folder, with a slash, where the copies go under the names that they have; or ""."""
    folders = {str(output.copy.parent) for output in outputs}
    renamed = any(output.copy.name != output.name for output in outputs)
    return "" if renamed or len(folders) != 1 else f"{folders.pop()}/"


def folders_of(files: Iterable[Path]) -> list[Path]:
    """The folders that files lie in, links followed, each once and in one order for all runs."""
    return sorted({Path(os.path.realpath(path)).parent for path in files})


@contextlib.contextmanager
def locked(folders: list[Path]) -> Iterator[None]:
    """Inside, no other run copies predictions into these folders, which are made.

    Some file systems, on a network, have no locks; there each file by itself is still whole.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            # What fails here fails again, with a reason, when something is written.
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)  # the lock goes with it
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def copy_outputs(own: Path, outputs: list[Output]) -> None:
    """Copy predictions from a run's folder to where the user wants them.

    Runs that end at the same time leave the files of one of them, not some of each. UserError where
    a file can't be written.
    """
    try:
        with locked(folders_of(output.copy for output in outputs)):
            write_together(
                {output.copy: read_bytes(own / output.name, LARGEST_TEXT) for output in outputs}
            )
    except UserError as error:
        raise UserError(f"{error}; the predictions are in {own}") from None
