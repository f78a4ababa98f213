"""Which word-pieces of a text are read, and as how many sequences.

Truncation keeps a text's head, its tail or both ends: Sun et al. 2019, How to Fine-Tune BERT for
Text Classification, https://arxiv.org/abs/1905.05583, section 5.3.1. Of 510 word-pieces they keep
the first 128 and the last 382; here the first are 128/510 of the room there is, rounded down. Of a
pair the longer text is cut first, as the tokenizer does it, and each text by this rule.

Segments: a long text becomes several sequences, each with its own [CLS] and [SEP], so its length
has no limit. Pappagari et al. 2019, Hierarchical Transformers for Long Document Classification,
https://arxiv.org/abs/1910.10781; heads/segments.py joins them. Left out: their overlap of segments,
and borders at ends of sentences: all segments but the last are full.

Texts are cut after the token cache, which holds them whole, so no cut is taken for another. What is
known of each word-piece beside its id can be cut by the same places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from options import Options
from packing import Tokens
from tasks import Task
from text.token_ids import TokenTable, end_to_end

# Sun et al.'s share of the first word-pieces, of all that fit.
FIRST, ROOM = 128, 510


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many word-pieces two texts keep: the longer one is cut first, then both to a half.

    Of an odd number of places the longer text, or else the second, gets the one left over.
    """
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (room - short, short) if first > second else (short, room - short)


@dataclass(frozen=True)
class Cutting:
    """How texts of one task are cut."""

    max_length: int  # word-pieces of a sequence, [CLS] and [SEP] included
    rule: str = "head"  # what truncation keeps: head, tail or head_tail
    segment_length: int = 0  # word-pieces of a segment, likewise; 0: a text is one sequence
    max_segments: int = 0  # of a text; 0: all

    @property
    def by_tokenizer(self) -> bool:
        """Whether this is how the tokenizer cuts by itself."""
        return self.rule == "head" and not self.segment_length

    @property
    def longest(self) -> int:
        """The word-pieces of the longest sequence that comes out; one as short is left as it is."""
        return self.segment_length or self.max_length

    def kept(self, count: int, room: int) -> np.ndarray:
        """Which of `count` word-pieces are read where there is room for `room`: [kept]."""
        if count <= room:
            return np.arange(count)
        first = {"head": room, "tail": 0, "head_tail": room * FIRST // ROOM}[self.rule]
        return np.concatenate([np.arange(first), np.arange(count - (room - first), count)])

    def places(self, types: np.ndarray) -> list[np.ndarray]:
        """Where in an uncut sequence, whose token types are [T], the tokens of those read stand.

        One array of places for each sequence that is read, [CLS] and [SEP] among them.
        """
        last = len(types) - 1

        # A pair, [CLS] a [SEP] b [SEP]: token type 1 begins behind the first [SEP].
        if types[last] == 1:
            middle = int(np.argmax(types)) - 1
            first, second = middle - 1, last - middle - 1
            a, b = longest_first(first, second, self.max_length - 3)
            kept = [1 + self.kept(first, a), [middle], middle + 1 + self.kept(second, b), [last]]
            return [np.concatenate([[0], *kept])]

        # One text, [CLS] a [SEP]: each segment has both.
        size = self.longest - 2
        room = last - 1
        if not self.segment_length:
            room = size
        elif self.max_segments:
            room = size * self.max_segments
        text = 1 + self.kept(last - 1, room)
        begins = range(0, max(1, len(text)), size)
        return [np.concatenate([[0], text[begin : begin + size], [last]]) for begin in begins]

    def cut(self, tokens: Tokens) -> list[Tokens]:
        """The sequences that are read of an uncut one."""
        return [
            Tokens(
                tokens.ids[place],
                tokens.types[place],
                {name: values[place] for name, values in tokens.features.items()},
            )
            for place in self.places(tokens.types)
        ]


def cutting_of(task: Task, options: Options) -> Cutting:
    """How the options cut a task's texts."""
    return Cutting(
        max_length=options.max_length,
        rule=options.truncation.of(task.name),
        segment_length=options.segment_of(task.name),
        max_segments=options.max_segments,
    )


def cut_all(texts: Sequence[Tokens], cutting: Cutting) -> tuple[TokenTable, np.ndarray]:
    """The sequences that are read of many uncut ones, and how many of each: [texts]."""
    sequences: list[Tokens] = []
    counts = np.ones(len(texts), dtype=np.int64)
    for number, tokens in enumerate(texts):
        if len(tokens) <= cutting.longest:
            sequences.append(tokens)
        else:
            own = cutting.cut(tokens)
            sequences += own
            counts[number] = len(own)
    return end_to_end(sequences), counts
