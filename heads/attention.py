"""The attention sublayer that layers on top of BERT are made of.

Vaswani et al. 2017, Attention Is All You Need, https://arxiv.org/abs/1706.03762, in the post-norm
form that BERT has too. Tokens x attend to tokens y, their own sequence's or another's:

    LN(x + dropout(W_O attention(W_Q x, W_K y, W_V y)))

Attention and norm are of BERT's own kind; the number of heads may be any that divides the width.
Weights start as BERT's do before pre-training, close to zero, so at first a layer is near to a norm
of its input. Left out: the feed-forward sublayer. Here tokens are mixed once more; it is the heads
that transform.
"""

from dataclasses import replace

from torch import Tensor, nn

from attention import BertSelfAttention, addends
from bert import NORMS, BertModel
from dropout import Dropout
from packing import Group


class AttentionSublayer(nn.Module):
    """Attention from the tokens of sequences to tokens, of their own or of others, and a norm."""

    def __init__(self, bert: BertModel, heads: int):
        super().__init__()
        config = replace(bert.config, num_attention_heads=heads, num_key_value_heads=heads)
        self.attention = BertSelfAttention(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.norm = config.choice("norm", NORMS)(config.hidden_size, eps=config.layer_norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)
        # The encoder's kernel, which second derivatives change.
        self.pick_kernel = bert.pick_kernel

    def forward(self, states: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """States [S, T, H] attend to others [S, T, H], where the mask [S, T] is True: [S, T, H]."""
        rows, width, size = states.shape
        kernel = self.pick_kernel()
        seen = mask[:, None, None, :]  # [S, 1, 1, T]
        if kernel == "softmax":
            seen = addends(seen, states.dtype)

        # A sequence is a row, as in a padded batch: [S, T, H] -> [S*T, H] -> [S, T, H].
        query = self.attention.query(states).view(-1, size)
        key = self.attention.key(others).view(-1, size)
        value = self.attention.value(others).view(-1, size)
        group = Group(rows, width, 0, seen, {})
        attended = self.attention.attend(query, key, value, group, seen, kernel)
        return self.norm(states + self.dropout(self.dense(attended.view(states.shape))))
