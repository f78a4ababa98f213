"""Which word-pieces are read: against lists cut by hand, and the tokenizer's own truncation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets import Split, load_split, split_of_texts
from options import Options
from packing import Tokens
from tasks import TASKS
from tests.multitask import WORDS
from tests.test_token_ids import same
from text.cutting import Cutting, cut_all, longest_first
from tokenizer import BertTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


def uncut(first: int, second: int | None = None) -> Tokens:
    """[CLS] 1 2 3 ... [SEP], or a pair whose second text is 101 102 103 ...; with a tag each."""
    ids = [-1, *range(1, first + 1), -2]
    types = [0] * len(ids)
    if second is not None:
        ids += [*range(101, 101 + second), -2]
        types += [1] * (second + 1)
    numbers = np.array(ids)
    return Tokens(numbers, np.array(types), {"tags": numbers * 10})


def read(tokens: Tokens, cutting: Cutting) -> list[list[int]]:
    found = cutting.cut(tokens)
    for sequence in found:
        assert (sequence.features["tags"] == sequence.ids * 10).all()
        assert len(sequence) <= cutting.longest
    return [sequence.ids.tolist() for sequence in found]


def test_sun_et_al_s_numbers():
    """The first 128 and the last 382 of 510, and likewise of other lengths."""
    (found,) = read(uncut(900), Cutting(512, "head_tail"))
    assert found == [-1, *range(1, 129), *range(900 - 382 + 1, 901), -2]
    (found,) = read(uncut(40), Cutting(13, "head_tail"))
    assert found == [-1, 1, 2, *range(32, 41), -2]  # 11 * 128 // 510 is 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("head", [-1, 1, 2, 3, 4, 5, -2]),
        ("tail", [-1, 5, 6, 7, 8, 9, -2]),
        ("head_tail", [-1, 1, 6, 7, 8, 9, -2]),
    ],
)
def test_a_text(rule: str, expected: list[int]):
    assert read(uncut(9), Cutting(7, rule)) == [expected]
    assert read(uncut(5), Cutting(7, rule)) == [[-1, 1, 2, 3, 4, 5, -2]]
    assert read(uncut(0), Cutting(7, rule)) == [[-1, -2]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("head", [-1, 1, 2, 3, 4, -2, 101, 102, -2]),
        ("tail", [-1, 6, 7, 8, 9, -2, 101, 102, -2]),
        ("head_tail", [-1, 1, 7, 8, 9, -2, 101, 102, -2]),
    ],
)
def test_a_pair(rule: str, expected: list[int]):
    assert read(uncut(9, 2), Cutting(9, rule)) == [expected]


def test_the_longer_text_is_cut_first():
    for first in range(9):
        for second in range(9):
            for room in range(9):
                a, b = longest_first(first, second, room)
                assert a + b == min(room, first + second) and a <= first and b <= second
                # Neither has more than the other while it was cut itself.
                assert a == first or a >= b - 1
                assert b == second or b >= a - 1


@pytest.mark.parametrize("max_length", [3, 4, 7, 13])
def test_head_is_the_tokenizer_s_own(tokenizer: BertTokenizer, max_length: int):
    rng = np.random.default_rng(0)
    texts = [
        tuple(" ".join(rng.choice(WORDS, n)) for n in rng.integers(0, 9, 2)) for _ in range(99)
    ]
    singles = [(first,) for first, _ in texts]
    for some in (texts, singles):
        whole = [Tokens(ids, types) for ids, types in tokenizer.encode_batch(some, None)]
        table, each = cut_all(whole, Cutting(max_length))
        assert (each == 1).all()
        same(table, tokenizer.encode_batch(some, max_length))


def test_segments():
    cutting = Cutting(512, segment_length=5)
    assert read(uncut(7), cutting) == [[-1, 1, 2, 3, -2], [-1, 4, 5, 6, -2], [-1, 7, -2]]
    assert read(uncut(6), cutting) == [[-1, 1, 2, 3, -2], [-1, 4, 5, 6, -2]]
    assert read(uncut(0), cutting) == [[-1, -2]]
    (_, *rest, last) = read(uncut(2000), cutting)
    assert len(rest) == 665 and last == [-1, 1999, 2000, -2]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("head", [[-1, 1, 2, 3, -2], [-1, 4, 5, 6, -2]]),
        ("tail", [[-1, 4, 5, 6, -2], [-1, 7, 8, 9, -2]]),
        ("head_tail", [[-1, 1, 5, 6, -2], [-1, 7, 8, 9, -2]]),
    ],
)
def test_at_most_so_many_segments(rule: str, expected: list[list[int]]):
    assert read(uncut(9), Cutting(512, rule, 5, 2)) == expected
    assert read(uncut(4), Cutting(512, rule, 5, 2)) == [[-1, 1, 2, 3, -2], [-1, 4, -2]]


# ---- in a split


LONG = " ".join(f"word{i % 7}" for i in range(400))


def test_a_split_of_segments(tokenizer: BertTokenizer):
    """Of single sentences and of pairs: whose each segment is, whole, in every order."""
    options = Options(pair_encoding="bi", segment_length=7, max_length=7)
    texts = [("a b c d e f", "a"), ("a", "b " * 11), ("", "a b c d e")]
    split = split_of_texts(TASKS["sts"], texts, options, tokenizer)
    assert list(split.bounds) == [0, 3, 7, 9] and split.sides == [0, 0, 1, 0, 1, 1, 1, 0, 1]
    assert split.count_tokens() == 8 + 2 + 3 + 3 + 11 + 6 + 2 + 7
    batch = split.batch([2, 0])
    assert batch.owners.tolist() == [0, 0, 1, 1, 1]
    assert batch.sides is not None and batch.sides.tolist() == [0, 1, 0, 0, 1]
    assert [len(tokens) for tokens in batch.tokens] == [2, 7, 7, 3, 3]
    first = split.first(2)
    assert first.sides == split.sides and len(first) == 2
    assert first.batch([1]).owners.tolist() == [0] * 4
    single = split_of_texts(TASKS["sst"], [(LONG,), ("a",)], options, tokenizer)
    assert single.sides is not None and set(single.sides) == {0}
    assert single.by_length(100) == [[0], [1]]
    # All of a text far above 512 word-pieces is read.
    whole = tokenizer.encode(LONG, add_special_tokens=False)
    read = [i for tokens in single.sequences(0) for i in tokens.ids[1:-1].tolist()]
    assert len(whole) == 800 and read == whole


def test_by_task(tokenizer: BertTokenizer):
    options = Options(segment_length="whole cfimdb=9", truncation="head sst=tail", max_length=13)
    lengths = {}
    for name in ("sst", "cfimdb"):
        split = split_of_texts(TASKS[name], [(LONG,)], options, tokenizer)
        lengths[name] = [len(tokens) for tokens in split.tokens]
    assert lengths["sst"] == [13] and set(lengths["cfimdb"][:-1]) == {9}


def test_no_cut_is_taken_for_another(
    tokenizer: BertTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Out of the cache, whatever was asked for before, comes what would come without it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.csv"
    path.write_text(f"id\tsentence\tsentiment\nA\t{LONG}\t1\nB\tfine\t0\n")
    base = Options(max_length=13)
    variants = [
        base,
        replace(base, truncation="tail"),
        replace(base, truncation="head_tail"),
        replace(base, max_length=14, truncation="tail"),
        replace(base, segment_length=9),
        replace(base, segment_length=10),
        replace(base, segment_length=9, max_segments=3),
        replace(base, segment_length=9, max_segments=3, truncation="tail"),
    ]

    def tokens_of(split: Split) -> list[list[int]]:
        return [tokens.ids.tolist() for tokens in split.tokens]

    expected = [
        tokens_of(split_of_texts(TASKS["sst"], [(LONG,), ("fine",)], options, tokenizer))
        for options in variants
    ]
    assert all(one not in expected[:i] for i, one in enumerate(expected))
    for _ in range(2):
        for options, tokens in zip(variants, expected, strict=True):
            assert tokens_of(load_split(path, TASKS["sst"], "dev", options, tokenizer)) == tokens
    # One file of texts cut by the tokenizer, one of whole texts.
    assert len(list(Path(".cache").iterdir())) == 2
