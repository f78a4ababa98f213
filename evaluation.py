"""Scores: one loop for any task and split.

The course's functions, which its scripts import from here, are in course/evaluation.py; prediction
files are written by prediction_files.py.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.evaluation import (  # noqa: F401  (the course's scripts import these from here)
    model_eval_multitask,
    model_eval_sst,
    model_eval_test_multitask,
    test_model_multitask,
)
from datasets import Split
from errors import UserError, listed
from packing import Batch
from tasks import Task, overall
from text.prediction_files import write_predictions  # noqa: F401  (importable from here too)

EVALUATION_TOKENS = 8192  # of a forward pass without gradients

# Called after each batch with the tokens that were in it, for a progress bar.
Seen = Callable[[int], object]

# What a batch is scored by: it gives the batch's logits.
Score = Callable[[Batch], Tensor]


def nobody(tokens: int) -> None:
    """A Seen for where nobody looks."""


class Model(Protocol):
    """What is scored: MultitaskBERT, or what has its methods."""

    # Only what scoring needs, so that a model from elsewhere can be scored too.
    training: bool

    def train(self, mode: bool = True) -> Any:
        """Into train or eval mode."""

    def modules(self) -> Iterator[nn.Module]:
        """Itself and all modules in it."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Its weights."""

    def logits(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """{task: [B, ...]}."""


def same_width(logits: list[Tensor]) -> list[Tensor]:
    """Logits [B, T, outputs] filled up with zeros to the longest T; [B, outputs] as they are."""
    # Two dimensions: one row of outputs an example, nothing to fill up.
    if logits[0].ndim < 3:
        return logits
    longest = max(x.shape[1] for x in logits)
    return [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in logits]


@contextlib.contextmanager
def eval_mode(model: Model) -> Iterator[None]:
    """A model in eval mode; afterwards each of its modules is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


DIVERGED = "training diverged; lower --lr, or keep --clip"


def not_finite(name: str, model: Model) -> UserError:
    """The error for outputs that are not finite: in training, or of a model as it was loaded."""
    reason = DIVERGED
    if not model.training:
        bad = [key for key, x in model.named_parameters() if not x.isfinite().all()]
        reason = (
            "its weights are, so they are too large; try --precision fp32, or train it anew with a "
            "lower --lr"
        )
        if bad:
            reason = f"NaN or infinity in its weights {listed(bad)}; is the file damaged?"
    return UserError(f"{name}: the model's outputs are not finite: {reason}")


def loss_not_finite(name: str, model: Model) -> UserError:
    """The error for finite outputs whose loss is not: then the weights are not what is wrong."""
    reason = DIVERGED if model.training else "check the task's loss, and its labels"
    return UserError(f"{name}: the outputs are finite, but the loss is not: {reason}")


@torch.no_grad()
def in_file_order(model: Model, split: Split, score: Score, seen: Seen) -> Tensor:
    """The logits that `score` gives of all examples, in file order, the model in eval mode.

    [examples, outputs], or [examples, T, outputs] where each token has some; fp32, on the CPU.
    UserError where they are not finite: no score, best model or prediction file may come from them.
    """
    # Batches go by length, not in file order; `order` remembers which example came when.
    parts: list[Tensor] = []
    order: list[int] = []
    with eval_mode(model):
        for indices in split.by_length(EVALUATION_TOKENS):
            parts.append(score(split.batch(indices)).float().cpu())
            order += indices
            seen(sum(split.length(index) for index in indices))
    together = torch.cat(same_width(parts))

    # Scores of NaN would compare as neither better nor worse; stop here.
    if not together.isfinite().all():
        raise not_finite(split.task.name, model)

    # argsort of the order of reading is its inverse: back to file order.
    return together[torch.tensor(order).argsort()]


def predict_logits(model: Model, split: Split, seen: Seen = nobody) -> Tensor:
    """The logits of all examples, in file order; see in_file_order()."""

    def score(batch: Batch) -> Tensor:
        return model.logits({batch.task: batch})[batch.task]

    return in_file_order(model, split, score, seen)


def use_of_experts(gates: list[Tensor]) -> dict[str, list[float]]:
    """Of weights [sequences, experts], batch by batch: each expert's mean, and where it led.

    {} where there was one encoder.
    """
    if not gates:
        return {}
    together = torch.cat(gates)
    led = F.one_hot(together.argmax(1), together.shape[1]).double().mean(0)
    return {"experts": together.double().mean(0).tolist(), "experts_led": led.tolist()}


def logits_and_more(
    model: Model, split: Split, seen: Seen = nobody
) -> tuple[Tensor, dict[str, Any]]:
    """predict_logits() of labelled examples, and from the same forward passes what else they tell.

    That is "loss", the mean of the loss that training uses, and of several encoders
    use_of_experts(); nothing of a model from elsewhere that has logits() alone. UserError where
    logits or loss are not finite.
    """
    forward_of = getattr(model, "forward_of", None)
    if forward_of is None:
        return predict_logits(model, split, seen), {}
    losses: list[float] = []
    gates: list[Tensor] = []

    def score(batch: Batch) -> Tensor:
        forward = forward_of({batch.task: batch})
        logits = forward.logits[batch.task]
        loss = split.task.loss(forward, batch.to(logits.device))
        losses.append(float(loss) * len(batch.labels))
        if forward.gates is not None:
            gates.append(forward.gates.cpu())
        return logits

    logits = in_file_order(model, split, score, seen)
    mean = sum(losses) / len(split)
    if not math.isfinite(mean):
        raise loss_not_finite(split.task.name, model)
    return logits, {"loss": mean, **use_of_experts(gates)}


def predict(model: Model, split: Split, seen: Seen = nobody) -> Sequence[Any]:
    """The predictions of all examples, in file order: classes, 0.0 / 1.0 or similarities.

    An array; or a list of arrays where each token has one.
    """
    return predictions_of(split, predict_logits(model, split, seen))


def predictions_of(split: Split, logits: Tensor) -> Sequence[Any]:
    """What predict() gives, from all examples' logits."""
    predictions = split.task.predict(logits).numpy()

    # Padding has predictions too; they are cut off where each token has one.
    lengths = [len(split.sequences(index)[0]) for index in range(len(split))]
    return split.task.labels.unpad(predictions, lengths)


def measure(task: Task, predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The task's score; beside it macro F1 and confusion matrix, or Spearman's rho."""
    # They take half as long to import as torch, which --help and a mistyped flag need not wait for.
    from scipy.stats import spearmanr
    from sklearn.metrics import confusion_matrix, f1_score

    constant = np.ptp(predictions) == 0
    if constant:
        warnings.warn(f"{task.name}: all predictions are {predictions[0]:g}", stacklevel=2)
    one_label = np.ptp(labels) == 0
    if one_label:
        means = f"{task.metric_name} says little"
        if not task.labels.whole:
            means = "correlation is undefined, counted as 0"
        warnings.warn(f"{task.name}: all labels are {labels[0]:g}; {means}", stacklevel=2)

    # Every task has these three.
    results: dict[str, Any] = {
        "score": task.metric(predictions, labels),
        "metric": task.metric_name,
        "count": len(labels),
    }

    # Beside them: classes get F1 and confusion, numbers a rank correlation, 0 where undefined.
    if task.labels.whole:
        classes = np.arange(task.labels.low, task.labels.high + 1)
        results["macro_f1"] = float(f1_score(labels, predictions, average="macro"))
        results["confusion"] = confusion_matrix(labels, predictions, labels=classes).tolist()
    elif constant or one_label:
        results["spearman"] = 0.0
    else:
        results["spearman"] = float(spearmanr(predictions, labels).statistic)
    return results


def flat(values: Sequence[Any]) -> np.ndarray:
    """One number an example, or several each, in one array."""
    return np.concatenate([np.atleast_1d(value) for value in values])


@dataclass
class Evaluation:
    """What a model makes of labelled splits."""

    # task -> measure(...), and what logits_and_more() tells; "overall": the mean of the scores as
    # they count
    scores: dict[str, Any]
    predictions: dict[str, Sequence[Any]]  # task -> predict(...); none where a task scores itself
    # task -> [examples, classes] or [examples], of the tasks that have some
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)


def evaluate(model: Model, splits: Mapping[str, Split], seen: Seen = nobody) -> Evaluation:
    """Predict and score labelled splits, {task: split}."""
    found = Evaluation({}, {})
    scores = found.scores
    for name, split in splits.items():
        # A task may score itself, where one prediction an example does not say it all.
        if split.task.evaluate:
            scores[name] = split.task.evaluate(model, split)
            continue
        logits, more = logits_and_more(model, split, seen)
        found.predictions[name] = predictions_of(split, logits)
        if split.task.probabilities:
            found.probabilities[name] = split.task.probabilities(logits).numpy()
        labels = flat([example.label for example in split.examples])
        scores[name] = {**measure(split.task, flat(found.predictions[name]), labels), **more}

    # The mean over tasks picks the best model.
    scores["overall"] = overall({name: scores[name]["score"] for name in splits})
    return found


# What other modules and the course's scripts import from here.
__all__ = [
    "Evaluation",
    "evaluate",
    "measure",
    "model_eval_multitask",
    "model_eval_sst",
    "model_eval_test_multitask",
    "predict",
    "predict_logits",
    "test_model_multitask",
    "write_predictions",
]
