"""Examples of dev or test that stand in train too: a model may know them by heart.

The same is what has the same sentences but for upper and lower case, in a pair in either order.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

from errors import one_line
from examples import Example

Key = tuple[str, ...]


def key_of(example: Example) -> Key:
    """What examples that are the same share."""
    return tuple(sorted(text.lower() for text in example.texts))


def shared(
    training: list[Example], others: Mapping[str, list[Example]]
) -> tuple[dict[str, int], set[int]]:
    """Of how many examples of each other split train holds the same; which of train those are."""
    # Only the other splits are held: train may have a million examples.
    held = {key_of(example) for examples in others.values() for example in examples}
    found: set[Key] = set()
    places: set[int] = set()
    for place, example in enumerate(training):
        key = key_of(example)
        if key in held:
            found.add(key)
            places.add(place)
    counts = {
        split: sum(key_of(example) in found for example in examples)
        for split, examples in others.items()
    }
    return counts, places


def say_same_files(task: str, files: Mapping[str, tuple[Path, str]]) -> None:
    """Say it loudly where a file, {split: (path, SHA-256)}, stands for two splits."""
    for (first, (_, one)), (second, (path, other)) in itertools.combinations(files.items(), 2):
        if one == other:
            line, place = "=" * 80, one_line(str(path))
            print(
                f"{line}\n{task}: {first} and {second} are THE SAME FILE ({place}).\n"
                f"Its scores on {second} say nothing.\n{line}"
            )
