"""Which options can't work together, and why.

A row of CONFLICTS finds a pair and says which to drop. What an option needs says its declaration.
"""

import re
import string
from collections.abc import Callable
from typing import NamedTuple

from choices.adapter import adapters_in
from choices.chosen import Chosen
from choices.limits import LONGEST_NAME, LONGEST_TAG, MOST_EXAMPLES
from declare import PerTask


class Conflict(NamedTuple):
    """Options that can't work together."""

    found: Callable[[Chosen], bool]
    # An option's name in braces stands for its value, {adapter} for the flags of adapters_in().
    message: str


def is_template(text: str) -> bool:
    """Whether nothing but {task} and {split} stands in a text's braces.

    A width as in {task:>99} could ask for any amount of memory, {task.x} for anything's inside.
    """
    try:
        fields_of_text = list(string.Formatter().parse(text))
    except ValueError:  # a brace alone
        return False
    plain = (None, "task", "split")  # None: the text ends without one
    return all(name in plain and not (way or form) for _, name, form, way in fields_of_text)


def is_tag(word: str) -> bool:
    """Whether a word can be a tag."""
    return len(word) <= LONGEST_TAG and re.fullmatch(r"[\w.][\w.-]*", word) is not None


# Heads to which --rmsnorm or --swiglu is nothing.
WITHOUT_NORM = {"linear"}
WITHOUT_ACTIVATION = {"linear"}


def has_cosine(o: Chosen) -> bool:
    """Whether the output of the task of --sts_loss is a cosine, so that it has no head."""
    return "sts" in o.tasks and o.pair_features.of("sts") == "cosine"


def heads_in(o: Chosen) -> set[str]:
    """The heads that the tasks have."""
    return {o.head.of(task) for task in o.tasks if not (task == "sts" and has_cosine(o))}


def in_heads(o: Chosen) -> bool:
    """Whether something is asked for in the heads."""
    return "heads" in (o.rmsnorm, o.swiglu) or "all" in (o.rmsnorm, o.swiglu)


# Poolings of BERT's own layers, which do not see those on top of it.
OF_BERT = {"pooler", "cls_layers", "layer_mix"}


def tasks_with(layers: PerTask, o: Chosen) -> set[str]:
    """The tasks that have some of such layers."""
    return {task for task in o.tasks if int(layers.of(task)) > 0}


def tasks_of_bert_alone(o: Chosen) -> set[str]:
    """The tasks whose pooling reads BERT's own layers."""
    return {task for task in o.tasks if o.pooling.of(task) in OF_BERT}


CONFLICTS = (
    # What trains against what is frozen.
    Conflict(
        lambda o: bool(adapters_in(o)) and o.option == "pretrain",
        "{adapter} trains the encoder, --option pretrain freezes it: drop one",
    ),
    Conflict(
        lambda o: bool(adapters_in(o)) and o.swiglu_start == "random",
        "--swiglu_start random starts layers afresh, which {adapter} keeps frozen: drop one",
    ),
    Conflict(
        lambda o: o.option == "pretrain" and o.swiglu_start == "random",
        "--swiglu_start random starts layers afresh, which --option pretrain keeps "
        "frozen: drop one",
    ),
    Conflict(
        lambda o: o.freeze_heads and o.option == "pretrain",
        "--freeze_heads freezes the heads, --option pretrain all else: drop one",
    ),
    Conflict(
        lambda o: o.pals and o.option == "pretrain",
        "--option pretrain trains the heads alone: use --pals_train alone, without it",
    ),
    Conflict(
        lambda o: o.pals_train == "alone" and bool(adapters_in(o)),
        "{adapter} trains the encoder, --pals_train alone freezes it: drop one",
    ),
    Conflict(
        lambda o: o.pals_train == "alone" and o.swiglu_start == "random",
        "--swiglu_start random starts layers afresh, which --pals_train alone keeps "
        "frozen: drop one",
    ),
    Conflict(
        lambda o: o.task_layers > 0 and o.option == "pretrain",
        "--task_layers {task_layers} trains copies of layers, --option pretrain freezes them: "
        "drop one",
    ),
    Conflict(
        lambda o: o.experts > 0 and o.option == "pretrain",
        "--experts {experts} trains encoders, --option pretrain freezes them: drop one",
    ),
    Conflict(
        lambda o: o.option == "test",
        "--option test trains nothing; it is for the command line: --option test --model RUN",
    ),
    Conflict(
        lambda o: o.bitfit != "off" and o.diff_pruning != "off",
        "--bitfit and --diff_pruning both move the biases: drop one",
    ),
    # Longer sequences than any BERT takes.
    Conflict(
        lambda o: o.p_tuning == "v1" and o.max_length + o.p_tuning_length > 512,
        "--max_length {max_length} and --p_tuning_length {p_tuning_length}: expected at most 512 "
        "together, the positions that BERT has",
    ),
    Conflict(
        lambda o: o.attention_inner_width > 0 and o.option == "pretrain",
        "--attention_inner_width trains layers in the encoder, --option pretrain freezes it: "
        "drop one",
    ),
    # How texts are cut.
    Conflict(
        lambda o: any(o.segment_of(task) > o.max_length for task in o.tasks),
        "--segment_length {segment_length} is above --max_length {max_length}, the most that a "
        "sequence may have",
    ),
    Conflict(
        lambda o: o.truncation != "head" and not o.max_segments and all(map(o.segment_of, o.tasks)),
        "--truncation {truncation} cuts nothing where --segment_length {segment_length} reads all: "
        "add --max_segments, or drop one",
    ),
    # Files of a split that is not read.
    Conflict(
        lambda o: not o.test and any("_test" in name for name, _ in o.files),
        "--no-test leaves the test files out, but one was named: drop either",
    ),
    # A cosine is the similarity itself.
    Conflict(
        lambda o: any(
            "cosine" in words and words != "cosine" for words in o.pair_features.values()
        ),
        "--pair_features {pair_features}: expected cosine alone, or features without it",
    ),
    Conflict(
        lambda o: has_cosine(o) and o.sts_loss != "mse",
        "--pair_features {pair_features}: a cosine is the similarity itself; add --sts_loss mse",
    ),
    Conflict(
        lambda o: has_cosine(o) and "sts" in o.head.named,
        "--pair_features {pair_features}: a cosine has no head, but --head {head} names one "
        "for it: drop one",
    ),
    Conflict(
        lambda o: has_cosine(o) and o.shared_pair_layer,
        "--pair_features {pair_features}: a cosine has no layer to add to; "
        "drop --shared_pair_layer",
    ),
    Conflict(
        lambda o: (
            has_cosine(o) and o.option == "pretrain" and o.pair_projection.of("sts") == "none"
        ),
        "--option pretrain trains heads alone, and --pair_features {pair_features} has none for "
        "a cosine: drop one",
    ),
    Conflict(
        lambda o: bool(o.tasks) and not heads_in(o) and in_heads(o),
        "--pair_features {pair_features} leaves no head: use --rmsnorm encoder, --swiglu encoder",
    ),
    # Parts of the encoder for each task, and several encoders.
    Conflict(
        lambda o: o.pals and o.task_layers > 0,
        "--pals and --task_layers {task_layers} both give each task parts of its own: drop one",
    ),
    Conflict(
        lambda o: o.experts > 0 and o.pals,
        "--experts {experts} takes encoders without parts for each task: drop it or --pals",
    ),
    Conflict(
        lambda o: o.experts > 0 and o.task_layers > 0,
        "--experts {experts} takes encoders without parts for each task: drop it or --task_layers "
        "{task_layers}",
    ),
    Conflict(
        lambda o: o.experts > 0 and o.combiner != "sum",
        "--combiner {combiner} sees the gradients of one encoder: drop it or --experts {experts}",
    ),
    Conflict(
        lambda o: o.task_layers > 0 and len(o.tasks) == 1,
        "--task_layers {task_layers} gives each task layers of its own: expected two --tasks or "
        "more",
    ),
    Conflict(
        lambda o: o.experts == 1,
        "--experts 1: expected at least 2; without the flag there is one encoder",
    ),
    Conflict(
        lambda o: o.pals_size is not None and o.pals_size % o.pals_heads > 0,
        "--pals_size {pals_size} is not a multiple of --pals_heads {pals_heads}",
    ),
    # Layers asked for in heads that have none.
    Conflict(
        lambda o: heads_in(o) <= WITHOUT_NORM and o.rmsnorm in ("heads", "all"),
        "--head {head} has no norm: use --rmsnorm encoder, not {rmsnorm}",
    ),
    Conflict(
        lambda o: heads_in(o) <= WITHOUT_ACTIVATION and o.swiglu in ("heads", "all"),
        "--head {head} has no activation: use --swiglu encoder, not {swiglu}",
    ),
    Conflict(
        lambda o: not o.head_norm and o.rmsnorm in ("heads", "all"),
        "--no-head_norm leaves the heads no norm: use --rmsnorm encoder, not {rmsnorm}",
    ),
    Conflict(
        lambda o: o.activation != "gelu" and o.swiglu in ("heads", "all"),
        "--swiglu {swiglu} is the heads' activation, --activation {activation} another: drop one",
    ),
    # Layers on top of BERT.
    Conflict(
        lambda o: bool(tasks_with(o.attention_layers, o) & tasks_of_bert_alone(o)),
        "--pooling {pooling} is of BERT's own layers, --attention_layers {attention_layers} adds "
        "others: drop one",
    ),
    Conflict(
        lambda o: o.cross_attention and bool(tasks_of_bert_alone(o)),
        "--pooling {pooling} is of BERT's own layers, --cross_attention adds another: drop one",
    ),
    Conflict(
        lambda o: bool(tasks_with(o.lstm_layers, o) & tasks_with(o.cnn_layers, o)),
        "--lstm_layers {lstm_layers} and --cnn_layers {cnn_layers} meet in a task: drop one",
    ),
    Conflict(
        lambda o: bool(tasks_with(o.lstm_layers, o) & tasks_of_bert_alone(o)),
        "--pooling {pooling} is of BERT's own layers, --lstm_layers {lstm_layers} adds others: "
        "drop one",
    ),
    Conflict(
        lambda o: bool(tasks_with(o.cnn_layers, o) & tasks_of_bert_alone(o)),
        "--pooling {pooling} is of BERT's own layers, --cnn_layers {cnn_layers} adds others: "
        "drop one",
    ),
    # Values that are wrong on their own, but depend on more than a range.
    Conflict(lambda o: not o.tasks, "--tasks: expected at least one task"),
    Conflict(lambda o: len(set(o.tasks)) < len(o.tasks), "--tasks names a task twice"),
    Conflict(
        lambda o: o.batch_size < len(o.tasks),
        "--batch_size {batch_size} is below the number of tasks",
    ),
    Conflict(
        lambda o: o.batch_size * o.accumulation > MOST_EXAMPLES,
        "--batch_size {batch_size} times --accumulation {accumulation}: expected at most "
        f"{MOST_EXAMPLES} examples a step",
    ),
    Conflict(
        lambda o: not is_template(o.predictions),
        "--predictions {predictions}: only {{task}} and {{split}} may stand in braces",
    ),
    Conflict(
        lambda o: not re.fullmatch(r"[\w.-]+", o.name),
        "--name {name}: letters, digits, dot, dash and underscore only",
    ),
    Conflict(
        lambda o: len(o.name.encode("utf-8")) > LONGEST_NAME,
        f"--name {{name}}: at most {LONGEST_NAME} bytes, or the run folder's name gets too long",
    ),
    Conflict(
        lambda o: not all(is_tag(tag) for tag in o.tags),
        "--tags: expected words with blanks between, each of at most "
        f"{LONGEST_TAG} letters, digits, dots, dashes and underscores, no dash first",
    ),
)
