"""Learning-rate schedules: (total_steps, warmup_steps) -> schedule.

What a schedule is, says training/warmup.py.
"""

import math
from collections.abc import Callable

from training.warmup import Schedule, left_over, warmed_up


def constant(total_steps: int, warmup_steps: int) -> Schedule:
    """1 after the warm-up."""
    return warmed_up(lambda step: 1.0, total_steps, warmup_steps)


def linear(total_steps: int, warmup_steps: int) -> Schedule:
    """From 1 after the warm-up in a straight line to 0 at total_steps, and 0 from there on."""

    def decay(step: int) -> float:
        return left_over(step, total_steps, warmup_steps)

    return warmed_up(decay, total_steps, warmup_steps)


def cosine(total_steps: int, warmup_steps: int) -> Schedule:
    """From 1 after the warm-up along half a cosine to 0 at total_steps, and 0 from there on."""

    def decay(step: int) -> float:
        return 0.5 - 0.5 * math.cos(math.pi * left_over(step, total_steps, warmup_steps))

    return warmed_up(decay, total_steps, warmup_steps)


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {
    "linear": linear,
    "constant": constant,
    "cosine": cosine,
}
