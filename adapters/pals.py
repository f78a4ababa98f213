"""PALs, projected attention layers: a small attention of each task beside each layer of BERT.

Stickland and Murray 2019, BERT and PALs, https://arxiv.org/abs/1902.02671. With h the input of a
layer, a what its first norm gives, and FFN its feed-forward, the layer's output is

    LN(FFN(a) + a + GELU(up(attention(down(h)))))

Each task has its own parts: one `down`, H -> size, and one `up`, size -> H, which all its layers
share, and in each layer queries, keys and values of that size. The attention has no output matrix.
Linears have biases, as BERT's have. Only `up` starts at zero, so that step 0 is the identity.

A task that is absent from a batch costs nothing. Tokens of no task, as those of a padded batch
(BertModel.forward), see no PAL; the course's predict_* methods know their task, and use its own.
Left out: the paper's low-rank layers and its layers on top of BERT.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.by_task import put, take
from adapters.wrap import Adaptable, Adapter
from attention import BertSelfAttention, Rows
from base_bert import BertConfig
from choices.parts import PartsOptions
from errors import UserError
from options import Options

SIZE = 204  # beside BERT-base's layers of WIDTH, in the paper
WIDTH = 768


class Projections(nn.Module):
    """The way of a task into its small attention and out of it, for all layers."""

    def __init__(self, config: BertConfig, size: int):
        super().__init__()
        self.down = nn.Linear(config.hidden_size, size)
        self.up = nn.Linear(size, config.hidden_size)
        nn.init.normal_(self.down.weight, std=config.initializer_range)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)


def small_attention(config: BertConfig, size: int, heads: int) -> BertSelfAttention:
    """BERT's own attention, before its output matrix, of another size."""
    small = replace(config, hidden_size=size, num_attention_heads=heads, num_key_value_heads=heads)
    attention = BertSelfAttention(small)
    for linear in (attention.query, attention.key, attention.value):
        nn.init.normal_(linear.weight, std=config.initializer_range)
        nn.init.zeros_(linear.bias)
    return attention


def in_dtype(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear whose weights are cast to x's dtype: [..., in] -> [..., out]."""
    return F.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))


class ProjectedAttention(nn.Module):
    """The PALs of one layer, one of each task: a module for BertLayer.side."""

    def __init__(
        self, config: BertConfig, size: int, heads: int, projections: dict[str, Projections]
    ):
        super().__init__()
        self.size = size
        self.attention = nn.ModuleDict(
            {task: small_attention(config, size, heads) for task in projections}
        )
        # In a dict, where no module is looked for: they are the encoder's, and saved there once.
        self.shared = projections

    def forward(self, hidden: Tensor, rows: Rows) -> Tensor:
        """[..., H] -> [..., H], zero at tokens of no task."""
        out = torch.zeros_like(hidden)
        for task in rows.tasks:
            places, own = rows.of_task(task)
            projections = self.shared[task]
            low = in_dtype(projections.down, take(hidden, places))  # [M, H] -> [M, size]
            attended = self.attention[task](low, own)
            put(out, places, F.gelu(in_dtype(projections.up, attended)))  # [M, size] -> [M, H]
        return out


def chosen_size(options: PartsOptions, width: int) -> int:
    """The width of the attention beside layers of `width`: --pals_size, or as the paper's share.

    UserError where it is above the encoder's width.
    """
    heads = options.pals_heads
    size = options.pals_size
    if size is None:
        # About as large a share as the paper's, but the same for each head, and one at least.
        size = heads * max(1, round(SIZE * width / WIDTH / heads))
    if size > width:
        raise UserError(
            f"--pals_size {size} (with --pals_heads {heads}): expected at most {width}, the width "
            "of the encoder"
        )
    return size


def add_pals(model: Adaptable, options: Options) -> None:
    """Put PALs of each task beside every layer; freeze BERT where they train alone."""
    bert = model.bert
    config = bert.config
    size = chosen_size(options, config.hidden_size)
    if options.pals_train == "alone":
        bert.requires_grad_(False)
    projections = {task: Projections(config, size) for task in model.tasks}
    bert.add_module("pals", nn.ModuleDict(projections))
    for layer in bert.bert_layers:
        layer.side = ProjectedAttention(config, size, options.pals_heads, projections)


def counts(model: Adaptable) -> str:
    """How many PALs there are, how wide, and how much they add."""
    sides = [m for m in model.bert.modules() if isinstance(m, ProjectedAttention)]
    parts = [model.bert.get_submodule("pals"), *sides]
    added = sum(p.numel() for part in parts for p in part.parameters())
    return (
        f"PALs: {len(sides)} layers x {len(model.tasks)} tasks, of size {sides[0].size}, "
        f"{added / 1e6:.2f}M parameters"
    )


class PalsAdapter(Adapter):
    """PALs, whose learning rate depends on whether BERT trains too."""

    def rate(self, options: Options) -> float:
        """10 times full fine-tuning's where BERT is frozen."""
        return 10.0 if options.pals_train == "alone" else 1.0


ADAPTER = PalsAdapter("pals", add_pals, combines=True, counts=counts)
