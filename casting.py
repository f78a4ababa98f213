"""Layers run in a narrow dtype over fp32 master weights.

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

from attention import Rows
from checkpointing import recomputed

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


def through_layers(
    layers: nn.ModuleList,
    hidden: Tensor,
    rows: Rows,
    dtype: torch.dtype,
    wanted: Tensor | None = None,
    recompute: bool = False,
) -> list[Tensor]:
    """The states before the first layer and after each: (layers + 1) of [..., H], in `dtype`.

    `wanted` [K]: of the last layer only these tokens, [K, H]. The rows' masks must be of `dtype`.
    `recompute`: keep only each layer's input for the backward pass (checkpointing.py).
    """
    # The layers compute in `dtype`, whatever the embeddings are in.
    states = [hidden.to(dtype)]
    last = len(layers) - 1

    run = recomputed(run_in) if recompute and torch.is_grad_enabled() else run_in
    for i, layer in enumerate(layers):
        # [..., H] -> [..., H]; of the last layer [N, H] -> [K, H] where `wanted` is given.
        states.append(run(dtype, layer, states[-1], rows, wanted if i == last else None))
    return states
