"""JSON files: read with care, and checked against a dataclass before anything trusts them.

A run's progress, a model's configuration, a folder's checksums: whatever is read back from a file
may have been damaged or edited since. `record` is the one place where types and ranges are checked.
"""

import json
import math
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from errors import UserError, listed
from storage.files import LARGEST_SETTINGS, read_text, write_text

Record = TypeVar("Record")

NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    tuple: "a list",
}


@dataclass(frozen=True)
class Between:
    """The legal values of a number: `Annotated[int, Between(1, 512)]`."""

    least: float
    most: float


Count = Annotated[int, Between(0, 2**53)]  # of steps, examples, bytes


# ---- text and files


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's names and values; ValueError where a name stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{listed({n for n in names if names.count(n) > 1})} stands twice")
    return found


def parse_json(text: str, source: str) -> Any:
    """A JSON text's value; UserError where it is damaged or too deep, or a name stands twice."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise UserError(f"{source}: not readable JSON (nested too deep)") from None
    except ValueError as error:
        raise UserError(f"{source}: not readable JSON ({error})") from None


def read_json(path: Path, most: int = LARGEST_SETTINGS) -> Any:
    """A JSON file's value; UserError where it is damaged, or over `most` bytes."""
    return parse_json(read_text(path, most), str(path))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


# ---- checking


def shown(value: Any) -> str:
    """A value as it stands in a message."""
    try:
        text = json.dumps(value)
    except RecursionError:  # words need a little more room than reading did
        return "nested too deep"
    return text if len(text) <= 40 else text[:37] + "..."


def mismatch(value: Any, kind: Any, where: str) -> UserError:
    """The error for a value of another type than expected."""
    expected = NAMES.get(get_origin(kind) or kind, "an object")
    return UserError(f"{where} is {shown(value)}, expected {expected}")


def checked(value: Any, kind: Any, where: str) -> Any:
    """A value from JSON as the type `kind`, which is what an annotation can say.

    bool, int, float, str, list[X], tuple[X, Y], dict[str, X], X | None, a dataclass, Any, and
    Annotated[X, Between(...)]. UserError, which begins with `where`, for a value of another type or
    out of range; floats must be finite.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return record(kind, value, where)

    # A number with a range.
    if origin is Annotated:
        number = checked(value, parts[0], where)
        for rule in parts[1:]:
            if isinstance(rule, Between) and not rule.least <= number <= rule.most:
                raise UserError(f"{where} is {shown(value)}, expected {rule.least} to {rule.most}")
        return number

    # A value that may be null.
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (some,) = [part for part in parts if part is not type(None)]
        return checked(value, some, where)

    # Values in a list or an object.
    if origin is list and isinstance(value, list):
        return [checked(x, parts[0], f"{where}[{i}]") for i, x in enumerate(value)]
    if origin is tuple and isinstance(value, list) and len(value) == len(parts):
        pairs = zip(value, parts, strict=True)
        return tuple(checked(x, part, f"{where}[{i}]") for i, (x, part) in enumerate(pairs))
    if origin is dict and isinstance(value, dict):
        return {name: checked(x, parts[1], f"{where}.{name}") for name, x in value.items()}

    # A single value. True is an int to Python, and whole numbers may stand for floats.
    if kind is float and type(value) in (int, float):
        if abs(value) > 1e300 or not math.isfinite(value):
            raise UserError(f"{where} is {shown(value)}, expected a finite number")
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise mismatch(value, kind, where)


def record(kind: type[Record], values: Any, source: str, others_too: bool = False) -> Record:
    """A dataclass made from a JSON object, each field checked; UserError names the source.

    Fields with a default may be missing. Names that are no field are refused, or passed over where
    `others_too`.
    """
    if not isinstance(values, dict):
        raise mismatch(values, dict, source)
    hints = get_type_hints(kind, include_extras=True)
    own = {f.name: f for f in fields(kind) if f.init}  # type: ignore[arg-type]
    if not others_too and (unknown := sorted(set(values) - set(own))):
        raise UserError(f"{source}: holds {listed(unknown)}, which is unknown here")

    # What is there is checked, what is not must have a default.
    given = {}
    for name, f in own.items():
        if name in values:
            given[name] = checked(values[name], hints[name], f"{source}: {name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{source}: no {name} in it; is the file damaged?")
    return kind(**given)


def read_record(path: Path, kind: type[Record], others_too: bool = False) -> Record:
    """A dataclass read from a JSON file; see record()."""
    return record(kind, read_json(path), str(path), others_too)
