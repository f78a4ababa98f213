"""Texts from a caller: whatever they are, an answer or a line that names the position."""

from pathlib import Path

import numpy as np
import pytest
import torch

from errors import UserError
from multitask_bert import MultitaskBERT
from tests.multitask import make
from text.texts import as_list, as_tuples
from tokenizer import BertTokenizer


@pytest.fixture(scope="module")
def model(tiny: Path) -> MultitaskBERT:
    return make(tiny)


WRONG_TEXTS = [
    (["a film", None], "texts[1] is NoneType"),
    ([float("nan")], "texts[0] is float"),
    ([3], "texts[0] is int"),
    ([b"a film"], "texts[0] is bytes"),
    ([["a film"], [["a"]]], "texts[1] is of type list, expected a text"),
    ([("a", "b")], "texts[0] is 2 texts"),
    ([()], "texts[0] is 0 texts"),
    ([{"a": "b"}], "texts[0] is dict"),
    ([np.array("a film")], "texts[0] is ndarray"),
    ([torch.tensor(3.0)], "texts[0] is Tensor"),
    (["fine", "a \ud800 film"], "texts[1] holds half a character, the surrogate U+D800"),
    ([("\udfff",)], "texts[0] holds half a character, the surrogate U+DFFF"),
    (None, "not a NoneType"),
    (3, "not a int"),
    (b"a film", "not a bytes"),
    ({"a film": 1}, "not a dict"),
    ({"a film"}, "not a set"),
    (np.array("a film"), "not a ndarray"),
]
WRONG_PAIRS = [
    (
        ["a film"],
        'sts takes a list of pairs, as [("first", "second")], but texts[0] is a single text',
    ),
    ("a film", "texts[0] is a single text"),
    ([("a", "b"), "ab"], "texts[1] is a single text"),
    ([("a", "b"), ("a", None)], "texts[1] is of type NoneType, expected a text"),
    ([("a", "b", "c")], "texts[0] is 3 texts"),
    ([({"a"}, "b")], "texts[0] is of type set, expected a text"),
    ([{"a", "b"}], "texts[0] is set"),
    ([("a", "\ud800")], "texts[0] holds half a character"),
    (np.zeros((2, 2)), "texts[0] is of type float64, expected a text"),
]


@pytest.mark.parametrize(
    ("task", "texts", "part"),
    [("sst", *case) for case in WRONG_TEXTS] + [("sts", *case) for case in WRONG_PAIRS],
)
def test_what_is_no_text(model: MultitaskBERT, task: str, texts: object, part: str) -> None:
    with pytest.raises(UserError) as caught:
        model.predict(task, texts)  # type: ignore[arg-type]
    message = str(caught.value)
    assert part in message and "\n" not in message


def test_what_is_a_list_of_texts(model: MultitaskBERT) -> None:
    sentences = ["a dull film", "", "a fine Æ film\n\0\x1b"]
    expected = model.predict("sst", sentences)
    assert len(expected) == 3
    for same in (
        tuple(sentences),
        (x for x in sentences),
        np.array(sentences, dtype=object),
        [(x,) for x in sentences],
        [np.str_(x) for x in sentences],
    ):
        assert model.predict("sst", same) == expected
    assert model.predict("sst", sentences[0]) == expected[:1]
    assert model.predict("sst", []) == model.predict("sts", iter([])) == []

    pairs = [("a film", "fine"), ("", "b")]
    similar = model.predict("sts", pairs)
    for same_pairs in (np.array(pairs), map(list, pairs), [iter(pair) for pair in pairs]):
        assert model.predict("sts", same_pairs) == similar


@pytest.mark.parametrize(
    "texts", [3, b"a", {"a": 1}, [None], ["a", 3], [["a"], "b"], ["\ud800", "b"], [b"a", "b"]]
)
def test_the_tokenizer_takes_only_texts(model: MultitaskBERT, texts: object) -> None:
    tokenizer: BertTokenizer = model.tokenizer
    for call in (tokenizer, tokenizer.encode, tokenizer.tokenize):
        with pytest.raises(UserError, match="text"):
            call(texts)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="text"):
        tokenizer(["a", "b"], texts)  # type: ignore[arg-type]


def test_one_text_is_no_list(model: MultitaskBERT) -> None:
    with pytest.raises(UserError, match=r"texts\[0\] is of type list, expected a text"):
        model.tokenizer.encode(["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"texts\[1\] is of type list, expected a text"):
        model.tokenizer.encode("a", ["b"])  # type: ignore[arg-type]


def test_a_batch_of_the_tokenizer_takes_only_texts(model: MultitaskBERT) -> None:
    encode = model.tokenizer.encode_batch
    for wrong in ((None,), ("a", None), (3,), ("\ud800",), (["a"],), ("a", "b", "c")):
        with pytest.raises(UserError, match=r"texts"):
            encode([("fine",), wrong], 64)  # type: ignore[list-item]


def test_lists_of_texts() -> None:
    assert as_list("a") == ["a"] and as_list(np.array(["a", "b"])) == ["a", "b"]
    assert as_tuples(np.array([["a", "b"]]), 2, "sts") == [("a", "b")]
    assert all(type(x) is str for x in as_tuples(np.array(["a"]), 1, "sst")[0])
