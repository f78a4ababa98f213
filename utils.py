"""What the course's scripts import from utils.py. Our own encoder makes its masks in packing.py."""

import torch
from torch import Tensor


def get_extended_attention_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as addends for attention scores [B, heads, T, T]: 0 for tokens, -10000 for padding.

    attention_mask is [B, T] or, one row a query, [B, T, T], 1 = token, 0 = padding. Returns
    [B, 1, 1, T] or [B, 1, T, T] in `dtype`. Raises ValueError for other shapes.
    """
    if attention_mask.dim() == 2:
        extended = attention_mask[:, None, None, :]
    elif attention_mask.dim() == 3:
        extended = attention_mask[:, None, :, :]
    else:
        shape = tuple(attention_mask.shape)
        raise ValueError(f"attention_mask is {shape}, expected [B, T] or [B, T, T]")
    return (1.0 - extended.to(dtype)) * -10000.0
