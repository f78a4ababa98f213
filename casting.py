"""A layer run in a narrow dtype over fp32 master weights.

Micikevicius et al. 2018, Mixed Precision Training, https://arxiv.org/abs/1710.03740, section 3.1.
The linears' weights are cast while the layer runs; gradients reach the master weights. The loss
scale that fp16 needs is in training/scaling.py. Left out: torch's autocast, which casts anew for
every product.
"""

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

# functional_call puts the cast weights into the module while it runs: one thread at a time.
CASTING = threading.RLock()


def cast_linears(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a module's linears in another dtype, by name, for functional_call.

    The linears themselves stay nn.Linear with fp32 master weights; gradients reach those. What
    parametrisations of their weights hold (torch.nn.utils.parametrize, as minLoRA) is cast too.
    Nothing is to be replaced in fp32.
    """
    cast: dict[str, Tensor] = {}

    if dtype == torch.float32:
        return cast

    # Norms stay in fp32: they are cheap, and lose the most by rounding.
    for name, linear in module.named_modules():
        if isinstance(linear, nn.Linear):
            for key, tensor in [*linear.named_parameters(), *linear.named_buffers()]:
                if tensor.is_floating_point():
                    cast[f"{name}.{key}"] = tensor.to(dtype)
    return cast


def run_in(dtype: torch.dtype, module: nn.Module, *inputs: Any) -> Any:
    """What a module gives for its inputs, the weights of its linears cast to `dtype`."""
    with CASTING:
        return functional_call(module, cast_linears(module, dtype), inputs)
