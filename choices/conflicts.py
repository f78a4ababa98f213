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
    # Files of a split that is not read.
    Conflict(
        lambda o: not o.test and any("_test" in name for name, _ in o.files),
        "--no-test leaves the test files out, but one was named: drop either",
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
