"""Poolings: from the encoder's states to one vector a sequence.

What a pooling is, says heads/base.py; heads/pipeline.py lists them.
"""

import math

from torch import Tensor

from forward import Encoded
from heads.base import Pooling


class ClsPooling(Pooling):
    """The first token's state, as BERT fine-tunes."""

    needs = "cls"

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        return encoded.first()


class PoolerPooling(Pooling):
    """BERT's own pooler, tanh(dense(h_CLS)), which was pretrained on whether sentences follow.

    Devlin et al. 2019, https://arxiv.org/abs/1810.04805. The weights are the encoder's: all tasks
    share them, and they stay frozen where the encoder does.
    """

    needs = "cls"

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        return encoded.pooler_output()


class MeanPooling(Pooling):
    """The mean over the tokens.

    Sentence-BERT, Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        states, mask = encoded.tokens()
        return states.sum(1) / mask.sum(1, keepdim=True)


class MaxPooling(Pooling):
    """The largest value over the tokens, in each dimension.

    Sentence-BERT, Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        states, mask = encoded.tokens()
        # Padding is zero, which may be more than any token's value.
        return states.masked_fill(~mask[:, :, None], -math.inf).amax(1)
