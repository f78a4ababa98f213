"""The tasks: what is said of sst, para, sts and cfimdb. A further task is one more entry of TASKS.

The leaderboard's score is (SST accuracy + Quora accuracy + (STS Pearson + 1) / 2) / 3.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from choices.pair import SYMMETRIC
from errors import UserError
from forward import Forward
from losses import supervised
from losses.comparison import Comparison
from losses.one_vs_all import ONE_VS_ALL
from losses.ordinal import ORDINAL
from losses.squared_error import SQUARED_ERROR
from options import Options, pick
from packing import Batch

Scores = np.ndarray


def accuracy(predictions: Scores, labels: Scores) -> float:
    """The share of equal entries, 0 to 1."""
    return float(np.mean(predictions == labels))


def pearson(predictions: Scores, labels: Scores) -> float:
    """Pearson's r, -1 to 1; 0 where one side is constant.

    There r does not exist, and evaluation.py warns of it.
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


def argmax(logits: Tensor) -> Tensor:
    """[B, classes] -> [B], the class."""
    return logits.argmax(1)


def positive(logits: Tensor) -> Tensor:
    """[B, 1] -> [B], 1.0 where the probability is above a half: the course's sigmoid().round()."""
    return of_positive(logits).round()


def similarity(logits: Tensor) -> Tensor:
    """[B, 1] -> [B], 0 to 5: five times the sigmoid (supervised.similarity_cross_entropy's map)."""
    return supervised.HIGHEST_SIMILARITY * logits.squeeze(1).float().sigmoid()


def of_classes(logits: Tensor) -> Tensor:
    """[B, classes] -> [B, classes], fp64: the probability of each class.

    fp64, so that the largest is never level with the next one.
    """
    return logits.double().softmax(1)


def of_positive(logits: Tensor) -> Tensor:
    """[B, 1] -> [B], the probability that is rounded by positive()."""
    return logits.squeeze(1).float().sigmoid()


@dataclass(frozen=True)
class Labels:
    """What stands in a label's column: one number an example."""

    low: float  # the smallest and the largest legal one
    high: float
    whole: bool  # whether only whole numbers are

    def parse(self, text: str) -> float:
        """A label; ValueError, which says what was expected, where it is none."""
        # Python would read 0_3 as 3, and the digits of other scripts.
        plain = text.isascii() and "_" not in text
        try:
            label = float(text) if plain else math.nan
        except ValueError:
            label = math.nan
        legal = self.low <= label <= self.high
        if not legal or (self.whole and label != int(label)):
            kind = "a whole number" if self.whole else "a number"
            raise ValueError(f"expected {kind} from {self.low:g} to {self.high:g}")
        return label

    def tensor(self, labels: list[float | None], lengths: list[int]) -> Tensor:
        """A batch's labels: [B], float, NaN where there is none.

        `lengths` are those of the examples' first sequences, for labels that count tokens.
        """
        return torch.tensor([math.nan if label is None else label for label in labels])

    def unpad(self, predictions: Scores, lengths: list[int]) -> Scores:
        """All examples' predictions without padding, of which [B] has none."""
        return predictions


@dataclass(frozen=True)
class Task:
    """All that the rest of the code needs to know of a task."""

    name: str
    title: str
    files: str  # "{}" stands for train, dev or test-student
    columns: tuple[str, ...]  # of the sentence, or of the two sentences of a pair
    label: str  # the label's column
    labels: Any  # how labels are read: Labels, or what has its methods
    outputs: int  # logits an example
    loss: Callable[[Forward, Batch], Tensor]  # a scalar
    predict: Callable[[Tensor], Tensor]  # [B, outputs] -> [B], what is scored and written
    metric: Callable[[Scores, Scores], float]
    metric_name: str
    counts: Callable[[float], float]  # the metric as it counts in the overall score
    header: str  # of the prediction file's second column; "" where there is no such file
    # [B, outputs] -> [B, classes], or [B] of the one that is asked for; None: there are none.
    probabilities: Callable[[Tensor], Tensor] | None = None
    # What a task may do in its own way; None: as all others.
    read: Callable[..., list] | None = None  # examples.read_examples's
    change: Callable[[Batch], Batch] | None = None  # a last change of a batch, such as masking
    pipeline: Callable[..., nn.Module] | None = None  # heads.pipeline.Pipeline's
    evaluate: Callable[..., dict[str, Any]] | None = None  # (model, split) -> {"score": ...}
    loss_option: str = ""  # the option, a key of COMPARISONS, that can change how it learns
    by_class: Callable[[Tensor], Tensor] | None = None  # see losses/comparison.py

    @property
    def pair(self) -> bool:
        """Whether an example is two sentences."""
        return len(self.columns) == 2

    def is_bi(self, options: Options) -> bool:
        """Whether an example is two sequences."""
        return self.pair and options.pair_encoding == "bi"

    def is_ordered(self, options: Options) -> bool:
        """Whether it matters which sentence of an example comes first."""
        features = set(options.pair_features.of(self.name).split(","))
        return self.pair and not (self.is_bi(options) and features <= SYMMETRIC)

    @property
    def columns_of_probabilities(self) -> int:
        """How many probabilities an example has; 0 where it has none."""
        if self.probabilities is None:
            return 0
        return self.probabilities(torch.zeros(1, self.outputs)).numel()


def sentiment(name: str, title: str, files: str, classes: int) -> Task:
    """A task of one sentence and a class."""
    return Task(
        name=name,
        title=title,
        files=files,
        columns=("sentence",),
        label="sentiment",
        labels=Labels(0, classes - 1, whole=True),
        outputs=classes,
        loss=supervised.cross_entropy,
        predict=argmax,
        metric=accuracy,
        metric_name="accuracy",
        counts=identity,
        header="Predicted_Sentiment",
        probabilities=of_classes,
        loss_option="sst_loss",
    )


TASKS = {
    "sst": sentiment("sst", "SST", "ids-sst-{}.csv", classes=5),
    "para": Task(
        name="para",
        title="Quora",
        files="quora-{}.csv",
        columns=("sentence1", "sentence2"),
        label="is_duplicate",
        labels=Labels(0, 1, whole=True),
        outputs=1,
        loss=supervised.binary_cross_entropy,
        predict=positive,
        metric=accuracy,
        metric_name="accuracy",
        counts=identity,
        header="Predicted_Is_Paraphrase",
        probabilities=of_positive,
    ),
    "sts": Task(
        name="sts",
        title="STS",
        files="sts-{}.csv",
        columns=("sentence1", "sentence2"),
        label="similarity",
        labels=Labels(0, 5, whole=False),
        outputs=1,
        loss=supervised.similarity_cross_entropy,
        predict=similarity,
        metric=pearson,
        metric_name="Pearson",
        counts=from_correlation,
        header="Predicted_Similiary",
        loss_option="sts_loss",
    ),
    "cfimdb": sentiment("cfimdb", "CFIMDB", "ids-cfimdb-{}.csv", classes=2),
}
LEADERBOARD = ("sst", "para", "sts")


# How a task's outputs are compared with labels, by the option that chooses it and the option's
# values; None: as the task's entry of TASKS says.
SST_LOSSES: dict[str, Comparison | None] = {
    "softmax": None,
    "one_vs_all": ONE_VS_ALL,
    "ordinal": ORDINAL,
}
STS_LOSSES: dict[str, Comparison | None] = {
    "bce": None,
    "mse": SQUARED_ERROR,
}
COMPARISONS: dict[str, Mapping[str, Comparison | None]] = {
    "sst_loss": SST_LOSSES,
    "sts_loss": STS_LOSSES,
}


def tasks_of(options: Options) -> dict[str, Task]:
    """The tasks of a run, as its options make them; UserError for a name that is no task's."""
    tasks = {name: pick(TASKS, name, "--tasks") for name in options.tasks}
    return {name: compared(task, options) for name, task in tasks.items()}


def compared(task: Task, options: Options) -> Task:
    """A task with the loss that the options ask for, and the outputs and predictions of that."""
    if not task.loss_option:
        return task
    table, name = COMPARISONS[task.loss_option], getattr(options, task.loss_option)
    comparison = pick(table, name, f"--{task.loss_option}")
    if comparison is None:
        return task
    return replace(
        task,
        outputs=task.outputs - comparison.fewer,
        loss=comparison.loss,
        predict=comparison.predict,
        probabilities=comparison.probabilities,
        by_class=comparison.by_class,
    )


def check_tasks(options: Options) -> None:
    """UserError where options of a run are nothing to its tasks, or can't be theirs.

    Options.check() can't see this: what a task is, is said here.
    """
    tasks = tasks_of(options)
    check_losses(tasks, options)
    check_pairs(tasks, options)


def check_losses(tasks: Mapping[str, Task], options: Options) -> None:
    """UserError where a loss was chosen that no task has."""
    for option in COMPARISONS:
        value = getattr(options, option)
        theirs = [task.title for task in TASKS.values() if task.loss_option == option]
        if value != getattr(Options, option) and not any(
            task.loss_option == option for task in tasks.values()
        ):
            raise UserError(
                f"--{option} {value} is for {', '.join(theirs)} alone, not --tasks "
                f"{' '.join(tasks)}: drop one"
            )


def check_pairs(tasks: Mapping[str, Task], options: Options) -> None:
    """UserError where an option of pairs is nothing to these tasks, or can't be theirs."""
    # Values by task are for tasks of pairs; a cosine is a number, not a class.
    for option in ("pair_features", "pair_projection"):
        for name in getattr(options, option).named:
            if name in tasks and not tasks[name].pair:
                raise UserError(f"--{option} {name}=...: expected a task of pairs; drop it")
    pairs = [task for task in tasks.values() if task.pair]
    for task in pairs:
        if task.labels.whole and options.pair_features.of(task.name) == "cosine":
            raise UserError(
                f"--pair_features {task.name}=cosine: {task.title} has classes, a cosine is a "
                "similarity; expected other features, or sts=cosine"
            )

    # Both orders, where there are two that differ.
    for option in ("symmetric", "swap_pairs"):
        if getattr(options, option) and not any(task.is_ordered(options) for task in pairs):
            raise UserError(f"--{option}: expected --tasks with pairs whose order matters; drop it")
    if options.shared_pair_layer and len(pairs) < 2:
        raise UserError("--shared_pair_layer needs two tasks of pairs, as --tasks para sts")


def overall(scores: dict[str, float]) -> float:
    """The mean over the tasks of their scores as they count; of its three, the leaderboard's."""
    return sum(TASKS[task].counts(score) for task, score in scores.items()) / len(scores)
