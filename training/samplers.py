"""Samplers: which tasks feed the next optimizer step, and with how many examples each.

A sampler is `sampler(sizes, options) -> draw`, and `draw(step, progress) -> {task: examples}`, with
`progress` from 0 at the first step to 1 at the end. It is a function of these alone (and of
options.seed, where it draws), so a run resumes at any step without a state to save.
"""

import math
from collections.abc import Callable

from options import Options

Draw = Callable[[int, float], dict[str, int]]


def step_size(options: Options) -> int:
    """Examples of an optimizer step, all tasks together."""
    return options.batch_size * options.accumulation


def mixed(sizes: dict[str, int], options: Options) -> Draw:
    """Every step holds all tasks, in shares N^a (a = 1: by size, 0: equal, 0.5: the square root of
    PALs, section 4.2).

    Stickland and Murray 2019, https://arxiv.org/abs/1902.02671, draw one task a step with that
    probability; splitting each batch by it keeps the expectation and takes the sampling noise away.
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


def grouped(draw: Draw, count: int) -> Draw:
    """`count` draws as one step, for combiners: of one task's gradient there is nothing to
    combine.
    """

    def together(step: int, progress: float) -> dict[str, int]:
        counts: dict[str, int] = {}
        for number in range(step * count, (step + 1) * count):
            for task, examples in draw(number, progress).items():
                counts[task] = counts.get(task, 0) + examples
        return counts

    return together


def one_cycle_a_step(draw: Draw, sizes: dict[str, int]) -> Draw:
    """The sampler as a combiner needs it: one that draws one task a step has a cycle of them in a
    step.
    """
    first = [draw(step, 0.0) for step in range(len(sizes))]
    if len(sizes) > 1 and all(len(counts) == 1 for counts in first):
        return grouped(draw, len(sizes))
    return draw


def epoch_steps(draw: Draw, sizes: dict[str, int]) -> int:
    """Optimizer steps of one epoch: until the first task has been seen whole, in the shares that
    the sampler begins with.
    """
    left = dict(sizes)
    steps = 0
    while all(examples > 0 for examples in left.values()):
        for task, count in draw(steps, 0.0).items():
            left[task] -= count
        steps += 1
    return steps


def micro_batches(drawn: dict[str, list[int]], count: int) -> list[dict[str, list[int]]]:
    """A step's examples, {task: indices}, cut into at most `count` parts of equal shares.

    Each part has the next slice of every task; a task of fewer examples than parts sits some out.
    """
    parts: list[dict[str, list[int]]] = []
    for number in range(count):
        part = {}
        for task, indices in drawn.items():
            begin = number * len(indices) // count
            end = (number + 1) * len(indices) // count
            if end > begin:
                part[task] = indices[begin:end]
        if part:
            parts.append(part)
    return parts
