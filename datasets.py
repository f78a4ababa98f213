"""The data: files read and tokenised, endless shuffled batches of them.

Which files, is data_files.py's to say; rows are read by examples.py, token ids made in
token_ids.py. The course's own classes and functions, which its scripts import from here, are in
course/datasets.py.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from course.datasets import (  # noqa: F401  (the course's scripts import these from here)
    SentenceClassificationDataset,
    SentenceClassificationTestDataset,
    SentencePairDataset,
    SentencePairTestDataset,
    load_multitask_data,
    load_multitask_test_data,
    preprocess_string,
)
from errors import UserError, one_line
from examples import Example, read_examples
from options import Options
from packing import Batch, Tokens
from storage.files import sha256_of
from tasks import Task
from text.features import encoded_texts
from text.leaks import shared
from tokenizer import BertTokenizer

CACHE = Path(".cache")  # of token ids

# This file hides Hugging Face's package of its name from scripts in this folder. These are theirs.
HUGGING_FACE = (
    *("load_dataset", "load_from_disk", "concatenate_datasets", "interleave_datasets"),
    *("Dataset", "DatasetDict", "IterableDataset", "Features", "Value", "ClassLabel"),
)

if not TYPE_CHECKING:  # for mypy every name would be in here

    def __getattr__(name: str) -> Any:
        """Called for what is not in here; ImportError, which says why, for Hugging Face's names."""
        if name in HUGGING_FACE:
            raise ImportError(
                f"{name} is in Hugging Face's datasets, which {__file__} hides: put your script or "
                "notebook in another folder, or run it with python -P"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def seeds(task: Task, seed: int) -> list[int]:
    """The seeds of what is random in a task's data, another for each task."""
    # Python's own hash of a string differs from process to process; sha256 does not.
    name = hashlib.sha256(task.name.encode()).digest()
    return [seed, int.from_bytes(name[:4], "big")]


@dataclass
class Split:
    """The examples of one task and split, tokenised, with an endless reader over them.

    `drawn` counts the examples given out so far. It is all the state there is: pass k over the data
    is a permutation seeded by (seed, task, k).
    """

    # What is read; it stays as it is.
    task: Task
    examples: list[Example]
    tokens: Sequence[Tokens]  # of all sequences, example after example
    bounds: Sequence[int]  # example i has the sequences bounds[i] to bounds[i + 1]
    seed: int = 0
    drawn: int = 0
    sha256: str = ""  # of the file that it was read from
    in_train: int = 0  # examples of another split that stand in train too
    _order: dict[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def ids(self) -> list[str]:
        """Of all examples, in file order."""
        return [example.id for example in self.examples]

    def first(self, count: int) -> "Split":
        """A reader of its own over the first `count` examples, or all where there are fewer."""
        bounds = self.bounds[: min(count, len(self)) + 1]
        return Split(self.task, self.examples[:count], self.tokens, bounds, self.seed)

    def sequences(self, index: int) -> Sequence[Tokens]:
        """The sequences of one example."""
        return self.tokens[self.bounds[index] : self.bounds[index + 1]]

    def length(self, index: int) -> int:
        """The tokens of one example, all of its sequences together."""
        return sum(len(tokens) for tokens in self.sequences(index))

    def count_tokens(self) -> int:
        """The tokens of all examples together."""
        return sum(self.length(index) for index in range(len(self)))

    def batch(self, indices: list[int]) -> Batch:
        """The examples with these indices, in this order."""
        # An example may have several sequences; `owners` says whose each is, by place in the batch.
        # Labels of tokens are as long as the example's first sequence, so its length goes along.
        tokens: list[Tokens] = []
        owners: list[int] = []
        lengths: list[int] = []
        for place, index in enumerate(indices):
            own = self.sequences(index)
            tokens += own
            owners += [place] * len(own)
            lengths.append(len(own[0]))

        labels = [self.examples[index].label for index in indices]
        values = self.task.labels.tensor(labels, lengths)
        batch = Batch(self.task.name, tokens, torch.tensor(owners), values)

        # A task may rework its batches.
        return self.task.change(batch) if self.task.change else batch

    def permutation(self, turn: int) -> np.ndarray:
        """The order of one pass over the data; the last one asked for is kept."""
        if turn not in self._order:
            draws = np.random.default_rng([*seeds(self.task, self.seed), turn])
            self._order = {turn: draws.permutation(len(self))}
        return self._order[turn]

    def draw(self, count: int) -> list[int]:
        """The indices of the next `count` examples; every pass over the data is shuffled anew."""
        # A draw may cross the end of a pass; each position knows its pass and its place in it.
        indices = []
        for position in range(self.drawn, self.drawn + count):
            turn, place = divmod(position, len(self))
            indices.append(int(self.permutation(turn)[place]))
        self.drawn += count
        return indices

    def by_length(self, tokens: int) -> list[list[int]]:
        """All indices, the longest first, in lists of at most `tokens` tokens (or one example)."""
        # The longest first: a batch that does not fit in memory fails at once, not at the end.
        sizes = [self.length(index) for index in range(len(self))]
        lists: list[list[int]] = []
        room = 0
        for index in sorted(range(len(self)), key=lambda index: -sizes[index]):
            if sizes[index] > room or not lists:
                lists.append([])
                room = tokens
            lists[-1].append(index)
            room -= sizes[index]
        return lists


Data = dict[str, dict[str, Split]]  # split -> task -> examples


def count_tokens(splits: Iterable[Split]) -> int:
    """The tokens of several splits together."""
    return sum(split.count_tokens() for split in splits)


def make_split(
    task: Task, examples: list[Example], encoded: Sequence[Tokens], options: Options
) -> Split:
    """A reader of examples whose sequences are `encoded`, one or two an example."""
    # Bi-encoded pairs have two sequences an example, all others one.
    each = 2 if task.is_bi(options) else 1
    bounds = range(0, each * len(examples) + 1, each)
    return Split(task, examples, encoded, bounds, options.seed)


def texts_to_encode(
    task: Task, texts: list[tuple[str, ...]], options: Options
) -> list[tuple[str, ...]]:
    """What the tokenizer gets: a text an example, or each sentence of a pair on its own."""
    if not task.is_bi(options):
        return texts
    return [(sentence,) for text in texts for sentence in text]


def split_of_texts(
    task: Task, texts: list[tuple[str, ...]], options: Options, tokenizer: BertTokenizer
) -> Split:
    """A reader of texts that come from no file, and have no labels."""
    examples = [Example("", text, None) for text in texts]
    to_encode = texts_to_encode(task, texts, options)
    return make_split(task, examples, encoded_texts(to_encode, tokenizer, options), options)


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


def encode_file(file: DataFile, task: Task, options: Options, tokenizer: BertTokenizer) -> Split:
    """Tokenise what was read."""
    # Token ids depend on how pairs are encoded, so the cache is asked for the texts as encoded.
    texts = texts_to_encode(task, [example.texts for example in file.examples], options)
    encoded = encoded_texts(texts, tokenizer, options, CACHE)
    split = make_split(task, file.examples, encoded, options)
    return replace(split, sha256=file.sha256, in_train=file.in_train)


def load_split(
    path: Path, task: Task, split: str, options: Options, tokenizer: BertTokenizer
) -> Split:
    """Read and tokenise one file, up to --limit; `split` as for read_examples."""
    return encode_file(read_file(path, task, split, options.limit), task, options, tokenizer)


def read_task(paths: Mapping[str, Path], task: Task, options: Options) -> dict[str, DataFile]:
    """Read a task's files, {split: path}, and say what train shares with the others.

    With `drop_leaks` that is left out of train; of the rest `train_fraction` is kept.
    """
    files = {split: read_file(path, task, split, options.limit) for split, path in paths.items()}
    say_same_files(task, files)
    if "train" in files:
        files = checked_for_leaks(task, files, options.drop_leaks)
        if options.train_fraction < 1:
            files["train"] = share_of(files["train"], task, options)
    return files


def load_task(
    paths: Mapping[str, Path], task: Task, options: Options, tokenizer: BertTokenizer
) -> dict[str, Split]:
    """Read and tokenise a task's files; see read_task()."""
    files = read_task(paths, task, options)
    return {split: encode_file(file, task, options, tokenizer) for split, file in files.items()}


def say_same_files(task: Task, files: Mapping[str, DataFile]) -> None:
    """Say it loudly where a file stands for two splits."""
    for (first, one), (second, other) in itertools.combinations(files.items(), 2):
        if one.sha256 == other.sha256:
            line, place = "=" * 80, one_line(str(other.path))
            print(
                f"{line}\n{task.name}: {first} and {second} are THE SAME FILE ({place}).\n"
                f"Its scores on {second} say nothing.\n{line}"
            )


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
