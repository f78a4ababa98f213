"""From the vectors of a long text's segments to one vector of the text: attention over segments.

Yang et al. 2016, Hierarchical Attention Networks for Document Classification,
https://aclanthology.org/N16-1174, equations 8 to 10. With a vector x_i of each segment:

    u_i = tanh(W x_i + b)        a = softmax over i of u_i . c        text = sum of a_i x_i

The segments are cut by text/cutting.py; BERT, with the task's layers and pooling, stands where the
paper has a GRU over words. Left out: its GRU over sentences, so the order of segments counts for
nothing. The softmax is over the segments that a text has; none is filled up with empty ones.
"""

import torch
from torch import Tensor, nn

from errors import UserError
from options import Options
from tasks import Task


class SegmentAttention(nn.Module):
    """Weighs a text's segments by how well each fits a learned context vector."""

    def __init__(self, size: int):
        super().__init__()
        self.dense = nn.Linear(size, size)
        self.context = nn.Linear(size, 1, bias=False)

    def forward(self, pooled: Tensor, owners: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [S, H] of segments, text after text -> those of texts [texts, H].

        owners and sides [S] say of which example a segment is, and of which of its texts; beside
        the vectors come the owners of the texts, [texts].
        """
        # Texts as rows of a table, as wide as the longest has segments: [texts, K].
        _, counts = torch.unique_consecutive(2 * owners + sides, return_counts=True)
        begins = counts.cumsum(0) - counts
        columns = torch.arange(int(counts.max()), device=counts.device)
        mask = columns < counts[:, None]
        index = (begins[:, None] + columns) * mask  # what is left over reads segment 0

        # [S, H] -> [S] -> [texts, K], and over each row: [texts, K, H] -> [texts, H].
        scores = self.context(torch.tanh(self.dense(pooled))).squeeze(1)
        weights = scores[index].masked_fill(~mask, -torch.inf).softmax(1)
        return (weights[:, :, None] * pooled[index]).sum(1), owners[begins]


def segment_attention(task: Task, size: int, options: Options) -> SegmentAttention | None:
    """What joins a task's segments, None where a text is one sequence.

    UserError where the sentences of a pair share a sequence.
    """
    if not options.segment_of(task.name):
        return None
    if task.pair and not task.is_bi(options):
        raise UserError(
            f"--segment_length cuts texts one by one, but {task.name} has both sentences of a pair "
            f"in one sequence: use --pair_encoding bi, or add {task.name}=whole to --segment_length"
        )
    return SegmentAttention(size)
