"""BERT's WordPiece on the `tokenizers` library, called as the course's and transformers' are.

Lower-casing, punctuation and CJK splitting, then greedy longest-match pieces (Devlin et al. 2019,
https://arxiv.org/abs/1810.04805). Left out: tokenizers of other models, offsets and overflowing
pieces (the backend has them), truncation by any rule but longest-first, padding on the left.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers

from errors import UserError
from pretrained import find_pretrained
from storage.files import write_text
from storage.json_files import read_record, write_json
from text.batch_encoding import BatchEncoding
from text.texts import as_items, check_text
from text.tokenizer_files import SPECIAL, Settings, check_ids, plain_errors, read_backend


class BertTokenizer:
    """Text to WordPiece ids.

    The backend's padding and truncation are settings that stay, so no call ever changes them:
    padding happens here, and every truncation length has a backend of its own.
    """

    pad_token, unk_token, cls_token, sep_token, mask_token = SPECIAL

    def __init__(self, backend: Tokenizer, model_max_length: int = 512):
        vocabulary = backend.get_vocab()
        check_ids(vocabulary)
        ids = {token: vocabulary[token] for token in SPECIAL if token in vocabulary}
        if len(ids) < len(SPECIAL):
            raise UserError(
                f"not a BERT vocabulary: it lacks {', '.join(t for t in SPECIAL if t not in ids)}"
            )
        self.pad_token_id = ids["[PAD]"]
        self.unk_token_id = ids["[UNK]"]
        self.cls_token_id = ids["[CLS]"]
        self.sep_token_id = ids["[SEP]"]
        self.mask_token_id = ids["[MASK]"]
        self.all_special_tokens = list(ids.keys())
        self.all_special_ids = list(ids.values())
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.truncating: dict[int, Tokenizer] = {}
        self.model_max_length = model_max_length
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=False)
        # Of all that rules the token ids.
        self.fingerprint = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self.check_frame()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
    ) -> "BertTokenizer":
        """The tokenizer of a hub id, a folder or the embedded model.

        It is made of tokenizer.json, or else of vocab.txt, under the settings of
        tokenizer_config.json. Raises UserError where there is no usable vocabulary.

        Of a hub id `local_files_only` takes what is on disk, `cache_dir` is another cache than the
        hub's.
        """
        folder = find_pretrained(name, local_only=local_files_only, cache_dir=cache_dir)
        path = next(
            (p for n in ("tokenizer.json", "vocab.txt") if os.path.exists(p := folder / n)), None
        )
        if path is None:  # or in a folder that may not be looked into
            raise UserError(
                f"{folder}: no tokenizer.json and no vocab.txt in it; fetch the model again"
            )
        backend = read_backend(path)

        # As in transformers, these settings win over tokenizer.json's.
        settings = Settings()
        if os.path.exists(folder / "tokenizer_config.json"):
            settings = read_record(folder / "tokenizer_config.json", Settings, others_too=True)
        if settings.do_lower_case is not None:
            backend.normalizer = normalizers.BertNormalizer(
                lowercase=settings.do_lower_case,
                strip_accents=settings.strip_accents,
                handle_chinese_chars=settings.tokenize_chinese_chars,
            )
        try:
            return cls(backend, int(min(settings.model_max_length or 512, 512)))
        except UserError as error:
            raise UserError(f"{path}: not usable ({error}); fetch the model again") from None

    def check_frame(self) -> None:
        """UserError unless texts come as `[CLS] a [SEP]` and pairs as `[CLS] a [SEP] b [SEP]`."""
        with plain_errors("it encodes no text"):
            frame = self.backend.encode("", "")
        expected = [self.cls_token_id, self.sep_token_id, self.sep_token_id]
        if frame.ids != expected or frame.type_ids != [0, 0, 1]:
            raise UserError(f"it frames pairs by {frame.tokens}, expected [CLS] [SEP] [SEP]")

    def check_fits(self, size: int, source: str) -> None:
        """UserError where the vocabulary is not of a model with `size` rows of word embeddings.

        The model may have a few rows more, filled up to a multiple of 8 or 64, say.
        """
        pieces = len(self)
        padded_sizes = [-(-pieces // multiple) * multiple for multiple in (8, 16, 32, 64, 128)]
        if pieces != size and size in padded_sizes:
            print(f"{source}: {pieces} pieces in the vocabulary, {size} rows in the model")
        elif pieces != size:
            raise UserError(
                f"{source}: {pieces} pieces in the vocabulary, but vocab_size is {size} in "
                "config.json; is the vocabulary whole, and this model's?"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json, vocab.txt for those who read only that, and tokenizer_config.json.

        The last has the length limit and the normalizer's settings, without which transformers
        would lower-case whatever tokenizer.json says.
        """
        # The pieces, in both forms.
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "tokenizer.json", self.backend.to_str(pretty=True))
        vocabulary = self.backend.get_vocab(with_added_tokens=False)
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in pieces))

        # The settings, under the names that transformers reads.
        rules = self.backend.normalizer
        config: dict[str, Any] = {"model_max_length": self.model_max_length}
        if isinstance(rules, normalizers.BertNormalizer):
            config |= {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": rules.lowercase,
                "strip_accents": rules.strip_accents,
                "tokenize_chinese_chars": rules.handle_chinese_chars,
            }
        else:  # transformers' BertTokenizer would put its own in place of them
            config |= {f"{token[1:-1].lower()}_token": token for token in SPECIAL} | {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            }
        write_json(folder / "tokenizer_config.json", config)

    def backend_for(self, max_length: int | None) -> Tokenizer:
        """The backend that truncates to max_length, longest-first; None: not at all."""
        if max_length is None:
            return self.backend
        if max_length < 3:  # the library would silently cut nothing
            raise ValueError(f"max_length is {max_length}, but a pair of empty texts has 3 tokens")
        # Truncation is a setting of a backend: each length has a copy that keeps its own.
        if max_length not in self.truncating:
            copy = Tokenizer.from_str(self.backend.to_str())
            copy.enable_truncation(max_length, strategy="longest_first")
            self.truncating[max_length] = copy
        return self.truncating[max_length]

    def encode_batch(
        self, texts: Sequence[tuple[str, ...]], max_length: int | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """[(text,) or (first, second), ...] -> [(token ids, token types), ...], int32, unpadded.

        `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, the longer text cut first to at most max_length
        tokens in all; None: not cut. All cores work at once. UserError for what is no text.
        """
        # What is no text would be an error without a position.
        for position, text in enumerate(texts):
            for part in text:
                check_text(part, position)

        # The library takes a text alone as it is, and a pair as a tuple.
        items = [text if len(text) > 1 else text[0] for text in texts]
        backend = self.backend_for(max_length)
        with plain_errors("the tokenizer refuses these texts"):
            encodings = backend.encode_batch_fast(items)
        return [
            (np.array(e.ids, dtype=np.int32), np.array(e.type_ids, dtype=np.int32))
            for e in encodings
        ]

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = None,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
    ) -> BatchEncoding:
        """One text (or pair) or a list of them as input_ids, token_type_ids and attention_mask.

        Lists of ints, [T] for one text and [B][T] for a list; int64 tensors [B, T] with
        return_tensors="pt". `padding`: to the longest (True) or to max_length ("max_length"), which
        is the model's limit unless given. Raises ValueError for other settings, and for texts of
        different lengths in one tensor; UserError for what is no text.
        """
        # Settings that transformers has beside these are refused, not passed over.
        paddings = (True, False, "longest", "max_length")
        if return_tensors not in (None, "pt") or padding not in paddings:
            raise ValueError(
                f"return_tensors={return_tensors!r}, padding={padding!r}: no such setting here"
            )
        limit = self.model_max_length if max_length is None else max_length
        backend = self.backend_for(limit if truncation else None)
        items = as_items(text, text_pair)
        with plain_errors("the tokenizer refuses these texts"):
            encodings = backend.encode_batch_fast(items)

        # Rows are filled up to the width; longer ones stay as they are.
        lengths = [len(e.ids) for e in encodings]
        width = 0
        if padding == "max_length":
            width = limit
        elif padding:
            width = max(lengths, default=0)
        if return_tensors and len({max(n, width) for n in lengths}) > 1:
            raise ValueError(
                "texts of different lengths do not fit one tensor: "
                "set padding=True (and truncation=True)"
            )

        # Padding has id [PAD], token type 0 and attention 0.
        output = BatchEncoding()
        output["input_ids"] = [padded(e.ids, width, self.pad_token_id) for e in encodings]
        if return_token_type_ids:
            output["token_type_ids"] = [padded(e.type_ids, width, 0) for e in encodings]
        if return_attention_mask:
            output["attention_mask"] = [padded([1] * n, width, 0) for n in lengths]

        # One text gives its row alone, unless it is a tensor.
        for key, rows in output.items():
            if return_tensors:
                output[key] = torch.tensor(rows, dtype=torch.int64)
            elif isinstance(text, str):
                output[key] = rows[0]
        return output

    def encode(
        self, text: str, text_pair: str | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        """A text's or pair's ids, not cut; add_special_tokens puts [CLS] and [SEP] around them."""
        for position, one in enumerate([text] if text_pair is None else [text, text_pair]):
            check_text(one, position)
        return self.backend.encode(text, text_pair, add_special_tokens=add_special_tokens).ids

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, without [CLS] and [SEP]."""
        check_text(text, 0)
        return self.backend.encode(text, add_special_tokens=False).tokens

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """An id's piece, or the list of pieces of many; None for an id that is not there."""
        if isinstance(ids, int):
            return self.backend.id_to_token(ids)
        return [self.backend.id_to_token(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """A piece's id, or the list of ids of many; [UNK]'s for a piece that is not there."""
        if isinstance(tokens, str):
            known = self.backend.token_to_id(tokens)
            return self.unk_token_id if known is None else known
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Ids back to text, lower-cased and respaced as the pieces are."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, sequences: Iterable[Iterable[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        """Many rows of ids back to texts, as `decode` does one."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Pieces joined to words, and those with spaces."""
        if self.backend.decoder is None:
            return " ".join(tokens)
        return self.backend.decoder.decode(list(tokens))

    def get_vocab(self) -> dict[str, int]:
        """{piece: id}."""
        return self.backend.get_vocab()

    def __len__(self) -> int:
        return self.backend.get_vocab_size()


def padded(row: list[int], width: int, fill: int) -> list[int]:
    """`row` filled up to `width`; a longer row stays as it is."""
    return row + [fill] * (width - len(row))
