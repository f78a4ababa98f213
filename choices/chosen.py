"""All sections of options, by name and as one."""

from dataclasses import dataclass

from choices.adapter import AdapterOptions
from choices.data import DataOptions
from choices.head import HeadOptions
from choices.loss import LossOptions
from choices.model import ModelOptions
from choices.optimizer import OptimizerOptions
from choices.pair import PairOptions
from choices.parts import PartsOptions
from choices.run import RunOptions
from choices.sampling import SamplingOptions
from choices.task import TaskOptions
from declare import Section

# By the name that --help takes, in the order of the help.
SECTIONS: dict[str, type[Section]] = {
    "model": ModelOptions,
    "adapter": AdapterOptions,
    "parts": PartsOptions,
    "pair": PairOptions,
    "head": HeadOptions,
    "loss": LossOptions,
    "task": TaskOptions,
    "sampling": SamplingOptions,
    "optimizer": OptimizerOptions,
    "data": DataOptions,
    "run": RunOptions,
}


@dataclass(frozen=True)
class Chosen(
    ModelOptions,
    AdapterOptions,
    PartsOptions,
    PairOptions,
    HeadOptions,
    LossOptions,
    TaskOptions,
    SamplingOptions,
    OptimizerOptions,
    DataOptions,
    RunOptions,
):
    """A value for every option."""
