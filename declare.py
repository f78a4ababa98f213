"""Declaring an option: what a declaration can say, and how values are checked against it.

Sections of options (options.py) are dataclasses whose fields are made by `declare`. The checks are
the same for values from the command line, from JSON and from Python.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple, get_args

from errors import UserError, one_line

Names = tuple[str, ...]
Files = tuple[tuple[str, str], ...]  # ("sts_dev_out", path), ..., sorted


def shown(value: Any, words: Callable[[Any], str] = str) -> str:
    """A value as it stands in a message: 60 characters at most, which leaves room for advice."""
    try:
        return one_line(words(value), 60)
    except (ValueError, RecursionError):  # a number of 5,000 digits, lists nested 1,000 deep
        return "that long"


class PerTask(str):
    """A name for all tasks, and others for some of them: "cls", or "cls sts=mean".

    Raises UserError for another form, and where neither the text nor `default` has a name for all.
    """

    plain: str  # for all tasks that are not in `named`
    named: dict[str, str]

    def __new__(cls, text: str, default: str = "") -> "PerTask":
        plain, named = "", {}
        for word in text.split():
            task, equals, name = word.partition("=")
            if not equals and not plain:
                plain = word
            elif task and name and "=" not in name and task not in named:
                named[task] = name
            else:
                raise UserError(
                    f'"{shown(text)}": expected a name, TASK=NAME or both, as in "cls sts=mean"'
                )
        plain = plain or default
        if not plain:
            raise UserError(
                f'"{shown(text)}": expected a name for the other tasks, as in "cls sts=mean"'
            )
        itself = super().__new__(cls, " ".join([plain, *(f"{t}={n}" for t, n in named.items())]))
        itself.plain, itself.named = plain, named
        return itself

    def of(self, task: str) -> str:
        """The task's name."""
        return self.named.get(task, self.plain)

    def values(self) -> Names:
        """All names that occur, each once."""
        return tuple(dict.fromkeys([self.plain, *self.named.values()]))


class Rules(NamedTuple):
    """What an option's declaration says beside its type and default."""

    help: str  # `--help` shows it up to the first semicolon, `--help SECTION` whole
    choices: Names = ()
    bare: str = ""  # what the flag means without a value
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    needs: str = ""  # the option that must be off its default for this one to be changed ...
    needs_value: Names = ()  # ... or that must have one of these values, for one task at least
    # Of values by task: a task's word may be such a number, int or float; or several choices with
    # commas between. Without these and without choices, a table of the code has the words, or who
    # reads them checks them.
    number: type | None = None
    several: bool = False
    folder: bool = False  # a text that may name a folder, without which a saved model is not whole
    usual: str = ""  # what help shows of a default that does not speak for itself

    def range(self) -> str:
        """The legal numbers, in words; "" where all finite ones are."""
        if self.most < math.inf and self.above > -math.inf:
            return f"above {self.above}, at most {self.most}"
        if self.most < math.inf:
            return f"{self.least} to {self.most}"
        if self.below < math.inf:
            return f"from {self.least} to below {self.below}"
        if self.above > -math.inf:
            return f"above {self.above}"
        return f"at least {self.least}" if self.least > -math.inf else ""

    def holds(self, number: float) -> bool:
        """Whether a number is in the range; NaN and infinity are in none."""
        inside = self.least <= number <= self.most and self.above < number < self.below
        return inside and math.isfinite(number)

    def requirement(self) -> str:
        """What it needs, as typed: "--lora", or "--swiglu encoder or all"."""
        return f"--{self.needs} {' or '.join(self.needs_value)}".rstrip()


def declare(default: Any, help: str, **rules: Any) -> Any:
    """A field of a section; the further rules are those of Rules."""
    return field(default=default, metadata={"rules": Rules(help, **rules)})


def rules_of(f: "Field[Any]") -> Rules:
    """What an option's declaration says."""
    return f.metadata["rules"]


@dataclass(frozen=True)
class Section:
    """Some options, and what all sections can do."""

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, settled(f, getattr(self, f.name)))

    def check_values(self) -> None:
        """UserError where a value has the wrong type, is none of the choices or out of range."""
        for f in fields(self):
            check_value(f, getattr(self, f.name))

    def meets(self, rules: Rules) -> bool:
        """Whether the option that another one needs is on, or has the value that it takes."""
        other = getattr(self, rules.needs)
        if not rules.needs_value:
            (off,) = [f.default for f in fields(self) if f.name == rules.needs]
            return bool(other != off)
        words = other.values() if isinstance(other, PerTask) else (other,)
        return any(word in rules.needs_value for word in words)

    def check_needs(self) -> None:
        """UserError where an option was changed that another one leaves without effect."""
        for f in fields(self):
            rules, value = rules_of(f), getattr(self, f.name)
            if not rules.needs or value == f.default:
                continue
            if not self.meets(rules):
                switch = {True: f"--{f.name}", False: f"--no-{f.name}"}
                typed = switch[value] if f.type is bool else f"--{f.name} {shown(value)}"
                raise UserError(f"{typed} needs {rules.requirement()}")


def settled(f: "Field[Any]", value: Any) -> Any:
    """A value as it is kept: hashable, and of one type however it was given."""
    if f.type is PerTask and rules_of(f).number and type(value) in (int, float):
        value = str(value)
    if f.type is PerTask and isinstance(value, str):
        default: Any = f.default
        try:
            return PerTask(value, default.plain)
        except UserError as error:
            raise UserError(f"--{f.name} {error}") from None
    if f.type == Files and (isinstance(value, Mapping) or has_kind(value, Files)):
        return tuple(sorted(dict(value).items(), key=str))
    if f.type == Names and isinstance(value, list):
        return tuple(value)
    return value


def kind_of(f: "Field[Any]") -> Any:
    """An option's type, without the None that some may be."""
    kinds = get_args(f.type)
    return kinds[0] if type(None) in kinds else f.type


def has_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of an option's type. Whole numbers are floats too; True is no number."""
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if kind == Names:
        return isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    if kind == Files:
        return isinstance(value, tuple) and all(
            has_kind(pair, Names) and len(pair) == 2 for pair in value
        )
    return isinstance(value, kind)


EXPECTED: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Names: "names",
    PerTask: 'a name, or as in "cls sts=mean"',
    Files: 'a dict as {"sst_train": "some.csv"}',
}


def check_value(f: "Field[Any]", value: Any) -> None:
    """UserError where a value has the wrong type, is none of the choices or out of range."""
    rules, kind = rules_of(f), kind_of(f)
    if value is None and kind != f.type:
        return
    if kind is PerTask and isinstance(value, PerTask):
        for word in value.values():
            check_word(f.name, word, rules)
    elif kind == Names and rules.choices and has_kind(value, Names):
        check_names(f.name, value, rules)
    elif kind is not PerTask and rules.choices and value not in rules.choices:
        raise UserError(f"--{f.name} {shown(value)}: expected one of {', '.join(rules.choices)}")
    if not has_kind(value, kind):
        raise UserError(f"--{f.name} {shown(value, repr)}: expected {EXPECTED[kind]}")
    if kind is str:
        check_typed(f.name, value)
    if kind == Files:
        for name, path in value:
            check_typed(name, path)
    if kind in (int, float):
        check_number(f.name, value, rules)


def check_word(name: str, text: str, rules: Rules) -> None:
    """UserError where a task's word is neither one of the choices nor a number in range."""
    if text in rules.choices or not (rules.choices or rules.number):
        return
    if rules.number is not None:
        number = as_number(text, rules.number)
        if number is None or not rules.holds(number):
            names = f"{' or '.join(rules.choices)}, or " if rules.choices else ""
            raise UserError(f"--{name} {shown(text)}: expected {names}{rules.range()}")
        return
    words = text.split(",") if rules.several else [text]
    if not set(words) <= set(rules.choices) or len(set(words)) < len(words):
        expected = "some of {}, with commas between" if rules.several else "one of {}"
        choices = ", ".join(rules.choices)
        raise UserError(f"--{name} {shown(text)}: expected {expected.format(choices)}")


def check_names(name: str, words: Names, rules: Rules) -> None:
    """UserError where one of several names is none of the choices, or stands twice."""
    if not set(words) <= set(rules.choices) or len(set(words)) < len(words):
        choices = ", ".join(rules.choices)
        raise UserError(f"--{name} {shown(' '.join(words))}: expected some of {choices}, each once")


def as_number(text: str, kind: type) -> float | None:
    """The number that a text is, None where it is none of that kind."""
    # Python would take 1_0 too and other scripts' digits, and refuses thousands of digits.
    if not text.isascii() or "_" in text or len(text) > 20:
        return None
    if kind is int and not text.isdigit():
        return None
    try:
        return kind(text)
    except ValueError:
        return None


def check_number(name: str, value: float, rules: Rules) -> None:
    """UserError where a number is out of range, or not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        expected = f"a finite number, {rules.range()}".rstrip(", ")
        raise UserError(f"--{name} {value}: expected {expected}")
    if not rules.holds(value):
        raise UserError(f"--{name} {shown(value)}: expected {rules.range()}")


def check_typed(name: str, text: str) -> None:
    """UserError where a text is empty, or can be neither a file's name nor shown.

    The command line hands bytes of a name that are no UTF-8 on as lone surrogates.
    """
    if not text:
        raise UserError(f"--{name} '': expected a text; is a variable of the shell unset?")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"--{name} {shown(text)}: not UTF-8; rename the file or folder") from None
    if "\0" in text:
        raise UserError(f"--{name} {shown(text)}: a NUL character, which no name can have")
