"""The CS224N course's scoring functions, which its scripts import from evaluation.py.

Batches come from the course's DataLoaders (course/datasets.py). A model has predict_sentiment,
predict_paraphrase and predict_similarity.

The handouts differ in the order of what is returned: 2024's has sentiment first, 2023's paraphrase.
MINBERT_HANDOUT=2023 in the environment, or handout=2023 in the call, chooses 2023's. The order of
the arguments is the same in both.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from course.datasets import (
    PARAPHRASE,
    SENTIMENT,
    SIMILARITY,
    SentenceClassificationDataset,
    SentenceClassificationTestDataset,
    SentencePairDataset,
    SentencePairTestDataset,
    load_multitask_data,
)
from errors import UserError
from tasks import TASKS
from text.prediction_files import write_predictions

Batches = Iterable[dict]
_announced = False  # whether this process was told the order of what is returned


def _pair(batch: dict, device: torch.device) -> list[Tensor]:
    """A pair's four inputs: ids and mask of the first sentence, then of the second, [B, T] each."""
    # Token types are left out: the course's models do not take them.
    names = ("token_ids_1", "attention_mask_1", "token_ids_2", "attention_mask_2")
    return [batch[name].to(device) for name in names]


def _predict(batch: dict, model: Any, device: torch.device, task: str) -> Tensor:
    """One batch's predictions: classes, 0.0 / 1.0 or similarities, one for each row."""
    if task == SENTIMENT:
        token_ids = batch["token_ids"].to(device)
        attention_mask = batch["attention_mask"].to(device)
        return model.predict_sentiment(token_ids, attention_mask).argmax(dim=-1)
    # One logit [B] or [B, 1] says how likely a paraphrase is.
    if task == PARAPHRASE:
        return model.predict_paraphrase(*_pair(batch, device)).sigmoid().round()
    return model.predict_similarity(*_pair(batch, device))


@torch.no_grad()
def _run(
    dataloader: Batches, model: Any, device: torch.device, task: str
) -> tuple[list, list, list, list]:
    """Predictions, labels (but of a test split), sentences (but of pairs) and ids of one task."""
    # Over all batches, in the loader's order.
    y_pred: list[Any] = []
    y_true: list[Any] = []
    sents: list[str] = []
    sent_ids: list[str] = []

    # Eval mode stays on afterwards: the scripts set train mode at each epoch themselves.
    model.eval()
    for batch in tqdm(dataloader, desc="eval", disable=None):
        predictions = _predict(batch, model, device, task)
        y_pred.extend(predictions.flatten().cpu().numpy())
        # Test batches lack labels, pair batches lack sentences.
        if "labels" in batch:
            y_true.extend(batch["labels"].flatten().cpu().numpy())
        if "sents" in batch:
            sents.extend(batch["sents"])
        sent_ids.extend(batch["sent_ids"])
    return y_pred, y_true, sents, sent_ids


def _score(dataloader: Batches, model: Any, device: torch.device, task: str) -> tuple:
    """A task's score, printed too, its predictions and ids."""
    y_pred, y_true, _, sent_ids = _run(dataloader, model, device, task)
    # The project's own metric, so that both ways of scoring agree.
    score = TASKS[task].metric(np.array(y_pred), np.array(y_true))
    print(f"{TASKS[task].title} {TASKS[task].metric_name}: {score:.3f}")
    return score, y_pred, sent_ids


def _answer(dataloader: Batches, model: Any, device: torch.device, task: str) -> tuple:
    """A task's predictions and ids."""
    y_pred, _, _, sent_ids = _run(dataloader, model, device, task)
    return y_pred, sent_ids


def _paraphrase_first(handout: int | None) -> bool:
    """Whether 2023's order is wanted, from the argument or else the environment.

    Prints the order, once a process. UserError for another year than 2023 and 2024.
    """
    global _announced

    # The argument wins over the environment; 2024 is the default.
    year = os.environ.get("MINBERT_HANDOUT", "2024") if handout is None else str(handout)
    if year not in ("2023", "2024"):
        raise UserError(
            f'the handout is "{year}", expected 2023 or 2024; set MINBERT_HANDOUT or handout='
        )

    # A wrong order gives wrong scores without an error, so say once which it is.
    first, other = ("paraphrase", "2024") if year == "2023" else ("sentiment", "2023")
    if not _announced:
        print(f"{year}'s order, {first} first; MINBERT_HANDOUT={other} gives {other}'s")
        _announced = True
    return year == "2023"


def model_eval_sst(dataloader: Batches, model: Any, device: torch.device) -> tuple:
    """Accuracy, macro F1, predictions, labels, sentences, ids."""
    from sklearn.metrics import f1_score  # slow to import: see evaluation.measure

    y_pred, y_true, sents, sent_ids = _run(dataloader, model, device, SENTIMENT)
    accuracy = float(np.mean(np.array(y_pred) == np.array(y_true)))
    return accuracy, f1_score(y_true, y_pred, average="macro"), y_pred, y_true, sents, sent_ids


def model_eval_multitask(
    sentiment_dataloader: Batches,
    paraphrase_dataloader: Batches,
    sts_dataloader: Batches,
    model: Any,
    device: torch.device,
    handout: int | None = None,
) -> tuple:
    """Score, predictions and ids of sentiment, of paraphrase and of similarity: nine in all.

    With handout 2023 those of paraphrase come first. UserError for another handout than 2023, 2024.
    """
    paraphrase_first = _paraphrase_first(handout)
    # Scored in one order in both years; only the order of what is returned differs.
    sentiment = _score(sentiment_dataloader, model, device, SENTIMENT)
    paraphrase = _score(paraphrase_dataloader, model, device, PARAPHRASE)
    similarity = _score(sts_dataloader, model, device, SIMILARITY)
    if paraphrase_first:
        return paraphrase + sentiment + similarity
    return sentiment + paraphrase + similarity


def model_eval_test_multitask(
    sentiment_dataloader: Batches,
    paraphrase_dataloader: Batches,
    sts_dataloader: Batches,
    model: Any,
    device: torch.device,
    handout: int | None = None,
) -> tuple:
    """Predictions and ids of sentiment, of paraphrase and of similarity: six in all.

    With handout 2023 those of paraphrase come first. UserError for another handout than 2023, 2024.
    """
    paraphrase_first = _paraphrase_first(handout)
    # Run in one order in both years; only the order of what is returned differs.
    sentiment = _answer(sentiment_dataloader, model, device, SENTIMENT)
    paraphrase = _answer(paraphrase_dataloader, model, device, PARAPHRASE)
    similarity = _answer(sts_dataloader, model, device, SIMILARITY)
    if paraphrase_first:
        return paraphrase + sentiment + similarity
    return sentiment + paraphrase + similarity


def _loader(dataset: Any, args: Any) -> DataLoader:
    """Batches of a course dataset, in file order."""
    # Never shuffled: prediction files have the order of the data file.
    return DataLoader(
        dataset, shuffle=False, batch_size=args.batch_size, collate_fn=dataset.collate_fn
    )


def _write_dev(args: Any, model: Any, device: torch.device) -> None:
    """Score the three dev files, and write their predictions."""
    # Similarity labels are floats, which isRegression says.
    sst, _, para, sts = load_multitask_data(args.sst_dev, args.para_dev, args.sts_dev, split="dev")
    sst_loader = _loader(SentenceClassificationDataset(sst, args), args)
    para_loader = _loader(SentencePairDataset(para, args), args)
    sts_loader = _loader(SentencePairDataset(sts, args, isRegression=True), args)

    # Each score is printed by the way; only the predictions go on.
    _, sst_y_pred, sst_ids = _score(sst_loader, model, device, SENTIMENT)
    _, para_y_pred, para_ids = _score(para_loader, model, device, PARAPHRASE)
    _, sts_y_pred, sts_ids = _score(sts_loader, model, device, SIMILARITY)

    # One file a task, in the leaderboard's format.
    write_predictions(args.sst_dev_out, SENTIMENT, sst_ids, sst_y_pred)
    write_predictions(args.para_dev_out, PARAPHRASE, para_ids, para_y_pred)
    write_predictions(args.sts_dev_out, SIMILARITY, sts_ids, sts_y_pred)


def _write_test(args: Any, model: Any, device: torch.device) -> None:
    """Write the predictions of the three test files, which have no labels."""
    sst, _, para, sts = load_multitask_data(
        args.sst_test, args.para_test, args.sts_test, split="test"
    )
    # Datasets without labels, else as for dev.
    sst_loader = _loader(SentenceClassificationTestDataset(sst, args), args)
    para_loader = _loader(SentencePairTestDataset(para, args), args)
    sts_loader = _loader(SentencePairTestDataset(sts, args, isRegression=True), args)

    # Nothing to score: predictions and ids only.
    sst_y_pred, sst_ids = _answer(sst_loader, model, device, SENTIMENT)
    para_y_pred, para_ids = _answer(para_loader, model, device, PARAPHRASE)
    sts_y_pred, sts_ids = _answer(sts_loader, model, device, SIMILARITY)

    # One file a task, in the leaderboard's format.
    write_predictions(args.sst_test_out, SENTIMENT, sst_ids, sst_y_pred)
    write_predictions(args.para_test_out, PARAPHRASE, para_ids, para_y_pred)
    write_predictions(args.sts_test_out, SIMILARITY, sts_ids, sts_y_pred)


def test_model_multitask(args: Any, model: Any, device: torch.device) -> None:
    """2023's last step: score the dev files, and write the six prediction files.

    `args` names them: it has batch_size, {sst,para,sts}_{dev,test} and the same with _out.
    """
    _write_dev(args, model, device)
    _write_test(args, model, device)


test_model_multitask.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test
