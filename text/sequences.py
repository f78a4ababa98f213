"""From the texts of examples to the sequences that the encoder reads, and whose each is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from options import Options
from tasks import Task
from text.cutting import cut_all, cutting_of
from text.features import encoded_texts
from text.token_ids import TokenTable
from tokenizer import BertTokenizer


def texts_to_encode(
    task: Task, texts: list[tuple[str, ...]], options: Options
) -> list[tuple[str, ...]]:
    """What the tokenizer gets: a text an example, or each sentence of a pair on its own."""
    if not task.is_bi(options):
        return texts
    return [(sentence,) for text in texts for sentence in text]


def encode_texts(
    task: Task,
    texts: list[tuple[str, ...]],
    options: Options,
    tokenizer: BertTokenizer,
    cache: Path | None = None,
) -> tuple[TokenTable, np.ndarray | None]:
    """The sequences of examples' texts, and how many each text to encode has; None: one."""
    to_encode = texts_to_encode(task, texts, options)
    cutting = cutting_of(task, options)
    limit = options.max_length if cutting.by_tokenizer else None
    table = encoded_texts(to_encode, tokenizer, options, limit, cache)
    return (table, None) if cutting.by_tokenizer else cut_all(table, cutting)


def layout(
    task: Task, size: int, options: Options, counts: np.ndarray | None
) -> tuple[Sequence[int], list[int] | None]:
    """Where the sequences of `size` examples begin and end, and of which of its texts each is.

    Both as Split keeps them. `counts` are encode_texts()'s.
    """
    # Bi-encoded pairs are two texts an example, all others one.
    each = 2 if task.is_bi(options) else 1
    if counts is None:
        return range(0, each * size + 1, each), None
    bounds = [0, *counts.reshape(-1, each).sum(1).cumsum().tolist()]
    return bounds, np.repeat(np.arange(len(counts)) % each, counts).tolist()
