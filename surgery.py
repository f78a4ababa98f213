"""From K task losses to one gradient.

A combiner turns the tasks' gradients of the shared parameters, stacked [K, P] in fp32, into one
[P]; heads keep their own gradient. `None` stands for the plain sum, which needs one backward pass
and not K.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Combiner = Callable[[Tensor], Tensor]
COMBINERS: dict[str, Combiner | None] = {"sum": None}


def backward(losses: dict[str, Tensor], shared: Sequence[Tensor], combine: Combiner | None) -> None:
    """Add the gradient of the combined losses to .grad of every parameter that they reach; others
    keep None.
    """
    if combine is None:
        torch.stack(list(losses.values())).sum().backward()
        return
    before = [p.grad for p in shared]
    rows, reached = [], [old is not None for old in before]
    for i, loss in enumerate(losses.values()):
        for p in shared:
            p.grad = None
        loss.backward(retain_graph=i < len(losses) - 1)
        reached = [so_far or p.grad is not None for so_far, p in zip(reached, shared, strict=True)]
        rows.append(
            torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in shared]
            )
        )
    combined = combine(torch.stack(rows)).split([p.numel() for p in shared])
    for p, gradient, old, some in zip(shared, combined, before, reached, strict=True):
        if some:  # a zero instead of None would let weight decay at parameters that no loss reaches
            p.grad = gradient.view_as(p) if old is None else old + gradient.view_as(p)
