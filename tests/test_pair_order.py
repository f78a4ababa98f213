"""The other order of a pair: as the tokenizer writes it, averaged in predictions, drawn in
training.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import multitask_classifier
from datasets import load_split, make_split, split_of_texts
from errors import UserError
from examples import Example
from multitask_bert import MultitaskBERT
from multitask_classifier import train
from options import Options
from packing import Tokens
from predict import predict_with
from tasks import TASKS, check_tasks
from tests.multitask import ENCODINGS, batch, close, logits, texts
from tests.test_pairs import COSINE, model_of
from tests.test_run import interrupted
from tests.test_train import same, weights
from text.pair_order import swapped, swapped_batch
from text.sequences import texts_to_encode
from tokenizer import BertTokenizer


def turned(some: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Pairs in the other order."""
    return [(second, first) for first, second in some]


def same_tokens(one: Tokens, other: Tokens) -> bool:
    """Ids and types alike."""
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.types, other.types)


# ---- token ids


@pytest.mark.parametrize("limit", [3, 4, 8, 512])
def test_it_is_what_the_tokenizer_writes(tiny: Path, limit: int) -> None:
    """Cut too, where both sentences are longer than there is room for, of an even number."""
    tokenizer = BertTokenizer.from_pretrained(tiny)
    some = [*texts("sts"), ("a", "a film"), ("how ?", "where ?")]
    if limit % 2 == 0 and limit < 512:  # room for an odd number of tokens: see pair_order.py
        some = some[-2:-1]
    here, there = (tokenizer.encode_batch(x, limit) for x in (some, turned(some)))
    for (ids, types), other in zip(here, there, strict=True):
        (found,) = swapped([Tokens(ids, types)])
        assert same_tokens(found, Tokens(*other)) and found.types.dtype == types.dtype
        (back,) = swapped([found])
        assert same_tokens(back, Tokens(ids, types))


def test_segments_change_places_text_by_text(tiny: Path) -> None:
    """Oracle: the split of the pairs typed in the other order."""
    tokenizer = BertTokenizer.from_pretrained(tiny)
    options = Options(pair_encoding="bi", segment_length="7", tasks=("sts",))
    some = texts("sts")
    here, there = (
        split_of_texts(TASKS["sts"], x, options, tokenizer) for x in (some, turned(some))
    )
    ours = here.batch([len(some) + i for i in range(len(some))])
    theirs = there.batch(list(range(len(some))))
    again = swapped_batch(here.batch(list(range(len(some)))))
    assert len(theirs.tokens) > 2 * len(some) and theirs.sides is not None
    for found in (ours, again):
        assert all(map(same_tokens, found.tokens, theirs.tokens))
        assert found.sides is not None and found.sides.tolist() == theirs.sides.tolist()
        assert found.owners.tolist() == theirs.owners.tolist()


def test_features_of_tokens_go_along() -> None:
    ids, types = np.array([9, 1, 2, 8, 3, 8]), np.array([0, 0, 0, 0, 1, 1])
    (found,) = swapped([Tokens(ids, types, {"tags": ids * 10})])
    assert found.ids.tolist() == [9, 3, 8, 1, 2, 8] and found.types.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.features["tags"].tolist() == [90, 30, 80, 10, 20, 80]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [1, 7])
def test_a_batch(tiny: Path, encoding: str, size: int) -> None:
    model = model_of(tiny, pair_encoding=encoding)
    some = texts("sts", size)
    found = swapped_batch(batch(model, "sts", some))
    expected = batch(model, "sts", turned(some))
    assert torch.equal(found.owners, expected.owners)
    assert all(map(same_tokens, found.tokens, expected.tokens))
    assert len(found.tokens) == len(expected.tokens)


# ---- predictions


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("task", ["para", "sts"])
def test_symmetric_logits_are_the_mean_of_both_orders(tiny: Path, encoding: str, task: str) -> None:
    plain = model_of(tiny, pair_encoding=encoding)
    model = model_of(tiny, pair_encoding=encoding, symmetric=True)
    some = texts(task)
    here, there = (logits(plain, task, x) for x in (some, turned(some)))
    assert (here - there).abs().max() > 1e-3
    close(logits(model, task, some), (here + there) / 2)
    close(logits(model, task, some), logits(model, task, turned(some)))
    close(logits(model, "sst", texts("sst")), logits(plain, "sst", texts("sst")))

    # What a user sees, the course's faces too.
    values = [torch.tensor(model.predict(task, x)) for x in (some, turned(some))]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-6)
    first, second = (
        model.tokenizer(list(x), return_tensors="pt", padding=True) for x in zip(*some, strict=True)
    )
    inputs = (first["input_ids"], first["attention_mask"])
    others = (second["input_ids"], second["attention_mask"])
    with torch.no_grad():
        close(model.predict_pair(task, *inputs, *others), logits(model, task, some))
        close(model.predict_pair(task, *others, *inputs), logits(model, task, some))


def test_no_second_pass_where_both_orders_are_one(tiny: Path, monkeypatch) -> None:
    model = model_of(tiny, **COSINE, symmetric=True)
    calls: list[list[str]] = []
    encode = MultitaskBERT.forward

    def counted(self: MultitaskBERT, packed, embeddings=None):
        calls.append(list(packed.tasks))
        return encode(self, packed, embeddings)

    monkeypatch.setattr(MultitaskBERT, "forward", counted)
    with torch.no_grad():
        model.logits({task: batch(model, task, texts(task)) for task in ("sst", "para", "sts")})
        model.logits({"sts": batch(model, "sts", texts("sts"))})
    assert calls == [["sst", "para", "sts"], ["para"], ["sts"]]


def test_a_run_s_predictions_do_not_depend_on_the_order(options: Options) -> None:
    """Evaluation, the files that it writes, and predict.py; training itself is as without."""
    plain = train(options)["folder"]
    folder = train(replace(options, symmetric=True, name="both"))["folder"]
    assert same(weights(plain), weights(folder))
    found = Path(folder, "best", "sts-dev-output.csv").read_text()
    assert found != Path(plain, "best", "sts-dev-output.csv").read_text()

    # The dev file with its columns exchanged has the same predictions.
    lines = Path(options.data_dir, "sts-dev.csv").read_text().splitlines()
    head = lines[0].replace("sentence1", "x").replace("sentence2", "sentence1")
    Path("turned.csv").write_text("\n".join([head.replace("x", "sentence2"), *lines[1:]]) + "\n")
    for file in ("turned.csv", f"{options.data_dir}/sts-dev.csv"):
        predict_with(folder, {"files": {"sts_dev": file}})
    rows = [
        [float(line.split(" , ")[1]) for line in path.read_text().splitlines()[1:]]
        for path in sorted(Path("predictions").glob("*-sts-output.csv"))
    ]
    kept = [float(line.split(" , ")[1]) for line in found.splitlines()[1:]]
    assert len(rows) == 2
    for row in rows:
        assert row == pytest.approx(kept, abs=1e-6)


# ---- training


def small_split(tiny: Path, encoding: str, swap: bool = True):
    """13 pairs with their number as the label."""
    options = Options(pair_encoding=encoding, seed=3)
    task, some = TASKS["sts"], texts("sts")
    tokenizer = BertTokenizer.from_pretrained(tiny)
    encoded = tokenizer.encode_batch(texts_to_encode(task, some, options), 512)
    examples = [Example(str(i), text, float(i)) for i, text in enumerate(some)]
    split = make_split(task, examples, [Tokens(*x) for x in encoded], options)
    return replace(split, swap=swap)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_half_of_each_pass_is_swapped(tiny: Path, encoding: str) -> None:
    split, plain = (small_split(tiny, encoding, swap) for swap in (True, False))
    drawn, before = split.draw(13 * 40), plain.draw(13 * 40)
    assert [index % 13 for index in drawn] == before  # the same examples in the same order
    sides = Counter(index // 13 for index in drawn)
    assert set(sides) == {0, 1} and 200 < sides[1] < 320
    first, second = ([index // 13 for index in drawn[k : k + 13]] for k in (0, 13))
    assert first != second  # every pass has coins of its own
    for i in range(13):  # each in both orders, by and by
        assert {index // 13 for index in drawn if index % 13 == i} == {0, 1}

    # A batch of them: labels stay, sequences are those of the other order.
    found, expected = split.batch([2, 13 + 2, 13 + 5]), split.batch([2, 2, 5])
    assert torch.equal(found.labels, expected.labels) and found.labels.tolist() == [2, 2, 5]
    each = len(found.tokens) // 3
    other = swapped(expected.tokens[each : 2 * each]) + swapped(expected.tokens[2 * each :])
    assert all(map(same_tokens, found.tokens, [*expected.tokens[:each], *other]))
    assert split.length(13 + 2) == split.length(2)


def test_what_is_drawn_depends_on_the_place_alone(tiny: Path) -> None:
    """Oracle: a reader that begins in the middle."""
    whole, later = small_split(tiny, "cross"), small_split(tiny, "cross")
    drawn = whole.draw(50)
    later.drawn = 17
    assert later.draw(33) == drawn[17:]


def test_only_training_is_swapped(options: Options) -> None:
    options = replace(options, swap_pairs=True, train_scores=True)
    data, _ = multitask_classifier.load_data(options, multitask_classifier.build(options))
    swaps = {(name, task): s.swap for name, splits in data.items() for task, s in splits.items()}
    assert {place for place, swap in swaps.items() if swap} == {("train", "para"), ("train", "sts")}
    split = load_split(
        Path(options.data_dir, "sts-train.csv"),
        TASKS["sts"],
        "train",
        options,
        BertTokenizer.from_pretrained(options.model),
    )
    assert not split.swap


def test_a_resumed_run_swaps_the_same(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(options, epochs=2, accumulation=2, swap_pairs=True, symmetric=True)
    whole = train(options)["folder"]
    folder = interrupted(options, 4, monkeypatch)
    train(replace(Options(), resume=str(folder)))
    assert same(weights(whole), weights(folder))


@pytest.mark.parametrize("name", ["symmetric", "swap_pairs"])
def test_where_there_are_no_two_orders(name: str) -> None:
    features = {"pair_encoding": "bi", "pair_features": "absdiff,product"}
    for given in ({"tasks": ("sst",)}, features):
        with pytest.raises(UserError, match=f"^--{name}: expected --tasks with pairs whose order"):
            check_tasks(Options(**{name: True, **given}).check())
    check_tasks(Options(**{name: True, **features, "pair_features": "absdiff para=u,v"}).check())
