"""Similarity as a regression: the output is the similarity itself, 0 to 5.

The loss is the mean squared error against the label, on the label's scale and without bounds, so
that there is a gradient everywhere. What is predicted is cut off at 0 and at 5, which labels never
pass; no error gets larger by that.
"""

import torch.nn.functional as F
from torch import Tensor

from forward import Forward
from losses.comparison import Comparison
from losses.supervised import HIGHEST_SIMILARITY
from packing import Batch


def squared_error(forward: Forward, batch: Batch) -> Tensor:
    """Mean squared error of outputs [B, 1] against similarities [B]."""
    outputs = forward.logits[batch.task].float().squeeze(1)
    return F.mse_loss(outputs, batch.labels.float())


def bounded(outputs: Tensor) -> Tensor:
    """[B, 1] -> [B], 0 to 5."""
    return outputs.squeeze(1).float().clamp(0, HIGHEST_SIMILARITY)


SQUARED_ERROR = Comparison(squared_error, bounded)
