"""Options of what follows the encoder."""

from dataclasses import dataclass

from declare import PerTask, Section, declare


@dataclass(frozen=True)
class HeadOptions(Section):
    """From token states to a task's logits"""

    pooling: PerTask = declare(
        PerTask("cls"), "from token states to one vector; for all tasks, or as in cls sts=mean"
    )
    head: PerTask = declare(
        PerTask("mlp"), "what turns that vector into logits; for all tasks, or as in mlp sts=linear"
    )
