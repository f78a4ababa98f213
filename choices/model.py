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
    rmsnorm_start: str = declare(
        "copied",
        "how the encoder's RMSNorm starts; with LayerNorm's gain and bias, or calibrated: with "
        "those that come nearest to LayerNorm's outputs on sentences of the built-in corpus",
        choices=("copied", "calibrated"),
        needs="rmsnorm",
        needs_value=("encoder", "all"),
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

    # Its attention.
    kv_heads: int = declare(
        0,
        "key and value heads; fewer than the encoder has are means of its own, each for a group of "
        "queries, 1: for all of them, 0: as many as it has",
        least=0,
        most=2**10,
        usual="as the encoder has",
    )
    attention: str = declare(
        "auto",
        "the kernel; softmax: written out, sdpa: torch's fused one, auto: the faster one; there is "
        "no flash, since that kernel takes no mask, and packed rows need one",
        choices=("auto", "softmax", "sdpa"),
        usual="auto: the faster one",
    )

    # Layers added to its own.
    attention_inner_width: int = declare(
        0,
        "hidden units inside each attention head; the encoder trains too, 0: no such layer",
        least=0,
        most=8192,
        usual="none",
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
