"""Ordinal regression: classes in an order are steps, and each step is a yes or no.

NNRank, Cheng, Wang and Pollastri 2008, A neural network approach to ordinal regression,
https://arxiv.org/abs/0704.1028; the K - 1 questions are Frank and Hall's of 2001. Output k of K - 1
says whether the class is above k (the paper has a further output, which is always a yes). The loss
is the sum of K - 1 binary cross-entropies, a mean over the examples. Predicted is the number of
outputs above a half. A class's probability is the difference of two neighbours, P(y > k - 1) -
P(y > k), as in Frank and Hall; the outputs need not fall, so it may be negative: it is cut off at
0, and what is left is divided by its sum. Left out: CORAL's outputs that share their weights
(Cao et al. 2020) and so always fall.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from forward import Forward
from losses.comparison import Comparison
from packing import Batch


def ordinal(forward: Forward, batch: Batch) -> Tensor:
    """Sigmoid cross-entropies of logits [B, K - 1] against classes [B], a sum over the steps."""
    logits = forward.logits[batch.task].float()
    steps = torch.arange(logits.shape[1], device=logits.device)
    targets = (batch.labels[:, None] > steps).float()  # [B, K - 1]
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses.sum(1).mean()


def steps_passed(logits: Tensor) -> Tensor:
    """[B, K - 1] -> [B], the class: how many steps are more likely passed than not."""
    return (logits > 0).sum(1)


def differences(logits: Tensor) -> Tensor:
    """[B, K - 1] -> [B, K], fp64: the probability of each class."""
    above = F.pad(logits.double().sigmoid(), (1, 0), value=1.0)  # [B, K], P(y > -1) = 1 first
    next_above = F.pad(above[:, 1:], (0, 1), value=0.0)  # [B, K], P(y > K - 1) = 0 last
    found = (above - next_above).clamp(min=0)
    # The differences sum to 1, and so to 1 at least without those below 0.
    return found / found.sum(1, keepdim=True)


def predicted_alone(logits: Tensor) -> Tensor:
    """[B, K - 1] -> [B, K], 1 at the class that is predicted and 0 elsewhere."""
    return F.one_hot(steps_passed(logits), logits.shape[1] + 1).float()


ORDINAL = Comparison(ordinal, steps_passed, differences, fewer=1, by_class=predicted_alone)
