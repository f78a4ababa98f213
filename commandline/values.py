"""What was typed behind a flag, as a value; a UserError, which names the flag, where it is none."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from declare import EXPECTED, Rules, check_word, shown
from errors import UserError

NONE: Mapping[str, str] = MappingProxyType({})
COMMAS = "; blanks separate values, not commas"  # advice where several are expected


def number(flag: str, kind: type, several: bool = False) -> Callable[[str], Any]:
    """What argparse calls for a number, `kind` int or float; `several`: for each of some."""

    def read(word: str) -> Any:
        try:
            # Python alone would take 1_0 too, and the digits of other scripts.
            if word.isascii() and "_" not in word:
                return kind(word)
        except ValueError:
            pass
        advice = COMMAS if several and "," in word else ""
        raise UserError(f"--{flag} {shown(word)}: expected {EXPECTED[kind]}{advice}")

    return read


def choice(
    flag: str, choices: Collection[str], titles: Mapping[str, str] = NONE
) -> Callable[[str], str]:
    """What argparse calls for one of several names; `titles`: what a choice is called elsewhere."""

    def read(word: str) -> str:
        if word not in choices:
            names = {name: name for name in choices} | dict(titles)
            near = difflib.get_close_matches(word.lower(), names, 1)
            advice = f"; did you mean {names[near[0]]}?" if near else ""
            if "," in word:
                advice = COMMAS
            expected = f"expected one of {', '.join(choices)}{advice}"
            raise UserError(f"--{flag} {shown(word)}: {expected}")
        return word

    return read


def choice_by_task(flag: str, choices: Collection[str]) -> Callable[[str], str]:
    """What argparse calls for each word of a value by task, as `mlp` or `sts=linear`."""

    def read(word: str) -> str:
        name = word.partition("=")[2] if "=" in word else word
        if name not in choices:
            raise UserError(f"--{flag} {shown(word)}: expected one of {', '.join(choices)}")
        return word

    return read


def word_by_task(flag: str, rules: Rules) -> Callable[[str], str]:
    """What argparse calls for each word of a value by task whose declaration says what is legal."""

    def read(word: str) -> str:
        check_word(flag, word.partition("=")[2] if "=" in word else word, rules)
        return word

    return read


def missing_value(message: str, words: Sequence[str]) -> UserError:
    """The error for what argparse found wrong itself, which begins with `argument --FLAG: `.

    `words`: what was typed.
    """
    flag, _, reason = message.removeprefix("argument ").partition(": ")
    flag, _, off = flag.partition("/")  # --lora/--no-lora; a script's own switch has no second one
    if reason.startswith("ignored explicit"):
        advice = f"; {off} turns it off" if off else ""
        return UserError(f"{flag}: takes no value{advice}")
    if reason.startswith("expected"):
        # A word behind it that begins with a dash was taken for a flag.
        behind = words[words.index(flag) + 1 :][:1] if flag in words else []
        dash = any(word.startswith("-") and not word.startswith("--") for word in behind)
        advice = f"; one that begins with - is typed {flag}=VALUE" if dash else ""
        return UserError(f"{flag}: expected a value{advice}")
    return UserError(f"{message}; --help lists the flags")
