"""The course's padded methods of MultitaskBERT agree with the texts' own path."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from course.faces import cut_batch, join_pair, unpad
from heads.pipeline import HEADS, POOLINGS
from tasks import TASKS
from tests.multitask import BASE, ENCODINGS, WORDS, close, logits, make, padded, texts
from text.cutting import Cutting, cut_all
from tokenizer import BertTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


@pytest.mark.parametrize("pooling,head,encoding", list(product(POOLINGS, HEADS, ENCODINGS)))
def test_the_courses_faces_agree_with_texts(tiny, tokenizer, pooling, head, encoding):
    model = make(tiny, pooling=pooling, head=head, pair_encoding=encoding)
    for width in (0, 9):
        some = texts("sst")
        with torch.no_grad():
            close(
                model.predict_sentiment(*padded(tokenizer, [x for (x,) in some], width)),
                logits(model, "sst", some),
            )
            for task, method in (
                ("para", model.predict_paraphrase),
                ("sts", model.predict_similarity),
            ):
                some = texts(task)
                inputs = [
                    x
                    for i in (0, 1)
                    for x in padded(tokenizer, [text[i] for text in some], (i + 1) * width)
                ]
                out = method(*inputs)
                expected = logits(model, task, some)
                close(out, expected[:, 0] if task == "para" else TASKS["sts"].predict(expected))
                assert out.shape == (13,)
                close(method(*(x[4:7] for x in inputs)), out[4:7])
                swapped = method(*inputs[2:], *inputs[:2])
                assert (swapped - out).abs().max() > 1e-4  # which sentence is first is not lost
        model.train()
        for task in BASE.tasks:
            some = texts(task)
            predicted = model.predict(task, some)
            assert predicted == pytest.approx(
                TASKS[task].predict(logits(model.eval(), task, some)).tolist(), rel=1e-5
            )
            assert (
                model.train().predict(task, some[:1]) == pytest.approx(predicted[:1], rel=1e-5)
                and model.training
            )
        model.eval()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_long_texts_are_cut_alike(tiny, tokenizer, encoding):
    model = make(tiny, pooling="mean", pair_encoding=encoding, max_length=14)
    singles, pairs = texts("sst", longest=40), texts("sts", longest=40)
    with torch.no_grad():
        close(
            model.predict_sentiment(*padded(tokenizer, [x for (x,) in singles])),
            logits(model, "sst", singles),
        )
        inputs = [x for i in (0, 1) for x in padded(tokenizer, [pair[i] for pair in pairs])]
        close(model.predict_similarity(*inputs), TASKS["sts"].predict(logits(model, "sts", pairs)))


# ---- pairs


def test_join_pair_is_the_tokenizers_own_pair(tokenizer):
    """All small lengths at several limits, and random texts."""
    rng = np.random.default_rng(0)
    pairs = [("film " * n, "dull " * m) for n in range(11) for m in range(11)]
    pairs += [
        tuple(" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in "ab") for _ in range(100)
    ]
    first, second = (tokenizer.encode_batch([(pair[i],) for pair in pairs], None) for i in (0, 1))
    joined = [join_pair(a, b) for (a, _), (b, _) in zip(first, second, strict=True)]
    for limit in (3, 4, 5, 8, 13, 64):
        table, counts = cut_all(joined, Cutting(limit))
        assert (counts == 1).all()
        for place, (ids, types) in enumerate(tokenizer.encode_batch(pairs, limit)):
            assert table[place].ids.tolist() == ids.tolist(), (limit, pairs[place])
            assert table[place].types.tolist() == types.tolist(), (limit, pairs[place])


def test_unpad():
    ids = torch.tensor([[101, 5, 6, 102, 0], [101, 102, 0, 0, 0], [101, 5, 6, 7, 102]])
    whole, cut = (
        [[101, 5, 6, 102], [101, 102], [101, 5, 6, 7, 102]],
        [[101, 5, 102], [101, 102], [101, 5, 102]],
    )
    rows = unpad(ids, (ids > 0).long())
    assert [row.ids.tolist() for row in rows] == whole
    assert [row.types.tolist() for row in rows] == [[0] * len(x) for x in whole]
    for limit, expected in ((9, whole), (5, whole), (3, cut)):
        batch = cut_batch("sst", rows, 1, Cutting(limit))
        assert [row.ids.tolist() for row in batch.tokens] == expected


@pytest.mark.parametrize("pooling,encoding", list(product(POOLINGS, ENCODINGS)))
def test_a_row_that_is_all_padding(tiny, pooling, encoding):
    """It has finite outputs, and its neighbours the same as without it."""
    model = make(tiny, pooling=pooling, pair_encoding=encoding)
    ids = torch.tensor([[101, 2143, 3185, 102], [0, 0, 0, 0], [101, 2143, 102, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        for method, inputs in (
            (model.predict_sentiment, (ids, mask)),
            (model.predict_paraphrase, (ids, mask, ids, mask)),
            (model.predict_similarity, (ids, mask, ids.flip(0), mask.flip(0))),
        ):
            out = method(*inputs)
            assert out.isfinite().all()
            close(method(*(x[[0, 2]] for x in inputs)), out[[0, 2]])
