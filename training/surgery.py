"""Gradient surgery: which combiner makes one gradient of the K tasks' gradients.

A combiner (training/gradients.py says what it is) is made from the options; None stands for the
plain sum, which needs no gradients of single tasks.
"""

from collections.abc import Callable

from options import Options
from training.gradients import Combiner


def plain_sum(options: Options) -> None:
    """No combiner: one backward pass of the summed losses."""
    return None


COMBINERS: dict[str, Callable[[Options], Combiner | None]] = {
    "sum": plain_sum,
}
