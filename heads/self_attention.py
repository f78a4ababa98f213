"""Self-attention layers on top of BERT, for one task each: `--attention_layers 2 sst=1`.

A layer is a sublayer of heads/attention.py in which the tokens of a sequence attend to one another,
after Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
"""

from torch import Tensor, nn

from bert import BertModel
from errors import UserError
from heads.attention import AttentionSublayer
from options import Options
from tasks import Task


class SelfAttentionLayers(nn.Module):
    """Sublayers one above the other; the tokens of a sequence attend to one another."""

    def __init__(self, bert: BertModel, count: int, heads: int):
        super().__init__()
        self.layers = nn.ModuleList([AttentionSublayer(bert, heads) for _ in range(count)])

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        """States [S, T, H], mask [S, T], owners [S] -> states [S, T, H]."""
        for layer in self.layers:
            states = layer(states, states, mask)
        return states


def self_attention_layers(task: Task, bert: BertModel, options: Options) -> nn.Module | None:
    """A task's layers, None where it has none; UserError for heads that do not fit the width."""
    count = int(options.attention_layers.of(task.name))
    if count == 0:
        return None
    word = options.attention_heads.of(task.name)
    heads = bert.config.num_attention_heads if word == "same" else int(word)
    size = bert.config.hidden_size
    if size % heads:
        raise UserError(
            f"--attention_heads {heads}: the encoder is {size} wide, and {size} / {heads} is no "
            "whole number; expected a divisor"
        )
    return SelfAttentionLayers(bert, count, heads)
