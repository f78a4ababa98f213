"""Options of what follows the encoder."""

from dataclasses import dataclass

from declare import PerTask, Section, declare


@dataclass(frozen=True)
class HeadOptions(Section):
    """From token states to a task's logits"""

    attention_layers: PerTask = declare(
        PerTask("0"),
        "self-attention layers on top of BERT; for all tasks, or as in 0 sst=2",
        number=int,
        least=0,
        most=5,
    )
    attention_heads: PerTask = declare(
        PerTask("same"),
        "heads of these layers; same: as many as BERT's, or any number that divides its width",
        choices=("same",),
        number=int,
        least=1,
        most=1024,
        needs="attention_layers",
    )
    pooling: PerTask = declare(
        PerTask("cls"), "from token states to one vector; for all tasks, or as in cls sts=mean"
    )
    head: PerTask = declare(
        PerTask("mlp"), "what turns that vector into logits; for all tasks, or as in mlp sts=linear"
    )
