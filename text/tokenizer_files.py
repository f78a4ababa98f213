"""A tokenizer's files: a vocabulary and its settings, read with care.

tokenizer.json holds all of a tokenizer; vocab.txt only the pieces, one a line, and the rest is
BERT's. The tokenizers library trusts both.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from errors import UserError
from pretrained import LARGEST_VOCABULARY
from storage.files import read_text
from storage.json_files import Between

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Settings:
    """What is followed of a tokenizer_config.json."""

    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    # Tokens; null and 1e30 both mean "no limit".
    model_max_length: Annotated[float, Between(3, 1e300)] | None = None


@contextlib.contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turn whatever the tokenizers library raises into a UserError that begins with `what`.

    Its errors are plain Exceptions, and its panics are not even those.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, UserError):
        raise
    except BaseException as error:
        raise UserError(f"{what} ({str(error).strip()})") from None


def read_backend(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json or vocab.txt; UserError where it is damaged."""
    # A vocabulary alone is completed by what BERT's tokenizers have in common.
    text = read_text(path, LARGEST_VOCABULARY)
    if path.suffix != ".json":
        return from_vocabulary(text, path)

    # A file of the library's own says which kind of tokenizer it is; only WordPiece fits here.
    with plain_errors(f"{path}: not usable"):
        backend = Tokenizer.from_str(text)
    if not isinstance(backend.model, models.WordPiece):
        kind = type(backend.model).__name__
        raise UserError(f"{path}: a {kind} tokenizer, expected BERT's WordPiece")
    return backend


def from_vocabulary(text: str, path: Path) -> Tokenizer:
    """BERT's uncased tokenizer from a vocab.txt: one piece a line, its number the id."""
    # The library would keep the last of two equal lines, and shift nothing.
    vocabulary: dict[str, int] = {}
    for i, piece in enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n")):
        if piece in vocabulary:
            raise UserError(
                f'{path}:{i + 1}: "{piece}" stands in line {vocabulary[piece] + 1} too; '
                "fetch the model again"
            )
        vocabulary[piece] = i

    # Text to pieces: lower case, words and punctuation apart, then the longest pieces that fit.
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()

    # Pieces to sequences: [CLS] a [SEP] b [SEP], the second sentence under token type 1.
    backend.add_special_tokens([token for token in SPECIAL if token in vocabulary])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary.get(token, 0)) for token in ("[CLS]", "[SEP]")],
    )
    return backend


def check_ids(vocabulary: dict[str, int]) -> None:
    """UserError unless n pieces have the ids 0 to n - 1.

    Two pieces of one id can't be told apart, and the library writes out all ids up to the highest.
    """
    for expected, (piece, i) in enumerate(sorted(vocabulary.items(), key=lambda item: item[1])):
        if i != expected:
            raise UserError(f'"{piece}" has the id {i} where {expected} is next')
