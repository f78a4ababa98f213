"""Flags: how options are typed.

    --batch_size 32 --batch-size 32     the same
    --lora --no-lora                    on and off
    --head mlp sts=linear               by task
    @some.txt                           flags from a text file, `#` starts a comment
    @runs/<date>-<name>/options.json    the options of a run; what is typed behind it wins
    --help, --help optimizer            all flags in short, those of a section in full

What options there are, and which of them go together, says options.py.
"""

import argparse
import difflib
import shlex
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from declare import Names, PerTask, kind_of, rules_of, shown
from errors import UserError
from heads.pipeline import HEADS, POOLINGS
from options import FILE_KINDS, SECTIONS, DataOptions, Options, read_values
from storage.files import MEBIBYTE, check_regular, read_text
from tasks import TASKS
from training.optimizers import OPTIMIZERS
from training.samplers import SAMPLERS
from training.schedules import SCHEDULES
from training.surgery import COMBINERS
from typed import choice, choice_by_task, missing_value, number

WIDTH = 80
NONE: Mapping[str, str] = MappingProxyType({})  # the scripts whose defaults are the options'
MOST_WORDS = 10_000  # of a command line, with those of its @files
COURSE_MODES = {"last-linear-layer": "pretrain", "full-model": "finetune"}  # 2024's for 2023's

# Options whose choices are the names in a table of the code.
TABLES: dict[str, Mapping[str, Any]] = {
    "pooling": POOLINGS,
    "head": HEADS,
    "tasks": TASKS,
    "sampler": SAMPLERS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "combiner": COMBINERS,
}

# What other projects call a flag: taken as what stands behind it.
ALIASES = {
    "use_amp": "--precision auto",
    "no_use_amp": "--precision fp32",
    "scheduler": "--schedule",
    "task_scheduler": "--sampler",
    "model_name": "--model",
}

# What stands for several flags; those typed beside it win.
PRESETS = {
    "smoke": "--limit 32 --epochs 1 --steps_per_epoch 3 --name smoke",
}

# What people type and is no flag: what they are told.
HINTS = {
    # Of training.
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "bs": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "max_len": "max_length",
    "max_seq_length": "max_length",
    "max_samples": "limit",
    "max_train_samples": "limit",
    # Of the model.
    "dropout": "hidden_dropout_prob",
    "attention_probs_dropout_prob": "attention_dropout_prob",
    # Of the device and its precision.
    "gpu": "use_gpu",
    "cuda": "use_gpu",
    "device": "use_gpu",
    "amp": "precision",
    "bf16": "precision",
    "fp16": "precision",
    # Of the adapters.
    "rank": "lora_rank",
    "r": "lora_rank",
    "alpha": "lora_alpha",
    # Of the optimizer and the run.
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "wd": "weight_decay",
    "grad_clip": "clip",
    "max_grad_norm": "clip",
    "early_stopping": "patience",
    "model_name_or_path": "model",
    "output_dir": "runs_dir",
    "checkpoint": "resume",
}


Identity = tuple[int, int]  # a file's device and inode, the same by whatever path


class _Parser(argparse.ArgumentParser):
    # argparse would print its usage and exit with 2; here every error is one line.
    def error(self, message: str) -> Any:
        raise missing_value(message)


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
    if kind is PerTask:
        word = choice_by_task(f.name, TABLES[f.name])
        return {"nargs": "+", "metavar": "NAME", "type": word}
    if kind == Names:
        return {"nargs": "+", "metavar": "NAME", "type": choice(f.name, TABLES[f.name])}

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


# Help


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
    if kind_of(f) in (PerTask, Names):
        parts.append(f"names: {', '.join(TABLES[f.name])}")
    if rules.needs:
        parts.append(f"needs {rules.requirement()}")
    text = f"{'; '.join(part for part in parts if part)} {default_text(f, defaults)}"
    # argparse takes a single percent sign for a placeholder.
    return text.rstrip().replace("%", "%%")


def short_line(f: "Field[Any]", defaults: Mapping[str, str]) -> str:
    """An option in one line: flag, the first clause of its help text, default."""
    flag = f"--{f.name}" if f.name != "files" else "--TASK_KIND FILE"
    return f"  {flag:<25} {rules_of(f).help.split(';')[0]} {default_text(f, defaults)}".rstrip()


def overview(description: str, defaults: Mapping[str, str] = NONE) -> str:
    """All flags, one a line, by section."""
    lines = [textwrap.fill(description, WIDTH)]
    for name, section in SECTIONS.items():
        lines += ["", f"{title(name)} (--help {name})"]
        lines += [short_line(f, defaults) for f in fields(section)]
    # What a list of options can't show.
    lines += [
        "",
        f"--help SECTION shows more: {' '.join(SECTIONS)}",
        "--help OPTION shows all of an option, as --help lr",
        f"TASK is one of {' '.join(TASKS)}, KIND of {' '.join(FILE_KINDS)}",
        "--a-b is --a_b; --no-lora turns it off; by task: --head mlp sts=linear",
        "@FILE reads flags from a text file, @FILE.json the options of a run",
        f"also taken: {' '.join(f'--{alias}' for alias in ALIASES)}",
        "of 2024: --fine-tune-mode last-linear-layer, --fine-tune-mode full-model",
        "--smoke, a complete run in seconds, stands for:",
        f"    {PRESETS['smoke']}",
    ]
    return "\n".join(lines)


def help_text(description: str, topic: str, defaults: Mapping[str, str]) -> str:
    """What `--help`, `--help SECTION` or `--help OPTION` prints; UserError for what is neither."""
    if not topic:
        return overview(description, defaults)
    if topic in SECTIONS:
        return make_parser("", [topic], defaults).format_help().strip()

    # An option, by whatever name one types it; the files' flags are one option.
    name = spelled(f"--{topic}")[0].removeprefix("--").removeprefix("no-")
    name = HINTS.get(name, name)
    if name in file_flags():
        name = "files"
    if name == "fine_tune_mode":
        name = "option"
    for section, options in SECTIONS.items():
        if name in {f.name for f in fields(options)}:
            return make_parser("", [section], defaults, only=name).format_help().strip()

    near = difflib.get_close_matches(name, [*SECTIONS, *(f.name for f in fields(Options))], 1)
    advice = f"did you mean --help {near[0]}?" if near else f"sections: {', '.join(SECTIONS)}"
    raise UserError(f"--help {shown(topic)}: no such section or option; {advice}")


def show_help(words: list[str], description: str, defaults: Mapping[str, str]) -> None:
    """Print the help and end the program, where the words ask for it."""
    for i, word in enumerate(words):
        # The section stands behind "=" or in the next word, unless that is a flag.
        flag, _, section = word.partition("=")
        if flag in ("-h", "--help"):
            following = words[i + 1] if i + 1 < len(words) else ""
            if not section and not following.startswith("-"):
                section = following
            print(help_text(description, section, defaults))
            sys.exit(0)


# From words to options


def spelled(word: str) -> list[str]:
    """A flag in the spelling of the parser, with its value behind "=" where it has one."""
    name, equals, value = word[2:].partition("=")
    # Both --a-b and --a_b are taken; the parser knows the one with underscores.
    name = name.replace("-", "_")
    if name in PRESETS:
        raise UserError(f"{word}: takes no value; it stands for {PRESETS[name]}")
    # An alias may stand for a flag with a value; what was typed behind it goes to the last word.
    if name in ALIASES:
        *before, last = ALIASES[name].split()
        return [*before, last + equals + value]
    if name.startswith("no_"):
        name = f"no-{name.removeprefix('no_')}"  # as argparse spells it
    return [f"--{name}{equals}{value}"]


def expand(argv: list[str]) -> list[str]:
    """The words with @files read, aliases replaced and flags in the parser's spelling."""
    words: list[str] = []
    presets: list[str] = []  # stand first, so that all else wins
    # What is still to be looked at, the next one last, each with the files that it was read from.
    todo: list[tuple[str, tuple[Identity, ...]]] = [(word, ()) for word in reversed(argv)]
    seen = 0
    while todo:
        word, reading = todo.pop()
        # Files that name others several times could go on for ever.
        seen += 1
        if seen > MOST_WORDS:
            raise UserError(f"{shown(word)}: over {MOST_WORDS} words; no command line is that long")
        if word.startswith("@"):
            inner, itself = words_of_file(word[1:], reading)
            todo += [(one, (*reading, itself)) for one in reversed(inner)]
        elif word.startswith("--") and word[2:] in PRESETS:
            presets += PRESETS[word[2:]].split()
        elif word.startswith("--"):
            words += spelled(word)
        else:
            words.append(word)
    return [*presets, *words]


def words_of_file(path: str, reading: tuple[Identity, ...]) -> tuple[list[str], Identity]:
    """The flags in a file, and which file that is; UserError where there are none to be had.

    `reading` are the files whose reading led to this one.
    """
    try:
        found = check_regular(Path(path))
        text = read_text(Path(path), MEBIBYTE)
    except UserError as error:
        raise UserError(f"@ reads flags from a file; {error}") from None

    # Without this a file that names itself, by whatever path, would be read without end.
    itself = (found.st_dev, found.st_ino)
    if itself in reading:
        raise UserError(f"@{shown(path)}: the file reads itself")

    # A run's options are JSON; all else is words as in a shell, which may name further files.
    if path.endswith(".json"):
        return words_of(read_values(text, f"@{path}")), itself
    try:
        return shlex.split(text, comments=True), itself
    except ValueError as error:
        raise UserError(f"@{path}: can't be read as flags ({error})") from None


def words_of(values: Mapping[str, Any]) -> list[str]:
    """Options as they would be typed. What is None is left out, and so is which run is resumed.

    UserError for a name that would be taken for a flag or a file.
    """
    words = []
    for name, value in values.items():
        # A flag can't say None, and a new run must not go on with the old one's folder.
        if name == "resume" or value is None:
            continue
        if name == "files":
            DataOptions(files=value).check_files(TASKS)
            words += [f"--{flag}={path}" for flag, path in value]
        elif isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, PerTask):
            words += [f"--{name}", *plain_words(name, value.split())]
        elif isinstance(value, tuple):
            words += [f"--{name}", *plain_words(name, value)]
        else:
            words.append(f"--{name}={value}")
    return words


def plain_words(name: str, words: Sequence[str]) -> Sequence[str]:
    """The words of an option's value; UserError where one would be taken for a flag or a file."""
    for word in words:
        if word.startswith(("-", "@")):
            raise UserError(f"--{name} {shown(word)}: expected one of {', '.join(TABLES[name])}")
    return words


def all_flags() -> list[str]:
    """The names of all flags but aliases."""
    return [*(f.name for f in fields(Options) if f.name != "files"), *file_flags()]


def unknown(word: str, flags: Collection[str]) -> UserError:
    """The error for a word that is none of the flags, and no value of one."""
    if not word.startswith("-"):
        return UserError(f"{word}: no flag, and no flag's value; --help lists the flags")

    # A hint by hand is better than the nearest spelling.
    typed = word.partition("=")[0]
    name = typed.lstrip("-").replace("-", "_")
    near = difflib.get_close_matches(name, flags, 1)
    if HINTS.get(name) in flags:
        near = [HINTS[name]]
    advice = f"did you mean --{near[0]}?" if near else "--help lists the flags"
    return UserError(f"{typed}: no such flag; {advice}")


def read_flags(
    argv: list[str], description: str, defaults: Mapping[str, str] = NONE
) -> dict[str, Any]:
    """What the command line gives, under the options' names and `fine_tune_mode`.

    UserError where that can't be. `--help` ends the program; `defaults` are what it shows where the
    script's own differ from the options'.
    """
    # Help comes before parsing, so that it shows even beside a mistake.
    words = expand(argv)
    show_help(words, description, defaults)
    found, rest = make_parser(description).parse_known_args(words)
    if rest:
        raise unknown(rest[0], all_flags())
    return gathered(vars(found))


def gathered(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was parsed under the options' names: files in one, words by task as one text."""
    kinds = {f.name: f.type for f in fields(Options)}
    names_of_files = file_flags()
    given: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name, value in found.items():
        if name in names_of_files:
            files[name] = value
        elif kinds.get(name) is PerTask:
            given[name] = " ".join(value)
        else:
            given[name] = tuple(value) if isinstance(value, list) else value
    return {**given, "files": files} if files else given


def options_of(flags: Mapping[str, Any]) -> Options:
    """Checked options from what the command line gave."""
    given = dict(flags)
    # The course's name may stand beside --option if both mean the same.
    mode = given.pop("fine_tune_mode", None)
    if mode and given.setdefault("option", COURSE_MODES[mode]) != COURSE_MODES[mode]:
        raise UserError(
            f"--fine-tune-mode {mode} means --option {COURSE_MODES[mode]}, not {given['option']}: "
            "drop one"
        )
    # A resumed run takes its options from its folder; only few may change.
    if "resume" in given:
        return Options.of_run(Path(given["resume"])).of_same_run(given)
    return Options(**given).check()


def parse(argv: list[str], description: str) -> Options:
    """Checked options from command-line arguments; UserError with one line where they are off."""
    return options_of(read_flags(argv, description))
