"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): low-rank updates of frozen linears.

Equation 3: h = W x + (alpha / r) B A x, with W frozen. `adapt(bert)` wraps finished linears of the
encoder once its weights are loaded, and `merge(model)` gives plain linears back. Evaluation never
merges: a checkpoint saved after it must hold W, not W and the update. Left out: adapters on
embeddings and the rank-stabilised scale alpha / sqrt(r).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.layers import TARGETS, choose_layers
from adapters.wrap import Adaptable, Adapter, PeftForm
from bert import BertModel
from choices.adapter import AdapterOptions
from dropout import Dropout
from errors import UserError
from weights import hub_name


class LoRALinear(nn.Module):
    """A frozen linear with a low-rank update beside it: [..., in] -> [..., out], in x's dtype."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.base = base.requires_grad_(False)
        device = base.weight.device
        # B is zero, so that step 0 is the identity.
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = Dropout(dropout)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]. The dropout is on the low-rank path only."""
        low = F.linear(self.dropout(x), self.lora_A.to(x.dtype))  # [..., rank]
        return self.base(x) + F.linear(low, self.lora_B.to(x.dtype)) * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear with the update folded into W, in fp32: the one that is wrapped, changed."""
        update = self.scale * (self.lora_B.float() @ self.lora_A.float())
        self.base.weight.copy_(self.base.weight.float() + update)
        return self.base


def adapt(
    bert: BertModel,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: str = "qv",
    layers: str = "all",
) -> None:
    """Wrap linears of an encoder, in place, and freeze the rest of it.

    `targets` is a key of TARGETS (the paper adapts "qv"), `layers` as in choose_layers. Raises
    UserError for a rank below 1 or above the encoder's width and for unknown targets or layers,
    ValueError where the encoder is adapted already.
    """
    # Look for what can't be before anything is changed.
    if any(isinstance(module, LoRALinear) for module in bert.modules()):
        raise ValueError("adapt() needs an encoder without adapters")
    if targets not in TARGETS:
        raise UserError(f'targets "{targets}": expected one of {", ".join(TARGETS)}')
    # A larger rank says no more than the whole matrix would.
    width = bert.config.hidden_size
    if not 1 <= rank <= width:
        raise UserError(f"--lora_rank {rank}: expected 1 to {width}, the width of the encoder")
    chosen = choose_layers(layers, len(bert.bert_layers), "--lora_layers")

    # Freeze the encoder and wrap the chosen linears.
    bert.requires_grad_(False)
    for number in chosen:
        layer = bert.bert_layers[number]
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear) and name.startswith(TARGETS[targets]):
                layer.set_submodule(name, LoRALinear(module, rank, alpha, dropout))


def counts(model: Adaptable) -> str:
    """How many linears of the encoder are adapted."""
    modules = list(model.bert.modules())
    linears = sum(isinstance(module, nn.Linear) for module in modules)
    adapted = sum(isinstance(module, LoRALinear) for module in modules)
    return f"LoRA: adapted {adapted}/{linears} linears"


def adapt_from_options(model: Adaptable, options: AdapterOptions) -> None:
    """adapt() with the options' settings; heads train on."""
    adapt(
        model.bert,
        rank=options.lora_rank,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        targets=options.lora_targets,
        layers=options.lora_layers,
    )


def merge(model: nn.Module) -> None:
    """Fold every update into its weight and put the plain linears back, in place.

    Nothing where there are none. The encoder stays frozen.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            model.set_submodule(name, module.merged())


def in_peft(bert: nn.Module, options: AdapterOptions) -> PeftForm:
    """An adapted encoder's updates as PEFT saves them.

    The linears are named in full: a name's end alone, as "output.dense", would match others too.
    """
    names = {}
    targets = []
    for name, module in bert.named_modules():
        if isinstance(module, LoRALinear):
            target = hub_name(f"{name}.lora_A").removesuffix(".lora_A")
            targets.append(target)
            for matrix in ("lora_A", "lora_B"):  # in PEFT each is a linear without bias
                names[f"{name}.{matrix}"] = f"base_model.model.{target}.{matrix}.weight"
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "inference_mode": True,
        "r": options.lora_rank,
        "lora_alpha": options.lora_alpha,
        "lora_dropout": options.lora_dropout,
        "target_modules": targets,
        "bias": "none",
    }
    return PeftForm(config, names)


# Useful learning rates are about ten times full fine-tuning's.
ADAPTER = Adapter(
    "lora", adapt_from_options, merge, rate_factor=10.0, counts=counts, in_peft=in_peft
)
