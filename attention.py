"""BERT's self-attention, and the rows that it works on.

Vaswani et al. 2017, Attention Is All You Need, https://arxiv.org/abs/1706.03762. Tokens see each
other inside their sequence only; masks say which do, of packed rows (packing.py) or of padded
batches. An encoder has no cache of keys and values: it sees a whole sequence at once.

Dimensions in the comments: B sequences, T tokens of a padded sequence, N tokens of a whole batch
laid flat, H hidden size, A attention heads, D = H / A, R rows of width W in a group of rows, P keys
of a prefix. [..., H] is [N, H] or [B, T, H].
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_bert import BertConfig
from dropout import Dropout
from gqa import pool_heads, share_heads
from packing import Group


@dataclass(frozen=True)
class Rows:
    """What attention needs to know of its tokens: which of them see which, and the kernel.

    The kernel "softmax" writes attention out and "sdpa" is torch's fused one. On the CPU the fused
    one's backward pass costs several times the plain one's; second derivatives need the plain one.
    On Apple's MPS the fused one gives NaN under some masks (pytorch issues 151667, 167515).
    """

    groups: list[Group]
    # Of each group, [R, 1, W or 1, W]: addends (softmax), or True at what is seen (sdpa).
    masks: list[Tensor]
    kernel: str

    @property
    def tasks(self) -> list[str]:
        """The tasks that have rows here; none on a padded batch, whose task nobody knows."""
        return list(dict.fromkeys(task for group in self.groups for task in group.tasks))

    def of_task(self, task: str) -> tuple[list[slice], "Rows"]:
        """Where among the N tokens a task's rows stand, and these rows as if there were no others.

        For layers with parts of their own for a task. The slices ascend.
        """
        places: list[slice] = []
        groups: list[Group] = []
        masks: list[Tensor] = []
        begin = 0
        for group, mask in zip(self.groups, self.masks, strict=True):
            if task not in group.tasks:
                continue
            some = group.tasks[task]
            count = some.stop - some.start
            places.append(group.tokens_of(task))
            own = {task: slice(0, count)}
            groups.append(Group(count, group.width, begin, group.mask[some], own))
            masks.append(mask[some])
            begin += count * group.width
        return places, Rows(groups, masks, self.kernel)


def choose_kernel(device: torch.device) -> str:
    """The faster attention for what follows: see Rows."""
    if device.type == "mps" or (device.type == "cpu" and torch.is_grad_enabled()):
        return "softmax"
    return "sdpa"


def addends(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to be added to attention scores: 0 where `seen`, else very low.

    Not -inf: a row that is all padding must not become NaN. Half the lowest number, so that in fp16
    a score added to it can't reach -inf either.
    """
    low = torch.finfo(dtype).min / 2
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, low)


def packed_rows(groups: list[Group], kernel: str, dtype: torch.dtype) -> Rows:
    """Rows of a packed batch, its masks made once for all layers."""
    if kernel == "softmax":
        return Rows(groups, [addends(group.mask, dtype) for group in groups], kernel)
    return Rows(groups, [group.mask for group in groups], kernel)


def padded_rows(attention_mask: Tensor, kernel: str, dtype: torch.dtype) -> Rows:
    """Rows of a padded batch: B rows, each with one sequence.

    attention_mask is [B, T] or, one row a query, [B, T, T], 1 or True at tokens; or the course's
    extended one, [B, 1, 1 or T, T], to be added to the scores.
    """
    batch, width = attention_mask.shape[0], attention_mask.shape[-1]
    if attention_mask.ndim == 4 and attention_mask.is_floating_point():
        mask = attention_mask.to(dtype)
        return Rows([Group(batch, width, 0, mask, {})], [mask], kernel)
    seen = attention_mask.bool()
    if seen.ndim == 2:
        seen = seen[:, None, None, :]  # [B, 1, 1, T]
    elif seen.ndim == 3:
        seen = seen[:, None]  # [B, 1, T, T]
    return packed_rows([Group(batch, width, 0, seen, {})], kernel, dtype)


def as_rows(attention_mask: Rows | Tensor, hidden: Tensor) -> Rows:
    """The rows that attention gets; course code calls layers with the mask of a padded batch."""
    if isinstance(attention_mask, Rows):
        return attention_mask
    return padded_rows(attention_mask, choose_kernel(hidden.device), hidden.dtype)


class BertSelfAttention(nn.Module):
    """Multi-head scaled dot-product attention, before the output projection.

    Vaswani et al. 2017, equation 1 and section 3.2.2.

    `prefix`, an empty slot: a module `prefix(group) -> (keys [R, P, H], values [R, P, H])` whose
    keys every token of a row sees, as prefix-tuning needs it; or None for no keys in this group.
    `group.tasks` says which rows are whose, and is {} on a padded batch, whose task nobody knows: a
    prefix of each task gives None there, since keys of zeros would take attention too.

    `in_heads`, another: a module `in_heads(attended [..., H]) -> [..., H]` on the outputs of the
    heads, which stand side by side in H.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        # Groups of queries may share keys and values (gqa.py).
        self.key_value_heads = config.num_key_value_heads
        shared_size = self.key_value_heads * self.attention_head_size
        self.key = nn.Linear(config.hidden_size, shared_size)
        self.value = nn.Linear(config.hidden_size, shared_size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)
        self.prefix: nn.Module | None = None
        self.in_heads: nn.Module | None = None

    def translate_pretrained(self, state: dict[str, Tensor], prefix: str, afresh: bool) -> set[str]:
        """Turn pretrained keys and values of more heads into this layer's, in place.

        The names of this module's weights begin with `prefix`. Returns the names that may be
        missing from the weights: none.
        """
        for name in (f"{prefix}.key", f"{prefix}.value"):
            pool_heads(state, name, self.key_value_heads, self.attention_head_size)
        return set()

    def split_heads(self, x: Tensor, rows: int) -> Tensor:
        """[R*W, H] or [R, W, H] -> [R, A, W, D]; where heads are shared, x may have those alone."""
        heads = x.reshape(
            rows, -1, x.shape[-1] // self.attention_head_size, self.attention_head_size
        )
        heads = heads.transpose(1, 2)
        if heads.shape[1] < self.num_attention_heads:
            return share_heads(heads, self.num_attention_heads)
        return heads.contiguous()

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, group: Group, mask: Tensor, kernel: str
    ) -> Tensor:
        """Attention inside each row of a group: three times [R*W, H] -> [R*W, H].

        Keys and values are narrower where heads share them.
        """
        q = self.split_heads(query, group.rows)  # [R, A, W, D]
        k = self.split_heads(key, group.rows)
        v = self.split_heads(value, group.rows)

        # Every token sees the prefix.
        prefix = None if self.prefix is None else self.prefix(group)
        if prefix is not None:
            keys, values = prefix
            k = torch.cat([self.split_heads(keys.to(k.dtype), group.rows), k], dim=2)
            v = torch.cat([self.split_heads(values.to(v.dtype), group.rows), v], dim=2)
            seen = 0.0 if mask.is_floating_point() else True
            before = mask.new_full((*mask.shape[:-1], keys.shape[1]), seen)
            mask = torch.cat([before, mask], dim=-1)  # [R, 1, W or 1, P + W]

        if kernel == "softmax":
            scores = (q / math.sqrt(self.attention_head_size)) @ k.transpose(2, 3) + mask
            out = self.dropout(scores.softmax(-1)) @ v  # [R, A, W, D]
        else:
            p = self.dropout.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return out.transpose(1, 2).reshape(query.shape)

    def forward(self, hidden_states: Tensor, attention_mask: Rows | Tensor) -> Tensor:
        """[..., H] -> [..., H], each group of rows on its own."""
        rows = as_rows(attention_mask, hidden_states)
        sizes = [group.rows * group.width for group in rows.groups]
        # Packed tokens are flat already; a view of them would only reorder the gradients' sums.
        flat = hidden_states.flatten(0, -2) if hidden_states.ndim > 2 else hidden_states  # [N, H]
        queries = self.query(flat).split(sizes)
        keys = self.key(flat).split(sizes)
        values = self.value(flat).split(sizes)
        out = [
            self.attend(q, k, v, group, mask, rows.kernel)
            for q, k, v, group, mask in zip(
                queries, keys, values, rows.groups, rows.masks, strict=True
            )
        ]
        joined = out[0] if len(out) == 1 else torch.cat(out)
        if self.in_heads is not None:
            joined = self.in_heads(joined)
        return joined.view(hidden_states.shape)
