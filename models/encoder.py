"""The encoder that options ask for: with its pretrained weights, or a saved model's."""

import os
from dataclasses import replace
from pathlib import Path

from base_bert import BertConfig
from bert import FEED_FORWARDS, BertModel
from choices.adapter import adapters_in
from errors import UserError
from models.calibration import calibrated_start, norms_in
from models.folder import BASE
from options import Options
from storage.tensor_files import shapes_of
from tasks import tasks_of
from tokenizer import BertTokenizer
from weights import check_sizes, course_name


def encoder_config(options: Options) -> BertConfig:
    """The pretrained configuration with the options' dropouts, norm and feed-forward."""
    given = BertConfig.from_pretrained(options.model)
    config = replace(
        given,
        hidden_dropout_prob=options.hidden_dropout_prob,
        attention_probs_dropout_prob=options.attention_dropout_prob,
    )
    if options.rmsnorm in ("encoder", "all"):
        if options.rmsnorm_start == "calibrated" and given.norm == "rmsnorm":
            raise UserError(
                f"--rmsnorm_start calibrated: {options.model} has RMSNorm already, with gains of "
                "its own; leave it out"
            )
        config = replace(config, norm="rmsnorm")
    if options.swiglu in ("encoder", "all"):
        width = config.intermediate_size
        if options.swiglu_start == "random":
            width = FEED_FORWARDS["swiglu"].width_afresh(width)
        config = replace(config, feed_forward="swiglu", intermediate_size=width)
    if options.kv_heads:
        heads = config.num_key_value_heads
        if heads % options.kv_heads:
            divisors = [str(n) for n in range(1, heads + 1) if heads % n == 0]
            raise UserError(
                f"--kv_heads {options.kv_heads}: {options.model} has {heads} heads, which form no "
                f"equal groups then; expected one of {', '.join(divisors)}"
            )
        config = replace(config, num_key_value_heads=options.kv_heads)
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


def pretrained_encoder(options: Options, fresh: bool = True) -> BertModel:
    """The encoder with its pretrained weights; UserError where the options do not fit it.

    Unless it is `fresh`, what a start fits to these weights will be loaded, and is not fitted.
    """
    config = encoder_config(options)
    check_inputs(options, config, options.model)
    afresh = options.swiglu_start == "random"
    bert: BertModel = BertModel.from_pretrained(options.model, config, afresh)
    check_pooler(options, bert)
    if options.rmsnorm_start == "calibrated":
        # What is fitted is the base's no more: it is saved, also where the encoder is frozen.
        parts = ("weight", "bias")
        bert.from_base -= {f"{name}.{part}" for name in norms_in(bert) for part in parts}
        if fresh:
            calibrated_start(bert, BertTokenizer.from_pretrained(options.model))
    return with_ways(bert, options)


def with_ways(bert: BertModel, options: Options) -> BertModel:
    """The encoder, told how it computes: the attention's kernel, and what a backward pass keeps."""
    bert.kernel = options.attention
    bert.checkpointing = options.gradient_checkpointing
    return bert


def saved_encoder(folder: Path, options: Options) -> BertModel:
    """The encoder of a folder that save() wrote, its own weights still to be loaded.

    UserError where the options, which are the folder's too, do not fit it.
    """
    # A frozen encoder was not saved: all but what was fitted is its base's.
    if os.path.exists(folder / BASE):
        return pretrained_encoder(options, fresh=False)
    config = BertConfig.from_pretrained(folder)
    check_inputs(options, config, str(folder))
    weights = folder / "model.safetensors"
    shapes = {course_name(name): shape for name, shape in shapes_of(weights).items()}
    check_sizes(shapes, config, str(weights))
    bert = BertModel(config)
    bert.name_or_path = str(folder)
    return with_ways(bert, options)
