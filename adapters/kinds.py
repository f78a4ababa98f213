"""Which adapters there are, and which of them a model gets."""

from collections.abc import Mapping

from torch import Tensor, nn

import experts
import lora
from adapters import attention_inner, bitfit, diff_pruning, ia3, pals, tag_embeddings, task_layers
from adapters.bottleneck import ADAPTER as BOTTLENECK
from adapters.p_tuning import ADAPTER as P_TUNING
from adapters.p_tuning_v2 import ADAPTER as P_TUNING_V2
from adapters.prefix_tuning import ADAPTER as PREFIX_TUNING
from adapters.wrap import Adaptable, Adapter, rebuilt
from errors import UserError
from options import Options

# What may change the loaded encoder, from inside, each with the options that ask for it.
ADAPTERS: dict[str, Adapter] = {
    "lora": lora.ADAPTER,
    "ia3": ia3.ADAPTER,
    "diff_pruning": diff_pruning.ADAPTER,
    "bitfit": bitfit.ADAPTER,
    "bottleneck": BOTTLENECK,
    "prefix_tuning": PREFIX_TUNING,
    "p_tuning": P_TUNING,
    "attention_inner": attention_inner.ADAPTER,
    "p_tuning_v2": P_TUNING_V2,
    "word_tags": tag_embeddings.ADAPTER,
    "pals": pals.ADAPTER,
    "task_layers": task_layers.ADAPTER,
    "experts": experts.ADAPTER,
}


def adapters_of(options: Options) -> list[Adapter]:
    """The adapters that the options ask for, in the order in which they are applied.

    UserError for two that do not combine.
    """
    wanted = [adapter for adapter in ADAPTERS.values() if adapter.wanted(options)]
    alone = [adapter.flag for adapter in wanted if not adapter.combines]
    if len(alone) > 1:
        raise UserError(f"{alone[0]} and {alone[1]} are two adapters, one is allowed: drop one")
    return wanted


def merge_flag(options: Options) -> str:
    """The flag that asks for merging an adapter at the end of a run; "" where none does."""
    wanted = [adapter for adapter in adapters_of(options) if adapter.merge_wanted(options)]
    return f"{wanted[0].flag}_merge" if wanted else ""


def adapt(model: Adaptable, options: Options) -> frozenset[str]:
    """Freeze what the options keep frozen of a model with pretrained weights, and apply adapters.

    Returns the names of the parameters that need not be saved: rebuilt().
    """
    # The weights as they were read: in copies where an adapter might change them in place.
    adapters = adapters_of(options)
    read: Mapping[nn.Parameter, Tensor] = {
        p: p.detach().clone() if adapters else p.detach()
        for name, p in model.bert.named_parameters()
        if name in model.bert.from_base
    }

    # BERT is frozen before adapters add to it; they may freeze more.
    if options.option == "pretrain":
        model.bert.requires_grad_(False)
    for adapter in adapters:
        adapter.adapt(model, options)

    # Frozen heads are as they were drawn, or as --init will have them.
    if options.freeze_heads:
        model.pipelines.requires_grad_(False)
    return rebuilt(model, read)
