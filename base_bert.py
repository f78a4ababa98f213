"""What is around the network: configuration, weight init, loading and saving pretrained weights.

`python base_bert.py NAME` fetches a model from the Hugging Face hub (or finds it on disk) and
prints its folder.

Weights (pretrained.py finds and reads them) may be under Hugging Face's names (old TensorFlow
gamma/beta too), with or without the `bert.` prefix, or under the course's names. Every name must be
accounted for. Left out: other architectures.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from errors import UserError, run_main
from pretrained import TOKENIZER_FILES, find_pretrained, read_weights

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


@dataclass
class BertConfig:
    """What a BERT encoder needs of a Hugging Face config.json, and two fields of ours, the last."""

    # The sizes of the network; the defaults are BERT-base's.
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    # Activation and dropout.
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    # The embeddings, the spread of the initial weights, and the norms' epsilon.
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    # Variants of ours, which Hugging Face's config.json does not have.
    norm: str = "layernorm"
    feed_forward: str = "gelu"

    def __post_init__(self) -> None:
        # Each head gets an equal share of the hidden size.
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"{self.num_attention_heads} heads"
            )
        if self.hidden_act != "gelu":
            raise UserError(
                f'hidden_act is "{self.hidden_act}"; BERT\'s is "gelu", the exact erf form, '
                "and so is ours"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BertConfig":
        """From a config.json's contents; fields that are not BERT's are passed over."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "BertConfig":
        """From a hub id's or folder's config.json."""
        # Damaged files are the user's to mend, so they get one plain line each.
        path = find_pretrained(name) / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable config.json ({error})") from None
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise UserError(f"{path}: not a readable config.json (a {kind}, expected an object)")
        # Other models have a config.json too; minbert is ours, with another norm or feed-forward.
        if values.get("model_type", "bert") not in ("bert", "minbert"):
            raise UserError(f'{path}: model_type is "{values["model_type"]}", expected "bert"')
        return cls.from_dict(values)

    def save(self, folder: Path) -> None:
        """Write config.json.

        With another norm or feed-forward it is not BERT any more, and says so to whoever loads it.
        """
        # Under the type bert, transformers would put the weights into a network of another form.
        plain = (self.norm, self.feed_forward) == ("layernorm", "gelu")
        head = {"architectures": ["BertModel"], "model_type": "bert" if plain else "minbert"}
        (folder / "config.json").write_text(
            json.dumps({**head, **asdict(self)}, indent=2) + "\n", encoding="utf-8"
        )


def same_width(width: int) -> int:
    """The width of a feed-forward that starts afresh: by default the pretrained one's."""
    return width


@dataclass(frozen=True)
class FeedForward:
    """The first half of a layer's feed-forward, before the linear that leads back to H."""

    up: Callable[[int, int], nn.Module]  # (H, width) -> module [..., H] -> [..., width]
    activation: Callable[[Tensor], Tensor]  # [..., width] -> [..., width]
    # Turns a pretrained layer's weights, named (up, down), into this one's in place; None: as BERT.
    translate: Callable[[dict[str, Tensor], str, str], None] | None = None
    width_afresh: Callable[[int], int] = same_width


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


LoadingInfo = dict[str, list[str]]


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
            f"missing: {', '.join(sorted(missing)) or 'none'}; "
            f"unexpected: {', '.join(sorted(unexpected)) or 'none'}"
        )
    # All wrong shapes are told at once, where torch would print a line for each.
    shapes = {n: (tuple(x.shape), tuple(own[n].shape)) for n, x in given.items()}
    wrong = [
        f"{n} {theirs} instead of {ours}" for n, (theirs, ours) in shapes.items() if theirs != ours
    ]
    if wrong:
        raise UserError(f"{source}: wrong shapes: {'; '.join(wrong)}")
    if outside:
        some = ", ".join(outside[:8])
        print(f"{source}: passed over {len(outside)} names outside the encoder: {some}")
    # Not strict, since the new names are missing; all others are checked above.
    model.load_state_dict(given, strict=False)
    # The other two are transformers' for what is an error here.
    return {
        "missing_keys": sorted(new - set(given)),
        "unexpected_keys": outside,
        "mismatched_keys": [],
        "error_msgs": [],
    }


class BertPreTrainedModel(nn.Module):
    """Weight init, loading and saving."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        # Where the weights came from; empty for a model made from scratch.
        self.name_or_path = ""

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.parameters()).dtype

    def init_weights(self) -> None:
        """BERT's init: normal(0, initializer_range) for linears and embeddings, zero biases.

        Norms are the identity as they are made.
        """
        for module in self.modules():
            # A plain normal, as in transformers; the original BERT cuts it off at two deviations.
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)

            # The padding token embeds to zero, as nn.Embedding itself would have it.
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        config: BertConfig | None = None,
        afresh: bool = False,
        *,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
        output_loading_info: bool = False,
    ) -> Any:
        """The model with the weights of a hub id or folder, in eval mode.

        With `output_loading_info` it is (model, load_weights' info).

        `config` may change the dropouts, norm and feed-forward. A feed-forward of another shape
        than BERT's starts as the pretrained one unless the weights hold its shape already or
        `afresh` is true: then it stays as initialised. Of a hub id `local_files_only` takes what is
        on disk, `cache_dir` is another cache than the hub's.
        """
        # The configuration may come from the caller, and the weights always come from the folder.
        folder = find_pretrained(name, local_only=local_files_only, cache_dir=cache_dir)
        config = config or BertConfig.from_pretrained(folder)
        model = cls(config)

        # Master weights are fp32, whatever dtype the file has.
        state = {course_name(k): v.float() for k, v in read_weights(folder).items()}
        # Layers whose shape is not BERT's make their weights from BERT's.
        new: set[str] = set()
        for prefix, module in model.named_modules():
            if translate := getattr(module, "translate_pretrained", None):
                new |= translate(state, prefix, afresh)
        info = load_weights(model, state, new, str(name))
        # The vocabulary is looked for under this name later, in the hub's own cache.
        model.name_or_path = str(name if cache_dir is None else folder)
        return (model.eval(), info) if output_loading_info else model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers loads: config.json, weights and any known vocabulary."""
        # Names of a plain model, made on the meta device so that it costs no memory.
        with torch.device("meta"):
            plain = set(type(self)(self.config).state_dict())
        if set(self.state_dict()) != plain:
            raise UserError(
                "the encoder has adapters in it: merge them first (lora.merge), then save"
            )

        # The vocabulary is copied from where the model came from.
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        source = find_pretrained(self.name_or_path) if self.name_or_path else folder
        self.config.save(folder)

        # Weights under Hugging Face's names; the constant positions are left out.
        own = {k: v for k, v in self.state_dict().items() if k != "position_ids"}
        state = {hub_name(k): v.detach().cpu().contiguous() for k, v in own.items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

        # Saved onto itself, a folder has its vocabulary already.
        for name in TOKENIZER_FILES:
            if source.resolve() != folder.resolve() and (source / name).exists():
                shutil.copyfile(source / name, folder / name)


def main(argv: list[str]) -> None:
    """Print the folder of the model named on the command line, fetching it first if need be."""
    # One plain argument, and no options.
    if len(argv) != 1 or argv[0].startswith("-"):
        raise UserError(
            "usage: python base_bert.py NAME (a hub id such as bert-base-uncased, or a folder)"
        )
    print(find_pretrained(argv[0]))


if __name__ == "__main__":
    run_main(main)
