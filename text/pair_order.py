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


def swapped(sequences: Sequence[Tokens]) -> list[Tokens]:
    """The sequences of a pair, one or two, in the other order."""
    if len(sequences) == 2:
        return [sequences[1], sequences[0]]
    (both,) = sequences
    return [swapped_inside(both)]


def coins(seeds: Sequence[int], count: int) -> np.ndarray:
    """For each of `count` places of a pass 1 where its pair is to be swapped, else 0."""
    # The last seed keeps these draws apart from the shuffle, which has the same ones before it.
    return np.random.default_rng([*seeds, 2]).integers(0, 2, count)


def swapped_batch(batch: Batch) -> Batch:
    """A batch of pairs, each in the other order."""
    each = 2 if len(batch.owners) > 1 and batch.owners[1] == 0 else 1
    tokens: list[Tokens] = []
    for begin in range(0, len(batch.tokens), each):
        tokens += swapped(batch.tokens[begin : begin + each])
    return replace(batch, tokens=tokens)
