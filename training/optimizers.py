"""Which optimizer moves the weights, and at which rates.

An optimizer is `make(groups, options)`, a torch Optimizer. For checkpoints it names in `moments`
the tensors that it keeps of a parameter, beside a whole number `step`. One that needs second
derivatives has `curvature_every`, a number of steps, and `estimate_curvature(loss)`, called every
so often with the loss of a fresh forward pass, in fp32 where the run is in fp16. All that it sees
is without fp16's loss scale, and of a step that overflows it sees nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from choices.optimizer import OptimizerOptions
from optimizer import AdamW, parameter_groups
from options import pick


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give each group `factor` times its own peak rate; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def adamw(groups: list[dict[str, Any]], options: OptimizerOptions) -> torch.optim.Optimizer:
    """AdamW in the form that the options name."""
    return AdamW(groups, form=options.optimizer_form)


Maker = Callable[[list[dict[str, Any]], OptimizerOptions], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Maker] = {
    "adamw": adamw,
}


def make_optimizer(model: nn.Module, options: OptimizerOptions, lr: float) -> torch.optim.Optimizer:
    """The optimizer that the options ask for, of all parameters that train."""
    groups = parameter_groups(model, options.weight_decay, lr)
    return pick(OPTIMIZERS, options.optimizer, "--optimizer")(groups, options)
