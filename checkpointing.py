"""Activation checkpointing: less memory for more time.

Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174,
section 4. Of a layer only the input is kept, and all that its backward pass needs is computed once
more when that pass comes to it. Dropout draws the same masks again: they follow from the state of
torch's generators (dropout.py), which is put back for that time. So the gradients are the same bits
as without. Left out: segments of several layers (the paper's are of sqrt(n)), since a layer's input
is small beside what is inside it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint


def recomputed(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but nothing is kept for its backward pass except its inputs.

    Second derivatives and several backward passes go through it too, each with a computation anew.
    """
    return partial(checkpoint, call, use_reentrant=False, preserve_rng_state=True)
