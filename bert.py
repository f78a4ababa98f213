"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): embeddings, attention, layer,
encoder.

Names follow the Stanford CS224N default project, so its code and checkpoints drop in. The encoder
knows nothing of adapters, heads or tasks. Two faces share all the code: `forward(input_ids,
attention_mask)` on a padded batch, and `encode(packed)` on packed rows (packing.py), which is what
training uses.

Dimensions in the comments: B sequences, T tokens of a padded sequence, N tokens of a whole batch
laid flat, H hidden size, A attention heads, D = H / A, R rows of width W in a group of packed rows.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_bert import BertConfig, BertPreTrainedModel
from dropout import Dropout
from packing import Group, Packed, pad
from rmsnorm import RMSNorm
from swiglu import SwiGLU


class Linear(nn.Linear):
    """nn.Linear that computes in the dtype of its input: bf16 activations meet fp32 master weights,
    cast once a call.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(
            input,
            self.weight.to(input.dtype),
            None if self.bias is None else self.bias.to(input.dtype),
        )


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm, whose sums are fp32 for any dtype of the input."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        if input.device.type == "cpu" or input.dtype == self.weight.dtype:
            return super().forward(input)
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
FEED_FORWARDS: dict[str, tuple[Callable[[int, int], nn.Module], Callable[[Tensor], Tensor]]] = {
    "gelu": (Linear, F.gelu),
    "swiglu": (lambda size, width: SwiGLU(size, width, Linear), nn.Identity()),
}


class BertSelfAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, equation 1), before the output
    projection.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, rows: int, mask: Tensor) -> Tensor:
        """Attention inside each row: three times [R*W, H] and BertModel.mask's [R, 1, W or 1, W] ->
        [R*W, H].
        """
        q, k, v = (
            x.view(rows, -1, self.num_attention_heads, self.attention_head_size)
            .transpose(1, 2)
            .contiguous()
            for x in (query, key, value)
        )  # [R, A, W, D]
        if mask.dtype != torch.bool:
            scores = (q / math.sqrt(self.attention_head_size)) @ k.transpose(
                2, 3
            ) + mask  # [R, A, W, W]
            out = self.dropout(scores.softmax(-1)) @ v  # [R, A, W, D]
        else:
            p = self.dropout.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return out.transpose(1, 2).reshape(query.shape)

    def forward(self, hidden: Tensor, groups: list[Group], masks: list[Tensor]) -> Tensor:
        """[N, H] -> [N, H], each group of rows on its own."""
        sizes = [group.rows * group.width for group in groups]
        qkv = [linear(hidden).split(sizes) for linear in (self.query, self.key, self.value)]
        out = [
            self.attend(q, k, v, g.rows, mask)
            for q, k, v, g, mask in zip(*qkv, groups, masks, strict=True)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)


class BertLayer(nn.Module):
    """One post-norm transformer layer: LN(x + dropout(dense(f(x)))) around attention, then around
    the feed-forward.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        norm = NORMS[config.norm]
        up, self.interm_af = FEED_FORWARDS[config.feed_forward]
        self.self_attention = BertSelfAttention(config)
        self.attention_dense = Linear(config.hidden_size, config.hidden_size)
        self.attention_layer_norm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention_dropout = Dropout(config.hidden_dropout_prob)
        self.interm_dense = up(config.hidden_size, config.intermediate_size)
        self.out_dense = Linear(config.intermediate_size, config.hidden_size)
        self.out_layer_norm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.out_dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden: Tensor, groups: list[Group], masks: list[Tensor], wanted: Tensor | None = None
    ) -> Tensor:
        """[N, H] -> [N, H]; or only the wanted tokens, [K] -> [K, H]."""
        attended = self.self_attention(hidden, groups, masks)
        if wanted is not None:
            attended, hidden = attended.index_select(0, wanted), hidden.index_select(0, wanted)
        attended = self.attention_dense(attended)
        hidden = self.attention_layer_norm(hidden + self.attention_dropout(attended))
        transformed = self.out_dense(self.interm_af(self.interm_dense(hidden)))
        return self.out_layer_norm(hidden + self.out_dropout(transformed))


class BertModel(BertPreTrainedModel):
    """The encoder with its embeddings and pooler."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.word_embedding = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embed_layer_norm = NORMS[config.norm](config.hidden_size, eps=config.layer_norm_eps)
        self.embed_dropout = Dropout(config.hidden_dropout_prob)
        # The course's checkpoints hold this buffer.
        self.register_buffer(
            "position_ids", torch.arange(config.max_position_embeddings).unsqueeze(0)
        )
        self.bert_layers = nn.ModuleList(
            [BertLayer(config) for _ in range(config.num_hidden_layers)]
        )
        self.pooler_dense = Linear(config.hidden_size, config.hidden_size)
        self.pooler_af = nn.Tanh()
        self.init_weights()

    def embed(self, packed: Packed) -> Tensor:
        """Word, position and token type embeddings, summed and normalised: [N, H]."""
        summed = self.word_embedding(packed.input_ids)
        summed = (
            summed
            + self.pos_embedding(packed.position_ids)
            + self.tk_type_embedding(packed.token_type_ids)
        )
        return self.embed_dropout(self.embed_layer_norm(summed))

    def mask(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        """A group's mask, made once for all layers: as it is for torch's fused attention, as
        addends for a plain softmax.

        On the CPU the backward pass of the fused attention costs several times the plain one's. The
        addend is the lowest finite number, not -inf: a row that is all padding must not become NaN.
        """
        if seen.device.type != "cpu" or not torch.is_grad_enabled():
            return seen
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)

    def encode(
        self, packed: Packed, dtype: torch.dtype = torch.float32, wanted: Tensor | None = None
    ) -> list[Tensor]:
        """All hidden states, the embeddings first: (layers + 1) tensors [N, H], computed in
        `dtype`.

        `wanted` [K]: of the last layer only these tokens, [K, H], so that all after its attention
        costs next to nothing.
        """
        hidden = self.embed(packed).to(dtype)
        masks = [self.mask(group.mask, dtype) for group in packed.groups]
        states = [hidden]
        for layer in self.bert_layers[:-1]:
            states.append(layer(states[-1], packed.groups, masks))
        states.append(self.bert_layers[-1](states[-1], packed.groups, masks, wanted))
        return states

    def pool(self, first: Tensor) -> Tensor:
        """BERT's pooler, tanh(dense(h_CLS)): [B, H] -> [B, H]."""
        return self.pooler_af(self.pooler_dense(first))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> dict[str, Any]:
        """A padded batch through the encoder.

        input_ids, attention_mask (1 = token, 0 = padding) and token_type_ids (0 or 1, default 0)
        are [B, T]. Returns last_hidden_state [B, T, H], pooler_output [B, H] and, on request,
        hidden_states: (layers + 1) of [B, T, H].
        """
        states = [
            x.view(*input_ids.shape, -1)
            for x in self.encode(pad(input_ids, attention_mask, token_type_ids))
        ]
        output = {"last_hidden_state": states[-1], "pooler_output": self.pool(states[-1][:, 0])}
        return {**output, "hidden_states": tuple(states)} if output_hidden_states else output
