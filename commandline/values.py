"""What was typed behind a flag, as a value; a UserError, which names the flag, where it is none."""

from collections.abc import Callable, Collection
from typing import Any

from declare import EXPECTED, shown
from errors import UserError


def number(flag: str, kind: type) -> Callable[[str], Any]:
    """What argparse calls for a number, `kind` int or float."""

    def read(word: str) -> Any:
        try:
            # Python alone would take 1_0 too, and the digits of other scripts.
            if word.isascii() and "_" not in word:
                return kind(word)
        except ValueError:
            pass
        raise UserError(f"--{flag} {shown(word)}: expected {EXPECTED[kind]}")

    return read


def choice(flag: str, choices: Collection[str]) -> Callable[[str], str]:
    """What argparse calls for one of several names."""

    def read(word: str) -> str:
        if word not in choices:
            raise UserError(f"--{flag} {shown(word)}: expected one of {', '.join(choices)}")
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


def missing_value(message: str) -> UserError:
    """The error for what argparse found wrong itself, which begins with `argument --FLAG: `."""
    flag, _, reason = message.removeprefix("argument ").partition(": ")
    flag = flag.partition("/")[0]  # --lora/--no-lora
    if reason.startswith("ignored explicit"):
        return UserError(f"{flag}: takes no value; --no-{flag.removeprefix('--')} turns it off")
    if reason.startswith("expected"):
        return UserError(f"{flag}: expected a value; one that begins with - is typed {flag}=VALUE")
    return UserError(f"{message}; --help lists the flags")
