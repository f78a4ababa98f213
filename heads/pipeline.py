"""A task's way from the encoder's states to its logits: token layers, pooling, join, head.

Where a text is several sequences, its segments are joined between pooling and join.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from base_bert import BertConfig
from bert import BertModel
from forward import Encoded
from heads.attention_pooling import AttentionPooling
from heads.base import HeadConfig, Pooling, head_dropout
from heads.bilstm import make_bilstm
from heads.cnn import make_cnn
from heads.cross_attention import cross_attention
from heads.layer_poolings import ClsLayers, LayerMix
from heads.mlp import LinearHead, MLPHead
from heads.pairs import make_join
from heads.poolings import ClsPooling, MaxPooling, MeanPooling, PoolerPooling
from heads.segments import segment_attention
from heads.self_attention import self_attention_layers
from options import Options, pick
from tasks import Task

POOLINGS: dict[str, Callable[[BertConfig, Options, str], Pooling]] = {
    "cls": ClsPooling,
    "mean": MeanPooling,
    "max": MaxPooling,
    "pooler": PoolerPooling,
    "attention": AttentionPooling,
    "cls_layers": ClsLayers,
    "layer_mix": LayerMix,
}
HEADS: dict[str, Callable[[HeadConfig], nn.Module]] = {
    "mlp": MLPHead,
    "linear": LinearHead,
}
# Layers on top of BERT, one module or None each, made from (task, bert, options); a module gets
# states [S, T, H], their mask [S, T] and which example each sequence belongs to [S], and gives
# states of as many tokens, [S, T, H]. They follow one another in this order. One that gives another
# width has it as `size`, and is the last of its task: what follows it is a pooling.
TOKEN_LAYERS: dict[str, Callable[[Task, BertModel, Options], nn.Module | None]] = {
    "attention_layers": self_attention_layers,
    "cross_attention": cross_attention,
    "lstm": make_bilstm,
    "cnn": make_cnn,
}


def as_pooled(config: BertConfig, token_layers: nn.ModuleDict) -> BertConfig:
    """The configuration that a pooling is made from: its width is that of the last layer."""
    width = config.hidden_size
    for layer in token_layers.values():
        width = getattr(layer, "size", width)
    if width == config.hidden_size:
        return config
    # A pooling has no attention heads, whose number would have to divide the width.
    return replace(config, hidden_size=width, num_attention_heads=1, num_key_value_heads=1)


class Pipeline(nn.Module):
    """The parts of one task that follow the encoder."""

    def __init__(self, task: Task, bert: BertModel, options: Options):
        super().__init__()
        config = bert.config
        made = {name: make(task, bert, options) for name, make in TOKEN_LAYERS.items()}
        chosen = {name: module for name, module in made.items() if module is not None}
        self.token_layers = nn.ModuleDict(chosen)
        pooling = pick(POOLINGS, options.pooling.of(task.name), "--pooling")
        self.pooling = pooling(as_pooled(config, self.token_layers), options, task.name)
        self.segments = segment_attention(task, self.pooling.size, options)
        self.join = make_join(task, self.pooling.size, options)
        make_head = pick(HEADS, options.head.of(task.name), "--head")
        if self.join.is_output:
            make_head = nn.Identity
        self.head = make_head(
            HeadConfig(
                features=self.join.features,
                hidden=config.hidden_size,
                outputs=task.outputs,
                dropout=head_dropout(options, task.name),
                norm="rmsnorm" if options.rmsnorm in ("heads", "all") else "layernorm",
                feed_forward="swiglu" if options.swiglu in ("heads", "all") else "gelu",
                task=task.name,
                options=options,
            )
        )
        # Layers of several tasks. The model has them (heads/shared.py): in a tuple they are no
        # parts of this one.
        self.beside: tuple[nn.Module, ...] = ()

    @property
    def needs(self) -> str:
        """What it reads of the encoder: "cls", "tokens" or "layers"."""
        if self.token_layers and self.pooling.needs == "cls":
            return "tokens"
        return self.pooling.needs

    def forward(self, encoded: Encoded, owners: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled vectors of the texts [S, size], or [texts, size], and logits [B, outputs]."""
        for layer in self.token_layers.values():
            states, mask = encoded.tokens()
            encoded = encoded.with_tokens(layer(states, mask, owners))
        pooled = self.pooling(encoded)
        if self.segments is not None:
            # Of several sequences a text: [S, size] -> [texts, size].
            pooled, owners = self.segments(pooled, owners, encoded.sides)
        features = self.join(pooled, owners)
        logits = self.head(features)
        for layer in self.beside:
            logits = logits + layer(features)
        return pooled, logits
