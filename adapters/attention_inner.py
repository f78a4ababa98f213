"""A hidden layer inside each attention head of the encoder; all of BERT trains on.

From the report of Peng, Yuan and Wang on this project (CS224N, Algorithm 1 in its appendix A.3.1),
which adds "extra layers in attention heads" per encoder layer and head, of n_dim 728. It does not
say where; here each head's output o [D] of a token, which the other heads do not see, becomes

    o + W_2 GELU(W_1 o + b_1) + b_2        W_1 [n, D], W_2 [D, n]

before the heads are put side by side and projected. W_2 and b_2 start at zero, so at first the
encoder is the pretrained one. The heads of a layer are one batched product.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.wrap import Adaptable, Adapter
from attention import BertSelfAttention
from choices.model import ModelOptions


class InnerLayers(nn.Module):
    """The hidden layers of all heads of one encoder layer: A heads, each D wide, n units."""

    def __init__(self, heads: int, size: int, units: int):
        super().__init__()
        self.heads = heads
        # Weights as nn.Linear has them; biases are flat, as vectors are not decayed.
        bound = 1 / math.sqrt(size)
        self.up = nn.Parameter(torch.empty(heads, size, units).uniform_(-bound, bound))
        self.up_bias = nn.Parameter(torch.empty(heads * units).uniform_(-bound, bound))
        self.down = nn.Parameter(torch.zeros(heads, units, size))
        self.down_bias = nn.Parameter(torch.zeros(heads * size))

    def forward(self, attended: Tensor) -> Tensor:
        """The outputs of the heads side by side, [..., A*D] -> [..., A*D]."""
        dtype = attended.dtype
        x = attended.reshape(-1, self.heads, self.up.shape[1]).transpose(0, 1)  # [A, N, D]
        up_bias = self.up_bias.view(self.heads, 1, -1).to(dtype)
        down_bias = self.down_bias.view(self.heads, 1, -1).to(dtype)
        hidden = F.gelu(torch.baddbmm(up_bias, x, self.up.to(dtype)))  # [A, N, n]
        out = torch.baddbmm(down_bias, hidden, self.down.to(dtype))  # [A, N, D]
        return attended + out.transpose(0, 1).reshape(attended.shape)


def add_inner_layers(model: Adaptable, options: ModelOptions) -> None:
    """Fill the slot of every layer of the encoder, which trains on."""
    for module in model.bert.modules():
        if isinstance(module, BertSelfAttention):
            heads, size = module.num_attention_heads, module.attention_head_size
            module.in_heads = InnerLayers(heads, size, options.attention_inner_width)


def counts(model: Adaptable) -> str:
    """How many heads have a hidden layer, and how large these are together."""
    found = [module for module in model.bert.modules() if isinstance(module, InnerLayers)]
    heads = sum(module.heads for module in found)
    numbers = sum(p.numel() for module in found for p in module.parameters())
    return f"hidden layers in attention heads: {heads}, {numbers / 1e6:.2f}M parameters"


ADAPTER = Adapter("attention_inner_width", add_inner_layers, combines=True, counts=counts)
