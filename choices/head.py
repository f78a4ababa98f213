"""Options of what follows the encoder."""

from dataclasses import dataclass

from declare import PerTask, Section, declare


@dataclass(frozen=True)
class HeadOptions(Section):
    """From token states to a task's logits"""

    # Layers on top of BERT.
    attention_layers: PerTask = declare(
        PerTask("0"),
        "self-attention layers on top of BERT; for all tasks, or as in 0 sst=2",
        number=int,
        least=0,
        most=5,
        usual="none",
    )
    attention_heads: PerTask = declare(
        PerTask("same"),
        "heads of these layers; same: as many as BERT's, or any number that divides its width",
        choices=("same",),
        number=int,
        least=1,
        most=1024,
        needs="attention_layers",
    )
    lstm_layers: PerTask = declare(
        PerTask("0"),
        "layers of a BiLSTM on top of BERT; before the pooling, 0: none",
        number=int,
        least=0,
        most=4,
        usual="none",
    )
    lstm_hidden: PerTask = declare(
        PerTask("128"),
        "its width in each direction",
        number=int,
        least=1,
        most=4096,
        needs="lstm_layers",
    )
    cnn_layers: PerTask = declare(
        PerTask("0"),
        "convolutions along the tokens on top of BERT; before the pooling, 0: none",
        number=int,
        least=0,
        most=5,
        usual="none",
    )
    cnn_width: PerTask = declare(
        PerTask("512"), "their channels", number=int, least=1, most=8192, needs="cnn_layers"
    )
    cnn_kernel: PerTask = declare(
        PerTask("5"),
        "how many tokens a kernel sees",
        choices=("1", "3", "5", "7", "9"),
        needs="cnn_layers",
    )

    # From tokens to one vector.
    pooling: PerTask = declare(
        PerTask("cls"), "from token states to one vector; for all tasks, or as in cls sts=mean"
    )
    pooling_layers: PerTask = declare(
        PerTask("last4"),
        "layers whose [CLS] is averaged; all, first4, middle4, last4, or a list such as 3,7,11, "
        "from 0",
        needs="pooling",
        needs_value=("cls_layers",),
    )

    # From that vector to logits.
    head: PerTask = declare(
        PerTask("mlp"), "what turns that vector into logits; for all tasks, or as in mlp sts=linear"
    )
    head_layers: PerTask = declare(
        PerTask("1"),
        "hidden layers of the MLP head; a head without any is --head linear",
        number=int,
        least=1,
        most=5,
        needs="head",
        needs_value=("mlp",),
    )
    head_width: PerTask = declare(
        PerTask("encoder"),
        "how wide they are; encoder: as BERT's states",
        choices=("encoder",),
        number=int,
        least=1,
        most=8192,
        needs="head",
        needs_value=("mlp",),
    )
    activation: PerTask = declare(
        PerTask("gelu"), "the one in them", needs="head", needs_value=("mlp",)
    )
    head_norm: bool = declare(
        True,
        "a norm behind each hidden layer; with --no-head_norm none",
        needs="head",
        needs_value=("mlp",),
    )
    head_dropout: PerTask = declare(
        PerTask("same"),
        "dropout in the heads; same: as --hidden_dropout_prob",
        choices=("same",),
        number=float,
        least=0,
        below=1,
    )
    freeze_heads: bool = declare(
        False, "heads stay as drawn; all that follows the encoder, which alone trains"
    )
