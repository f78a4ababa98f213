"""One against all: a class is asked for by a yes or no of its own, a sigmoid instead of a softmax.

Rifkin and Klautau 2004, In Defense of One-Vs-All Classification,
https://www.jmlr.org/papers/v5/rifkin04a.html; with logistic losses in place of their hinge losses.
K outputs; the loss is the sum of K binary cross-entropies, a mean over the examples. Predicted is
the class of the largest output. Its probabilities are the sigmoids, divided by their sum.
"""

import torch.nn.functional as F
from torch import Tensor

from forward import Forward
from losses.comparison import Comparison
from packing import Batch


def one_vs_all(forward: Forward, batch: Batch) -> Tensor:
    """Sigmoid cross-entropies of logits [B, K] against class indices [B], a sum over classes."""
    logits = forward.logits[batch.task].float()
    targets = F.one_hot(batch.labels.long(), logits.shape[1]).float()  # [B, K]
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses.sum(1).mean()


def largest(logits: Tensor) -> Tensor:
    """[B, K] -> [B], the class."""
    return logits.argmax(1)


def shares(logits: Tensor) -> Tensor:
    """[B, K] -> [B, K], fp64: each class's sigmoid, divided by the sum of all."""
    # In logarithms, so that sigmoids that are 0 in floating point leave no 0 / 0.
    return F.logsigmoid(logits.double()).softmax(1)


ONE_VS_ALL = Comparison(one_vs_all, largest, shares)
