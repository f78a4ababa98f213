"""The encoder that options ask for: with its pretrained weights, or a saved model's."""

from dataclasses import replace
from pathlib import Path

from base_bert import BertConfig
from bert import FEED_FORWARDS, BertModel
from choices.adapter import adapters_in
from errors import UserError
from options import Options
from storage.tensor_files import shapes_of
from tasks import tasks_of
from weights import check_sizes, course_name


def encoder_config(options: Options) -> BertConfig:
    """The pretrained configuration with the options' dropouts, norm and feed-forward."""
    config = replace(
        BertConfig.from_pretrained(options.model),
        hidden_dropout_prob=options.hidden_dropout_prob,
        attention_probs_dropout_prob=options.attention_dropout_prob,
    )
    if options.rmsnorm in ("encoder", "all"):
        config = replace(config, norm="rmsnorm")
    if options.swiglu in ("encoder", "all"):
        width = config.intermediate_size
        if options.swiglu_start == "random":
            width = FEED_FORWARDS["swiglu"].width_afresh(width)
        config = replace(config, feed_forward="swiglu", intermediate_size=width)
    return config


def check_inputs(options: Options, config: BertConfig, source: str) -> None:
    """UserError where the options make inputs that the encoder, from `source`, can't take."""
    if options.max_length > config.max_position_embeddings:
        raise UserError(
            f"--max_length {options.max_length}: "
            f"{source} has {config.max_position_embeddings} positions"
        )
    crossed = [t for t in tasks_of(options).values() if t.pair and not t.is_bi(options)]
    if config.type_vocab_size < 2 and crossed:
        raise UserError(
            f"{source}: has one token type, a cross-encoded pair takes two; use --pair_encoding bi"
        )


def check_pooler(options: Options, bert: BertModel) -> None:
    """UserError where a pooling takes a pooler that stays at random: none was read, none trains."""
    # What freezes the encoder, and the pooler with it.
    freezing = adapters_in(options)
    if options.option == "pretrain":
        freezing = ["--option pretrain"]

    taken = any(options.pooling.of(task) == "pooler" for task in options.tasks)
    if taken and freezing and "pooler_dense.weight" not in bert.from_base:
        raise UserError(
            f"{options.model}: has no pooler, and {' and '.join(freezing)} would keep one at "
            f"random: use another --pooling than {options.pooling}"
        )


def pretrained_encoder(options: Options) -> BertModel:
    """The encoder with its pretrained weights; UserError where the options do not fit it."""
    config = encoder_config(options)
    check_inputs(options, config, options.model)
    afresh = options.swiglu_start == "random"
    bert = BertModel.from_pretrained(options.model, config, afresh)
    check_pooler(options, bert)
    return bert


def saved_encoder(folder: Path, options: Options) -> BertModel:
    """The encoder of a folder that save() wrote, its weights still to be loaded.

    UserError where the options, which are the folder's too, do not fit it.
    """
    config = BertConfig.from_pretrained(folder)
    check_inputs(options, config, str(folder))
    weights = folder / "model.safetensors"
    shapes = {course_name(name): shape for name, shape in shapes_of(weights).items()}
    check_sizes(shapes, config, str(weights))
    bert = BertModel(config)
    bert.name_or_path = str(folder)
    return bert
