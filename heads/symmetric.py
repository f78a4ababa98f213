"""Predictions of pairs that do not depend on which sentence comes first: the mean of both orders.

What is averaged are the outputs, logits or similarities: one rule for all heads and losses. A
probability is then that of the mean logit.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forward import Forward
from packing import Batch
from text.pair_order import swapped_batch


def in_both_orders(model: Any, batches: Mapping[str, Batch]) -> Forward:
    """A MultitaskBERT's encoder call, with the logits of pairs averaged over (u, v) and (v, u).

    A second call is for those pairs alone whose order matters.
    """
    forward = model(model.pack(batches))
    turned = {}
    for name, batch in batches.items():
        if model.tasks[name].is_ordered(model.options):
            turned[name] = swapped_batch(batch)
    if not turned:
        return forward
    other = model(model.pack(turned)).logits
    means = {name: (forward.logits[name] + x) / 2 for name, x in other.items()}
    return replace(forward, logits={**forward.logits, **means})
