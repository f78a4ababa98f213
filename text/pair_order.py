"""A pair in the other order, (b, a) for (a, b), as token ids.

A cross-encoded pair is `[CLS] a [SEP] b [SEP]`, with token type 0 up to the first [SEP] and 1 from
there on; in the other order it is `[CLS] b [SEP] a [SEP]`, with the types where they belong. A
bi-encoded one is two sequences, which change places. It is what the tokenizer makes of (b, a), but
for one token of a pair that was cut: where both sentences have the same length and the places for
them are odd, it is the second one that keeps a token more.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from packing import Batch, Tokens


def swapped_inside(tokens: Tokens) -> Tokens:
    """A cross-encoded pair in the other order."""
    # Where b begins; a's part, like b's, ends with its [SEP].
    begin = int(np.argmax(tokens.types))
    length = len(tokens)
    order = np.concatenate([[0], np.arange(begin, length), np.arange(1, begin)])
    types = (np.arange(length) > length - begin).astype(tokens.types.dtype)
    features = {name: values[order] for name, values in tokens.features.items()}
    return Tokens(tokens.ids[order], types, features)


def swapped(sequences: Sequence[Tokens], sides: Sequence[int] | None = None) -> list[Tokens]:
    """The sequences of a pair in the other order.

    That is one sequence, or one of each sentence; or several, and then `sides` say which of the two
    sentences each is of, 0 or 1.
    """
    if len(sequences) == 1:
        return [swapped_inside(sequences[0])]
    sides = range(2) if sides is None else sides
    first = [tokens for tokens, side in zip(sequences, sides, strict=True) if side == 0]
    second = [tokens for tokens, side in zip(sequences, sides, strict=True) if side == 1]
    return [*second, *first]


def swapped_sides(sides: Sequence[int]) -> list[int]:
    """Which sentence each of swapped()'s sequences is of; what was the second is the first."""
    if len(sides) == 1:
        return [0]
    return sorted(1 - side for side in sides)


def coins(seeds: Sequence[int], count: int) -> np.ndarray:
    """For each of `count` places of a pass 1 where its pair is to be swapped, else 0."""
    # The last seed keeps these draws apart from the shuffle, which has the same ones before it.
    return np.random.default_rng([*seeds, 2]).integers(0, 2, count)


def swapped_batch(batch: Batch) -> Batch:
    """A batch of pairs, each in the other order."""
    _, counts = torch.unique_consecutive(batch.owners, return_counts=True)
    tokens: list[Tokens] = []
    sides: list[int] = []
    begin = 0
    for count in counts.tolist():
        own = None
        if batch.sides is not None:
            own = batch.sides[begin : begin + count].tolist()
            sides += swapped_sides(own)
        tokens += swapped(batch.tokens[begin : begin + count], own)
        begin += count
    return replace(batch, tokens=tokens, sides=torch.tensor(sides) if sides else None)
