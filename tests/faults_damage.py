"""What can be wrong with a file: cut, flipped bits, wrong values, something else in its place.

faults_runs.py and faults_models.py do it to every file of a run and of a model.
"""

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults_bench import Case
from tests.faults_child import Ending

SAMPLE = 70  # cases of a sweep in the test suite
FLIPS = 4  # of a file, at random places

Damage = Callable[[Path, random.Random], object]


def cut(path: Path, rng: random.Random) -> None:
    """Keep the first half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def flip_early(path: Path, rng: random.Random) -> None:
    """Flip one bit of the first 200 bytes: a header, as a rule."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(min(200, len(content)))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def pipe(path: Path, rng: random.Random) -> None:
    """A pipe that nobody writes into."""
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, rng: random.Random) -> None:
    """A folder of the file's name."""
    path.unlink()
    path.mkdir()


def dangle(path: Path, rng: random.Random) -> None:
    """A link to nothing."""
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: dict[str, Damage] = {
    "emptied": lambda path, rng: path.write_bytes(b""),
    "halved": cut,
    "longer": lambda path, rng: path.write_bytes(path.read_bytes() + b"\0" * 9),
    **{f"flipped bit {number}": flip for number in range(FLIPS)},
    **{f"flipped early bit {number}": flip_early for number in range(FLIPS)},
    "deleted": lambda path, rng: path.unlink(),
    "a pipe": pipe,
    "a folder": folder,
    "a dangling link": dangle,
}

GONE = ("deleted", "a pipe", "a folder", "a dangling link")  # damages that leave no file

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 10**9, 2**70, float("inf"), float("nan")),
    *("", "x", "\x1b[31m\n", [], ["x"], {}, {"x": 1}, [[1, 2, 3]]),
)
TEXTS = ("null", "[]", '"x"', "{}", "[" * 100_000, "\ufeff{}", '{"a": 1, "a": 2}')


def another(value: Any) -> Any:
    """A value of the same type that is legal as a rule."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return value[1:]
    return {name: another(x) for name, x in value.items()} if isinstance(value, dict) else 1


def json_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Wrong types for each field, of the first two levels, and for the whole."""

    def put(text: str) -> Damage:
        return lambda path, rng: path.write_text(text, encoding="utf-8")

    for text in TEXTS:
        yield f"is {text[:12]}", put(text)
    whole = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(whole, dict):  # modules.json, which is not ours to read
        return
    places: list[tuple[str, ...]] = [(name,) for name in whole]
    for name, value in whole.items():
        if isinstance(value, dict):
            places += [(name, inner) for inner in list(value)[:12]]
    for place in places:
        for value in ("missing", "another", *WRONG):
            changed = copy.deepcopy(whole)
            holder = changed if len(place) == 1 else changed[place[0]]
            if value == "missing":
                del holder[place[-1]]
            elif value == "another":
                holder[place[-1]] = another(holder[place[-1]])
            else:
                holder[place[-1]] = value
            yield f"{'.'.join(place)}: {json.dumps(value)}", put(json.dumps(changed))


def damages_of(path: Path) -> Iterator[tuple[str, Damage]]:
    """Every damage for a file."""
    yield from DAMAGES.items()
    if path.suffix == ".json":
        yield from json_damages(path)


def sampled(cases: list[Case], seed: int, everything: bool) -> list[Case]:
    """All cases, or as many as the test suite has time for."""
    return cases if everything else random.Random(seed).sample(cases, min(SAMPLE, len(cases)))


def verdict(ending: Ending, *codes: int) -> list[str]:
    """What is wrong with an ending, as a list."""
    return [problem] if (problem := ending.problem(*codes)) else []
