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


def heads_in(o: Chosen) -> set[str]:
    """The heads that the tasks have."""
    return {o.head.of(task) for task in o.tasks}


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
        lambda o: o.option == "test",
        "--option test trains nothing; it is for the command line: --option test --model RUN",
    ),
    # Files of a split that is not read.
    Conflict(
        lambda o: not o.test and any("_test" in name for name, _ in o.files),
        "--no-test leaves the test files out, but one was named: drop either",
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
