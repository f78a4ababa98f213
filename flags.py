"""Flags: how options are typed.

    --batch_size 32 --batch-size 32     the same
    --lora --no-lora                    on and off
    --head mlp sts=linear               by task
    @some.txt                           flags from a text file, `#` starts a comment
    @runs/<date>-<name>/options.json    the options of a run; what is typed behind it wins
    --help, --help optimizer            all flags in short, those of a section in full

What options there are, and which of them go together, says options.py. commandline/words.py brings
words into the spelling that the parser of commandline/parser.py knows; here they become options, or
show the help.
"""

import difflib
import sys
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from choices.chosen import SECTIONS
from choices.data import FILE_KINDS
from commandline.parser import (
    COURSE_MODES,
    NONE,
    WIDTH,
    default_text,
    file_flags,
    make_parser,
    title,
)
from commandline.words import ALIASES, HINTS, PRESETS, expand, spelled, unknown
from declare import PerTask, rules_of, shown
from errors import UserError
from options import Options
from tasks import TASKS

# ---- help


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
    also = f"also taken: {' '.join(f'--{alias}' for alias in ALIASES)}"
    lines += [
        "",
        "--help SECTION shows more; SECTION is one of",
        f"    {' '.join(SECTIONS)}",
        "--help OPTION shows all of an option, as --help lr",
        f"TASK is one of {' '.join(TASKS)}, KIND of {' '.join(FILE_KINDS)}",
        "--a-b is --a_b; --no-lora turns it off; by task: --head mlp sts=linear",
        "@FILE reads flags from a text file, @FILE.json the options of a run",
        textwrap.fill(also, WIDTH, subsequent_indent="    ", break_on_hyphens=False),
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
        # What is asked for stands behind "=" or in the next word, which may be an option's flag.
        flag, _, section = word.partition("=")
        if flag in ("-h", "--help"):
            following = words[i + 1] if i + 1 < len(words) else ""
            option = following.partition("=")[0].removeprefix("--").removeprefix("no-")
            if not section and (option in all_flags() or not following.startswith("-")):
                section = option
            print(help_text(description, section, defaults))
            sys.exit(0)


# ---- from flags to options


def all_flags() -> list[str]:
    """The names of all flags but aliases."""
    return [*(f.name for f in fields(Options) if f.name != "files"), *file_flags()]


def read_flags(
    argv: list[str],
    description: str,
    defaults: Mapping[str, str] = NONE,
    own: Collection[str] = (),
) -> dict[str, Any]:
    """What the command line gives, under the options' names and `fine_tune_mode`.

    UserError where that can't be. `--help` ends the program; `defaults` are what it shows where the
    script's own differ from the options'. `own`: the names of further flags of the script's, which
    were read before; one that is near to an unknown flag is advised.
    """
    # Help comes before parsing, so that it shows even beside a mistake.
    words = expand(argv)
    show_help(words, description, defaults)
    found, rest = make_parser(description).parse_known_args(words)
    if rest:
        raise unknown(rest[0], [*own, *all_flags(), *PRESETS], words)
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


def under_own_names(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line gave, under the options' names alone: the course's is translated."""
    given = dict(flags)
    # The course's name may stand beside --option if both mean the same.
    mode = given.pop("fine_tune_mode", None)
    if mode and given.setdefault("option", COURSE_MODES[mode]) != COURSE_MODES[mode]:
        raise UserError(
            f"--fine-tune-mode {mode} means --option {COURSE_MODES[mode]}, not {given['option']}: "
            "drop one"
        )
    return given


def options_of(flags: Mapping[str, Any]) -> Options:
    """Checked options from what the command line gave."""
    given = under_own_names(flags)
    # A resumed run takes its options from its folder; only few may change.
    if "resume" in given:
        return Options.of_run(Path(given["resume"])).of_same_run(given)
    return Options(**given).check()


def parse(argv: list[str], description: str) -> Options:
    """Checked options from command-line arguments; UserError with one line where they are off."""
    return options_of(read_flags(argv, description))
