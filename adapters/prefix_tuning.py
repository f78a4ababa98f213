"""Prefix-tuning (Li and Liang 2021, https://arxiv.org/abs/2101.00190).

Trained keys and values stand in front of those of every layer, and the encoder is frozen. Section
4.3: they are not trained themselves but made from a smaller matrix by an MLP, [P, H] -> width, tanh
-> [P, layers 2H], which trains more stably. The MLP's last matrix lies in pieces, one a layer: what
a layer needs of it is all that it computes.

The matrix and the MLP are what is saved, also by an export, so that a run can go on from either;
the paper drops them after training and keeps their result. Left out: a prefix for each task (all
tasks share one) and its start from the activations of real words (section 4.4).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adapters.prefix import add_prefixes
from adapters.prefix import counts as count_prefixes
from adapters.wrap import Adaptable, Adapter
from options import Options


class Reparametrisation(nn.Module):
    """The part of the MLP that all layers share: the matrix, and from it [P, width]."""

    def __init__(self, length: int, size: int, width: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(length, size))
        self.dense = nn.Linear(size, width)

    def forward(self) -> Tensor:
        """[P, width], fp32."""
        return torch.tanh(self.dense(self.matrix))


class LayerOutput(nn.Module):
    """One layer's piece of the MLP's last matrix."""

    def __init__(self, shared: Reparametrisation, size: int):
        super().__init__()
        # Behind a function it is no submodule of each layer, and a copied layer (--task_layers)
        # keeps this one, which alone is trained and saved.
        self.hidden: Callable[[], Tensor] = lambda: shared()
        self.out = nn.Linear(shared.dense.out_features, 2 * size)

    def forward(self) -> Tensor:
        """Keys beside values: [P, 2H]."""
        return self.out(self.hidden().to(self.out.weight.dtype))


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and give each layer a prefix; heads train on."""
    bert = model.bert
    size = bert.config.hidden_size
    shared = Reparametrisation(options.prefix_tuning_length, size, options.prefix_tuning_width)
    add_prefixes(bert, [LayerOutput(shared, size) for _ in bert.bert_layers])
    bert.add_module("reparametrisation", shared)


def counts(model: Adaptable) -> str:
    """How many layers have a prefix."""
    return f"prefix-tuning: {count_prefixes(model.bert)}"


ADAPTER = Adapter("prefix_tuning", adapt, rate_factor=10.0, counts=counts)
