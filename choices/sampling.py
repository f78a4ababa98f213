"""Options of which examples a step takes."""

from dataclasses import dataclass

from choices.limits import MOST_STEPS, NEVER
from declare import PerTask, Section, declare


@dataclass(frozen=True)
class SamplingOptions(Section):
    """Which examples a step takes"""

    # How long.
    epochs: int = declare(
        3, "passes; one lasts until the sampler has been through one task", least=1, most=10_000
    )
    steps_per_epoch: int = declare(
        0,
        "optimizer steps an epoch; 0: until the sampler has been through one task",
        least=0,
        most=MOST_STEPS,
        usual="until a task is through",
    )

    samples_per_epoch: PerTask = declare(
        PerTask("all"),
        "a task's examples in an epoch; all, a number, or by task as in all para=8000; the sampler "
        "takes the task for that large (or as large as it is), and the next epoch goes on in its "
        "examples where this one stopped",
        choices=("all",),
        number=int,
        least=1,
        most=NEVER,
    )

    # How large a step is, and how it is cut to fit into memory.
    batch_size: int = declare(
        96, "examples a forward pass; of all tasks together", least=1, most=65_536
    )
    accumulation: int = declare(
        1,
        "forward passes a step; its batch of batch_size * accumulation examples is cut into them",
        least=1,
        most=4096,
    )

    # Where its examples come from.
    sampler: str = declare(
        "mixed", "which tasks feed a step; mixed: all of them, round_robin: one in turn"
    )
    sampling_exponent: float = declare(
        0.5,
        "a task's share is its size to this power; of a mixed batch",
        least=-10,
        most=10,
        needs="sampler",
        needs_value=("mixed",),
    )
