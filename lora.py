"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): low-rank updates of frozen linears.

Equation 3: h = W x + s B A x, with W frozen and s = alpha / r, or alpha / sqrt(r), which keeps
large ranks from learning too little (rsLoRA, Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).

DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353) also learns each row's length m. Equation
5: h = m (W + s B A) x / |W + s B A|. Its norms are one a row of W, so one an output; they follow
the update but take no part in the gradient (section 4.3).

`adapt(bert)` wraps finished linears of the encoder once its weights are loaded, and `merge(model)`
gives plain linears back. Evaluation never merges: a checkpoint saved after it must hold W, not W
and the update. Left out: adapters on embeddings.
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

    title = "LoRA"

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float,
        sqrt_rank: bool = False,
        gaussian: bool = False,
    ):
        super().__init__()
        self.base = base.requires_grad_(False)
        device = base.weight.device
        # B is zero, so that step 0 is the identity.
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        if gaussian:
            nn.init.normal_(self.lora_A, std=1 / rank)
        else:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / (math.sqrt(rank) if sqrt_rank else rank)
        self.dropout = Dropout(dropout)
        self.train(base.training)

    def low_rank(self, x: Tensor) -> Tensor:
        """s B A x: [..., in] -> [..., out]."""
        low = F.linear(x, self.lora_A.to(x.dtype))  # [..., rank]
        return F.linear(low, self.lora_B.to(x.dtype)) * self.scale

    def update(self) -> Tensor:
        """s B A, in fp32: [out, in]."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]. The dropout is on the low-rank path only."""
        return self.base(x) + self.low_rank(self.dropout(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear with the update folded into W, in fp32: the one that is wrapped, changed."""
        self.base.weight.copy_(self.base.weight.float() + self.update())
        return self.base


class DoRALinear(LoRALinear):
    """A frozen linear whose rows' directions get a low-rank update, and their lengths learn freely.

    In x's dtype, but the norms are of the fp32 weight: [..., in] -> [..., out].
    """

    title = "DoRA"

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float,
        sqrt_rank: bool = False,
        gaussian: bool = False,
    ):
        super().__init__(base, rank, alpha, dropout, sqrt_rank, gaussian)
        # In fp32 also where base.weight is cast; in a list, where no module is looked for.
        self.master = [base.weight]
        self.lora_magnitude_vector = nn.Parameter(self.norms())

    def rescale(self) -> Tensor:
        """What each row of W + update is multiplied by to have its learned length: [out].

        1 for a row of zeros, as SwiGLU's value has them at first: it has no direction.
        """
        norms = self.norms()
        tiny = torch.finfo(norms.dtype).tiny
        return torch.where(norms > 0, self.lora_magnitude_vector / norms.clamp_min(tiny), 1.0)

    @torch.no_grad()
    def norms(self) -> Tensor:
        """The lengths of the rows of W + s B A: [out], fp32."""
        return torch.linalg.vector_norm(self.master[0].float() + self.update(), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]; at first, bit for bit, what the base gives.

        The base's own output stays as it is; of what is added to it, both terms see the same
        dropout. The bias is not rescaled.
        """
        dropped = self.dropout(x)
        plain = self.base(x)  # [..., out]
        straight = plain if self.base.bias is None else plain - self.base.bias
        if self.training and self.dropout.p > 0:
            straight = F.linear(dropped, self.base.weight)
        rescale = self.rescale()  # [out], 1 at first
        more = (rescale - 1).to(x.dtype) * straight + rescale.to(x.dtype) * self.low_rank(dropped)
        return plain + more

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear with direction and length folded into W: the one that is wrapped, changed."""
        rescale = self.rescale()
        self.base.weight.copy_(rescale[:, None] * (self.base.weight.float() + self.update()))
        return self.base


LINEARS: dict[str, type[LoRALinear]] = {
    "lora": LoRALinear,
    "dora": DoRALinear,
}


def adapt(
    bert: BertModel,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: str = "qv",
    layers: str = "all",
    kind: str = "lora",
    sqrt_rank: bool = False,
    gaussian: bool = False,
) -> None:
    """Wrap linears of an encoder, in place, and freeze the rest of it.

    `targets` is a key of TARGETS (the paper adapts "qv"), `layers` as in choose_layers, `kind` a
    key of LINEARS. With `sqrt_rank` the update is scaled by alpha / sqrt(rank); with `gaussian` A
    is normal, of deviation 1 / rank, not uniform. Raises UserError for a rank below 1 or above the
    encoder's width and for unknown targets or layers, ValueError where the encoder is adapted
    already.
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
                wrapped = LINEARS[kind](module, rank, alpha, dropout, sqrt_rank, gaussian)
                layer.set_submodule(name, wrapped)


def counts(model: Adaptable) -> str:
    """How many linears of the encoder are adapted."""
    modules = list(model.bert.modules())
    linears = sum(isinstance(module, nn.Linear) for module in modules)
    adapted = [module for module in modules if isinstance(module, LoRALinear)]
    return f"{adapted[0].title}: adapted {len(adapted)}/{linears} linears"


def adapt_from_options(model: Adaptable, options: AdapterOptions) -> None:
    """adapt() with the options' settings; heads train on."""
    adapt(
        model.bert,
        rank=options.lora_rank,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        targets=options.lora_targets,
        layers=options.lora_layers,
        kind=options.lora_type,
        sqrt_rank=options.lora_scale == "sqrt_rank",
        gaussian=options.lora_init == "gaussian",
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
            if isinstance(module, DoRALinear):
                vector = "lora_magnitude_vector"
                names[f"{name}.{vector}"] = f"base_model.model.{target}.{vector}"
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "inference_mode": True,
        "r": options.lora_rank,
        "lora_alpha": options.lora_alpha,
        "lora_dropout": options.lora_dropout,
        "use_dora": options.lora_type == "dora",
        "use_rslora": options.lora_scale == "sqrt_rank",
        "init_lora_weights": "gaussian" if options.lora_init == "gaussian" else True,
        "target_modules": targets,
        "bias": "none",
    }
    return PeftForm(config, names)


# Useful learning rates are about ten times full fine-tuning's; DoRA's authors train it at LoRA's.
ADAPTER = Adapter(
    "lora", adapt_from_options, merge, rate_factor=10.0, counts=counts, in_peft=in_peft
)
