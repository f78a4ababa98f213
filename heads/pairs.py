"""From the vectors of an example's sequences to the features that its head gets.

A join is a module `join(pooled [S, H], owners [S]) -> [B, features]`: `owners` says which example a
sequence belongs to, so an example may have one sequence, two, or any number.
"""

import torch
from torch import Tensor, nn


class OneSequence(nn.Module):
    """An example is one sequence: its vector is what the head gets."""

    def __init__(self, size: int):
        super().__init__()
        self.features = size

    def forward(self, pooled: Tensor, owners: Tensor) -> Tensor:
        """[B, H] -> [B, H]."""
        return pooled


class PairFeatures(nn.Module):
    """An example is two sequences: [u, v, |u - v|, u * v].

    InferSent, Conneau et al. 2017, https://arxiv.org/abs/1705.02364.
    """

    def __init__(self, size: int):
        super().__init__()
        self.features = 4 * size

    def forward(self, pooled: Tensor, owners: Tensor) -> Tensor:
        """[2B, H], the two of a pair one behind the other -> [B, 4H]."""
        pairs = pooled.view(-1, 2, pooled.shape[1])
        u = pairs[:, 0]
        v = pairs[:, 1]
        return torch.cat([u, v, (u - v).abs(), u * v], dim=1)
