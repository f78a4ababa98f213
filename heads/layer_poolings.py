"""Poolings of the first token's states in several layers of BERT.

`cls_layers` is the plain mean over chosen layers, as over the last four; Devlin et al. 2019 (table
7, https://arxiv.org/abs/1810.04805) concatenate or add them as features of a frozen BERT.
`layer_mix` learns the weights of all layers, after ELMo (Peters et al. 2018, equation 1,
https://arxiv.org/abs/1802.05365):

    g * sum over j of softmax(s)_j h_j

Here h_j is [CLS] after layer j. The embeddings are no part of it, since that of [CLS] is the same
in every text. s starts at zero and g at one, that is as the mean. Left out: ELMo's layer norm
before the mix.
"""

import torch
from torch import Tensor, nn

from adapters.layers import choose_layers
from base_bert import BertConfig
from forward import Encoded
from heads.base import Pooling
from options import Options


def firsts(encoded: Encoded, numbers: list[int]) -> Tensor:
    """The states of [CLS] after some layers, numbered from 0: [layers, S, H], fp32."""
    last = len(encoded.layers) - 2
    # -1 is the last layer also where no more of it than [CLS] was computed.
    places = [-1 if number == last else number + 1 for number in numbers]
    return torch.stack([encoded.first(place) for place in places])


class ClsLayers(Pooling):
    """The mean of [CLS] over the layers that --pooling_layers names."""

    needs = "cls"

    def __init__(self, config: BertConfig, options: Options, task: str):
        super().__init__(config, options, task)
        layers = options.pooling_layers.of(task)
        self.numbers = choose_layers(layers, config.num_hidden_layers, "--pooling_layers")

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        return firsts(encoded, self.numbers).mean(0)


class LayerMix(Pooling):
    """A learned mix of [CLS] over all layers."""

    needs = "cls"

    def __init__(self, config: BertConfig, options: Options, task: str):
        super().__init__(config, options, task)
        self.weights = nn.Parameter(torch.zeros(config.num_hidden_layers))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        states = firsts(encoded, list(range(len(self.weights))))  # [layers, S, H]
        shares = self.weights.softmax(0)
        return self.scale * (shares[:, None, None] * states).sum(0)
