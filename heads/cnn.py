"""Convolutions on top of BERT, along a task's token states.

Kim 2014, Convolutional Neural Networks for Sentence Classification, equation 2,
https://arxiv.org/abs/1408.5882: c_t = relu(w x_{t - k/2 .. t + k/2} + b). Here they are stacked,
and each gives as many states as it gets; what lies beyond a sequence's ends counts as zero, whether
it is padding or nothing. Any pooling of tokens may follow; Kim's is the max. Left out: kernels of
several sizes side by side.
"""

from torch import Tensor, nn

from bert import BertModel
from options import Options
from tasks import Task


class TokenCNN(nn.Module):
    """Convolutions along the tokens, each with a ReLU behind it, in fp32."""

    def __init__(self, width: int, channels: int, kernel: int, layers: int):
        super().__init__()
        self.size = channels
        widths = [width] + [channels] * (layers - 1)
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(size, channels, kernel, padding="same") for size in widths]
        )

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        """[S, T, H], [S, T], [S] -> [S, T, channels], 0 at padding."""
        keep = mask[:, None]  # [S, 1, T]
        hidden = states.transpose(1, 2)  # [S, T, H] -> [S, H, T], as Conv1d wants it
        for convolution in self.convolutions:
            # A bias would fill the padding, and the next kernel read it: it is zeroed each time.
            hidden = convolution(hidden * keep).relu()
        return (hidden * keep).transpose(1, 2)  # [S, channels, T] -> [S, T, channels]


def make_cnn(task: Task, bert: BertModel, options: Options) -> TokenCNN | None:
    """The convolutions that --cnn_layers asks for; None where it is 0."""
    layers = int(options.cnn_layers.of(task.name))
    if layers == 0:
        return None
    channels = int(options.cnn_width.of(task.name))
    kernel = int(options.cnn_kernel.of(task.name))
    return TokenCNN(bert.config.hidden_size, channels, kernel, layers)
