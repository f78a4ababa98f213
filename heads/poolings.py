"""Poolings: from the encoder's states to one vector a sequence.

A pooling is a module made from (config, options) whose forward takes an Encoded and gives
[S, size], fp32. It says what it needs: "cls" (then the encoder computes no more of its last layer),
"tokens" (the last layer) or "layers" (any). What it gives must not depend on padding.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from base_bert import BertConfig
from forward import Encoded
from options import Options

Needs = Literal["cls", "tokens", "layers"]


class Pooling(nn.Module):
    """What the others begin from: `needs`, and `size`, the width of what comes out."""

    needs: Needs = "tokens"

    def __init__(self, config: BertConfig, options: Options):
        super().__init__()
        self.size = config.hidden_size

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, size]."""
        raise NotImplementedError


class ClsPooling(Pooling):
    """The first token's state, as BERT fine-tunes."""

    needs = "cls"

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        return encoded.first()


class MeanPooling(Pooling):
    """The mean over the tokens (Sentence-BERT, Reimers and Gurevych 2019,
    https://arxiv.org/abs/1908.10084).
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        states, mask = encoded.tokens()
        return states.sum(1) / mask.sum(1, keepdim=True)


POOLINGS: dict[str, Callable[[BertConfig, Options], Pooling]] = {
    "cls": ClsPooling,
    "mean": MeanPooling,
}
