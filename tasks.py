"""The tasks: the only file that spells sst, para, sts and cfimdb. A further task is one more entry
of TASKS.

The course's score on the leaderboard is (SST accuracy + Quora accuracy + (STS Pearson + 1) / 2) /
3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score
from torch import Tensor

import losses

Scores = np.ndarray


def accuracy(predictions: Scores, labels: Scores) -> float:
    """The share of equal entries, 0 to 1."""
    return float(accuracy_score(labels, predictions))


def pearson(predictions: Scores, labels: Scores) -> float:
    """Pearson's r, -1 to 1; 0 where one side is constant, for which r does not exist (evaluation.py
    warns).
    """
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(np.corrcoef(predictions, labels)[0, 1])


def identity(score: float) -> float:
    """An accuracy as it counts in the overall score."""
    return score


def from_correlation(score: float) -> float:
    """A correlation as it counts in the overall score: mapped from [-1, 1] to [0, 1]."""
    return (score + 1) / 2


@dataclass(frozen=True)
class Task:
    """All that the rest of the code needs to know of a task."""

    title: str
    files: str  # "{}" stands for train, dev or test-student
    columns: tuple[str, ...]  # of the sentence, or of the two sentences of a pair
    label: str  # the label's column
    low: float  # smallest and largest legal label
    high: float
    whole: bool  # whether labels are whole numbers
    outputs: int  # logits an example
    loss: Callable[[Tensor, Tensor], Tensor]  # ([B, outputs], [B]) -> scalar
    predict: Callable[[Tensor], Tensor]  # [B, outputs] -> [B], what is scored and written
    metric: Callable[[Scores, Scores], float]
    metric_name: str
    counts: Callable[[float], float]  # the metric as it counts in the overall score
    header: str  # of the prediction file's second column, as the leaderboard spells it

    @property
    def pair(self) -> bool:
        """Whether an example is two sentences."""
        return len(self.columns) == 2


def argmax(logits: Tensor) -> Tensor:
    """[B, classes] -> [B], the class."""
    return logits.argmax(1)


def positive(logits: Tensor) -> Tensor:
    """[B, 1] -> [B], 1.0 where the probability is above a half, as the course's sigmoid().round()
    gives it.
    """
    return logits.squeeze(1).float().sigmoid().round()


def similarity(logits: Tensor) -> Tensor:
    """[B, 1] -> [B], 0 to 5: five times the sigmoid of the logit (losses.similarity_cross_entropy's
    map).
    """
    return losses.HIGHEST_SIMILARITY * logits.squeeze(1).float().sigmoid()


def _sentiment(title: str, files: str, classes: int) -> Task:
    return Task(
        title,
        files,
        ("sentence",),
        "sentiment",
        0,
        classes - 1,
        True,
        classes,
        losses.cross_entropy,
        argmax,
        accuracy,
        "accuracy",
        identity,
        "Predicted_Sentiment",
    )


PAIR = ("sentence1", "sentence2")
TASKS = {
    "sst": _sentiment("SST", "ids-sst-{}.csv", 5),
    "para": Task(
        "Quora",
        "quora-{}.csv",
        PAIR,
        "is_duplicate",
        0,
        1,
        True,
        1,
        losses.binary_cross_entropy,
        positive,
        accuracy,
        "accuracy",
        identity,
        "Predicted_Is_Paraphrase",
    ),
    "sts": Task(
        "STS",
        "sts-{}.csv",
        PAIR,
        "similarity",
        0,
        5,
        False,
        1,
        losses.similarity_cross_entropy,
        similarity,
        pearson,
        "Pearson",
        from_correlation,
        "Predicted_Similiary",
    ),
    "cfimdb": _sentiment("CFIMDB", "ids-cfimdb-{}.csv", 2),
}
LEADERBOARD = ("sst", "para", "sts")


def overall(scores: dict[str, float]) -> float:
    """The mean over the tasks of their scores as they count: the leaderboard's score where the
    tasks are its three.
    """
    return sum(TASKS[task].counts(score) for task, score in scores.items()) / len(scores)
