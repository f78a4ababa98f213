"""What schedules are made of.

A schedule is `schedule(step, history) -> factor` of a parameter group's peak rate. It is pure: the
factor follows from the step and from the dev scores so far, `history`, a list of (step, overall
score).
"""

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


def steps_of_warmup(share: float, steps: int) -> int:
    """The length of a warm-up over a share of so many steps."""
    return round(share * steps)


def warmed_up_again(schedule: Schedule, begin: int, warmup_steps: int) -> Schedule:
    """A schedule times a second linear warm-up, of so many steps from the step `begin` on.

    Its first step has 1 / warmup_steps. `begin` of 0: there is none.
    """
    if begin == 0:
        return schedule

    def again(step: int, history: History = ()) -> float:
        factor = schedule(step, history)
        if begin <= step < begin + warmup_steps:
            factor *= (step + 1 - begin) / warmup_steps
        return factor

    return again


def left_over(step: int, total_steps: int, warmup_steps: int) -> float:
    """The share of the steps after the warm-up that is still to come: from 1 down to 0."""
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
