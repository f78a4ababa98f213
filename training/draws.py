"""What a sampler gives, and what is made of it: steps, epochs, micro-batches.

`draw(step, progress) -> {task: examples of the step}`, with `progress` from 0 at the first step to
1 at the end. It is a function of these alone, so a run resumes at any step without a state to save.
"""

from collections.abc import Callable

from options import Options

Draw = Callable[[int, float], dict[str, int]]


def step_size(options: Options) -> int:
    """Examples of an optimizer step, all tasks together."""
    return options.batch_size * options.accumulation


def grouped(draw: Draw, count: int) -> Draw:
    """`count` draws as one step, for combiners, which need the gradients of several tasks."""

    def together(step: int, progress: float) -> dict[str, int]:
        counts: dict[str, int] = {}
        for number in range(step * count, (step + 1) * count):
            for task, examples in draw(number, progress).items():
                counts[task] = counts.get(task, 0) + examples
        return counts

    return together


def one_cycle_a_step(draw: Draw, sizes: dict[str, int]) -> Draw:
    """The draw as a combiner needs it: one task a step becomes a cycle of all in a step."""
    first = [draw(step, 0.0) for step in range(len(sizes))]
    if len(sizes) > 1 and all(len(counts) == 1 for counts in first):
        return grouped(draw, len(sizes))
    return draw


def epoch_steps(draw: Draw, sizes: dict[str, int]) -> int:
    """Optimizer steps of one epoch: until the first task has been seen whole.

    The shares are those that the sampler begins with.
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
