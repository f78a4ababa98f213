"""JSON is checked against a dataclass's types and ranges before anything trusts it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from errors import UserError
from storage.json_files import (
    Between,
    Count,
    checked,
    parse_json,
    read_json,
    read_record,
    record,
    write_json,
)


@dataclass
class Inner:
    rate: float


@dataclass
class Held:
    """Of each kind of annotation one."""

    step: Count
    name: str = "none"
    on: bool = False
    share: Annotated[float, Between(0, 1)] = 0.5
    note: str | None = None
    pairs: list[tuple[int, float]] = field(default_factory=list)
    counts: dict[str, Count] = field(default_factory=dict)
    inner: Inner | None = None
    anything: Any = None


GOOD = {
    "step": 3,
    "name": "a",
    "on": True,
    "share": 1,
    "note": None,
    "pairs": [[1, 0.5], [2, 1]],
    "counts": {"sst": 4},
    "inner": {"rate": 2},
    "anything": [None, {}],
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", GOOD)
    held = read_record(tmp_path / "a.json", Held)
    assert held == Held(
        3, "a", True, 1.0, None, [(1, 0.5), (2, 1.0)], {"sst": 4}, Inner(2.0), [None, {}]
    )
    assert type(held.share) is float


BAD = {
    "step is -1, expected 0": {"step": -1},
    "step is 1e.30, expected a whole number": {"step": 1e30},
    "step is true, expected a whole number": {"step": True},
    "step is 3.0, expected a whole number": {"step": 3.0},
    "step is null, expected a whole number": {"step": None},
    "step is 9007199254740993, expected 0 to": {"step": 2**53 + 1},
    "name is 3, expected a text": {"name": 3},
    "on is 1, expected true or false": {"on": 1},
    "share is 1.5, expected 0 to 1": {"share": 1.5},
    "share is NaN, expected a finite number": {"share": float("nan")},
    "share is Infinity, expected a finite": {"share": float("inf")},
    "pairs is .., expected a list": {"pairs": {}},
    r"pairs\[0\] is \[1\], expected a list": {"pairs": [[1]]},
    r"pairs\[1\]\[1\] is \"x\", expected a number": {"pairs": [[1, 1], [2, "x"]]},
    "counts is .., expected an object": {"counts": []},
    r"counts.sst is \"4\", expected a whole number": {"counts": {"sst": "4"}},
    "inner: rate is .., expected a number": {"inner": {"rate": []}},
    "inner: no rate in it": {"inner": {}},
    "holds other, which is unknown": {"other": 1},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_one_line(message: str) -> None:
    with pytest.raises(UserError, match=f"progress.json.*{message}"):
        record(Held, {**GOOD, **BAD[message]}, "progress.json")


def test_a_missing_field_and_another_type_are_named() -> None:
    with pytest.raises(UserError, match="x: no step in it; is the file damaged"):
        record(Held, {}, "x")
    for value in ([], None, 3, "text"):
        with pytest.raises(UserError, match="x is .* expected an object"):
            record(Held, value, "x")


def test_other_names_may_be_passed_over() -> None:
    assert record(Inner, {"rate": 1.0, "more": 2}, "x", others_too=True) == Inner(1.0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"a": 1, "a": 2}', '{"a": ' + "9" * 5000 + "}", '{"a": 1} x'],
)
def test_damaged_text_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="x: not readable JSON"):
        parse_json(text, "x")


@pytest.mark.parametrize("raw", [b"\xff{}", b'{"a": "\x00"}', json.dumps("x").encode("utf-16")])
def test_bytes_that_are_no_text_are_one_line(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(UserError, match="not UTF-8|a NUL character"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("depth", range(850, 1000))
def test_no_depth_of_nesting_is_too_much(depth: int) -> None:
    """Where it is just not too deep for the reader, it may be for what words the message."""
    with pytest.raises(UserError):
        checked(parse_json("[" * depth + "]" * depth, "x.json"), int, "x.json")
