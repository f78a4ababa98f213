"""The data: finding its files, token ids (computed once, cached), endless shuffled batches.

Rows are read by examples.py. The course's own classes and functions, which its scripts import from
here, are in course/datasets.py.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

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
from errors import UserError
from examples import Example, read_examples
from options import Options
from packing import Batch, Tokens
from tasks import TASKS, Task
from tokenizer import BertTokenizer

BUILT_IN = Path(__file__).parent / "data" / "builtin"
SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}


@dataclass
class Split:
    """The examples of one task and split, tokenised, with an endless reader over them.

    `drawn` counts the examples given out so far. It is all the state there is: pass k over the data
    is a permutation seeded by (seed, task, k).
    """

    # What is read; it stays as it is.
    task: Task
    examples: list[Example]
    tokens: list[Tokens]  # of all sequences, example after example
    bounds: list[int]  # example i has the sequences bounds[i] to bounds[i + 1]
    seed: int = 0
    drawn: int = 0
    _order: dict[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def sequences(self, index: int) -> list[Tokens]:
        """The sequences of one example."""
        return self.tokens[self.bounds[index] : self.bounds[index + 1]]

    def length(self, index: int) -> int:
        """The tokens of one example, all of its sequences together."""
        return sum(len(tokens) for tokens in self.sequences(index))

    def batch(self, indices: list[int]) -> Batch:
        """The examples with these indices, in this order."""
        # An example may have several sequences; `owners` says whose each is, by place in the batch.
        tokens: list[Tokens] = []
        owners: list[int] = []
        for place, index in enumerate(indices):
            own = self.sequences(index)
            tokens += own
            owners += [place] * len(own)

        # Labels of tokens are as long as the example's first sequence, so its length goes along.
        labels = [self.examples[index].label for index in indices]
        lengths = [len(self.tokens[self.bounds[index]]) for index in indices]
        values = self.task.labels.tensor(labels, lengths)
        batch = Batch(self.task.name, tokens, torch.tensor(owners), values)

        # A task may rework its batches.
        return self.task.change(batch) if self.task.change else batch

    def permutation(self, turn: int) -> np.ndarray:
        """The order of one pass over the data; the last one asked for is kept."""
        if turn not in self._order:
            # Python's own hash of a string differs from process to process; sha256 does not.
            name = hashlib.sha256(self.task.name.encode()).digest()
            seeds = [self.seed, int.from_bytes(name[:4], "big"), turn]
            self._order = {turn: np.random.default_rng(seeds).permutation(len(self))}
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


def make_split(
    task: Task, examples: list[Example], encoded: list[Tokens], options: Options
) -> Split:
    """A reader of examples whose sequences are `encoded`, one or two an example."""
    # Bi-encoded pairs have two sequences an example, all others one.
    each = 2 if task.is_bi(options) else 1
    bounds = list(range(0, each * len(examples) + 1, each))
    return Split(task, examples, encoded, bounds, options.seed)


def find_files(options: Options) -> tuple[dict[tuple[str, str], Path], bool]:
    """The file of every (task, split), and whether they are the built-in corpus.

    The default data folder may hold no task's files: then all are the built-in ones. Some present
    and some not is an error.
    """
    options.check_files(TASKS)
    folder = Path(options.data_dir)
    # A path given for one file wins over the folder.
    paths: dict[tuple[str, str], Path] = {}
    given = 0
    for task in options.tasks:
        for split, suffix in SPLITS.items():
            named = options.file(f"{task}_{split}")
            given += named is not None
            paths[task, split] = Path(named or folder / TASKS[task].files.format(suffix))
    missing = [path for path in paths.values() if not os.path.exists(path)]
    if not missing:
        return paths, False

    # Only where nobody asked for other data, and none is there, does the built-in corpus stand in.
    usual = folder == Path(Options.data_dir)
    names = [task.files.format(suffix) for task in TASKS.values() for suffix in SPLITS.values()]
    there = [name for name in names if os.path.exists(folder / name)]
    if usual and not given and not there:
        built_in = {
            (task, split): BUILT_IN / TASKS[task].files.format(SPLITS[split])
            for task, split in paths
        }
        return built_in, True

    # The message names what is missing and the command that fetches it.
    absent = ", ".join(map(str, missing))
    if usual and there and len(missing) == len(paths):  # as if none were there
        absent += f" ({there[0]} is there, so the built-in corpus is not used)"
    fetch = "python data/download.py" + ("" if usual else f" --out {options.data_dir}")
    raise UserError(
        f"missing {len(missing)} of {len(paths)} data files: {absent}; fetch them: {fetch}"
    )


def tokenize(
    texts: list[tuple[str, ...]], tokenizer: BertTokenizer, max_length: int, cache: Path
) -> list[Tokens]:
    """Token ids and types of sentences or pairs, from the cache where they stand there already."""
    # The key quotes the texts: none runs into the next.
    key = json.dumps([tokenizer.backend.to_str(), max_length, texts])
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            ids, types, ends = stored["ids"], stored["types"], stored["ends"]
        if len(ends) != len(texts):
            raise ValueError("of other texts")
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        # Not there, or torn: made anew.
        sequences = tokenizer.encode_batch(texts, max_length)
        ids = np.concatenate([own for own, _ in sequences])
        types = np.concatenate([own for _, own in sequences])
        ends = np.cumsum([len(own) for own, _ in sequences])
        ids = ids.astype(np.uint16 if ids.max() < 2**16 else np.int32)
        save_cache(path, ids=ids, types=types.astype(np.uint8), ends=ends)

    # The sequences lie end to end in one array; cut them apart.
    starts = np.concatenate([[0], ends[:-1]])
    return [Tokens(ids[a:b], types[a:b]) for a, b in zip(starts, ends, strict=True)]


def save_cache(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz whole or not at all; a folder that can't be written costs only time."""
    try:
        # Written beside its place and renamed: a reader never sees half a file.
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(file.name, path)
    except OSError as error:
        print(f"{path.parent}: token ids not cached ({error.strerror})")


def texts_to_encode(
    task: Task, texts: list[tuple[str, ...]], options: Options
) -> list[tuple[str, ...]]:
    """What the tokenizer gets: a text an example, or each sentence of a pair on its own."""
    if not task.is_bi(options):
        return texts
    return [(sentence,) for text in texts for sentence in text]


def load_split(
    path: Path, task: Task, split: str, options: Options, tokenizer: BertTokenizer
) -> Split:
    """Read and tokenise one file."""
    # A task may bring a reader of its own, for files in another format.
    read = task.read or read_examples
    examples = read(path, task, split)

    # Token ids depend on how pairs are encoded, so the cache is asked for the texts as encoded.
    texts = texts_to_encode(task, [example.texts for example in examples], options)
    encoded = tokenize(texts, tokenizer, options.max_length, Path(".cache"))
    return make_split(task, examples, encoded, options)
