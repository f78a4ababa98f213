"""Texts as a caller gives them, checked: what is wrong is named by its position."""

from collections.abc import Sequence
from typing import Any

from errors import UserError


def check_text(text: Any, position: int) -> None:
    """UserError, which names the position in a list, for what is no text or not to be encoded."""
    if not isinstance(text, str):
        raise UserError(f"texts[{position}] is of type {type(text).__name__}, expected a text")
    # Most texts are plain, and need no further look.
    if text.isascii():
        return
    # Half a surrogate pair, as broken JSON leaves it, would end the tokenizer with a traceback.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise UserError(
            f"texts[{position}] holds half a character, the surrogate {half}, which UTF-8 has not"
        ) from None


def members(value: Any) -> list[Any] | None:
    """What is in a list or the like, in its order; None for anything else, a single text too."""
    if isinstance(value, str | bytes | dict | set):
        return None
    try:
        each = iter(value)
    except TypeError:
        return None
    return list(each)


def as_list(texts: Any) -> list[str]:
    """One text or many as a list; UserError for anything else."""
    found = [texts] if isinstance(texts, str) else members(texts)
    if found is None:
        raise UserError(f"expected a text or a list of texts, not a {type(texts).__name__}")
    for position, text in enumerate(found):
        check_text(text, position)
    return found


def as_items(text: str | Sequence[str], text_pair: str | Sequence[str] | None) -> list[Any]:
    """A call's texts as the tokenizers library takes them: [text, ...] or [(first, second), ...].

    Raises ValueError for lists of different lengths, UserError for what is no text.
    """
    # One list, or two of the same length side by side.
    firsts = as_list(text)
    if text_pair is None:
        return firsts
    return list(zip(firsts, as_list(text_pair), strict=True))


def as_tuples(texts: Any, columns: int, task: str) -> list[tuple[str, ...]]:
    """The sentences, or pairs of them, that a task gets, each as a tuple of `columns` texts.

    UserError for anything else; a single sentence may stand alone.
    """
    # The whole: a list of what the task takes, or one sentence.
    kind = "sentences" if columns == 1 else 'pairs, as [("first", "second")]'
    found = [texts] if isinstance(texts, str) else members(texts)
    if found is None:
        raise UserError(f"{task} takes a list of {kind}, not a {type(texts).__name__}")

    # Its parts, each with as many sentences as the task reads.
    tuples = []
    for position, text in enumerate(found):
        parts = [text] if isinstance(text, str) else members(text)
        if parts is None or len(parts) != columns:
            what = type(text).__name__ if parts is None else f"{len(parts)} texts"
            if isinstance(text, str):
                what = "a single text"
            raise UserError(f"{task} takes a list of {kind}, but texts[{position}] is {what}")
        for part in parts:
            check_text(part, position)
        tuples.append(tuple(str(part) for part in parts))
    return tuples
