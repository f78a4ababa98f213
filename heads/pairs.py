"""From the vectors of an example's sequences to the features that its head gets.

A join is a module `join(pooled [S, H], owners [S]) -> [B, features]`: `owners` says which example a
sequence belongs to, so an example may have one sequence, two, or any number. The default features
of two, [u, v, |u - v|, u * v], are InferSent's: Conneau et al. 2017,
https://arxiv.org/abs/1705.02364.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.supervised import HIGHEST_SIMILARITY
from options import Options
from tasks import Task

# What a pair's vectors u and v, [B, H], are turned into, [B, H]; --pair_features names these.
FEATURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "u": lambda u, v: u,
    "v": lambda u, v: v,
    "sum": lambda u, v: u + v,
    "abssum": lambda u, v: (u + v).abs(),
    "absdiff": lambda u, v: (u - v).abs(),
    "product": lambda u, v: u * v,
}
# From a cosine, -1 to 1, to a similarity; labels are 0 to 5.
COSINE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": lambda cosine: HIGHEST_SIMILARITY / 2 * (1 + cosine),
    "times5": lambda cosine: HIGHEST_SIMILARITY * cosine,
}


class Join(nn.Module):
    """What the others begin from."""

    is_output = False  # whether what it gives are the task's outputs, so that no head follows

    def __init__(self, features: int):
        super().__init__()
        self.features = features  # width of what comes out


def two_of_each(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """[2B, H], the two of a pair one behind the other -> u and v, [B, H] each."""
    pairs = pooled.view(-1, 2, pooled.shape[1])
    return pairs[:, 0], pairs[:, 1]


class OneSequence(Join):
    """An example is one sequence: its vector is what the head gets."""

    def forward(self, pooled: Tensor, owners: Tensor) -> Tensor:
        """[B, H] -> [B, H]."""
        return pooled


class PairFeatures(Join):
    """An example is two sequences: the features with these names, one behind the other."""

    def __init__(self, size: int, names: Sequence[str]):
        super().__init__(len(names) * size)
        self.names = names

    def forward(self, pooled: Tensor, owners: Tensor) -> Tensor:
        """[2B, H] -> [B, names * H]."""
        u, v = two_of_each(pooled)
        return torch.cat([FEATURES[name](u, v) for name in self.names], dim=1)


class CosineSimilarity(Join):
    """An example is two sequences, and its output is their cosine as a similarity.

    Sentence-BERT's regression, Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, on the
    labels' scale. Nothing is cut off here, which would leave no gradient.
    """

    is_output = True

    def __init__(self, map_name: str):
        super().__init__(1)
        self.map = COSINE_MAPS[map_name]

    def forward(self, pooled: Tensor, owners: Tensor) -> Tensor:
        """[2B, H] -> [B, 1]."""
        u, v = two_of_each(pooled)
        return self.map(F.cosine_similarity(u, v, dim=1, eps=1e-8))[:, None]


class Projected(Join):
    """Another join, of vectors that went through a linear first, the same for both of a pair."""

    def __init__(self, size: int, join: Join):
        super().__init__(join.features)
        self.is_output = join.is_output
        self.project = nn.Linear(size, size)
        self.join = join

    def forward(self, pooled: Tensor, owners: Tensor) -> Tensor:
        """[S, H] -> [B, features]."""
        return self.join(self.project(pooled), owners)


def make_join(task: Task, size: int, options: Options) -> Join:
    """The join that the options ask for, of vectors of this size."""
    if not task.is_bi(options):
        return OneSequence(size)
    names = options.pair_features.of(task.name).split(",")
    join: Join
    if names == ["cosine"]:
        join = CosineSimilarity(options.cosine_map)
    else:
        join = PairFeatures(size, names)
    return Projected(size, join) if options.pair_projection.of(task.name) == "linear" else join
