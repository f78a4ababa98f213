"""What argparse is told: a flag for each option, from its declaration.

flags.py says how words become options; a script with flags of its own has page_parser().
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from choices.chosen import SECTIONS
from choices.data import FILE_KINDS
from commandline.values import (
    NONE,
    choice,
    choice_by_task,
    missing_value,
    number,
    word_by_task,
)
from declare import Names, PerTask, kind_of, rules_of
from heads.activations import ACTIVATIONS
from heads.pipeline import HEADS, POOLINGS
from tasks import SST_LOSSES, STS_LOSSES, TASKS
from training.optimizers import OPTIMIZERS
from training.samplers import SAMPLERS
from training.schedules import SCHEDULES
from training.surgery import COMBINERS

WIDTH = 80
COURSE_MODES = {"last-linear-layer": "pretrain", "full-model": "finetune"}  # 2024's for 2023's

# Options whose choices are the names in a table of the code.
TABLES: dict[str, Mapping[str, Any]] = {
    "pooling": POOLINGS,
    "head": HEADS,
    "sst_loss": SST_LOSSES,
    "sts_loss": STS_LOSSES,
    "activation": ACTIVATIONS,
    "tasks": TASKS,
    "sampler": SAMPLERS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "combiner": COMBINERS,
}


# ---- parsers


class _Parser(argparse.ArgumentParser):
    words: Sequence[str] = ()  # that are being parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.words = args or ()
        return super().parse_known_args(args, namespace)

    # argparse would print its usage and exit with 2; here every error is one line.
    def error(self, message: str) -> Any:
        raise missing_value(message, self.words)


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=28, width=WIDTH)


def file_flags() -> dict[str, str]:
    """The flags that name single files, and what each says of its file."""
    texts = {}
    for task in TASKS:
        for kind in FILE_KINDS:
            what = kind.replace("_out", " predictions")
            texts[f"{task}_{kind}"] = f"the {what} of {TASKS[task].title}"
    return texts


def new_parser(description: str) -> _Parser:
    """A parser without flags."""
    # SUPPRESS leaves out what was not typed, so that a resumed run can tell it from a default.
    # No abbreviations: a new option would change what an old command means.
    return _Parser(
        description=description,
        usage=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=_formatter,
    )


def page_parser(page: str) -> _Parser:
    """A parser of a script's own, whose `--help` shows a page and then the flags."""
    parser = new_parser(page)
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(
        prog, max_help_position=28, width=WIDTH
    )
    parser.add_argument("-h", "--help", action="help", help="this")
    return parser


def make_parser(
    description: str,
    sections: Collection[str] = tuple(SECTIONS),
    defaults: Mapping[str, str] = NONE,
    only: str = "",
) -> _Parser:
    """A parser with a group a section and a flag an option, each in its first spelling.

    `defaults`: what a script shows as an option's default where it is another than here. `only`:
    the one option that is wanted.
    """
    parser = new_parser(description)
    for name in sections:
        group = parser.add_argument_group(f"{title(name)} ({name})")
        for f in fields(SECTIONS[name]):
            if only not in ("", f.name):
                continue
            # `files` is one option, but a flag for each task and kind.
            if f.name == "files":
                for flag, text in file_flags().items():
                    group.add_argument(f"--{flag}", metavar="FILE", help=text)
            else:
                group.add_argument(f"--{f.name}", help=full_help(f, defaults), **settings(f))
            # The course's name of 2024 stands beside the option that it sets.
            if f.name == "option":
                text = "the 2024 course's name for --option"
                modes = one_of("fine-tune-mode", COURSE_MODES)
                group.add_argument("--fine_tune_mode", help=text, **modes)
    return parser


def one_of(flag: str, choices: Collection[str]) -> dict[str, Any]:
    """What argparse is told of a flag with choices."""
    # Not by its own `choices`: its message differs from version to version of Python.
    return {"type": choice(flag, choices), "metavar": f"{{{','.join(choices)}}}"}


def settings(f: "Field[Any]") -> dict[str, Any]:
    """What argparse is told of an option beside its help text."""
    # By kind of value.
    rules, kind = rules_of(f), kind_of(f)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind is PerTask and f.name in TABLES:
        word = choice_by_task(f.name, TABLES[f.name])
        return {"nargs": "+", "metavar": "NAME", "type": word}
    if kind is PerTask:
        metavar = "AMOUNT" if rules.number else "NAME"
        return {"nargs": "+", "metavar": metavar, "type": word_by_task(f.name, rules)}
    if kind == Names and rules.choices:  # none, as a replayed run may have
        return {"nargs": "*", "metavar": "NAME", "type": choice(f.name, rules.choices)}
    if kind == Names and f.name not in TABLES:  # words of the user's own
        return {"nargs": "*", "metavar": "WORD"}
    if kind == Names:  # of tasks
        titles = {task.title.lower(): name for name, task in TASKS.items()}
        return {"nargs": "+", "metavar": "NAME", "type": choice(f.name, TABLES[f.name], titles)}

    # Choices come from a table of the code or from the declaration.
    if f.name in TABLES:
        return one_of(f.name, TABLES[f.name])
    # A flag that may stand without a value means `bare` then.
    if rules.bare:
        return {**one_of(f.name, rules.choices), "nargs": "?", "const": rules.bare}
    if rules.choices:
        return one_of(f.name, rules.choices)
    if kind is str:
        return {"metavar": "TEXT"}
    return {"type": number(f.name, kind), "metavar": {int: "INT", float: "NUMBER"}[kind]}


# ---- help texts


def title(section: str) -> str:
    """A section's title."""
    return (SECTIONS[section].__doc__ or "").split("\n")[0]


def default_text(f: "Field[Any]", defaults: Mapping[str, str]) -> str:
    """An option's default as it is shown: "[3]", "[off]" for a boolean, "" for none."""
    if usual := defaults.get(f.name, rules_of(f).usual):
        return f"[{usual}]"
    if f.default is None or f.default == ():
        return ""
    if isinstance(f.default, bool):
        return "[on]" if f.default else "[off]"
    return f"[{' '.join(f.default) if isinstance(f.default, tuple) else f.default}]"


def full_help(f: "Field[Any]", defaults: Mapping[str, str] = NONE) -> str:
    """All that an option's declaration says, for argparse."""
    # Help text, range, names and what it needs, in this order; empty parts are left out.
    rules = rules_of(f)
    parts = [rules.help, rules.range()]
    names = [*TABLES.get(f.name, ()), *rules.choices]
    if names and kind_of(f) in (PerTask, Names):
        parts.append(f"names: {', '.join(names)}")
    if rules.needs:
        parts.append(f"needs {rules.requirement()}")
    text = f"{'; '.join(part for part in parts if part)} {default_text(f, defaults)}"
    # argparse takes a single percent sign for a placeholder.
    return text.rstrip().replace("%", "%%")
