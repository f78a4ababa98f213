"""Scores and prediction files: one loop for any task and split, and the course's functions on top
of its own batches.

Prediction files are the leaderboard's, byte for byte: a header, then one line an example, in the
order of the data file.
"""

import os
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import confusion_matrix, f1_score
from tqdm import tqdm

from datasets import (  # for test_model_multitask
    SentenceClassificationDataset,
    SentenceClassificationTestDataset,
    SentencePairDataset,
    SentencePairTestDataset,
    Split,
    load_multitask_data,
)
from errors import UserError
from tasks import LEADERBOARD, TASKS, overall

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
            f"{split.task}: the model's outputs are not finite, training diverged; lower --lr, or keep --clip"
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


def write_predictions(
    path: str | Path, task: str, ids: list[str], predictions: Iterable[Any]
) -> None:
    """A prediction file in the leaderboard's format, written whole or not at all."""
    path = Path(path)
    new = ""
    lines = [
        f"id \t {TASKS[task].header} \n",
        *(f"{i} , {p} \n" for i, p in zip(ids, predictions, strict=True)),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, delete=False
        ) as file:
            new = file.name
            file.writelines(lines)
        os.chmod(new, 0o644)  # temporary files are the owner's only
        os.replace(new, path)
    except OSError as error:
        if new:
            Path(new).unlink(missing_ok=True)
        raise UserError(f"{path}: can't be written ({error.strerror})") from None


# The course's functions. Batches come from its DataLoaders; a model has predict_sentiment,
# predict_paraphrase and predict_similarity. Tuples are in 2024's order: sentiment, paraphrase,
# similarity.


def _run(
    dataloader: Iterable[dict], model: Any, device: torch.device, name: str
) -> tuple[list, list, list, list]:
    """Predictions, labels, sentences and ids of one task's batches."""
    method = dict(
        zip(
            LEADERBOARD,
            ("predict_sentiment", "predict_paraphrase", "predict_similarity"),
            strict=True,
        )
    )[name]
    columns = [""] if name == LEADERBOARD[0] else ["_1", "_2"]
    y_pred: list[Any] = []
    y_true: list[Any] = []
    sents: list[str] = []
    sent_ids: list[str] = []
    with torch.no_grad():
        for batch in tqdm(dataloader, desc="eval", disable=None):
            inputs = [
                batch[f"{k}{c}"].to(device)
                for c in columns
                for k in ("token_ids", "attention_mask")
            ]
            out = getattr(model, method)(*inputs)
            if name == LEADERBOARD[0]:
                y_pred.extend(out.argmax(dim=-1).flatten().cpu().numpy())
            else:
                y_pred.extend(
                    (out.sigmoid().round() if TASKS[name].whole else out).flatten().cpu().numpy()
                )
            y_true.extend(batch["labels"].flatten().cpu().numpy() if "labels" in batch else [])
            sents.extend(batch.get("sents", []))
            sent_ids.extend(batch["sent_ids"])
    return y_pred, y_true, sents, sent_ids


def model_eval_sst(dataloader: Iterable[dict], model: Any, device: torch.device) -> tuple:
    """Accuracy, macro F1, predictions, labels, sentences, ids."""
    model.eval()
    y_pred, y_true, sents, sent_ids = _run(dataloader, model, device, LEADERBOARD[0])
    accuracy = float(np.mean(np.array(y_pred) == np.array(y_true)))
    return accuracy, f1_score(y_true, y_pred, average="macro"), y_pred, y_true, sents, sent_ids


def model_eval_multitask(
    sentiment_dataloader: Iterable[dict],
    paraphrase_dataloader: Iterable[dict],
    sts_dataloader: Iterable[dict],
    model: Any,
    device: torch.device,
) -> tuple:
    """Score, predictions and ids of sentiment, then of paraphrase, then of similarity."""
    model.eval()
    out: list[Any] = []
    for name, loader in zip(
        LEADERBOARD, (sentiment_dataloader, paraphrase_dataloader, sts_dataloader), strict=True
    ):
        y_pred, y_true, _, sent_ids = _run(loader, model, device, name)
        score = TASKS[name].metric(np.array(y_pred), np.array(y_true))
        print(f"{TASKS[name].title} {TASKS[name].metric_name}: {score:.3f}")
        out += [score, y_pred, sent_ids]
    return tuple(out)


def model_eval_test_multitask(
    sentiment_dataloader: Iterable[dict],
    paraphrase_dataloader: Iterable[dict],
    sts_dataloader: Iterable[dict],
    model: Any,
    device: torch.device,
) -> tuple:
    """Predictions and ids of sentiment, then of paraphrase, then of similarity."""
    model.eval()
    out: list[Any] = []
    for name, loader in zip(
        LEADERBOARD, (sentiment_dataloader, paraphrase_dataloader, sts_dataloader), strict=True
    ):
        y_pred, _, _, sent_ids = _run(loader, model, device, name)
        out += [y_pred, sent_ids]
    return tuple(out)


def test_model_multitask(args: Any, model: Any, device: torch.device) -> None:
    """2023's last step: score the dev files named in `args`, and write the six prediction files it
    names.
    """
    for split in ("dev", "test"):
        rows = load_multitask_data(
            *(getattr(args, f"{name}_{split}") for name in LEADERBOARD), split
        )  # type: ignore[call-arg]
        labelled = split == "dev"
        single = SentenceClassificationDataset if labelled else SentenceClassificationTestDataset
        double = SentencePairDataset if labelled else SentencePairTestDataset
        sets = [
            single(rows[0], args),
            double(rows[2], args),
            double(rows[3], args, isRegression=True),
        ]
        loaders = [
            torch.utils.data.DataLoader(
                s, shuffle=False, batch_size=args.batch_size, collate_fn=s.collate_fn
            )
            for s in sets
        ]
        score = model_eval_multitask if labelled else model_eval_test_multitask
        out = score(loaders[0], loaders[1], loaders[2], model, device)
        for i, name in enumerate(LEADERBOARD):
            predictions, ids = out[i * len(out) // 3 :][labelled : labelled + 2]
            write_predictions(getattr(args, f"{name}_{split}_out"), name, ids, predictions)


test_model_multitask.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for a test
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
