"""The load-balancing loss of experts: an even use of them costs least.

Fedus et al. 2021, Switch Transformers, https://arxiv.org/abs/2101.03961, equations 4 to 6:

    loss = alpha N sum_i f_i P_i

with N experts, f_i the share of the sequences whose largest weight is expert i's, and P_i the mean
weight of expert i. It is alpha where the use is even. Only P_i has a gradient. alpha is
--experts_balance.
"""

import torch
from torch import Tensor, nn

from forward import Forward
from options import Options


def load_balance(gates: Tensor) -> Tensor:
    """N sum_i f_i P_i of the weights [S, N], a scalar from 1, where all is even, to N."""
    count = gates.shape[1]
    chosen = torch.nn.functional.one_hot(gates.argmax(1), count).to(gates.dtype)
    return count * (chosen.mean(0) * gates.mean(0)).sum()


class Balance(nn.Module):
    """The loss as a further term of a step."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, model: nn.Module, forward: Forward, batches: object) -> dict[str, Tensor]:
        """{"experts_balance": scalar}."""
        assert forward.gates is not None
        return {"experts_balance": self.weight * load_balance(forward.gates)}


def balance(model: nn.Module, options: Options) -> Balance | None:
    """The term, where there are experts and its weight is not 0."""
    if options.experts and options.experts_balance:
        return Balance(options.experts_balance)
    return None
