"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): embeddings, layers, encoder.

Names and signatures follow the Stanford CS224N default project, so its code and checkpoints drop
in. The encoder knows nothing of adapters, heads or tasks. Two faces share all the code: padded
batches, `forward(input_ids, attention_mask)`, and packed rows (packing.py), which training uses.

Extensions plug into slots that are empty by default: `BertSelfAttention`'s `prefix` and `in_heads`,
`BertLayer.side` (a branch beside the feed-forward) and `BertModel.embed`'s `summand`.

Dimensions in the comments: B sequences, T tokens of a padded sequence, N tokens of a whole batch
laid flat, H hidden size, K tokens that are wanted of the last layer. [..., H] is [N, H] or
[B, T, H].
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import (
    BertSelfAttention,
    Rows,
    as_rows,
    choose_kernel,
    packed_rows,
    padded_rows,
)
from base_bert import BertConfig, BertPreTrainedModel, FeedForward
from casting import through_layers
from dropout import Dropout
from packing import Packed
from rmsnorm import RMSNorm
from swiglu import SWIGLU


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm, whose sums are fp32 for any dtype of the input."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        # The CPU's kernel takes a narrow input beside fp32 weights; elsewhere the input is widened.
        if input.device.type == "cpu" or input.dtype == self.weight.dtype:
            return super().forward(input)
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}
FEED_FORWARDS: dict[str, FeedForward] = {
    "gelu": FeedForward(nn.Linear, F.gelu),
    "swiglu": SWIGLU,
}


class BertLayer(nn.Module):
    """One post-norm transformer layer.

    LN(x + dropout(dense(f(x)))) around attention, then around the feed-forward.

    `side`, an empty slot: a module `side(hidden [N, H], rows) -> [N, H]` whose output is added
    before the last norm, as projected attention layers (PALs) need it.
    """

    def __init__(self, config: BertConfig):
        super().__init__()

        norm = config.choice("norm", NORMS)
        self.feed_forward: FeedForward = config.choice("feed_forward", FEED_FORWARDS)

        # Attention and its way back into the residual stream. The names are the course's.
        self.self_attention = BertSelfAttention(config)
        self.attention_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_layer_norm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention_dropout = Dropout(config.hidden_dropout_prob)

        # The feed-forward, H -> intermediate -> H, and its norm.
        self.interm_dense = self.feed_forward.up(config.hidden_size, config.intermediate_size)
        self.interm_af = self.feed_forward.activation
        self.out_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.out_layer_norm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.out_dropout = Dropout(config.hidden_dropout_prob)

        self.side: nn.Module | None = None

    def translate_pretrained(self, state: dict[str, Tensor], prefix: str, afresh: bool) -> set[str]:
        """Turn pretrained weights of another feed-forward into this layer's, in place.

        The names of this layer's weights begin with `prefix`. Nothing happens where the
        feed-forward has BERT's shape, or the weights this layer's.

        `afresh`: leave the feed-forward as it was initialised. Returns the names that may be
        missing from the weights therefore.
        """
        # Only pretrained weights that still have BERT's shape need to be turned into this one's.
        up, down = f"{prefix}.interm_dense", f"{prefix}.out_dense"
        if self.feed_forward.translate is None or f"{up}.weight" not in state:
            return set()  # BERT's own shape, or weights that have this layer's already
        if not afresh:
            self.feed_forward.translate(state, up, down)
            return set()

        # Afresh: the pretrained feed-forward is dropped, and all names of this one may be missing.
        for lost in [name for name in state if name.startswith((up + ".", down + "."))]:
            del state[lost]
        own = {f"{prefix}.{name}" for name in self.state_dict()}
        return {name for name in own if name.startswith((up + ".", down + "."))}

    def add_norm(
        self,
        input: Tensor,
        output: Tensor,
        dense_layer: nn.Module,
        dropout: nn.Module,
        ln_layer: nn.Module,
    ) -> Tensor:
        """LN(input + dropout(dense(output))), under the course's name."""
        return ln_layer(input + dropout(dense_layer(output)))

    def forward(
        self, hidden_states: Tensor, attention_mask: Rows | Tensor, wanted: Tensor | None = None
    ) -> Tensor:
        """[..., H] -> [..., H]; or, of packed rows, only the wanted tokens: [K] -> [K, H]."""
        # Attention needs all tokens, wanted or not: they are keys and values. [..., H] -> [..., H]
        rows = as_rows(attention_mask, hidden_states)
        attended = self.self_attention(hidden_states, rows)
        beside = None if self.side is None else self.side(hidden_states, rows)

        # All that follows works token by token: tokens that nobody wants are left out here.
        hidden = hidden_states
        if wanted is not None:
            # [N, H] -> [K, H]
            attended = attended.index_select(0, wanted)
            hidden = hidden.index_select(0, wanted)
            beside = None if beside is None else beside.index_select(0, wanted)

        # The first residual: attention's output is projected and added to its input.
        hidden = self.add_norm(
            hidden,
            attended,
            self.attention_dense,
            self.attention_dropout,
            self.attention_layer_norm,
        )

        # The second residual: `beside` joins here, so that the last norm sees both branches.
        residual = hidden if beside is None else hidden + beside
        inner = self.interm_af(self.interm_dense(hidden))
        return self.add_norm(residual, inner, self.out_dense, self.out_dropout, self.out_layer_norm)


class BertModel(BertPreTrainedModel):
    """The encoder with its embeddings and pooler.

    `kernel` chooses the attention of all layers: "softmax", "sdpa", or "auto" for the faster one.
    `checkpointing`: layers are computed once more in the backward pass, which saves memory.
    """

    def __init__(self, config: BertConfig):
        super().__init__(config)
        size = config.hidden_size

        # The embeddings. Names are the course's, as in the checkpoints.
        self.word_embedding = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, size)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, size)
        self.embed_layer_norm = config.choice("norm", NORMS)(size, eps=config.layer_norm_eps)
        self.embed_dropout = Dropout(config.hidden_dropout_prob)
        # The course's checkpoints hold this buffer.
        positions = torch.arange(config.max_position_embeddings)
        self.register_buffer("position_ids", positions.unsqueeze(0))

        # The stack of layers, and the pooler over its first token.
        self.bert_layers = nn.ModuleList(
            [BertLayer(config) for _ in range(config.num_hidden_layers)]
        )
        self.pooler_dense = nn.Linear(size, size)
        self.pooler_af = nn.Tanh()

        self.kernel = "auto"
        self.checkpointing = False
        self.init_weights()

    def embed(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        summand: Tensor | None = None,
    ) -> Tensor:
        """Word, position and token type embeddings, summed and normalised.

        input_ids is [B, T] or [N]; token types default to 0 and positions to 0 .. T - 1, which
        packed tokens [N] must give. `summand`, [..., H], is added to the sum. Returns [..., H].
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[-1], device=input_ids.device)
        # [B, T] or [N] -> [..., H]; positions may be [T], and are then shared by all rows.
        summed = self.word_embedding(input_ids)
        summed = summed + self.pos_embedding(position_ids) + self.tk_type_embedding(token_type_ids)
        if summand is not None:
            summed = summed + summand
        return self.embed_dropout(self.embed_layer_norm(summed))

    def embed_packed(self, packed: Packed, summand: Tensor | None = None) -> Tensor:
        """The embeddings of packed rows: [N, H]."""
        return self.embed(packed.input_ids, packed.token_type_ids, packed.position_ids, summand)

    @contextlib.contextmanager
    def plain_attention(self) -> Iterator[None]:
        """Attention written out, as second derivatives need it."""
        before = self.kernel
        self.kernel = "softmax"
        try:
            yield
        finally:
            self.kernel = before

    def pick_kernel(self) -> str:
        """What Rows calls kernel, for this model where it is now."""
        if self.kernel == "auto":
            return choose_kernel(self.word_embedding.weight.device)
        return self.kernel

    def encode_layers(
        self, hidden: Tensor, rows: Rows, dtype: torch.dtype, wanted: Tensor | None = None
    ) -> list[Tensor]:
        """All hidden states, the embeddings first: (layers + 1) of [..., H], computed in `dtype`.

        `wanted` [K]: of the last layer only these tokens, [K, H], so that all after its attention
        costs next to nothing. The rows' masks must be of this dtype.
        """
        return through_layers(self.bert_layers, hidden, rows, dtype, wanted, self.checkpointing)

    def encode_packed(
        self,
        packed: Packed,
        dtype: torch.dtype = torch.float32,
        wanted: Tensor | None = None,
        embeddings: Tensor | None = None,
    ) -> list[Tensor]:
        """encode_layers() of packed rows; `embeddings` [N, H] stand in for the rows' own."""
        hidden = self.embed_packed(packed) if embeddings is None else embeddings
        rows = packed_rows(packed.groups, self.pick_kernel(), dtype)
        return self.encode_layers(hidden, rows, dtype, wanted)

    def encode(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings [B, T, H], mask [B, T], 1 at tokens -> the last layer's states [B, T, H]."""
        rows = padded_rows(attention_mask, self.pick_kernel(), hidden_states.dtype)
        return self.encode_layers(hidden_states, rows, hidden_states.dtype)[-1]

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
        hidden = self.embed(input_ids, token_type_ids)
        rows = padded_rows(attention_mask, self.pick_kernel(), hidden.dtype)
        states = self.encode_layers(hidden, rows, hidden.dtype)

        # The first token of each row is [CLS]: [B, T, H] -> [B, H].
        output: dict[str, Any] = {
            "last_hidden_state": states[-1],
            "pooler_output": self.pool(states[-1][:, 0]),
        }
        if output_hidden_states:
            output["hidden_states"] = tuple(states)
        return output
