"""Samplers: which tasks feed the next step, and with how many examples each.

A sampler is `sampler(sizes, options) -> draw`, and `draw(step) -> {task: examples}`: a function of
the step alone, so a run resumes at any step without a state to save.
"""

import math
from collections.abc import Callable

from options import Options

Draw = Callable[[int], dict[str, int]]


def mixed(sizes: dict[str, int], options: Options) -> Draw:
    """Every step holds all tasks, in shares N^a (a = 1: by size, 0: equal, 0.5: the square root of
    PALs, section 4.2).

    Stickland and Murray 2019, https://arxiv.org/abs/1902.02671, draw one task a step with that
    probability; splitting each batch by it keeps the expectation and takes the sampling noise away.
    """
    total = sum(size**options.sampling_exponent for size in sizes.values())
    shares = {
        task: options.batch_size * size**options.sampling_exponent / total
        for task, size in sizes.items()
    }

    def draw(step: int) -> dict[str, int]:
        # The running total of a task is rounded down, so that shares hold over many steps too.
        counts = {
            task: math.floor((step + 1) * x + 1e-9) - math.floor(step * x + 1e-9)
            for task, x in shares.items()
        }
        return {task: n for task, n in counts.items() if n}

    return draw


def round_robin(sizes: dict[str, int], options: Options) -> Draw:
    """One task a step, in turn, as most course projects do."""
    tasks = list(sizes)
    return lambda step: {tasks[step % len(tasks)]: options.batch_size}


SAMPLERS = {"mixed": mixed, "round_robin": round_robin}


def epoch_steps(draw: Draw, sizes: dict[str, int], accumulation: int) -> int:
    """Optimizer steps of one epoch: until the first task has been seen whole."""
    left, micro = dict(sizes), 0
    while all(n > 0 for n in left.values()):
        for task, count in draw(micro).items():
            left[task] -= count
        micro += 1
    return -(-micro // accumulation)
