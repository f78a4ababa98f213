"""How a task's outputs are compared with labels where a flag says so: what a Comparison is.

tasks.py has the tables of them; `--sst_loss` and `--sts_loss` name their entries.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from forward import Forward
from packing import Batch


@dataclass(frozen=True)
class Comparison:
    """What takes the place of a task's own loss, and of what is read from its outputs."""

    loss: Callable[[Forward, Batch], Tensor]  # a scalar, as in losses/supervised.py
    predict: Callable[[Tensor], Tensor]  # [B, outputs] -> [B]
    probabilities: Callable[[Tensor], Tensor] | None = None  # [B, outputs] -> [B, classes]
    fewer: int = 0  # how many outputs less than the task has by itself
    # Where outputs are no classes' logits: [B, outputs] -> [B, classes], the predicted one's is
    # the largest.
    by_class: Callable[[Tensor], Tensor] | None = None
