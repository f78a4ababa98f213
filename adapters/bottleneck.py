"""Bottleneck adapters: two small layers inside each layer of a frozen encoder.

`--adapter houlsby`: Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, section 2.1. After each
of the two projections back to H, and the dropout that follows it, before the residual sum:
x + up(GELU(down(x))). The layers' norms train with them (two each; the embeddings' norm stays).

`--adapter pfeiffer`: Pfeiffer et al. 2020 (AdapterFusion), https://arxiv.org/abs/2005.00247; the
form is equation 1 of MAD-X, https://arxiv.org/abs/2005.00052. Once a layer, after the feed-forward:
with s the residual sum, LN(s + up(ReLU(down(LN(s))))), twice the same norm, which stays frozen.

`down` starts as in Houlsby, normal with deviation 0.01 cut off at two; `up` at zero, where Houlsby
draws it likewise: so step 0 is the identity exactly. Nothing can be merged. Left out: an adapter a
task (all tasks share them), AdapterFusion's attention over several, and AdapterDrop.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.wrap import Adaptable, Adapter
from options import Options

DEVIATION = 0.01


class Bottleneck(nn.Module):
    """up(f(down(x))), zero at first: [..., H] -> [..., H]."""

    def __init__(self, size: int, width: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.down = nn.Linear(size, width)
        self.up = nn.Linear(width, size)
        self.activation = activation
        nn.init.trunc_normal_(self.down.weight, std=DEVIATION, a=-2 * DEVIATION, b=2 * DEVIATION)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        return self.up(self.activation(self.down(x)))


class HoulsbyAdapter(nn.Module):
    """A dropout, the last step before a residual sum, and behind it the adapter."""

    def __init__(self, base: nn.Module, size: int, width: int):
        super().__init__()
        self.base = base
        self.bottleneck = Bottleneck(size, width, F.gelu)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        dropped = self.base(x)
        return dropped + self.bottleneck(dropped)


class PfeifferAdapter(nn.Module):
    """A norm, and before it the adapter, which reads what the norm would have given."""

    def __init__(self, base: nn.Module, size: int, width: int):
        super().__init__()
        self.base = base
        self.bottleneck = Bottleneck(size, width, torch.relu)

    def forward(self, total: Tensor) -> Tensor:
        """The residual sum [..., H] -> the layer's output [..., H]."""
        return self.base(total + self.bottleneck(self.base(total)))


# What each kind wraps of a layer.
PLACES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "houlsby": (HoulsbyAdapter, ("attention_dropout", "out_dropout")),
    "pfeiffer": (PfeifferAdapter, ("out_layer_norm",)),
}


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and put adapters into each layer; heads train on."""
    bert = model.bert
    bert.requires_grad_(False)
    wrapper, names = PLACES[options.adapter]
    for layer in bert.bert_layers:
        for name in names:
            base = layer.get_submodule(name)
            wrapped = wrapper(base, bert.config.hidden_size, options.adapter_size)
            layer.set_submodule(name, wrapped)
        if options.adapter == "houlsby":
            layer.attention_layer_norm.requires_grad_(True)
            layer.out_layer_norm.requires_grad_(True)


def counts(model: Adaptable) -> str:
    """How many adapters there are, and how wide."""
    found = [module for module in model.bert.modules() if isinstance(module, Bottleneck)]
    return f"adapter: {len(found)} of width {found[0].down.out_features}"


ADAPTER = Adapter("adapter", adapt, rate_factor=10.0, counts=counts)
