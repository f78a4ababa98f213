"""Where a run's best model was surest, and wrong."""

from dataclasses import dataclass

import numpy as np

from examples import Example
from reporting.dev import Dev

MOST = 20  # that are shown of a task


@dataclass(frozen=True)
class Mistake:
    """A dev example that was predicted wrong."""

    example: Example
    prediction: float
    size: float  # the probability of what was predicted; of a number, how far off it is


def worst(dev: Dev, most: int = MOST) -> list[Mistake]:
    """The largest mistakes, the largest first.

    Of classes those that the model was surest of, none where its probabilities are not known; of
    numbers those that are farthest from their label.
    """
    if dev.predictions is None:
        return []
    if not dev.classes:
        sizes = np.abs(dev.predictions - dev.labels)
        wrong = sizes > 0
    elif dev.probabilities is None:
        return []
    else:
        chosen = dev.predictions.astype(int) - int(dev.task.labels.low)
        sizes = dev.probabilities[np.arange(len(chosen)), chosen]
        wrong = dev.predictions != dev.labels
    order = [place for place in np.argsort(-sizes, kind="stable") if wrong[place]]
    return [
        Mistake(dev.examples[place], float(dev.predictions[place]), float(sizes[place]))
        for place in order[:most]
    ]


@dataclass(frozen=True)
class Class:
    """How well one class was found."""

    label: int
    examples: int  # that have this label
    predicted: int  # times that it was predicted
    right: int

    @property
    def precision(self) -> float | None:
        """The share of right ones where it was predicted; None where it never was."""
        return self.right / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """The share of its examples that were found; None where it has none."""
        return self.right / self.examples if self.examples else None


def confusion(dev: Dev) -> np.ndarray:
    """[classes, classes], how many examples of a label (row) were predicted as what (column)."""
    counts = np.zeros((dev.classes, dev.classes), int)
    low = int(dev.task.labels.low)
    assert dev.predictions is not None
    np.add.at(counts, (dev.labels.astype(int) - low, dev.predictions.astype(int) - low), 1)
    return counts


def classes(counts: np.ndarray, low: int) -> list[Class]:
    """Each class of a confusion matrix; `low` is the first one's label."""
    return [
        Class(low + i, int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i]))
        for i in range(len(counts))
    ]
