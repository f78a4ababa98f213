"""A bidirectional LSTM on top of BERT, over a task's token states.

Hochreiter and Schmidhuber 1997, Long Short-Term Memory, https://doi.org/10.1162/neco.1997.9.8.1735;
in both directions, Schuster and Paliwal 1997, https://doi.org/10.1109/78.650093. Each token's new
state is the forward and the backward LSTM's, one behind the other; any pooling of tokens may
follow, as the mean. Sequences are packed, so that neither direction reads padding. Left out:
peephole connections and a projection back to BERT's width.
"""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bert import BertModel
from heads.base import head_dropout
from options import Options
from tasks import Task


class BiLSTM(nn.Module):
    """torch's LSTM in both directions, in fp32; dropout between its layers."""

    def __init__(self, width: int, hidden: int, layers: int, dropout: float):
        super().__init__()
        self.size = 2 * hidden
        between = dropout if layers > 1 else 0.0  # torch warns where it would do nothing
        self.lstm = nn.LSTM(
            width, hidden, layers, batch_first=True, dropout=between, bidirectional=True
        )

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        """[S, T, H], [S, T], [S] -> [S, T, 2 hidden], 0 at padding."""
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        longest = states.shape[1]
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=longest)
        return out


def make_bilstm(task: Task, bert: BertModel, options: Options) -> BiLSTM | None:
    """The LSTM that --lstm_layers asks for; None where it is 0."""
    layers = int(options.lstm_layers.of(task.name))
    if layers == 0:
        return None
    hidden = int(options.lstm_hidden.of(task.name))
    return BiLSTM(bert.config.hidden_size, hidden, layers, head_dropout(options, task.name))
