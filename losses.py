"""Losses, as functions of tensors: `loss(logits [B, outputs], labels [B]) -> scalar`, the mean over
the batch, in fp32.

An extra is a further term of a step, for regularisers and contrastive objectives: `extra(model,
batches, logits) -> {task: scalar}`, added to the tasks' losses. EXTRAS maps a name to `options ->
extra`, or None where the options leave it out.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

HIGHEST_SIMILARITY = 5.0
EXTRAS: dict[str, Callable] = {}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy of [B, classes] against class indices [B]."""
    return F.cross_entropy(logits.float(), labels.long())


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid cross-entropy of [B, 1] against 0 or 1 in [B]."""
    return F.binary_cross_entropy_with_logits(logits.float().squeeze(1), labels.float())


def similarity_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid cross-entropy of [B, 1] against similarities in [0, 5], divided by 5 to be soft
    targets in [0, 1].
    """
    return binary_cross_entropy(logits, labels / HIGHEST_SIMILARITY)
