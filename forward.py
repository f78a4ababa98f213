"""What one encoder call gives: Forward, for losses and extras; Encoded, for poolings.

Dimensions: N tokens of all packed rows, S sequences and B examples of one task, T tokens of the
longest of them, H hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from packing import Packed


@dataclass(frozen=True)
class Encoded:
    """The encoder's states of one task's sequences."""

    layers: list[Tensor]  # (layers + 1) of [N, H], the embeddings first
    starts: Tensor  # [S], the sequences' [CLS] among the N
    lengths: Tensor  # [S], virtual tokens counted
    longest: int  # the greatest length
    last_first: Tensor | None = None  # [S, H], where of the last layer only [CLS] was computed
    changed: tuple[Tensor, Tensor] | None = None  # what with_tokens() put in the last layer's place
    virtual: int = 0  # tokens behind each [CLS] that are of no text: tokens() leaves them out
    sides: Tensor | None = None  # [S], 0 or 1: which of its example's texts a sequence is of
    pooler: Callable[[Tensor], Tensor] | None = None  # the encoder's, [S, H] -> [S, H]

    def first(self, layer: int = -1) -> Tensor:
        """The states of [CLS] in a layer: [S, H], fp32."""
        if layer == -1 and self.changed is not None:
            return self.changed[0][:, 0]
        if layer == -1 and self.last_first is not None:
            return self.last_first.float()
        return self.layers[layer].index_select(0, self.starts).float()

    def tokens(self, layer: int = -1) -> tuple[Tensor, Tensor]:
        """The sequences' states in a layer, [S, T, H], fp32, 0 at padding, and their mask [S, T].

        The mask is True at tokens; virtual ones are left out. Raises RuntimeError where only [CLS]
        was computed: the module that asks must say so in its `needs`.
        """
        if layer == -1 and self.changed is not None:
            return self.changed
        if layer == -1 and self.last_first is not None:
            raise RuntimeError(
                "the last layer was computed at [CLS] only: "
                'a pooling that reads tokens has needs = "tokens"'
            )
        steps = torch.arange(self.longest, device=self.starts.device)
        if self.virtual:
            steps = torch.cat([steps[:1], steps[1 + self.virtual :]])  # [CLS], then the text
        mask = steps < self.lengths[:, None]
        index = (self.starts[:, None] + steps) * mask  # padding reads token 0, and is zeroed below
        states = self.layers[layer].index_select(0, index.flatten()).float()
        return states.view(*index.shape, -1) * mask[:, :, None], mask

    def with_tokens(self, states: Tensor) -> "Encoded":
        """The same with other states [S, T, any width] in the last layer's place, 0 at padding."""
        _, mask = self.tokens()
        changed = (states * mask[:, :, None], mask)
        return replace(self, last_first=None, changed=changed)

    def pooler_output(self) -> Tensor:
        """What the encoder's own pooler makes of [CLS]: [S, H], fp32."""
        if self.pooler is None:
            raise RuntimeError("these states came without the encoder's pooler")
        return self.pooler(self.first())


@dataclass(frozen=True)
class Forward:
    """All that one encoder call computed, for every task that was in it."""

    packed: Packed
    embeddings: Tensor  # [N, H], fp32, what the first layer got
    # (layers + 1) of [N, H]; of the last one only [CLS], [all S, H], may exist.
    states: list[Tensor]
    pooled: dict[str, Tensor]  # task -> [S, features], one vector a text, fp32
    logits: dict[str, Tensor]  # task -> [B, outputs], or as the task's head gives them, fp32
    # [all S, encoders], fp32: how much each of several encoders had of a sequence; None for one.
    gates: Tensor | None = None
