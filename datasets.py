"""The data: files read and tokenised, endless shuffled batches of them.

text/reading.py reads the files, text/sequences.py makes token ids. The course's own classes and
functions, which its scripts import from here, are in course/datasets.py.
"""

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
from examples import Example
from options import Options
from packing import Batch, Tokens
from tasks import Task
from text.pair_order import coins, swapped, swapped_sides
from text.reading import DataFile, read_file, read_task, seeds
from text.sequences import encode_texts, layout
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


@dataclass
class Split:
    """The examples of one task and split, tokenised, with an endless reader over them.

    `drawn` counts the examples given out so far. It is all the state there is: pass k over the data
    is a permutation seeded by (seed, task, k). Of n examples n + i is example i, a pair, in the
    other order; with `swap` half of what is drawn is that, another half in each pass.
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
    swap: bool = False
    # Of each sequence, whether it is of its example's first or second text; see packing.Batch.
    sides: Sequence[int] | None = None
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
        examples = self.examples[:count]
        return Split(self.task, examples, self.tokens, bounds, self.seed, sides=self.sides)

    def sequences(self, index: int) -> Sequence[Tokens]:
        """The sequences of one example."""
        if index >= len(self):
            other = index - len(self)
            return swapped(self.sequences(other), self.sides_of(other))
        return self.tokens[self.bounds[index] : self.bounds[index + 1]]

    def sides_of(self, index: int) -> list[int] | None:
        """For each sequence of an example, of which of its texts it is; None: as in Batch."""
        if self.sides is None:
            return None
        if index >= len(self):
            return swapped_sides(self.sides_of(index - len(self)) or [])
        return list(self.sides[self.bounds[index] : self.bounds[index + 1]])

    def length(self, index: int) -> int:
        """The tokens of one example, all of its sequences together."""
        return sum(len(tokens) for tokens in self.sequences(index % len(self)))

    def count_tokens(self) -> int:
        """The tokens of all examples together."""
        return sum(self.length(index) for index in range(len(self)))

    def batch(self, indices: list[int]) -> Batch:
        """The examples with these indices, in this order."""
        # An example may have several sequences; `owners` says whose each is, by place in the batch.
        # Labels of tokens are as long as the example's first sequence, so its length goes along.
        tokens: list[Tokens] = []
        owners: list[int] = []
        sides: list[int] = []
        lengths: list[int] = []
        for place, index in enumerate(indices):
            own = self.sequences(index)
            tokens += own
            owners += [place] * len(own)
            sides += self.sides_of(index) or []
            lengths.append(len(own[0]))

        labels = [self.examples[index % len(self)].label for index in indices]
        values = self.task.labels.tensor(labels, lengths)
        batch = Batch(self.task.name, tokens, torch.tensor(owners), values)
        if self.sides is not None:
            batch = replace(batch, sides=torch.tensor(sides))

        # A task may rework its batches.
        return self.task.change(batch) if self.task.change else batch

    def permutation(self, turn: int) -> np.ndarray:
        """What one pass over the data draws, in order; the last one asked for is kept."""
        if turn not in self._order:
            draws = np.random.default_rng([*seeds(self.task, self.seed), turn])
            order = draws.permutation(len(self))
            if self.swap:
                order += len(self) * coins([*seeds(self.task, self.seed), turn], len(self))
            self._order = {turn: order}
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
    task: Task,
    examples: list[Example],
    encoded: Sequence[Tokens],
    options: Options,
    counts: np.ndarray | None = None,
) -> Split:
    """A reader of examples whose sequences are `encoded`, of each text `counts`; None: one."""
    bounds, sides = layout(task, len(examples), options, counts)
    return Split(task, examples, encoded, bounds, options.seed, sides=sides)


def split_of_texts(
    task: Task, texts: list[tuple[str, ...]], options: Options, tokenizer: BertTokenizer
) -> Split:
    """A reader of texts that come from no file, and have no labels."""
    examples = [Example("", text, None) for text in texts]
    encoded, counts = encode_texts(task, texts, options, tokenizer)
    return make_split(task, examples, encoded, options, counts)


def encode_file(file: DataFile, task: Task, options: Options, tokenizer: BertTokenizer) -> Split:
    """Tokenise what was read."""
    # Token ids depend on how pairs are encoded, so the cache is asked for the texts as encoded.
    texts = [example.texts for example in file.examples]
    encoded, counts = encode_texts(task, texts, options, tokenizer, CACHE)
    split = make_split(task, file.examples, encoded, options, counts)
    return replace(split, sha256=file.sha256, in_train=file.in_train)


def load_split(
    path: Path, task: Task, split: str, options: Options, tokenizer: BertTokenizer
) -> Split:
    """Read and tokenise one file, up to --limit; `split` as for read_examples."""
    return encode_file(read_file(path, task, split, options.limit), task, options, tokenizer)


def load_task(
    paths: Mapping[str, Path], task: Task, options: Options, tokenizer: BertTokenizer
) -> dict[str, Split]:
    """Read and tokenise a task's files; see read_task()."""
    files = read_task(paths, task, options)
    return {split: encode_file(file, task, options, tokenizer) for split, file in files.items()}
