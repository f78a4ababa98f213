"""Modules of which each task has one: its tokens taken out of the packed ones, and put back.

attention.Rows.of_task says where they stand. N tokens of all packed rows, M of one task's.
"""

import torch
from torch import Tensor


def take(tokens: Tensor, places: list[slice]) -> Tensor:
    """The tokens at some places, one behind the other: [N, width] -> [M, width]."""
    parts = [tokens[place] for place in places]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def put(into: Tensor, places: list[slice], tokens: Tensor) -> None:
    """Write tokens [M, width] to where take() took them from, in place in [N, width]."""
    sizes = [place.stop - place.start for place in places]
    for place, part in zip(places, tokens.split(sizes), strict=True):
        into[place] = part
