"""Words and their tags, by a spaCy pipeline, cached on the disk.

The sets of tags are fixed, whatever a pipeline knows: the 17 universal parts of speech
(https://universaldependencies.org/u/pos) and OntoNotes' 18 kinds of named entities. 0 is no tag. A
part of speech that is none of the 17 counts as X, "other", and an entity that is none of the 18 as
no entity; a line says so.

The cache holds for any tokenizer: it is kept under the pipeline and the sentences. One that is
damaged, or was made by hand, is noticed and made anew. Left out: detailed tags (Penn Treebank's),
dependencies, where in an entity a word stands.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tqdm import tqdm

from errors import UserError, listed
from options import Options
from storage.files import sha256_of, write_bytes
from storage.tensor_files import read_tensors
from text.token_ids import CHUNK, checksum

POS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN"),
    *("PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
NER = (
    *("CARDINAL", "DATE", "EVENT", "FAC", "GPE", "LANGUAGE", "LAW", "LOC", "MONEY", "NORP"),
    *("ORDINAL", "ORG", "PERCENT", "PERSON", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"),
)
TAGS = {"pos": POS, "ner": NER}  # tag number i stands at place i - 1
# What a label that is in none of the sets counts as; "" is spaCy's for no tag.
OTHERS = {"pos": POS.index("X") + 1, "ner": 0}
NUMBERS = {
    kind: {"": 0, **{name: number for number, name in enumerate(names, 1)}}
    for kind, names in TAGS.items()
}
AT_ONCE = 256  # sentences that spaCy gets at once


# ---- the pipeline


@dataclass(frozen=True)
class Tagger:
    """A spaCy pipeline, and what tells it from others."""

    pipeline: Any  # spacy.Language
    name: str  # with its version, as "en_core_web_sm 3.8.0"
    fingerprint: str  # SHA-256 of its files


def load_tagger(name: str) -> Tagger:
    """The pipeline of a name or folder; UserError, which says what to install, where it is missing.

    The last one stays loaded.
    """
    # Where a folder is, depends on where one stands.
    return load_from(os.path.realpath(name) if os.path.isdir(name) else name)


@functools.lru_cache(maxsize=1)
def load_from(name: str) -> Tagger:
    """load_tagger(), of a name or a folder's full path."""
    if importlib.util.find_spec("spacy") is None:
        raise UserError(
            "--word_tags needs spaCy: pip install spacy, then python -m spacy download "
            f"{Options.word_tags_model}"
        )

    # A name is a package's, which Python imports: only what is called like a pipeline.
    is_folder = os.path.isdir(name)
    if not is_folder and not re.fullmatch(r"[a-z]{2,3}_[a-z0-9_]+", name):
        raise UserError(
            f"--word_tags_model {name}: no such folder, and no name of a pipeline, such as "
            f"{Options.word_tags_model}"
        )
    if not is_folder and importlib.util.find_spec(name) is None:
        raise UserError(f"--word_tags_model {name}: not installed; python -m spacy download {name}")
    import spacy

    try:
        pipeline = spacy.load(Path(name) if is_folder else name)
        meta, path = pipeline.meta, pipeline.path
    except Exception as error:  # whatever a damaged file makes spaCy raise
        raise UserError(f"--word_tags_model {name}: spaCy can't load it ({error})") from None
    own_name = f"{meta['lang']}_{meta['name']} {meta['version']}"
    return Tagger(pipeline, own_name, fingerprint_of(path))


def fingerprint_of(folder: Path) -> str:
    """The SHA-256 of a pipeline's files: their names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


# ---- words and their tags


@dataclass(frozen=True)
class Words:
    """The words of many sentences, end to end."""

    starts: np.ndarray  # [words of all], int32: a word's first character in its sentence
    ends: np.ndarray  # [words of all], int32: the character behind its last
    tags: dict[str, np.ndarray]  # "pos", "ner" -> [words of all], uint8
    bounds: np.ndarray  # [sentences], int64: where each sentence's words end

    def of(self, sentence: int) -> slice:
        """Where one sentence's words stand."""
        return slice(self.bounds.item(sentence - 1) if sentence else 0, self.bounds.item(sentence))


def tag_words(sentences: Sequence[str], tagger: Tagger, show: bool = False) -> Words:
    """The words of sentences with their tags; `show`: with a bar, or a line where there is none."""
    starts: list[int] = []
    ends: list[int] = []
    bounds: list[int] = []
    tags: dict[str, list[int]] = {kind: [] for kind in TAGS}
    unknown: set[str] = set()
    docs = tagger.pipeline.pipe(sentences, batch_size=AT_ONCE)
    for doc in tqdm(
        docs, "tagging words", len(sentences), disable=None if show else True, leave=False
    ):
        for token in doc:
            if token.is_space:
                continue
            starts.append(token.idx)
            ends.append(token.idx + len(token))
            for kind, label in (("pos", token.pos_), ("ner", token.ent_type_)):
                number = NUMBERS[kind].get(label)
                if number is None:
                    unknown.add(label)
                    number = OTHERS[kind]
                tags[kind].append(number)
        bounds.append(len(starts))
    if show and unknown:
        print(f"{tagger.name}: {listed(sorted(unknown))}: no such tag here, counted as X or none")
    return Words(
        np.array(starts, dtype=np.int32),
        np.array(ends, dtype=np.int32),
        {kind: np.array(numbers, dtype=np.uint8) for kind, numbers in tags.items()},
        np.array(bounds, dtype=np.int64),
    )


def cached_words(sentences: Sequence[str], tagger: Tagger, cache: Path) -> Words:
    """tag_words(), from the cache where they stand there already."""
    path = cache / f"{cache_key(sentences, tagger)}.safetensors"
    words = read_cache(path, len(sentences))
    if words is None:
        print(f"tagging the words of {len(sentences)} sentences with {tagger.name}", flush=True)
        words = tag_words(sentences, tagger, show=True)
        write_cache(path, words)
    return words


# ---- the cache


def cache_key(sentences: Sequence[str], tagger: Tagger) -> str:
    """A name that other sentences, another pipeline and another spaCy do not share."""
    version = importlib.metadata.version("spacy")
    digest = hashlib.sha256(json.dumps([*TAGS, tagger.fingerprint, version]).encode())
    for start in range(0, len(sentences), CHUNK):
        digest.update(json.dumps(sentences[start : start + CHUNK]).encode())
    return f"tags-{digest.hexdigest()[:32]}"


def tensors_of(words: Words) -> dict[str, torch.Tensor]:
    """What a cache file holds of words, without its checksum."""
    arrays = {"starts": words.starts, "ends": words.ends, "bounds": words.bounds, **words.tags}
    return {name: torch.from_numpy(numbers) for name, numbers in arrays.items()}


def read_cache(path: Path, count: int) -> Words | None:
    """The words of `count` sentences; None where they are not there or not as written."""
    try:
        stored = read_tensors(path)
    except UserError:
        return None
    empty = np.zeros(0, dtype=np.int32)
    none = np.zeros(0, dtype=np.uint8)
    like = tensors_of(Words(empty, empty, dict.fromkeys(TAGS, none), np.zeros(0, dtype=np.int64)))
    if set(stored) != {*like, "sha256"}:
        return None
    # This finds damage.
    if not torch.equal(stored.pop("sha256"), checksum(stored)):
        return None

    # This finds what was not written here.
    if any(x.dtype != like[name].dtype or x.ndim != 1 for name, x in stored.items()):
        return None
    numbers = {name: x.numpy() for name, x in stored.items()}
    bounds = numbers.pop("bounds")
    if bounds.shape != (count,) or (np.diff(bounds, prepend=0) < 0).any():
        return None
    if any(len(own) != bounds[-1] for own in numbers.values()):
        return None
    tags = {kind: numbers[kind] for kind in TAGS}
    if any((own > len(TAGS[kind])).any() for kind, own in tags.items()):
        return None
    return Words(numbers["starts"], numbers["ends"], tags, bounds)


def write_cache(path: Path, words: Words) -> None:
    """Write words whole or not at all; a disk that won't take them costs only time."""
    tensors = tensors_of(words)
    try:
        write_bytes(path, save({**tensors, "sha256": checksum(tensors)}))
    except UserError as error:
        print(f"tags not cached: {error}")
