"""Options of the encoder."""

from dataclasses import dataclass

from declare import Names, Section, declare

# Where a kind of layer is used instead of the usual one.
PLACES = ("off", "heads", "encoder", "all")


@dataclass(frozen=True)
class ModelOptions(Section):
    """The encoder, and what its layers are made of"""

    # Which encoder.
    model: str = declare(
        "auto",
        "hub id, folder or run; auto: bert-base-uncased if it is on this machine, else "
        "all-MiniLM-L6-v2",
        usual="auto: bert-base, else MiniLM",
        folder=True,
    )
    init: str | None = declare(
        None, "a run to start from; its encoder, and the heads of tasks that it had"
    )
    # Its layers, exchanged for others.
    rmsnorm: str = declare(
        "off",
        "RMSNorm instead of LayerNorm; in the heads, the encoder or all, which it means alone",
        choices=PLACES,
        bare="all",
    )
    swiglu: str = declare(
        "off",
        "SwiGLU instead of GELU; in the heads, the encoder or all, which it means alone",
        choices=PLACES,
        bare="all",
    )
    swiglu_start: str = declare(
        "pretrained",
        "how the encoder's SwiGLU starts; as the old layer, or afresh and 2/3 wide",
        choices=("pretrained", "random"),
        needs="swiglu",
        needs_value=("encoder", "all"),
    )

    # What its embeddings get beside the words'.
    word_tags: Names = declare(
        (),
        "embeddings of words' tags, added to theirs; pos: parts of speech, ner: kinds of entities; "
        "spaCy makes the tags (setup.sh --extras tags)",
        choices=("pos", "ner"),
    )
    word_tags_model: str = declare(
        "en_core_web_sm",
        "the spaCy pipeline that tags; its name or its folder",
        needs="word_tags",
        folder=True,
    )

    # Dropout.
    hidden_dropout_prob: float = declare(
        0.1, "dropout in the encoder and the heads", least=0, below=1
    )
    attention_dropout_prob: float = declare(
        0.1, "dropout on the attention weights", least=0, below=1
    )
