"""Losses of labelled tasks: `loss(forward, batch) -> scalar`, a mean over the batch, in fp32.

A loss sees all that the encoder call computed (forward.Forward) and the batch of its task, so it
may read pooled vectors and labels of any shape, not only logits.
"""

import torch.nn.functional as F
from torch import Tensor

from forward import Forward
from packing import Batch

HIGHEST_SIMILARITY = 5.0


def cross_entropy(forward: Forward, batch: Batch) -> Tensor:
    """Softmax cross-entropy of logits [B, classes] against class indices [B]."""
    logits = forward.logits[batch.task].float()
    return F.cross_entropy(logits, batch.labels.long())


def binary_cross_entropy(forward: Forward, batch: Batch) -> Tensor:
    """Sigmoid cross-entropy of logits [B, 1] against 0 or 1 in [B]."""
    logits = forward.logits[batch.task].float().squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, batch.labels.float())


def similarity_cross_entropy(forward: Forward, batch: Batch) -> Tensor:
    """Sigmoid cross-entropy of logits [B, 1] against similarities / 5, soft targets in [0, 1]."""
    logits = forward.logits[batch.task].float().squeeze(1)
    targets = batch.labels / HIGHEST_SIMILARITY
    return F.binary_cross_entropy_with_logits(logits, targets.float())
