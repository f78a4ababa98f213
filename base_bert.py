"""What is around the network: configuration, weight init, loading and saving pretrained weights.

`python base_bert.py NAME` fetches a model from the Hugging Face hub (or finds it on disk) and
prints its folder.

pretrained.py finds and reads the weights, weights.py knows their names. Left out: other
architectures.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from errors import UserError, one_line, run_main
from pretrained import LARGEST_VOCABULARY, TOKENIZER_FILES, find_pretrained, read_weights
from storage.files import read_bytes, write_bytes
from storage.json_files import Between, read_json, record, write_json
from storage.tensor_files import sha256_of_tensors, write_tensors
from weights import ENCODER, check_sizes, hub_name, in_course_names, load_weights
from weights import course_name as course_name  # importable from here too

# What a config.json may say of the kind of network, where it says it; all else is not ours. Other
# models have such a file too; minbert is ours, where it is not BERT's own network.
KINDS: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert", "minbert"),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
}


def check_kind(values: Mapping[str, Any], path: Path) -> None:
    """UserError where a config.json's contents are those of another network than ours."""
    for name, known in KINDS.items():
        if values.get(name, known[0]) not in known:
            found, expected = one_line(json.dumps(values[name]), 60), json.dumps(known[0])
            raise UserError(f"{path}: {name} is {found}, expected {expected}")


@dataclass
class BertConfig:
    """What a BERT encoder needs of a Hugging Face config.json; the last three fields are ours."""

    # The sizes of the network; the defaults are BERT-base's. The ranges are wider than any BERT.
    vocab_size: Annotated[int, Between(1, 2**22)] = 30522
    hidden_size: Annotated[int, Between(1, 2**14)] = 768
    num_hidden_layers: Annotated[int, Between(1, 256)] = 12
    num_attention_heads: Annotated[int, Between(1, 2**10)] = 12
    intermediate_size: Annotated[int, Between(1, 2**16)] = 3072
    # Activation and dropout.
    hidden_act: str = "gelu"
    hidden_dropout_prob: Annotated[float, Between(0, 1)] = 0.1
    attention_probs_dropout_prob: Annotated[float, Between(0, 1)] = 0.1
    # The embeddings, the spread of the initial weights, and the norms' epsilon.
    max_position_embeddings: Annotated[int, Between(1, 2**16)] = 512
    type_vocab_size: Annotated[int, Between(1, 2**10)] = 2
    initializer_range: Annotated[float, Between(0, 1)] = 0.02
    layer_norm_eps: Annotated[float, Between(0, 1)] = 1e-12
    pad_token_id: Annotated[int, Between(0, 2**22)] = 0
    # Variants of ours, which Hugging Face's config.json does not have.
    norm: str = "layernorm"
    feed_forward: str = "gelu"
    num_key_value_heads: Annotated[int, Between(0, 2**10)] = 0  # 0: as many as query heads

    def __post_init__(self) -> None:
        self.num_key_value_heads = self.num_key_value_heads or self.num_attention_heads
        # Each head gets an equal share of the hidden size.
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"{self.num_attention_heads} heads"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.pad_token_id >= self.vocab_size:
            raise UserError(
                f"pad_token_id {self.pad_token_id} is not below vocab_size {self.vocab_size}"
            )
        if self.hidden_act != "gelu":
            raise UserError(
                f'hidden_act is "{self.hidden_act}"; BERT\'s is "gelu", the exact erf form, '
                "and so is ours"
            )

    @classmethod
    def from_dict(cls, values: Any, source: str = "config.json") -> "BertConfig":
        """From a config.json's contents; fields that are not BERT's are passed over.

        UserError, which names the source, for a value of another type or out of range.
        """
        return record(cls, values, source, others_too=True)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "BertConfig":
        """From a hub id's or folder's config.json."""
        path = find_pretrained(name) / "config.json"
        values = read_json(path)
        if isinstance(values, dict):
            check_kind(values, path)
        return cls.from_dict(values, str(path))

    def choice(self, field: str, table: Mapping[str, Any]) -> Any:
        """What a table has under the name that a field holds; UserError where it has nothing."""
        name = getattr(self, field)
        if name not in table:
            raise UserError(f'{field} is "{name}", expected one of {", ".join(table)}')
        return table[name]

    @property
    def is_bert(self) -> bool:
        """Whether it is BERT's own network, as others build it."""
        shared = self.num_key_value_heads < self.num_attention_heads
        return (self.norm, self.feed_forward, shared) == ("layernorm", "gelu", False)

    def save(self, folder: Path, extended: bool = False) -> None:
        """Write config.json.

        With another norm or feed-forward, shared heads, or `extended` by adapters, it is not BERT
        any more, and says so to whoever loads it.
        """
        # Under the type bert, transformers would put the weights into a network of another form.
        kind = "bert" if self.is_bert and not extended else "minbert"
        head = {"architectures": ["BertModel"], "model_type": kind}
        write_json(folder / "config.json", {**head, **asdict(self)})


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


class BertPreTrainedModel(nn.Module):
    """Weight init, loading and saving."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        # Where the weights came from; empty for a model made from scratch.
        self.name_or_path = ""
        # Of the pretrained weights as they were read; empty likewise.
        self.base_sha256 = ""
        # The names of the tensors that they gave; all others are as initialised.
        self.from_base: frozenset[str] = frozenset()

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

        # The weights say how large the network is, before it is made.
        read = in_course_names(read_weights(folder), str(name))
        shapes = {key: tuple(x.shape) for key, x in read.items()}
        check_sizes(shapes, config, str(name), afresh)
        model = cls(config)
        own = {key: x for key, x in read.items() if key.startswith(ENCODER)}
        model.base_sha256 = sha256_of_tensors(own)

        # Master weights are fp32, whatever dtype the file has.
        state = {key: x.float() if key in own else x for key, x in read.items()}
        # Layers whose shape is not BERT's make their weights from BERT's.
        new: set[str] = set()
        for prefix, module in model.named_modules():
            if translate := getattr(module, "translate_pretrained", None):
                try:
                    new |= translate(state, prefix, afresh)
                except KeyError as missing:
                    raise UserError(f"{name}: the weights lack {missing.args[0]}") from None
        info = load_weights(model, state, new, str(name))
        model.from_base = frozenset(model.state_dict()) - set(info["missing_keys"])
        # The vocabulary is looked for under this name later, in the hub's own cache.
        model.name_or_path = str(name if cache_dir is None else folder)
        return (model.eval(), info) if output_loading_info else model.eval()

    def own_names(self) -> set[str]:
        """The names of the tensors that belong to the network itself, not to what was added to it.

        Without the constant positions.
        """
        with torch.device("meta"):  # a second one, which costs no memory
            return set(type(self)(self.config).state_dict()) - {"position_ids"}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers loads: config.json, weights and any known vocabulary."""
        state = {name: x for name, x in self.state_dict().items() if name != "position_ids"}
        if set(state) != self.own_names():
            raise UserError("the encoder has adapters in it: merge them first, then save")

        # The vocabulary is copied from where the model came from.
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        source = find_pretrained(self.name_or_path) if self.name_or_path else folder
        self.config.save(folder)

        # Weights under Hugging Face's names.
        write_tensors(folder / "model.safetensors", {hub_name(k): v for k, v in state.items()})

        # Saved onto itself, a folder has its vocabulary already.
        for name in TOKENIZER_FILES:
            if source.resolve() != folder.resolve() and os.path.exists(source / name):
                write_bytes(folder / name, read_bytes(source / name, LARGEST_VOCABULARY))


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
