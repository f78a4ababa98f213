"""Scores: one loop for any task and split. The course's own functions, which its scripts import
from here, are in course/evaluation.py.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import confusion_matrix, f1_score

from course.evaluation import (  # the course's scripts import these from here
    model_eval_multitask,
    model_eval_sst,
    model_eval_test_multitask,
    test_model_multitask,
)
from datasets import Split
from errors import UserError
from examples import write_predictions
from tasks import TASKS, overall

if TYPE_CHECKING:
    from multitask_classifier import MultitaskBERT

EVALUATION_TOKENS = 8192  # of a forward pass without gradients


@torch.no_grad()
def predict_logits(model: "MultitaskBERT", split: Split) -> torch.Tensor:
    """The logits of all examples, in file order, the model in eval mode: [examples, outputs], fp32,
    on the CPU.

    UserError where they are not finite: no score, best model or prediction file may come from them.
    """
    was_training = model.training
    model.eval()
    rows, order = [], []
    for indices in split.by_length(EVALUATION_TOKENS):
        rows.append(model.logits({split.task: split.batch(indices)})[split.task].float().cpu())
        order += indices
    model.train(was_training)
    logits = torch.cat(rows)
    if not logits.isfinite().all():
        raise UserError(
            f"{split.task}: the model's outputs are not finite, training diverged; "
            "lower --lr, or keep --clip"
        )
    return logits[torch.tensor(order).argsort()]


def predict(model: "MultitaskBERT", split: Split) -> np.ndarray:
    """The predictions of all examples, in file order: classes, 0.0 / 1.0 or similarities."""
    return TASKS[split.task].predict(predict_logits(model, split)).numpy()


def measure(task: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The task's score, and what else is worth a look: macro F1 and confusion matrix, or Spearman's
    rho.
    """
    constant = np.ptp(predictions) == 0
    if constant:
        warnings.warn(f"{task}: all predictions are {predictions[0]:g}", stacklevel=2)
    score = {
        "score": TASKS[task].metric(predictions, labels),
        "metric": TASKS[task].metric_name,
        "count": len(labels),
    }
    if not TASKS[task].whole:
        undefined = constant or np.ptp(labels) == 0
        return {
            **score,
            "spearman": 0.0 if undefined else float(spearmanr(predictions, labels).statistic),
        }
    matrix = confusion_matrix(
        labels, predictions, labels=np.arange(TASKS[task].low, TASKS[task].high + 1)
    )
    return {
        **score,
        "macro_f1": float(f1_score(labels, predictions, average="macro")),
        "confusion": matrix.tolist(),
    }


def evaluate(model: "MultitaskBERT", splits: dict[str, Split]) -> dict[str, Any]:
    """{task: measure(...), "overall": the mean of the scores as they count}. The splits must have
    labels.
    """
    results: dict[str, Any] = {}
    for task, split in splits.items():
        labels = np.array([example.label for example in split.examples])
        results[task] = measure(task, predict(model, split), labels)
    return {**results, "overall": overall({task: results[task]["score"] for task in splits})}


__all__ = [
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
