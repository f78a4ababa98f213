"""RMSNorm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

Equation 4: x / RMS(x) * g, RMS(x) = sqrt(mean(x^2)). It drops LayerNorm's centring. A pretrained
LayerNorm's weight becomes g, and its bias is kept, under the same parameter names, so pretrained
weights load as they are; what the encoder's output loses is the mean that is no longer subtracted.
models/calibration.py makes up for most of that.
Left out: the partial RMSNorm (pRMSNorm) of the paper's section 4.3.
"""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) * weight + bias over the last dimension, computed in fp32."""

    def __init__(self, size: int, eps: float = 1e-6, bias: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size], in x's dtype."""
        wide = self.normalised(x) * self.weight
        return (wide if self.bias is None else wide + self.bias).to(x.dtype)

    def normalised(self, x: Tensor) -> Tensor:
        """x / RMS(x), before gain and bias: [..., size] -> [..., size], fp32."""
        wide = x.float()
        return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
