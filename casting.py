"""Layers that compute in another dtype than that of their weights.

Micikevicius et al. 2018, Mixed Precision Training, https://arxiv.org/abs/1710.03740: fp32 master
weights, of which the linears' are cast for each forward pass. The layers' states are in that dtype
then; norms compute in fp32. What fp16 needs beside it, a loss scale, is in training/scaling.py.
"""

import threading

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attention import Rows

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


def through_layers(
    layers: nn.ModuleList,
    hidden: Tensor,
    rows: Rows,
    dtype: torch.dtype,
    wanted: Tensor | None = None,
) -> list[Tensor]:
    """The states before the first layer and after each: (layers + 1) of [..., H], in `dtype`.

    `wanted` [K]: of the last layer only these tokens, [K, H]. The rows' masks must be of `dtype`.
    """
    # The layers compute in `dtype`, whatever the embeddings are in.
    states = [hidden.to(dtype)]
    last = len(layers) - 1

    # The lock spans all layers: threads that share a model take turns.
    with CASTING:
        for i, layer in enumerate(layers):
            inputs = (states[-1], rows, wanted if i == last else None)
            # [..., H] -> [..., H]; of the last layer [N, H] -> [K, H] where `wanted` is given.
            states.append(functional_call(layer, cast_linears(layer, dtype), inputs))
    return states
