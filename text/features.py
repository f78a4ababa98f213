"""Numbers that tokens have beside their ids, such as tags: which there are, and who makes them.

Each rides with its token into the packed rows (packing.Packed.features), for an adapter's module
that embeds it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from options import Options
from text import tags
from text.token_ids import TokenTable, encode, tokenize
from tokenizer import BertTokenizer


class Feature(Protocol):
    """What makes numbers of texts."""

    def __call__(
        self,
        texts: Sequence[tuple[str, ...]],
        tokenizer: BertTokenizer,
        max_length: int | None,
        cache: Path | None,
    ) -> Mapping[str, np.ndarray]:
        """{name: [tokens of all texts]}, in the order of the tokenizer's; 0 where there is none.

        `cache`: a folder for what takes long to make; None: these texts are not to be kept.
        """


# Each is None where the options leave it out.
FEATURES: dict[str, Callable[[Options], Feature | None]] = {
    "word_tags": tags.feature,
}


def encoded_texts(
    texts: Sequence[tuple[str, ...]],
    tokenizer: BertTokenizer,
    options: Options,
    max_length: int | None,
    cache: Path | None = None,
) -> TokenTable:
    """Sentences or pairs as token ids, with all numbers that the options ask for; see Feature.

    `max_length` as BertTokenizer.encode_batch has it.
    """
    if cache is None:
        table = encode(texts, tokenizer, max_length)
    else:
        table = tokenize(texts, tokenizer, max_length, cache)
    found: dict[str, np.ndarray] = {}
    for make in FEATURES.values():
        if feature := make(options):
            found |= feature(texts, tokenizer, max_length, cache)
    return replace(table, features=found) if found else table
