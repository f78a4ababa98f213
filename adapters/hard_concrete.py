"""Hard-concrete gates (Louizos et al. 2018, https://arxiv.org/abs/1712.01312): 0 or 1, learned.

Equations 10 and 11: s = sigmoid(logit(u) + log alpha) for uniform u, stretched to (LOW, HIGH) and
cut to [0, 1], so that a gate is exactly 0 or 1 with a probability that has a gradient. At
evaluation the noise is left out (equation 13). The temperature is 1.
"""

import math

import torch
from torch import Tensor

LOW, HIGH = -1.5, 1.5  # as in diff pruning
OPEN, CLOSED = 20.0, -20.0  # values of log alpha that no noise moves: the gate is 1, or 0


def stretched(s: Tensor) -> Tensor:
    """From (0, 1) to (LOW, HIGH), and cut to [0, 1]: same shape."""
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def sampled(log_alpha: Tensor) -> Tensor:
    """Gates drawn anew: same shape."""
    # Kept off 0 and 1, where the logit is infinite: it stays within 14 of 0.
    noise = torch.rand_like(log_alpha).logit_(1e-6)
    return stretched(torch.sigmoid(noise + log_alpha))


def expected(log_alpha: Tensor) -> Tensor:
    """Gates without the noise: same shape."""
    return stretched(torch.sigmoid(log_alpha))


def open_probability(log_alpha: Tensor) -> Tensor:
    """How likely a gate is to be above 0 (equation 12): same shape."""
    return torch.sigmoid(log_alpha - math.log(-LOW / HIGH))
