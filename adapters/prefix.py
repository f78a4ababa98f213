"""Trained keys and values in front of each layer's: what prefix-tuning and P-tuning v2 share.

They fill the slot `prefix` of attention.py. All rows see the same ones, whichever task they are of,
so padded batches see them too. A prefix has no positions and takes no place in a row; it takes a
share of every token's attention, so step 0 is not the identity.

Dimensions: P keys of a prefix, R rows of a group, H hidden size.
"""

from torch import Tensor, nn

from bert import BertModel
from packing import Group


class Prefix(nn.Module):
    """One layer's prefix, for all rows of a group; `source() -> [P, 2H]`, keys beside values."""

    def __init__(self, source: nn.Module):
        super().__init__()
        self.source = source

    def forward(self, group: Group) -> tuple[Tensor, Tensor]:
        """Keys and values of a group's rows: [R, P, H] each."""
        keys, values = self.source().chunk(2, dim=-1)  # [P, H] each
        return keys.expand(group.rows, -1, -1), values.expand(group.rows, -1, -1)


def add_prefixes(bert: BertModel, sources: list[nn.Module]) -> None:
    """Freeze an encoder and give each layer a prefix, the first source to the first layer."""
    bert.requires_grad_(False)
    for layer, source in zip(bert.bert_layers, sources, strict=True):
        layer.get_submodule("self_attention").prefix = Prefix(source)


def counts(bert: BertModel) -> str:
    """How many layers have a prefix."""
    found = sum(isinstance(module, Prefix) for module in bert.modules())
    return f"{found}/{len(bert.bert_layers)} layers have a prefix"
