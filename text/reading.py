"""A task's files, read: the examples of each, what train shares with the others, less of it.

Which files, is data_files.py's to say; rows are read by examples.py.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError
from examples import Example, read_examples
from options import Options
from storage.files import sha256_of
from tasks import Task
from text.leaks import say_same_files, shared


def seeds(task: Task, seed: int) -> list[int]:
    """The seeds of what is random in a task's data, another for each task."""
    # Python's own hash of a string differs from process to process; sha256 does not.
    name = hashlib.sha256(task.name.encode()).digest()
    return [seed, int.from_bytes(name[:4], "big")]


@dataclass(frozen=True)
class DataFile:
    """A file as it was read."""

    path: Path
    sha256: str  # of the bytes that were read
    examples: list[Example]
    in_train: int = 0  # examples of another split that stand in train too

    @property
    def ids(self) -> list[str]:
        """Of all examples, in file order."""
        return [example.id for example in self.examples]

    def facts(self) -> dict[str, Any]:
        """What run.json holds of it."""
        return {"sha256": self.sha256, "examples": len(self.examples), "in_train": self.in_train}


def read_file(path: Path, task: Task, split: str, limit: int = 0) -> DataFile:
    """Read one file, and keep the first `limit` examples of it, 0: all.

    UserError names the line where something is wrong, in all of the file.
    """
    # A task may bring a reader of its own, for files in another format.
    if task.read:
        examples = task.read(path, task, split)
        sha256 = sha256_of(path)
    else:
        digest = hashlib.sha256()
        examples = read_examples(path, task, split, digest)
        sha256 = digest.hexdigest()
    return DataFile(path, sha256, examples[:limit] if limit else examples)


def read_task(paths: Mapping[str, Path], task: Task, options: Options) -> dict[str, DataFile]:
    """Read a task's files, {split: path}, and say what train shares with the others.

    With `drop_leaks` that is left out of train; of the rest `train_fraction` is kept.
    """
    files = {split: read_file(path, task, split, options.limit) for split, path in paths.items()}
    say_same_files(task.name, {s: (file.path, file.sha256) for s, file in files.items()})
    if "train" in files:
        files = checked_for_leaks(task, files, options.drop_leaks)
        if options.train_fraction < 1:
            files["train"] = share_of(files["train"], task, options)
    return files


def checked_for_leaks(task: Task, files: Mapping[str, DataFile], drop: bool) -> dict[str, DataFile]:
    """The files, each with how much of it stands in train too; a line says so where any does.

    If `drop`, train comes without that; UserError where nothing is left.
    """
    train = files["train"]
    others = {split: file.examples for split, file in files.items() if split != "train"}
    counts, places = shared(train.examples, others)
    counted = {split: replace(file, in_train=counts.get(split, 0)) for split, file in files.items()}
    if not places:
        return counted
    found = " and ".join(f"{n} of {len(others[split])} {split}" for split, n in counts.items())
    line = f"{task.name}: {found} examples stand in train too"
    if not drop:
        print(f"{line}; --drop_leaks leaves them out of train")
        return counted

    print(f"{line}; left out {len(places)} of {len(train.examples)} from train")
    kept = [example for place, example in enumerate(train.examples) if place not in places]
    if not kept:
        raise UserError(
            f"--drop_leaks leaves nothing of {train.path}: all of it stands in dev or test too"
        )
    return {**counted, "train": replace(train, examples=kept)}


def share_of(train: DataFile, task: Task, options: Options) -> DataFile:
    """A random --train_fraction of train, one example at least, in the order of the file.

    The same seed draws the same; a smaller share is part of a larger one.
    """
    every = len(train.examples)
    count = max(1, round(options.train_fraction * every))
    # The last seed keeps these draws apart from the shuffles of all passes.
    order = np.random.default_rng([*seeds(task, options.seed), 0, 1]).permutation(every)
    kept = [train.examples[place] for place in sorted(order[:count])]
    print(f"{task.name}: {count} of {every} training examples (--train_fraction)")
    return replace(train, examples=kept)
