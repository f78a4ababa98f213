"""Samplers: which tasks feed the next optimizer step, and with how many examples each.

A sampler is `sampler(sizes, options) -> draw`; what a draw is, says training/draws.py. One that
draws at random does so from (options.seed, step).
"""

import math
from collections.abc import Callable

from options import Options
from training.draws import Draw, step_size


def mixed(sizes: dict[str, int], options: Options) -> Draw:
    """Every step holds all tasks, in shares N^a.

    a = 1: by size, 0: equal, 0.5: the square root, as in PALs' section 4.2. Stickland and Murray
    2019, https://arxiv.org/abs/1902.02671, draw one task a step with that probability; splitting
    each batch by it keeps the expectation and takes the sampling noise away.
    """
    weights = {task: size**options.sampling_exponent for task, size in sizes.items()}
    total = sum(weights.values())
    shares = {task: step_size(options) * weight / total for task, weight in weights.items()}

    def draw(step: int, progress: float) -> dict[str, int]:
        # The running total of a task is rounded down, so that shares hold over many steps too.
        counts = {}
        for task, share in shares.items():
            before = math.floor(step * share + 1e-9)
            after = math.floor((step + 1) * share + 1e-9)
            if after > before:
                counts[task] = after - before
        return counts

    return draw


def round_robin(sizes: dict[str, int], options: Options) -> Draw:
    """One task a step, in turn, as most course projects do."""
    tasks = list(sizes)
    return lambda step, progress: {tasks[step % len(tasks)]: step_size(options)}


SAMPLERS: dict[str, Callable[[dict[str, int], Options], Draw]] = {
    "mixed": mixed,
    "round_robin": round_robin,
}
