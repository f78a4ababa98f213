"""Task heads: from an example's features to its logits.

What a head is, says heads/base.py; heads/pipeline.py lists them.
"""

from torch import Tensor, nn

from bert import FEED_FORWARDS, NORMS
from dropout import Dropout
from heads.base import HeadConfig


class LinearHead(nn.Module):
    """Dropout and one linear."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(config.features, config.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] -> [B, outputs]."""
        return self.out(self.dropout(x))


class MLPHead(nn.Module):
    """BERT's prediction head transform (dense, activation, norm) and a linear, with dropouts."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        feed_forward = FEED_FORWARDS[config.feed_forward]
        width = feed_forward.width_afresh(config.hidden)
        self.dense = feed_forward.up(config.features, width)
        self.activation = feed_forward.activation
        self.norm = NORMS[config.norm](width, eps=1e-6)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(width, config.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] -> [B, outputs]."""
        hidden = self.norm(self.activation(self.dense(self.dropout(x))))
        return self.out(self.dropout(hidden))
