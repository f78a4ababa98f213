"""Poolings: from the encoder's states to one vector a sequence.

What a pooling is, says heads/base.py; heads/pipeline.py lists them.
"""

from torch import Tensor

from forward import Encoded
from heads.base import Pooling


class ClsPooling(Pooling):
    """The first token's state, as BERT fine-tunes."""

    needs = "cls"

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        return encoded.first()


class MeanPooling(Pooling):
    """The mean over the tokens.

    Sentence-BERT, Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        states, mask = encoded.tokens()
        return states.sum(1) / mask.sum(1, keepdim=True)
