"""Attention between the two sentences of a bi-encoded pair, on top of BERT.

Each token of a sentence u attends to all tokens of its partner v, and the other way round:

    u' = LN(u + dropout(W_O attention(W_Q u, W_K v, W_V v)))
    v' = LN(v + dropout(W_O attention(W_Q v, W_K u, W_V u)))

That is query-context attention in both directions, as in BiDAF, Seo et al. 2017,
https://arxiv.org/abs/1611.01603, in the form of a Transformer decoder's attention to its encoder,
Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. Both directions share their weights, so no
sentence is the first. Left out: BiDAF's trilinear scores and the layers above them.

The encoder still reads each sentence on its own. With --attention_layers these come first.
"""

import torch
from torch import Tensor, nn

from bert import BertModel
from errors import UserError
from heads.attention import AttentionSublayer
from options import Options
from tasks import Task


class CrossAttention(nn.Module):
    """A sublayer in which the sentences of a pair attend to one another."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.layer = AttentionSublayer(bert, bert.config.num_attention_heads)

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        """States [S, T, H], mask [S, T], owners [S] -> states [S, T, H]."""
        # The two of a pair stand one behind the other: 0 and 1, 2 and 3, ...
        partner = torch.arange(len(states), device=states.device) ^ 1
        return self.layer(states, states[partner], mask[partner])


def cross_attention(task: Task, bert: BertModel, options: Options) -> nn.Module | None:
    """A pair task's layer, None for other tasks; UserError where a sentence is several sequences.

    options.check() has seen to it that pairs are bi-encoded.
    """
    if not options.cross_attention or not task.is_bi(options):
        return None
    if options.segment_of(task.name):
        raise UserError(
            f"--cross_attention joins two sequences, but --segment_length makes more of {task.name}"
            f": drop one, or add {task.name}=whole to --segment_length"
        )
    return CrossAttention(bert)
