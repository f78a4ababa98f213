"""BERT's layers written out in float64, with places for what adapters put into them: an oracle."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bert import BertModel

# What an adapter does to a layer's numbers: (layer's number, [T, H]) -> [T, H].
Change = Callable[[int, Tensor], Tensor]


def unchanged(layer: int, x: Tensor) -> Tensor:
    return x


def plain_layers(
    bert: BertModel,
    x: Tensor,
    *,
    after_attention: Change = unchanged,
    after_feed_forward: Change = unchanged,
    before_last_norm: Change = unchanged,
    prefix: Callable[[int], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """The last layer's states of one sequence's embeddings: [T, H] -> [T, H], float64.

    `before_last_norm` gets the residual sum, `prefix` gives keys and values [P, H].
    """
    heads = bert.config.num_attention_heads
    width = bert.config.hidden_size // heads
    weights = {name.replace(".base.", "."): w.double() for name, w in bert.state_dict().items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = x.double()
    for i in range(bert.config.num_hidden_layers):
        layer = f"bert_layers.{i}"
        q, k, v = (linear(f"{layer}.self_attention.{n}", x) for n in ("query", "key", "value"))
        if prefix:
            keys, values = prefix(i)
            k, v = torch.cat([keys, k]), torch.cat([values, v])
        outs = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / math.sqrt(width)
            outs.append(scores.softmax(-1) @ v[:, part])
        attended = after_attention(i, linear(f"{layer}.attention_dense", torch.cat(outs, 1)))
        x = norm64(bert, weights, f"{layer}.attention_layer_norm", x + attended)
        inner = F.gelu(linear(f"{layer}.interm_dense", x))
        fed = after_feed_forward(i, linear(f"{layer}.out_dense", inner))
        x = norm64(bert, weights, f"{layer}.out_layer_norm", before_last_norm(i, x + fed))
    return x


def norm64(bert: BertModel, weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Layer norm, written out."""
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + bert.config.layer_norm_eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
