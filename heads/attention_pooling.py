"""Pooling by attention: a mean of the tokens, weighted by how they answer a learned query.

Yang et al. 2016, Hierarchical Attention Networks for Document Classification, section 2.2,
equations 5 to 7, https://aclanthology.org/N16-1174:

    u_t = tanh(W h_t + b),   a = softmax over t of (u_t q),   s = sum over t of a_t h_t

The query q starts at zero, so the pooling starts as the plain mean. Left out: the recurrent encoder
below it and the second level, over sentences.
"""

import math

import torch
from torch import Tensor, nn

from base_bert import BertConfig
from forward import Encoded
from heads.base import Pooling
from options import Options


class AttentionPooling(Pooling):
    """A mean of the tokens under a masked softmax of their products with a query."""

    def __init__(self, config: BertConfig, options: Options, task: str):
        super().__init__(config, options, task)
        self.dense = nn.Linear(self.size, self.size)
        self.query = nn.Parameter(torch.zeros(self.size))

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        states, mask = encoded.tokens()
        scores = self.dense(states).tanh() @ self.query  # [S, T]
        weights = scores.masked_fill(~mask, -math.inf).softmax(1)
        return (weights[:, :, None] * states).sum(1)
