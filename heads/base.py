"""What a pooling and a head are made from.

A pooling is a module made from (config, options, task's name) whose forward takes an Encoded and
gives [S, size], fp32. It says what it needs: "cls" (then the encoder computes no more of its last
layer), "tokens" (the last layer) or "layers" (any). What it gives must not depend on padding.

A head is a module made from a HeadConfig, `head([B, features]) -> [B, outputs]`, fp32.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from base_bert import BertConfig
from options import Options

Needs = Literal["cls", "tokens", "layers"]


class Pooling(nn.Module):
    """What the others begin from: `needs`, and `size`, the width of what comes out.

    Their forward(encoded) gives [S, size]. An option with values by task is options.NAME.of(task).
    `config.hidden_size` is the width of the states that reach it: BERT's, or that of the last layer
    on top of BERT.
    """

    needs: Needs = "tokens"

    def __init__(self, config: BertConfig, options: Options, task: str):
        super().__init__()
        self.size = config.hidden_size


@dataclass(frozen=True)
class HeadConfig:
    """What a head can be made from."""

    features: int  # width of its input
    hidden: int  # the encoder's width, for layers inside
    outputs: int
    dropout: float
    norm: str  # a key of bert.NORMS
    feed_forward: str  # a key of bert.FEED_FORWARDS
    # For options of the head's own; one with values by task is read as options.NAME.of(task).
    task: str
    options: Options


def head_dropout(options: Options, task: str) -> float:
    """The dropout of a task's head: --head_dropout, or the one of the whole model."""
    value = options.head_dropout.of(task)
    return options.hidden_dropout_prob if value == "same" else float(value)
