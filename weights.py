"""An encoder's weights by name and size: whose names they are, and whether they fit.

Weights may be under Hugging Face's names (old TensorFlow gamma/beta too), with or without the
`bert.` prefix, or under the course's names. Every name must be accounted for.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from errors import UserError, listed

# Hugging Face's names and the course's, in the order in which they must be replaced.
NAMES = [
    ("embeddings.word_embeddings", "word_embedding"),
    ("embeddings.position_embeddings", "pos_embedding"),
    ("embeddings.token_type_embeddings", "tk_type_embedding"),
    ("embeddings.LayerNorm", "embed_layer_norm"),
    ("encoder.layer", "bert_layers"),
    ("attention.self", "self_attention"),
    ("attention.output.dense", "attention_dense"),
    ("attention.output.LayerNorm", "attention_layer_norm"),
    ("intermediate.dense", "interm_dense"),
    ("output.dense", "out_dense"),
    ("output.LayerNorm", "out_layer_norm"),
    ("pooler.dense", "pooler_dense"),
]
# The encoder's top-level names; whatever else a checkpoint holds is not the encoder's.
ENCODER = (
    "word_embedding",
    "pos_embedding",
    "tk_type_embedding",
    "embed_layer_norm",
    "bert_layers",
    "pooler_dense",
)
# A field of the configuration, and the tensor and axis that have its size.
SIZES = {
    "vocab_size": ("word_embedding.weight", 0),
    "hidden_size": ("word_embedding.weight", 1),
    "max_position_embeddings": ("pos_embedding.weight", 0),
    "type_vocab_size": ("tk_type_embedding.weight", 0),
    "intermediate_size": ("bert_layers.0.out_dense.weight", 1),
}

LoadingInfo = dict[str, list[str]]


def course_name(name: str) -> str:
    """The course's name of a parameter, without `bert.`.

    From Hugging Face's, old or new, or from the course's.
    """
    # Old TensorFlow names first: norms have gamma and beta there.
    name = re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name.removeprefix("bert.")))
    # Whole parts of the dotted name only, so that names of the course's pass unchanged.
    for theirs, ours in NAMES:
        name = re.sub(rf"(^|\.){re.escape(theirs)}\.", rf"\g<1>{ours}.", name)
    return name


def hub_name(name: str) -> str:
    """The Hugging Face name of one of our parameters."""
    for theirs, ours in NAMES:
        name = re.sub(rf"(^|\.){ours}\.", rf"\g<1>{theirs}.", name)
    return name


def in_course_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a file under the course's names.

    UserError where two of them would have one name, or the encoder's do not hold finite floating
    numbers.
    """
    named: dict[str, Tensor] = {}
    for theirs, tensor in state.items():
        name = course_name(theirs)
        if name in named:
            raise UserError(f"{source}: holds {name} twice, under two names; fetch it again")
        if name.startswith(ENCODER):
            check_numbers(name, tensor, source)
        named[name] = tensor
    return named


def check_numbers(name: str, tensor: Tensor, source: str) -> None:
    """UserError where a weight holds anything but finite floating numbers."""
    if not tensor.is_floating_point():
        raise UserError(f"{source}: {name} is of {tensor.dtype}, expected floating numbers")
    # A sum shows what may be wrong, and is many times faster than to test each number.
    numbers = tensor.float()
    if not numbers.sum().isfinite() and not numbers.isfinite().all():
        raise UserError(f"{source}: {name} holds NaN or infinity; fetch the weights again")


def check_sizes(
    shapes: Mapping[str, tuple[int, ...]], config: Any, source: str, afresh: bool = False
) -> None:
    """UserError where the configuration asks for another network than the weights are of.

    `shapes`: of the weights, by the course's names. So no more memory is asked for than the file
    vouches for. `afresh`: the feed-forward may have another width.
    """
    for field, (name, axis) in SIZES.items():
        wanted = getattr(config, field)
        if field == "intermediate_size" and (afresh or name not in shapes):
            continue
        if len(shapes.get(name, ())) != 2:
            raise UserError(f"{source}: holds no {name}, or no table; are these BERT's weights?")
        if shapes[name][axis] != wanted:
            found = shapes[name][axis]
            raise UserError(
                f"{source}: {field} is {wanted} in config.json, {found} in the weights ({name})"
            )

    # Fewer layers than the weights have are told by the names that are then left over.
    layers = {name.split(".")[1] for name in shapes if name.startswith("bert_layers.")}
    if len(layers) < config.num_hidden_layers:
        raise UserError(
            f"{source}: num_hidden_layers is {config.num_hidden_layers} in config.json, "
            f"{len(layers)} in the weights"
        )


def load_weights(
    model: nn.Module, state: dict[str, Tensor], new: set[str], source: str
) -> LoadingInfo:
    """Load a state dict in the course's names. `new` is the exact set of names that it may lack.

    Names outside the encoder (pre-training heads, say) are passed over and printed; any other
    difference is an error. Returns transformers' loading info: which names stay as initialised
    (missing_keys) and which are passed over (unexpected_keys).
    """
    # Split the given names into the encoder's and others; position_ids is a constant, not a weight.
    own = model.state_dict()
    expected = {name for name in own if name != "position_ids"}
    outside = sorted(
        name for name in state if not name.startswith(ENCODER) and "position_ids" not in name
    )
    given = {name: x for name, x in state.items() if name.startswith(ENCODER)}
    # Some checkpoints, such as masked language models, come without a pooler; that is allowed.
    pooler = {name for name in expected if name.startswith("pooler_dense")}
    missing, unexpected = expected - set(given) - new, set(given) - expected
    if missing == pooler:
        print(f"{source}: has no pooler; ours starts at random")
        new = new | pooler
        missing = set()
    # Anything else that differs would leave weights at random unnoticed.
    if missing or unexpected:
        raise UserError(
            f"{source}: the weights do not fit the configuration; "
            f"missing: {listed(sorted(missing)) or 'none'}; "
            f"unexpected: {listed(sorted(unexpected)) or 'none'}"
        )
    # All wrong shapes are told at once, where torch would print a line for each.
    shapes = {n: (tuple(x.shape), tuple(own[n].shape)) for n, x in given.items()}
    wrong = [
        f"{n} {theirs} instead of {ours}" for n, (theirs, ours) in shapes.items() if theirs != ours
    ]
    if wrong:
        raise UserError(f"{source}: wrong shapes: {'; '.join(wrong)}")
    if outside:
        print(f"{source}: passed over {len(outside)} names outside the encoder: {listed(outside)}")
    # Not strict, since the new names are missing; all others are checked above.
    model.load_state_dict(given, strict=False)
    # The other two are transformers' for what is an error here.
    return {
        "missing_keys": sorted(new - set(given)),
        "unexpected_keys": outside,
        "mismatched_keys": [],
        "error_msgs": [],
    }
