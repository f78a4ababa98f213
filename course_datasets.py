"""The CS224N course's datasets: classes and functions that its scripts, of 2023 and 2024, import
from datasets.py.

Same names, signatures, batch keys and order of what is returned. Two differences, both in the
reader's favour: files are checked as examples.py does, and similarities stay floats where the 2023
skeleton cuts 4.6 to 4.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from errors import UserError
from examples import read_examples
from tasks import LEADERBOARD, TASKS
from tokenizer import BertTokenizer


def preprocess_string(s: str) -> str:
    """Lower case, a space before . ? , and ', single spaces. BERT's tokenizer splits there
    anyway.
    """
    s = s.lower()
    for mark in ".?,'":
        s = s.replace(mark, f" {mark}")
    return " ".join(s.split())


class _CourseDataset(Dataset):
    """Rows as tuples: one or two sentences, the label unless it is the test split, the id."""

    sentences, labelled = 1, True

    def __init__(self, dataset: list[tuple], args: Any, isRegression: bool = False):  # noqa: N803 (the course's name)
        self.dataset, self.p, self.isRegression = dataset, args, isRegression
        self.tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> tuple:
        return self.dataset[idx]

    def encode(self, sentences: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, token types and attention mask, [B, T] each, padded to the longest."""
        encoding = self.tokenizer(sentences, return_tensors="pt", padding=True, truncation=True)
        return encoding["input_ids"], encoding["token_type_ids"], encoding["attention_mask"]

    def collate_fn(self, all_data: list[tuple]) -> dict:
        """A batch under the course's keys."""
        raise TypeError("one of the four course datasets is meant")

    def label_tensor(self, rows: list[tuple]) -> list[Tensor]:
        """The labels as one tensor, float64 for regression or where one is a float, else int64;
        none without labels.
        """
        if not self.labelled:
            return []
        labels = [row[self.sentences] for row in rows]
        regression = self.isRegression or any(isinstance(label, float) for label in labels)
        return [torch.tensor(labels, dtype=torch.float64 if regression else torch.int64)]


class SentenceClassificationDataset(_CourseDataset):
    """(sentence, label, id) rows."""

    def pad_data(self, data: list[tuple]) -> tuple:
        """token ids [B, T], attention mask [B, T], labels [B] if there are any, sentences, ids."""
        token_ids, _, attention_mask = self.encode([row[0] for row in data])
        return (
            token_ids,
            attention_mask,
            *self.label_tensor(data),
            [row[0] for row in data],
            [row[-1] for row in data],
        )

    def collate_fn(self, all_data: list[tuple]) -> dict:
        """The same as a dict under the course's keys."""
        keys = ["token_ids", "attention_mask", *["labels"] * self.labelled, "sents", "sent_ids"]
        return dict(zip(keys, self.pad_data(all_data), strict=True))


class SentenceClassificationTestDataset(SentenceClassificationDataset):
    """(sentence, id) rows."""

    labelled = False


class SentencePairDataset(_CourseDataset):
    """(sentence, sentence, label, id) rows, each sentence encoded on its own."""

    sentences = 2

    def pad_data(self, data: list[tuple]) -> tuple:
        """Token ids, types and mask of the first sentences, of the second ones, labels if there are
        any, ids.
        """
        first, second = (self.encode([row[i] for row in data]) for i in (0, 1))
        return (*first, *second, *self.label_tensor(data), [row[-1] for row in data])

    def collate_fn(self, all_data: list[tuple]) -> dict:
        """The same as a dict under the course's keys."""
        keys = [
            f"{key}_{i}"
            for i in (1, 2)
            for key in ("token_ids", "token_type_ids", "attention_mask")
        ]
        return dict(
            zip(
                [*keys, *["labels"] * self.labelled, "sent_ids"],
                self.pad_data(all_data),
                strict=True,
            )
        )


class SentencePairTestDataset(SentencePairDataset):
    """(sentence, sentence, id) rows."""

    labelled = False


def load_multitask_data(
    sentiment_filename: str,
    paraphrase_filename: str,
    similarity_filename: str,
    split: str = "train",
) -> tuple[list, dict, list, list]:
    """The three tasks' rows for the classes above, and {sentiment label: index in order of
    appearance}.
    """
    kind = "test" if split == "test" else "dev"  # whether there are labels
    loaded: list[list] = []
    classes: dict[int, int] = {}
    for name, path in zip(
        LEADERBOARD, (sentiment_filename, paraphrase_filename, similarity_filename), strict=True
    ):
        task, rows = TASKS[name], []
        for example in read_examples(path, task, kind):
            texts = (
                [preprocess_string(t) for t in example.texts]
                if task.pair
                else [example.texts[0].lower()]
            )
            label = (
                []
                if example.label is None
                else [int(example.label) if task.whole else example.label]
            )
            rows.append((*texts, *label, example.id))
            if not task.pair and label:
                classes.setdefault(int(label[0]), len(classes))
        print(f"Loaded {len(rows)} {split} examples from {path}")
        loaded.append(rows)
    return loaded[0], classes, loaded[1], loaded[2]


def load_multitask_test_data() -> tuple[list, list, list]:
    """2023's other reader of test files under data/: sentences, and pairs of sentences, without
    ids.
    """
    loaded = []
    for name, path in zip(
        LEADERBOARD, ("ids-sst-test.txt", "quora-test.csv", "sts-test.csv"), strict=True
    ):
        if not (Path("data") / path).exists():
            raise UserError(
                f"data/{path}: not there; the files for students end in -test-student.csv: load_multitask_data"
            )
        examples = read_examples(Path("data") / path, TASKS[name], "test")
        single = not TASKS[name].pair
        loaded.append(
            [
                e.texts[0].lower() if single else tuple(map(preprocess_string, e.texts))
                for e in examples
            ]
        )
    return loaded[0], loaded[1], loaded[2]
