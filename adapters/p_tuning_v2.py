"""P-tuning v2 (Liu et al. 2021, https://arxiv.org/abs/2110.07602), with `--p_tuning v2`.

Trained keys and values stand in front of those of every layer of a frozen encoder, as in
prefix-tuning, but are trained themselves, without an MLP. They start as a standard normal. Left
out: the MLP that some tasks prefer, prompts for each task, and a classifier on the vocabulary.
"""

import torch
from torch import Tensor, nn

from adapters.prefix import add_prefixes
from adapters.prefix import counts as count_prefixes
from adapters.wrap import Adaptable, Adapter
from options import Options


class Table(nn.Module):
    """One layer's keys beside values: [P, 2H]."""

    def __init__(self, length: int, size: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, 2 * size))

    def forward(self) -> Tensor:
        """[P, 2H]."""
        return self.table


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and give each layer a prefix; heads train on."""
    size = model.bert.config.hidden_size
    tables = [Table(options.p_tuning_length, size) for _ in model.bert.bert_layers]
    add_prefixes(model.bert, list(tables))


def counts(model: Adaptable) -> str:
    """How many layers have a prefix."""
    return f"P-tuning v2: {count_prefixes(model.bert)}"


ADAPTER = Adapter("p_tuning", adapt, value="v2", rate_factor=10.0, counts=counts)
