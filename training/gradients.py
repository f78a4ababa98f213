"""The tasks' gradients of one step, for combiners.

Shared are the encoder's parameters that train; all others (heads, embeddings that adapters add, the
parameters of extras) keep the plain sum of their gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gradients:
    """The tasks' gradients of the shared parameters in one step."""

    values: Tensor  # [K, P], fp32
    tasks: list[str]  # K names
    borders: dict[str, slice]  # parameter's name -> its numbers among the P
    step: int
    seed: int  # of the run; with the step it seeds whatever a combiner draws


class Combiner(Protocol):
    """From K gradients to one. A step may hold fewer tasks than the run.

    Where it remembers something it has state_dict(), a flat dict of tensors that may be empty
    before the first step, and load_state_dict(), which gets it back on the CPU.
    """

    def combine(self, gradients: Gradients) -> Tensor:
        """[K, P] -> [P]."""


class TaskGradients:
    """Collects the tasks' gradients of one step, over its micro-batches, and combines them once."""

    def __init__(self, shared: Mapping[str, Tensor]):
        self.shared = shared
        self.sums: dict[str, dict[str, Tensor]] = {}  # task -> parameter's name -> gradient

    def take(self, task: str) -> None:
        """Move what the last backward pass left in the shared .grad to the task's sum."""
        sums = self.sums.setdefault(task, {})
        for name, parameter in self.shared.items():
            if parameter.grad is None:
                continue
            if name in sums:
                sums[name] += parameter.grad
            else:
                sums[name] = parameter.grad
            parameter.grad = None

    def row(self, task: str, names: list[str]) -> Tensor:
        """A task's gradient as one vector [P], zero where its loss did not reach."""
        sums = self.sums[task]
        parts = [
            sums[name] if name in sums else torch.zeros_like(self.shared[name]) for name in names
        ]
        return torch.cat([part.flatten() for part in parts])

    def combine(self, combiner: Combiner, step: int, seed: int, scale: float = 1.0) -> None:
        """Put the combined gradient into .grad of every shared parameter that some loss reached.

        Others keep None, since a zero would let weight decay and old moments move them. `scale`:
        what the losses were multiplied by; the combiner sees gradients without it.
        """
        reached = set().union(*self.sums.values())
        names = [name for name in self.shared if name in reached]
        if not names:  # a frozen encoder
            return
        borders: dict[str, slice] = {}
        end = 0
        for name in names:
            begin, end = end, end + self.shared[name].numel()
            borders[name] = slice(begin, end)
        tasks = list(self.sums)
        values = torch.stack([self.row(task, names) for task in tasks])
        if scale == 1.0:
            combined = combiner.combine(Gradients(values, tasks, borders, step, seed))
        elif values.isfinite().all():
            unscaled = Gradients(values / scale, tasks, borders, step, seed)
            combined = combiner.combine(unscaled) * scale
        else:  # the step will be skipped, and what the combiner remembers must not be spoiled
            combined = values.sum(0)
        for name in names:
            parameter = self.shared[name]
            parameter.grad = combined[borders[name]].view_as(parameter)
