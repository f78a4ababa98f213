"""Dropout that is cheap on a CPU: its masks come from random bytes.

Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html. torch draws one double a
number, which on a CPU costs as much as the matrix product before it. Here eight numbers share a
draw, a byte each, so p is rounded to 1/256 and the scale is that p's, in x's dtype (as torch's own
is). The bytes come from a generator seeded by one draw from torch's own, so `torch.manual_seed`
rules them and torch's state is all that a checkpoint needs. On CUDA this is torch's dropout.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def byte_mask(x: Tensor, p: float) -> Tensor:
    """A mask of x's shape and dtype: 0 with probability round(256 p) / 256, else 1 / (1 - that)."""
    # One byte an element, cut from words of eight; the last word may be needed in part.
    seed = int(torch.randint(2**63 - 1, ()))
    count = x.numel()
    words = np.random.SFC64(seed).random_raw((count + 7) // 8)
    octets = torch.from_numpy(words.view(np.uint8))[:count].view(x.shape)

    # Of a byte's 256 values this many drop the element; the others scale it up.
    dropped = round(256 * p)
    mask = torch.empty(x.shape, dtype=x.dtype)
    torch.ge(octets, dropped, out=mask)
    return mask.mul_(256 / (256 - dropped))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """x with a share p of its elements zeroed and the rest scaled up; x itself out of training."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or round(256 * p) in (0, 256):
        return F.dropout(x, p, training)
    return x * byte_mask(x, p)


class Dropout(nn.Dropout):
    """nn.Dropout, with the masks of `byte_mask` on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """[...] -> [...], same shape and dtype."""
        return dropout(input, self.p, self.training)
