"""SwiGLU (Shazeer 2020, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202).

Equation 6: FFN(x) = (Swish(xW) * xV) W2, with Swish = SiLU. The paper has no biases; here they
stay, as BERT's feed-forward has them. Two starts in a pretrained encoder:

- from the pretrained GELU layer: GELU(h) is about h sigmoid(1.702 h) (Hendrycks and Gimpel 2016,
  section 2), that is SiLU(1.702 h) / 1.702. So W = 1.702 W1, V = 0 with bias 1 and W2 / 1.702
  compute the old layer up to that approximation;
- random, with two thirds of the width, so that three matrices have the parameters of two (the
  paper's section 2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_bert import FeedForward

GELU_TO_SILU = 1.702


class SwiGLU(nn.Module):
    """SiLU(gate(x)) * value(x): [..., size] -> [..., width]. W2 is the linear that follows."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.gate = nn.Linear(size, width)
        self.value = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., width]."""
        return F.silu(self.gate(x)) * self.value(x)


def two_thirds(width: int) -> int:
    """The width that keeps the parameter count, rounded up to a multiple of 8."""
    return -(-width * 2 // 3 // 8) * 8


def start_from_gelu(state: dict[str, Tensor], up: str, down: str) -> None:
    """Turn one layer's pretrained weights, named `up` and `down`, into SwiGLU's, in place."""
    weight = state.pop(f"{up}.weight")
    bias = state.pop(f"{up}.bias")
    state[f"{up}.gate.weight"] = weight * GELU_TO_SILU
    state[f"{up}.gate.bias"] = bias * GELU_TO_SILU
    state[f"{up}.value.weight"] = torch.zeros_like(weight)
    state[f"{up}.value.bias"] = torch.ones_like(bias)
    state[f"{down}.weight"] = state[f"{down}.weight"] / GELU_TO_SILU


SWIGLU = FeedForward(SwiGLU, nn.Identity(), start_from_gelu, two_thirds)
