"""Tags of words as a number a word-piece: the features "pos" and "ner" (text/features.py).

A piece has the tag of the word in which its first character lies, so those that continue a word
have its tag too. [CLS], [SEP] and pieces that lie in no word have 0. Each sentence is tagged on its
own, as it is in the file, also where a pair is one sequence. text/tagger.py makes the words' tags.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding

from options import Options
from text.tagger import TAGS, Tagger, Words, cached_words, load_tagger, tag_words
from text.token_ids import CHUNK
from tokenizer import BertTokenizer


def feature(options: Options) -> "WordTags | None":
    """What makes the tags that --word_tags asks for (text/features.py); None where it is off."""
    if not options.word_tags:
        return None
    kinds = [kind for kind in TAGS if kind in options.word_tags]
    return WordTags(load_tagger(options.word_tags_model), kinds)


@dataclass(frozen=True)
class WordTags:
    """Makes a tagger's tags of texts' word-pieces; see text/features.py."""

    tagger: Tagger
    kinds: list[str]

    def __call__(
        self,
        texts: Sequence[tuple[str, ...]],
        tokenizer: BertTokenizer,
        max_length: int | None,
        cache: Path | None,
    ) -> dict[str, np.ndarray]:
        """{kind: [tokens of all texts]}, uint8."""
        # A sentence is tagged once, however often it occurs.
        places = {sentence: 0 for text in texts for sentence in text}
        for place, sentence in enumerate(places):
            places[sentence] = place
        if cache is None:
            words = tag_words(list(places), self.tagger)
        else:
            words = cached_words(list(places), self.tagger, cache)
            say_missing(words, self.kinds, self.tagger)

        # The tokenizer says where in its sentence each piece begins.
        pieces: dict[str, list[np.ndarray]] = {kind: [] for kind in self.kinds}
        for text, encoding in zip(texts, encodings(texts, tokenizer, max_length), strict=True):
            own = tags_of_pieces(encoding, [places[sentence] for sentence in text], words)
            for kind in self.kinds:
                pieces[kind].append(own[kind])
        return {kind: np.concatenate(parts) for kind, parts in pieces.items()}


def encodings(
    texts: Sequence[tuple[str, ...]], tokenizer: BertTokenizer, max_length: int | None
) -> Iterator[Encoding]:
    """Texts encoded as BertTokenizer.encode_batch() does, with the pieces' places in the texts."""
    backend = tokenizer.backend_for(max_length)
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        yield from backend.encode_batch([text if len(text) > 1 else text[0] for text in chunk])


def tags_of_pieces(
    encoding: Encoding, sentences: Sequence[int], words: Words
) -> dict[str, np.ndarray]:
    """{kind: [T]} of one text, whose `sentences` are these of `words`; uint8."""
    firsts = np.array([begin for begin, _ in encoding.offsets])
    owners = np.array([-1 if i is None else i for i in encoding.sequence_ids])
    tags = {kind: np.zeros(len(firsts), dtype=np.uint8) for kind in words.tags}
    for number, sentence in enumerate(sentences):
        own = words.of(sentence)
        if own.start == own.stop:
            continue
        # The last word that begins at a piece's first character or before it, if it reaches there.
        pieces = np.flatnonzero(owners == number)
        found = np.searchsorted(words.starts[own], firsts[pieces], side="right") - 1
        inside = (found >= 0) & (firsts[pieces] < words.ends[own][found])
        for kind, numbers in words.tags.items():
            tags[kind][pieces] = np.where(inside, numbers[own][found], 0)
    return tags


def say_missing(words: Words, kinds: Sequence[str], tagger: Tagger) -> None:
    """Say it where a kind of tag is wanted of which no word has one."""
    for kind in kinds:
        if len(words.starts) and not words.tags[kind].any():
            print(f"{tagger.name}: gives none of {len(words.starts)} words a tag of {kind}")
