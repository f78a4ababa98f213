"""Token ids of many texts: made in chunks, kept in one array, and cached on the disk.

A cache only saves time. One that is damaged, or was made by hand, is noticed and made anew; one
that can't be written costs a line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from errors import UserError
from packing import Tokens
from storage.files import write_bytes
from storage.tensor_files import read_tensors, sha256_of_tensors
from tokenizer import BertTokenizer

# Texts that are encoded at once: until they are ids alone, they take fifty times as much memory.
CHUNK = 4096

# What a cache file holds.
KINDS = {
    "ids": (torch.uint16, torch.int32),
    "types": (torch.uint8,),
    "ends": (torch.int64,),
    "sha256": (torch.uint8,),
}


@dataclass(frozen=True)
class TokenTable(Sequence[Tokens]):
    """Many sequences, end to end; each is cut out when it is asked for."""

    ids: np.ndarray  # [tokens of all], uint16, or int32 where a vocabulary is too large for that
    types: np.ndarray  # [tokens of all], uint8
    ends: np.ndarray  # [sequences], int64: where each ends
    # name -> [tokens of all]: text/features.py
    features: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        """One sequence, or of a slice the list of them."""
        if isinstance(index, slice):
            return [self.cut(place) for place in range(*index.indices(len(self.ends)))]
        return self.cut(range(len(self.ends))[index])

    def cut(self, place: int) -> Tokens:
        """The sequence at a place, 0 to len - 1; the numbers are not copied."""
        begin = self.ends.item(place - 1) if place else 0
        end = self.ends.item(place)
        features = {name: numbers[begin:end] for name, numbers in self.features.items()}
        return Tokens(self.ids[begin:end], self.types[begin:end], features)


def end_to_end(sequences: Sequence[Tokens]) -> TokenTable:
    """Sequences, at least one, as a table."""
    names = sequences[0].features
    features = {name: np.concatenate([x.features[name] for x in sequences]) for name in names}
    return TokenTable(
        np.concatenate([tokens.ids for tokens in sequences]),
        np.concatenate([tokens.types for tokens in sequences]),
        np.cumsum([len(tokens) for tokens in sequences]),
        features,
    )


def tokenize(
    texts: Sequence[tuple[str, ...]],
    tokenizer: BertTokenizer,
    max_length: int | None,
    cache: Path,
) -> TokenTable:
    """Token ids and types of sentences or pairs, from the cache where they stand there already.

    `max_length` as BertTokenizer.encode_batch has it.
    """
    path = cache / f"{cache_key(texts, tokenizer, max_length)}.safetensors"
    table = read_cache(path, len(texts), tokenizer.backend.get_vocab_size())
    if table is None:
        table = encode(texts, tokenizer, max_length)
        write_cache(path, table)
    return table


def cache_key(
    texts: Sequence[tuple[str, ...]], tokenizer: BertTokenizer, max_length: int | None
) -> str:
    """A name that other texts, another tokenizer or another length do not share."""
    digest = hashlib.sha256(json.dumps([tokenizer.backend.to_str(), max_length]).encode())
    for start in range(0, len(texts), CHUNK):
        # JSON quotes the texts: none runs into the next.
        digest.update(json.dumps(texts[start : start + CHUNK]).encode())
    return digest.hexdigest()[:32]


def encode(
    texts: Sequence[tuple[str, ...]], tokenizer: BertTokenizer, max_length: int | None
) -> TokenTable:
    """Token ids and types of sentences or pairs."""
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[int] = []
    for start in range(0, len(texts), CHUNK):
        sequences = tokenizer.encode_batch(texts[start : start + CHUNK], max_length)
        own = np.concatenate([numbers for numbers, _ in sequences])
        ids.append(own.astype(np.uint16 if own.max() < 2**16 else np.int32))
        types.append(np.concatenate([numbers for _, numbers in sequences]).astype(np.uint8))
        lengths += [len(numbers) for numbers, _ in sequences]
    # Where a chunk is int32, numpy makes all of it so.
    return TokenTable(np.concatenate(ids), np.concatenate(types), np.cumsum(lengths))


# ---- the cache


def checksum(tensors: dict[str, Tensor]) -> Tensor:
    """The SHA-256 of the tensors as bytes [32], to stand in a file beside them."""
    return torch.tensor(list(bytes.fromhex(sha256_of_tensors(tensors))), dtype=torch.uint8)


def read_cache(path: Path, count: int, vocabulary: int) -> TokenTable | None:
    """The `count` sequences that a file holds; None where it is not there or not as written."""
    try:
        stored = read_tensors(path)
    except UserError:
        return None
    if set(stored) != set(KINDS):
        return None
    if any(stored[name].dtype not in kinds for name, kinds in KINDS.items()):
        return None
    # This finds damage.
    if not torch.equal(stored.pop("sha256"), checksum(stored)):
        return None

    # This finds what was not written here.
    ids, types, ends = (stored[name].numpy() for name in ("ids", "types", "ends"))
    if ends.shape != (count,) or ids.shape != (ends[-1],) or types.shape != ids.shape:
        return None
    if ends[0] < 1 or (np.diff(ends) < 1).any():
        return None
    if ids.min() < 0 or ids.max() >= vocabulary or types.max() > 1:
        return None
    return TokenTable(ids, types, ends)


def write_cache(path: Path, table: TokenTable) -> None:
    """Write the sequences whole or not at all; a disk that won't take them costs only time."""
    tensors = {
        "ids": torch.from_numpy(table.ids),
        "types": torch.from_numpy(table.types),
        "ends": torch.from_numpy(table.ends),
    }
    try:
        write_bytes(path, save({**tensors, "sha256": checksum(tensors)}))
    except UserError as error:
        print(f"token ids not cached: {error}")
