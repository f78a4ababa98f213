"""The plan of a run: how many steps there are, what each draws and how fast it learns."""

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Split
from options import Options, pick
from training.draws import Draw, epoch_steps, one_cycle_a_step
from training.samplers import SAMPLERS
from training.schedules import SCHEDULES
from training.warmup import Schedule, steps_of_warmup


@dataclass
class Plan:
    """How many steps there are, what each draws and how fast it learns."""

    draw: Draw
    schedule: Schedule
    epoch: int  # steps
    total: int  # steps


def make_plan(options: Options, training: Mapping[str, Split], joint: bool) -> Plan:
    """The sampler and the schedule that the options ask for, by the sizes of the tasks.

    `joint`: a step needs examples of every task, as a combiner of their gradients does.
    """
    sizes = {}
    for task, split in training.items():
        amount = options.samples_per_epoch.of(task)
        sizes[task] = len(split) if amount == "all" else min(len(split), int(amount))
    draw = pick(SAMPLERS, options.sampler, "--sampler")(sizes, options)
    if joint:
        draw = one_cycle_a_step(draw, sizes)
    epoch = options.steps_per_epoch or epoch_steps(draw, sizes)
    total = epoch * options.epochs
    warmup = steps_of_warmup(options.warmup, total)
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, warmup)
    return Plan(draw, schedule, epoch, total)
