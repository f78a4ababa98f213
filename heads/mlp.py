"""Task heads: from an example's features to its logits.

What a head is, says heads/base.py; heads/pipeline.py lists them.
"""

from torch import Tensor, nn

from bert import FEED_FORWARDS, NORMS
from dropout import Dropout
from heads.activations import ACTIVATIONS
from heads.base import HeadConfig
from options import pick


class LinearHead(nn.Module):
    """Dropout and one linear."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(config.features, config.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] -> [B, outputs]."""
        return self.out(self.dropout(x))


class HiddenLayer(nn.Module):
    """Dropout, dense, activation, norm: BERT's prediction head transform, with a dropout before.

    --head_width says how wide it is, --activation and --head_norm what follows the dense.
    """

    def __init__(self, size: int, config: HeadConfig):
        super().__init__()
        options = config.options
        feed_forward = FEED_FORWARDS[config.feed_forward]

        # A number is taken as it is; else SwiGLU, which has two matrices for one, is narrower.
        width = options.head_width.of(config.task)
        afresh = feed_forward.width_afresh(config.hidden)
        self.width = afresh if width == "encoder" else int(width)
        self.dense = feed_forward.up(size, self.width)

        # SwiGLU brings its own activation.
        self.activation = feed_forward.activation
        if config.feed_forward == "gelu":
            name = options.activation.of(config.task)
            self.activation = pick(ACTIVATIONS, name, "--activation")()

        self.norm: nn.Module = nn.Identity()
        if options.head_norm:
            self.norm = NORMS[config.norm](self.width, eps=1e-6)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, size] -> [B, width]."""
        return self.norm(self.activation(self.dense(self.dropout(x))))


class MLPHead(HiddenLayer):
    """--head_layers hidden layers, dropout and a linear.

    The first hidden layer's parts stand in the head itself, where models saved when there was but
    one have them.
    """

    def __init__(self, config: HeadConfig):
        super().__init__(config.features, config)
        depth = int(config.options.head_layers.of(config.task))
        deeper = [HiddenLayer(self.width, config) for _ in range(depth - 1)]
        self.deeper = nn.ModuleList(deeper)
        self.out = nn.Linear(self.width, config.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] -> [B, outputs]."""
        hidden = super().forward(x)  # [B, width]
        for layer in self.deeper:
            hidden = layer(hidden)
        return self.out(self.dropout(hidden))
