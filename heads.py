"""Poolings and task heads: from the tokens' last states to one vector a sequence, and from there to
logits.

A pooling is `pool(Encoded) -> [B, H]`. A head is a module `[B, features] -> [B, outputs]`. A pair
that was encoded as two sentences enters its head as [u, v, |u - v|, u * v] (InferSent, Conneau et
al. 2017, https://arxiv.org/abs/1705.02364). Nothing here sees padding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bert import NORMS
from dropout import Dropout
from swiglu import SwiGLU, two_thirds


@dataclass(frozen=True)
class Encoded:
    """The encoder's last states of some sequences of a packed batch."""

    states: Tensor  # [N, H], all tokens
    starts: Tensor  # [B], the sequences' [CLS] among the N
    lengths: Tensor  # [B]
    longest: int

    def first(self) -> Tensor:
        """The states of [CLS]: [B, H], fp32."""
        return self.states.index_select(0, self.starts).float()

    def tokens(self) -> tuple[Tensor, Tensor]:
        """The sequences padded with zeros to the longest: states [B, T, H], fp32, and mask [B, T],
        True at tokens.
        """
        steps = torch.arange(self.longest, device=self.starts.device)
        mask = steps < self.lengths[:, None]
        index = (self.starts[:, None] + steps) * mask  # padding reads token 0, and is zeroed below
        states = self.states.index_select(0, index.flatten()).view(*index.shape, -1).float()
        return states * mask[:, :, None], mask


def cls_pooling(encoded: Encoded) -> Tensor:
    """The first token's state, as BERT fine-tunes."""
    return encoded.first()


def mean_pooling(encoded: Encoded) -> Tensor:
    """The mean over the tokens (Sentence-BERT, Reimers and Gurevych 2019,
    https://arxiv.org/abs/1908.10084).
    """
    states, mask = encoded.tokens()
    return states.sum(1) / mask.sum(1, keepdim=True)


class LinearHead(nn.Module):
    """Dropout and one linear."""

    def __init__(
        self, features: int, hidden: int, outputs: int, dropout: float, norm: str, gated: bool
    ):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] -> [B, outputs]."""
        return self.out(self.dropout(x))


class MLPHead(nn.Module):
    """Dense, activation, norm, dropout, linear: BERT's prediction head transform with an output
    layer of its own.
    """

    def __init__(
        self, features: int, hidden: int, outputs: int, dropout: float, norm: str, gated: bool
    ):
        super().__init__()
        width = two_thirds(hidden) if gated else hidden
        self.dense = (
            SwiGLU(features, width)
            if gated
            else nn.Sequential(nn.Linear(features, width), nn.GELU())
        )
        self.norm = NORMS[norm](width, eps=1e-6)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] -> [B, outputs]."""
        return self.out(self.dropout(self.norm(self.dense(self.dropout(x)))))


def pair_features(pooled: Tensor) -> Tensor:
    """Two sentences a pair, in turn: [2B, H] -> [B, 4H]."""
    u, v = pooled[0::2], pooled[1::2]
    return torch.cat([u, v, (u - v).abs(), u * v], dim=1)


POOLINGS = {"cls": cls_pooling, "mean": mean_pooling}
HEADS = {"mlp": MLPHead, "linear": LinearHead}
