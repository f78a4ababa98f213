"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685), equation 3: h = W x + (alpha / r) B A x,
with W frozen.

`adapt(model)` wraps finished linears of the encoder once its weights are loaded,
`adapter_state(model)` is what a checkpoint keeps, and `merge(model)` gives plain linears back.
Evaluation never merges: a checkpoint saved after it must hold W, not W and the update. Left out:
adapters on embeddings and the rank-stabilised scale alpha / sqrt(r).
"""

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert import BertModel
from dropout import Dropout
from errors import UserError
from options import AdapterOptions

# What is adapted in a layer, by the beginning of its name. With SwiGLU interm_dense is two linears,
# gate and value.
TARGETS = {
    "qk": ("self_attention.query", "self_attention.key"),
    "qv": ("self_attention.query", "self_attention.value"),
    "qkv": ("self_attention.query", "self_attention.key", "self_attention.value"),
    "all": ("self_attention", "attention_dense", "interm_dense", "out_dense"),
}


class LoRALinear(nn.Module):
    """A frozen linear with a low-rank update beside it: [..., in] -> [..., out], in the dtype of
    the input.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.base = base.requires_grad_(False)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(
            torch.zeros(base.out_features, rank, device=device)
        )  # zero: step 0 is the identity
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = Dropout(dropout)
        self.original: Tensor | None = (
            None  # W while merged: adding and subtracting the update would not give it back
        )
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]. The dropout is on the low-rank path only."""
        if self.original is not None:
            return self.base(x)
        low = F.linear(self.dropout(x), self.lora_A.to(x.dtype))  # [..., rank]
        return self.base(x) + F.linear(low, self.lora_B.to(x.dtype)) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the update into W, in fp32; nothing where that is done already."""
        if self.original is None:
            self.original = self.base.weight.clone()
            self.base.weight.copy_(
                self.original.float() + self.scale * (self.lora_B.float() @ self.lora_A.float())
            )

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put W back, bit for bit; nothing where nothing is merged."""
        if self.original is not None:
            self.base.weight.copy_(self.original)
            self.original = None


def choose_layers(layers: str, count: int) -> list[int]:
    """Layer numbers of "all", "first4", "middle4", "last4" (all of four or fewer) or a list as
    "0,2,5".
    """
    begins = {"first4": 0, "middle4": max(0, (count - 4) // 2), "last4": max(0, count - 4)}
    if layers == "all":
        return list(range(count))
    if layers in begins:
        return list(range(count))[begins[layers] :][:4]
    if not re.fullmatch(r"[0-9]+( *, *[0-9]+)*", layers):
        raise UserError(
            f'layers "{layers}": expected all, first4, middle4, last4 or numbers such as 0,2,5'
        )
    numbers = [int(number) for number in layers.split(",")]
    if max(numbers) >= count or len(set(numbers)) < len(numbers):
        raise UserError(
            f'layers "{layers}": expected different numbers, each from 0 to {count - 1}'
        )
    return sorted(numbers)


def adapt(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: str = "qv",
    layers: str = "all",
) -> None:
    """Wrap linears of the BertModel in `model`, in place, and freeze the rest of it; heads train
    on. Prints the counts.

    `targets` is a key of TARGETS (the paper adapts "qv"), `layers` as in choose_layers. Raises
    UserError for a rank below 1 or unknown targets or layers, ValueError where `model` is adapted
    already.
    """
    encoders = [module for module in model.modules() if isinstance(module, BertModel)]
    if not encoders or any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("adapt() needs a model with a BertModel in it, and without adapters")
    if targets not in TARGETS:
        raise UserError(f'targets "{targets}": expected one of {", ".join(TARGETS)}')
    if rank < 1:
        raise UserError(f"LoRA rank {rank}: expected 1 or more")
    chosen = [choose_layers(layers, len(encoder.bert_layers)) for encoder in encoders]
    linears = sum(
        isinstance(module, nn.Linear) for encoder in encoders for module in encoder.modules()
    )
    adapted = 0
    for encoder, numbers in zip(encoders, chosen, strict=True):
        encoder.requires_grad_(False)
        for layer in (encoder.bert_layers[number] for number in numbers):
            for name, module in list(layer.named_modules()):
                if isinstance(module, nn.Linear) and name.startswith(TARGETS[targets]):
                    layer.set_submodule(name, LoRALinear(module, rank, alpha, dropout))
                    adapted += 1
    train = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    print(
        f"LoRA: adapted {adapted}/{linears} linears, {train / 1e6:.2f}M of {total / 1e6:.1f}M parameters train"
    )


def adapt_from_options(model: nn.Module, options: AdapterOptions) -> None:
    """adapt() with the options' settings, where --lora asks for it."""
    if options.lora:
        rank, alpha, dropout = options.lora_rank, options.lora_alpha, options.lora_dropout
        adapt(model, rank, alpha, dropout, options.lora_targets, options.lora_layers)


def merge(model: nn.Module) -> None:
    """Fold every update into its weight and put the plain linears back, in place; nothing where
    there are none.

    The encoder stays frozen.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            module.merge()
            model.set_submodule(name, module.base)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: whatever is not frozen, so the adapters' tensors and the
    heads with their buffers.
    """
    buffers = {name: x for name, x in model.named_buffers() if not name.endswith("position_ids")}
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad} | buffers


def load_adapter(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load an adapter_state() into a model adapted in the same way; UserError where names or shapes
    differ.
    """
    own = adapter_state(model)
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unexpected:
        raise UserError(
            "the adapter does not fit the model (the same targets, layers and heads?); "
            f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        )
    wrong = [
        f"{k} {tuple(x.shape)} for {tuple(own[k].shape)}"
        for k, x in state.items()
        if x.shape != own[k].shape
    ]
    if wrong:
        raise UserError(
            f"the adapter does not fit the model (the same rank?); wrong shapes: {'; '.join(wrong)}"
        )
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.unmerge()  # else the old update would stay in the weights
    model.load_state_dict(state, strict=False)
