"""Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html) that is cheap on
a CPU.

torch draws one double a number, which on a CPU costs as much as the matrix product before it. Here
a mask comes from random bytes, eight to a draw, so p is rounded to 1/256 and the scale is that p's,
in x's dtype (as torch's own is). The bytes come from a generator seeded by one draw from torch's
own, so `torch.manual_seed` rules them and torch's state is all that a checkpoint needs. On CUDA
this is torch's dropout.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def byte_mask(x: Tensor, p: float) -> Tensor:
    """A mask of x's shape and dtype: 0 with probability round(256 p) / 256, else 1 / (1 - that)."""
    dropped = round(256 * p)
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // 8))
    octets = torch.from_numpy(words.view(np.uint8))[: x.numel()].view(x.shape)
    mask = torch.empty(x.shape, dtype=x.dtype)
    return torch.ge(octets, dropped, out=mask).mul_(256 / (256 - dropped))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """x with a share p of its elements zeroed and the rest scaled up, in training; x itself
    otherwise.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or round(256 * p) in (0, 256):
        return F.dropout(x, p, training)
    return x * byte_mask(x, p)


class Dropout(nn.Dropout):
    """nn.Dropout, drawn as above."""

    def forward(self, input: Tensor) -> Tensor:
        """[...] -> [...], same shape and dtype."""
        return dropout(input, self.p, self.training)
