"""(IA)^3 (Liu et al. 2022, https://arxiv.org/abs/2205.05638): learned scales of activations.

Section 3.3: softmax(Q (l_k * K)^T / sqrt(d)) (l_v * V), and W2 (l_ff * gelu(W1 x)) in the
feed-forward. The vectors begin at one; the encoder is frozen. Keys and values are scaled where
their linears end, the inner activations where the linear after them begins, so that all three fold
into weights. Left out: vectors of each task, and the paper's further losses.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adapters.wrap import Adaptable, Adapter, PeftForm
from bert import BertModel
from options import Options
from weights import hub_name


class ScaledOutput(nn.Module):
    """l * (W x + b): [..., in] -> [..., out]."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.ia3_l = nn.Parameter(torch.ones(base.out_features, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in x's dtype."""
        return self.base(x) * self.ia3_l.to(x.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base, its rows and bias scaled."""
        self.base.weight.mul_(self.ia3_l[:, None])
        self.base.bias.mul_(self.ia3_l)
        return self.base


class ScaledInput(nn.Module):
    """W (l * x) + b: [..., in] -> [..., out]."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.ia3_l = nn.Parameter(torch.ones(base.in_features, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in x's dtype."""
        return self.base(x * self.ia3_l.to(x.dtype))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base, its columns scaled."""
        self.base.weight.mul_(self.ia3_l)
        return self.base


# A layer's linears that are scaled, and where.
SCALED: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "self_attention.key": ScaledOutput,
    "self_attention.value": ScaledOutput,
    "out_dense": ScaledInput,
}


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and scale keys, values and inner activations of each layer."""
    model.bert.requires_grad_(False)
    for layer in model.bert.bert_layers:
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear) and name in SCALED:
                layer.set_submodule(name, SCALED[name](module))


def counts(model: Adaptable) -> str:
    """How many vectors there are."""
    scaled = [m for m in model.bert.modules() if isinstance(m, ScaledOutput | ScaledInput)]
    numbers = sum(module.ia3_l.numel() for module in scaled)
    return f"(IA)^3: {len(scaled)} vectors, {numbers:,} numbers"


def merge(model: Adaptable) -> None:
    """Fold every vector into its linear's weights, in place."""
    for name, module in list(model.bert.named_modules()):
        if isinstance(module, ScaledOutput | ScaledInput):
            model.bert.set_submodule(name, module.merged())


def in_peft(bert: BertModel, options: Options) -> PeftForm:
    """The vectors as PEFT saves them: one of outputs as a column, one of inputs as a row."""
    names, shapes = {}, {}
    targets, inputs = [], []
    for name, module in bert.named_modules():
        if not isinstance(module, ScaledOutput | ScaledInput):
            continue
        vector = f"{name}.ia3_l"
        target = hub_name(vector).removesuffix(".ia3_l")
        targets.append(target)
        names[vector] = f"base_model.model.{target}.ia3_l"
        shapes[vector] = (-1, 1)
        if isinstance(module, ScaledInput):
            inputs.append(target)
            shapes[vector] = (1, -1)
    config = {
        "peft_type": "IA3",
        "task_type": "FEATURE_EXTRACTION",
        "inference_mode": True,
        "target_modules": targets,
        "feedforward_modules": inputs,
    }
    return PeftForm(config, names, shapes)


# The paper trains at 3e-3, with Adafactor. Here the heads learn at the same rate: 1e-3 for
# BERT-base.
ADAPTER = Adapter("ia3", adapt, merge, rate_factor=20.0, counts=counts, in_peft=in_peft)
