"""The CS224N course's datasets, which its scripts of 2023 and 2024 import from datasets.py.

Same names, signatures, batch keys and order of what is returned. Two differences, both in the
reader's favour: files are checked as examples.py does, and similarities stay floats where the 2023
skeleton cuts 4.6 to 4.

The tokenizer is bert-base-uncased's, which the scripts' models need too. Another one is named by,
the first that is there: `args.tokenizer_name`; MINBERT_TOKENIZER in the environment; the class
attribute `tokenizer_name`. Each is a hub id, a folder or the embedded model.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from course.checkpoints import allow_course_checkpoints
from errors import UserError
from examples import Example, read_examples
from tasks import LEADERBOARD, TASKS
from tokenizer import BertTokenizer

# The course's three tasks, under names that say which is which.
SENTIMENT, PARAPHRASE, SIMILARITY = LEADERBOARD

allow_course_checkpoints()  # the scripts that import this module torch.load theirs


def preprocess_string(s: str) -> str:
    """Lower case, a space before . ? , and ', single spaces; the tokenizer splits there anyway."""
    s = s.lower()
    for mark in ".?,'":
        s = s.replace(mark, f" {mark}")
    return " ".join(s.split())


class _CourseDataset(Dataset):
    """Rows as tuples: one or two sentences, the label unless it is the test split, the id."""

    # What subclasses change.
    tokenizer_name = "bert-base-uncased"
    sentences = 1  # of a row
    labelled = True

    # isRegression is the course's name.
    def __init__(self, dataset: list[tuple], args: Any, isRegression: bool = False):  # noqa: N803
        # The course's attribute names; its scripts may read them.
        self.dataset = dataset
        self.p = args
        self.isRegression = isRegression

        # The argument wins over the environment, which wins over the class.
        of_args = getattr(args, "tokenizer_name", None)
        name = of_args or os.environ.get("MINBERT_TOKENIZER") or self.tokenizer_name
        self.tokenizer = BertTokenizer.from_pretrained(name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> tuple:
        return self.dataset[idx]

    def pad_data(self, data: list[tuple]) -> tuple:
        """A batch as a tuple."""
        raise TypeError("one of the four course datasets is meant")

    def batch_keys(self) -> list[str]:
        """The course's keys for pad_data's tuple."""
        raise TypeError("one of the four course datasets is meant")

    def collate_fn(self, all_data: list[tuple]) -> dict:
        """A batch under the course's keys."""
        return dict(zip(self.batch_keys(), self.pad_data(all_data), strict=True))

    def encode(self, sentences: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, token types and attention mask, [B, T] each, padded to the longest."""
        encoding = self.tokenizer(sentences, return_tensors="pt", padding=True, truncation=True)
        return encoding["input_ids"], encoding["token_type_ids"], encoding["attention_mask"]

    def label_tensor(self, rows: list[tuple]) -> Tensor:
        """The labels [B], float64 for regression or where one is a float, else int64."""
        # The label stands behind the sentences of a row.
        labels = [row[self.sentences] for row in rows]
        regression = self.isRegression or any(isinstance(label, float) for label in labels)
        return torch.tensor(labels, dtype=torch.float64 if regression else torch.int64)


class SentenceClassificationDataset(_CourseDataset):
    """(sentence, label, id) rows."""

    def pad_data(self, data: list[tuple]) -> tuple:
        """Token ids [B, T], attention mask [B, T], labels [B] if there are any, sentences, ids."""
        sents = [row[0] for row in data]
        sent_ids = [row[-1] for row in data]
        # Single sentences need no token types: all would be 0.
        token_ids, _, attention_mask = self.encode(sents)
        if not self.labelled:
            return token_ids, attention_mask, sents, sent_ids
        return token_ids, attention_mask, self.label_tensor(data), sents, sent_ids

    def batch_keys(self) -> list[str]:
        """The course's keys for pad_data's tuple."""
        # Same order as pad_data's tuple.
        if not self.labelled:
            return ["token_ids", "attention_mask", "sents", "sent_ids"]
        return ["token_ids", "attention_mask", "labels", "sents", "sent_ids"]


class SentenceClassificationTestDataset(SentenceClassificationDataset):
    """(sentence, id) rows."""

    labelled = False


class SentencePairDataset(_CourseDataset):
    """(sentence, sentence, label, id) rows, each sentence encoded on its own."""

    sentences = 2

    def pad_data(self, data: list[tuple]) -> tuple:
        """Ids, types and mask of the first sentences and of the second, labels if any, ids.

        Labels are [B], all before them [B, T].
        """
        # Each side is padded to its own longest sentence.
        first = self.encode([row[0] for row in data])
        second = self.encode([row[1] for row in data])
        sent_ids = [row[-1] for row in data]
        if not self.labelled:
            return *first, *second, sent_ids
        return *first, *second, self.label_tensor(data), sent_ids

    def batch_keys(self) -> list[str]:
        """The course's keys for pad_data's tuple."""

        # Same order as pad_data's tuple.
        first = ["token_ids_1", "token_type_ids_1", "attention_mask_1"]
        second = ["token_ids_2", "token_type_ids_2", "attention_mask_2"]
        if not self.labelled:
            return [*first, *second, "sent_ids"]
        return [*first, *second, "labels", "sent_ids"]


class SentencePairTestDataset(SentencePairDataset):
    """(sentence, sentence, id) rows."""

    labelled = False


def _load_sentences(path: str, split: str) -> list[tuple]:
    """The sentiment file's (sentence, label, id) rows, without the label in the test split."""
    # Sentiment is only lowered, pairs have their marks set apart too: so do the course's readers.
    rows: list[tuple] = []
    for example in read_examples(path, TASKS[SENTIMENT], split):
        sentence = example.texts[0].lower()
        if example.label is None:
            rows.append((sentence, example.id))
        else:
            rows.append((sentence, int(example.label), example.id))
    print(f"Loaded {len(rows)} {split} examples from {path}")
    return rows


def _load_pairs(path: str, task: str, split: str) -> list[tuple]:
    """A pair file's (sentence, sentence, label, id) rows, without the label in the test split."""
    # Labels of classes are ints, which the loss needs; similarities stay floats.
    rows: list[tuple] = []
    for example in read_examples(path, TASKS[task], split):
        first = preprocess_string(example.texts[0])
        second = preprocess_string(example.texts[1])
        if example.label is None:
            rows.append((first, second, example.id))
        elif TASKS[task].labels.whole:
            rows.append((first, second, int(example.label), example.id))
        else:
            rows.append((first, second, example.label, example.id))
    print(f"Loaded {len(rows)} {split} examples from {path}")
    return rows


def load_multitask_data(
    sentiment_filename: str,
    paraphrase_filename: str,
    similarity_filename: str,
    split: str = "train",
) -> tuple[list, dict, list, list]:
    """Sentiment rows, their classes, paraphrase rows, similarity rows, for the datasets above.

    The classes are {sentiment label: index in order of appearance}.
    """
    sentiment = _load_sentences(sentiment_filename, split)
    paraphrase = _load_pairs(paraphrase_filename, PARAPHRASE, split)
    similarity = _load_pairs(similarity_filename, SIMILARITY, split)

    # 2023's and 2024's scripts take its length for the number of classes.
    classes: dict[int, int] = {}
    if split != "test":
        for _, label, _ in sentiment:
            classes.setdefault(label, len(classes))
    return sentiment, classes, paraphrase, similarity


def _load_without_ids(task: str, name: str) -> list[Example]:
    """The examples of a test file in data/."""
    path = Path("data") / name
    if not path.exists():
        raise UserError(
            f"{path}: not there; the files for students end in -test-student.csv: "
            "load_multitask_data reads those"
        )
    return read_examples(path, TASKS[task], "test")


def load_multitask_test_data() -> tuple[list, list, list]:
    """2023's other reader of test files under data/: sentences and pairs, without ids."""
    # File names are 2023's, in the folder where its scripts run.
    sst = _load_without_ids(SENTIMENT, "ids-sst-test.txt")
    para = _load_without_ids(PARAPHRASE, "quora-test.csv")
    sts = _load_without_ids(SIMILARITY, "sts-test.csv")

    # Texts as the other readers change them.
    sentences = [e.texts[0].lower() for e in sst]
    para_pairs = [(preprocess_string(e.texts[0]), preprocess_string(e.texts[1])) for e in para]
    sts_pairs = [(preprocess_string(e.texts[0]), preprocess_string(e.texts[1])) for e in sts]
    return sentences, para_pairs, sts_pairs
