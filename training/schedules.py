"""Learning-rate schedules: `schedule(step, history) -> factor` of a parameter group's peak rate.

A schedule is pure: the factor follows from the step and from the dev scores so far, `history`, a
list of (step, overall score). SCHEDULES maps a name to (total_steps, warmup_steps) -> schedule.
"""

import math
from collections.abc import Callable, Sequence

History = Sequence[tuple[int, float]]
Schedule = Callable[[int, History], float]


def warmed_up(after: Callable[[int], float], total_steps: int, warmup_steps: int) -> Schedule:
    """`after` behind a linear warm-up. Steps count from 0; the first has 1 / warmup_steps.

    ValueError for a warm-up that is longer than the run.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warm-up of {warmup_steps} steps out of {total_steps}: expected from 0 to all of them"
        )

    def schedule(step: int, history: History = ()) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return after(step)

    return schedule


def left_over(step: int, total_steps: int, warmup_steps: int) -> float:
    """The share of the steps after the warm-up that is still to come: 1 at its end, 0 at the
    end.
    """
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


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
