"""Grouped-query attention: heads that share their keys and values.

Ainslie et al. 2023, GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
Checkpoints, https://arxiv.org/abs/2305.13245. The query heads stand in groups of equal size, and a
group has one key head and one value head; with a single group it is multi-query attention (Shazeer
2019, https://arxiv.org/abs/1911.02150). A pretrained checkpoint is converted as in section 2.1: a
group's projections are the means of its heads'. Left out: the pre-training that the paper goes on
with after that (uptraining).
"""

from torch import Tensor


def pool_heads(state: dict[str, Tensor], name: str, heads: int, size: int) -> None:
    """Turn a pretrained linear of keys or values into one of fewer heads, in place.

    The linear is `name`'s in `state`, [heads there * size, H]; each of the new heads is the mean of
    as many that stand side by side. Nothing happens where there are as many heads already, or the
    shapes are none of this linear's, which whoever loads them refuses.
    """
    rows = len(state.get(f"{name}.weight", ()))
    if rows % (heads * size) or rows == heads * size:
        return
    for key in (f"{name}.weight", f"{name}.bias"):
        # [heads * group * size, ...] -> [heads, group, size, ...] -> [heads * size, ...]
        grouped = state[key].unflatten(0, (heads, -1, size))
        state[key] = grouped.mean(1).flatten(0, 1)


def share_heads(heads: Tensor, count: int) -> Tensor:
    """Each head as often as its group has queries: [R, heads, W, D] -> [R, count, W, D]."""
    return heads.repeat_interleave(count // heads.shape[1], dim=1)
