"""transformers' BertModel with plain linear heads: what the benchmarks compare with."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import padded
from datasets import Split
from options import Options
from packing import Batch
from pretrained import find_pretrained
from tasks import TASKS

EVALUATION_BATCH = 64


class PlainBERT(nn.Module):
    """transformers' BertModel with a dropout and a linear for each task on [CLS]."""

    def __init__(self, options: Options, attention: str):
        super().__init__()
        from transformers import BertModel
        from transformers.utils import logging

        # Its remarks about unused pooler weights are known.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.bert = BertModel.from_pretrained(
            find_pretrained(options.model),
            add_pooling_layer=False,
            attn_implementation=attention,
            dtype=torch.float32,
            hidden_dropout_prob=options.hidden_dropout_prob,
            attention_probs_dropout_prob=options.attention_dropout_prob,
        )
        self.dropout = nn.Dropout(options.hidden_dropout_prob)
        self.heads = nn.ModuleDict(
            {t: nn.Linear(self.bert.config.hidden_size, TASKS[t].outputs) for t in options.tasks}
        )

    def forward(self, task: str, batch: Batch) -> Tensor:
        """Padded to the longest: logits [B, outputs], fp32."""
        return self.joint({task: batch})[task]

    def joint(self, batches: dict[str, Batch], together: int = 10**9) -> dict[str, Tensor]:
        """All tasks of a step, sorted by length and encoded `together` at a time, padded to fit."""
        # Sorted by length, so that a part has little padding.
        sequences = [tokens for batch in batches.values() for tokens in batch.tokens]
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        device = next(self.parameters()).device
        parts = [order[begin : begin + together] for begin in range(0, len(order), together)]

        # [CLS] of each sequence, put back into the order of the batches.
        states = [
            self.bert(**padded([sequences[i] for i in part], device)).last_hidden_state[:, 0]
            for part in parts
        ]
        in_order = torch.cat(states)[torch.tensor(order).argsort().to(device)]
        first = self.dropout(in_order)

        # Each task's part of it to its own head.
        pieces = first.split([len(batch.tokens) for batch in batches.values()])
        return {
            task: self.heads[task](piece).float()
            for task, piece in zip(batches, pieces, strict=True)
        }


def task_loss(task: str, logits: Tensor, labels: Tensor, sts_loss: str) -> Tensor:
    """The mean loss of a task's examples.

    Where labels are not whole numbers it is the squared error ("mse"), or the cross-entropy of the
    labels' share of the highest one ("bce").
    """
    # Several outputs are classes; one output is a number, or the logit of a share.
    scale = TASKS[task].labels
    if TASKS[task].outputs > 1:
        return F.cross_entropy(logits, labels.long())
    if sts_loss == "mse" and not scale.whole:
        return F.mse_loss(logits.squeeze(1), labels)
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels / scale.high)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to bf16 or fp16, or nothing in fp32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@torch.no_grad()
def predict_logits(model: PlainBERT, split: Split, dtype: torch.dtype) -> Tensor:
    """[examples, outputs] in file order, from batches sorted by length; the model stays in eval."""
    model.eval()
    device = next(model.parameters()).device
    # Sorted by length as in training; the inverse of that order puts the rows back.
    order = sorted(range(len(split)), key=lambda i: -split.length(i))
    rows = []
    with autocast(device, dtype):
        for begin in range(0, len(order), EVALUATION_BATCH):
            batch = split.batch(order[begin : begin + EVALUATION_BATCH])
            rows.append(model(split.task.name, batch))
    return torch.cat(rows).cpu()[torch.tensor(order).argsort()]
