"""The data: the course's tab-separated files to examples, token ids (computed once, cached), and
endless shuffled batches.

Rows are read by examples.py. The course's own classes and functions, which its scripts import from
here, are in course/datasets.py.
"""

import hashlib
import json
import math
import os
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from course.datasets import (  # noqa: F401  (the course's scripts import these from here)
    SentenceClassificationDataset,
    SentenceClassificationTestDataset,
    SentencePairDataset,
    SentencePairTestDataset,
    load_multitask_data,
    load_multitask_test_data,
    preprocess_string,
)
from errors import UserError
from examples import Example, read_examples
from options import Options
from tasks import TASKS
from tokenizer import BertTokenizer

BUILT_IN = Path(__file__).parent / "data" / "builtin"
SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}
Sequence = tuple[np.ndarray, np.ndarray]  # token ids and token types of one sequence, unpadded


@dataclass(frozen=True)
class Batch:
    """Some examples of one task. A cross-encoded pair is one sequence, a bi-encoded one two in
    turn.
    """

    sequences: list[Sequence]
    labels: Tensor  # [B], float; NaN without labels


@dataclass
class Split:
    """The examples of one task and split, tokenised, with an endless reader over them.

    `drawn` counts the examples given out so far. It is all the state there is: pass k over the data
    is a permutation seeded by (seed, task, k).
    """

    task: str
    examples: list[Example]
    sequences: list[Sequence]
    per_example: int  # sequences an example
    seed: int = 0
    drawn: int = 0
    _order: dict[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: list[int]) -> Batch:
        """The examples with these indices, in this order."""
        k = self.per_example
        labels = [math.nan if (label := self.examples[i].label) is None else label for i in indices]
        return Batch(
            [s for i in indices for s in self.sequences[k * i : k * i + k]], torch.tensor(labels)
        )

    def draw(self, count: int) -> list[int]:
        """The indices of the next `count` examples; every pass over the data is shuffled anew."""
        indices = []
        for position in range(self.drawn, self.drawn + count):
            turn, place = divmod(position, len(self))
            if turn not in self._order:
                name = int.from_bytes(hashlib.sha256(self.task.encode()).digest()[:4], "big")
                self._order = {
                    turn: np.random.default_rng([self.seed, name, turn]).permutation(len(self))
                }
            indices.append(int(self._order[turn][place]))
        self.drawn += count
        return indices

    def take(self, count: int) -> Batch:
        """The next `count` examples."""
        return self.batch(self.draw(count))

    def by_length(self, tokens: int) -> list[list[int]]:
        """All indices, the longest first, cut into lists of at most `tokens` tokens (or one
        example).
        """
        k = self.per_example
        sizes = [
            sum(len(ids) for ids, _ in self.sequences[k * i : k * i + k]) for i in range(len(self))
        ]
        lists: list[list[int]] = []
        room = 0
        for i in sorted(range(len(self)), key=lambda i: -sizes[i]):
            if sizes[i] > room or not lists:
                lists.append([])
                room = tokens
            lists[-1].append(i)
            room -= sizes[i]
        return lists


def find_files(options: Options) -> tuple[dict[tuple[str, str], Path], bool]:
    """The file of every (task, split), and whether they are the built-in corpus.

    The default data folder may hold no task's files: then all are the built-in ones. Some present
    and some not is an error.
    """
    paths, default = {}, []
    for task in options.tasks:
        for split, suffix in SPLITS.items():
            given = getattr(options, f"{task}_{split}", None)
            paths[task, split] = Path(
                given or Path(options.data_dir) / TASKS[task].files.format(suffix)
            )
            default += [] if given else [(task, split)]
    missing = [path for path in paths.values() if not os.path.exists(path)]
    if not missing:
        return paths, False
    usual = Path(options.data_dir) == Path(Options.data_dir)
    names = [task.files.format(suffix) for task in TASKS.values() for suffix in SPLITS.values()]
    there = [name for name in names if os.path.exists(Path(options.data_dir) / name)]
    if usual and len(default) == len(paths) and not there:
        return {(t, s): BUILT_IN / TASKS[t].files.format(SPLITS[s]) for t, s in paths}, True
    absent = ", ".join(map(str, missing))
    if usual and there and len(missing) == len(paths):  # as if none were there
        absent += f" ({there[0]} is there, so the built-in corpus is not used)"
    fetch = "python data/download.py" + ("" if usual else f" --out {options.data_dir}")
    raise UserError(
        f"missing {len(missing)} of {len(paths)} data files: {absent}; fetch them: {fetch}"
    )


def tokenize(
    texts: list[tuple[str, ...]], tokenizer: BertTokenizer, max_length: int, cache: Path
) -> list[Sequence]:
    """Token ids and types of sentences or pairs, from the cache where the same were tokenised
    before.
    """
    key = json.dumps(
        [tokenizer.backend.to_str(), max_length, texts]
    )  # quotes the texts: none runs into the next
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            ids, types, ends = stored["ids"], stored["types"], stored["ends"]
        if len(ends) != len(texts):
            raise ValueError("of other texts")
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
    ):  # not there, or torn: made anew
        sequences = tokenizer.encode_batch(texts, max_length)
        ids, types = (np.concatenate(x) for x in zip(*sequences, strict=True))
        ends = np.cumsum([len(x) for x, _ in sequences])
        ids = ids.astype(np.uint16 if ids.max() < 2**16 else np.int32)
        save_cache(path, ids=ids, types=types.astype(np.uint8), ends=ends)
    starts = np.concatenate([[0], ends[:-1]])
    return [(ids[a:b], types[a:b]) for a, b in zip(starts, ends, strict=True)]


def save_cache(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz whole or not at all; a folder that can't be written costs only the time saved
    next time.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(file.name, path)
    except OSError as error:
        print(f"{path.parent}: token ids not cached ({error.strerror})")


def load_split(
    path: Path, name: str, split: str, options: Options, tokenizer: BertTokenizer
) -> Split:
    """Read and tokenise one file."""
    examples = read_examples(path, TASKS[name], split)
    bi = TASKS[name].pair and options.pair_encoding == "bi"
    texts: list[tuple[str, ...]] = (
        [(t,) for e in examples for t in e.texts] if bi else [e.texts for e in examples]
    )
    sequences = tokenize(texts, tokenizer, options.max_length, Path(".cache"))
    return Split(name, examples, sequences, 2 if bi else 1, options.seed)
