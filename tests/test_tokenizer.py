"""tokenizer.py against transformers' BertTokenizer, which imports well beside our datasets.py."""

import csv
import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import normalizers

import tokenizer
from errors import UserError
from tokenizer import BertTokenizer

transformers = pytest.importorskip("transformers")

ODD = [
    "",
    " ",
    "?!...,;",
    "Hello, World! don't U.S.A. 3.14",
    "Crème brûlée à la façon d'Ångström; naïve coöperation",
    "e\u0301 combining, I\u0307stanbul, \ufb01ligature, \u2460 \uff21\uff22",
    "我爱北京天安门 mixed 中文and日本語カタカナ한국어",
    "emoji 😀👩‍👩‍👧‍👦 🇩🇪 and \u2603\ufe0f",
    "control \x00 \x01\x7f \u200b zero \ufeff bom \xa0 nbsp \xad soft",
    "tab\tnew\nline\r\nreturn\vvertical",
    "surrogates escaped: \\ud83d\\ude00 &amp; <br />",
    "the [MASK] sat on the [mask] [CLS] mat [SEP] . [PAD] [UNK] [unused1]",
    "a" * 101 + " " + "b" * 100,
    "pneumonoultramicroscopicsilicovolcanoconiosis ##ing @user #tag http://x.y/z?q=1",
    "word " * 700,
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 math \U0001f9ff \ufffd replacement",
    "DON'T STOP—“quotes” ‘single’ … ellipsis",
]
PAIRS = [(a, b) for a in ODD for b in ODD[::3]]


@pytest.fixture(scope="module")
def ours(embedded: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(embedded)


@pytest.fixture(scope="module")
def theirs(embedded: Path) -> "transformers.PreTrainedTokenizerBase":
    return transformers.BertTokenizerFast.from_pretrained(embedded)


def as_lists(encoding) -> dict:
    return {key: encoding[key] for key in ("input_ids", "token_type_ids", "attention_mask")}


@pytest.mark.parametrize("text", ODD)
def test_one_text_as_transformers(ours, theirs, text):
    assert as_lists(ours(text)) == as_lists(theirs(text))
    assert as_lists(ours(text, truncation=True)) == as_lists(
        theirs(text, truncation=True, max_length=512)
    )
    assert ours.tokenize(text) == theirs.tokenize(text)


@pytest.mark.parametrize("name", ["BertTokenizer", "BertTokenizerFast"])
def test_vocabulary_file_alone_as_transformers(embedded, tmp_path, name):
    shutil.copyfile(embedded / "vocab.txt", tmp_path / "vocab.txt")
    ours, theirs = (
        BertTokenizer.from_pretrained(tmp_path),
        getattr(transformers, name).from_pretrained(tmp_path),
    )
    for text in ODD:
        assert as_lists(ours(text)) == as_lists(theirs(text))
    assert ours(*PAIRS[7])["token_type_ids"] == theirs(*PAIRS[7])["token_type_ids"]


@pytest.mark.parametrize("length", [3, 4, 7, 13, 64, 512])
def test_pairs_are_cut_longest_first_as_transformers(ours, theirs, length):
    firsts, seconds = (list(x) for x in zip(*PAIRS, strict=True))
    settings = {"padding": True, "truncation": True, "max_length": length}
    got, expected = ours(firsts, seconds, **settings), theirs(firsts, seconds, **settings)
    assert as_lists(got) == as_lists(expected)
    assert max(map(len, got["input_ids"])) == length


@pytest.mark.parametrize("padding", [False, True, "longest", "max_length"])
@pytest.mark.parametrize("truncation", [False, True])
def test_padding_as_transformers(ours, theirs, padding, truncation):
    texts = [t for t in ODD if len(t) < 300]
    got = ours(texts, padding=padding, truncation=truncation, max_length=13)
    assert as_lists(got) == as_lists(
        theirs(texts, padding=padding, truncation=truncation, max_length=13)
    )


def test_random_unicode_as_transformers(ours, theirs):
    draw = random.Random(0)
    planes = [(0, 0x300), (0x300, 0x2000), (0x2000, 0xD7FF), (0xE000, 0x10FFFF)]
    texts = [
        "".join(chr(draw.randint(*draw.choice(planes))) for _ in range(13)) for _ in range(500)
    ]
    assert as_lists(ours(texts)) == as_lists(theirs(texts))


def test_ids_and_pieces_both_ways(ours, theirs):
    text = "The unaffable [MASK] café, isn't it?"
    ids = ours(text)["input_ids"]
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_ids_to_tokens(torch.tensor(ids)) == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_tokens_to_ids(ours.convert_ids_to_tokens(ids)) == ids
    assert (
        ours.convert_ids_to_tokens(7592) == "hello" and ours.convert_tokens_to_ids("hello") == 7592
    )
    assert ours.convert_tokens_to_ids("no such piece") == theirs.unk_token_id == ours.unk_token_id
    assert ours.decode(ids, skip_special_tokens=True) == "the unaffable café, isn ' t it?".replace(
        "é", "e"
    )
    assert ours.decode(ids[:2]) == "[CLS] the"
    for name in (
        "pad_token_id",
        "cls_token_id",
        "sep_token_id",
        "mask_token_id",
        "unk_token_id",
        "vocab_size",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours) == len(theirs) == 30522


def test_encode_batch_is_the_call_without_padding(ours):
    texts = [(t,) for t in ODD] + PAIRS
    for max_length in (512, 5, 64):
        for text, (ids, types) in zip(texts, ours.encode_batch(texts, max_length), strict=True):
            one = ours(*text, truncation=True, max_length=max_length)
            assert ids.dtype == types.dtype == np.int32
            assert ids.tolist() == one["input_ids"] and types.tolist() == one["token_type_ids"]
    assert ours.encode_batch([], 512) == []


@pytest.mark.parametrize("text", ODD)
def test_encode_as_transformers(ours, theirs, text):
    for special in (True, False):
        settings = {"add_special_tokens": special}
        assert ours.encode(text, **settings) == theirs.encode(text, **settings)
        assert ours.encode(text, "b c", **settings) == theirs.encode(text, "b c", **settings)
    pair = text or "x"  # theirs takes an empty second text for none; but in a list for a text
    assert ours.encode("b c", text_pair=pair) == theirs.encode("b c", text_pair=pair)


def test_the_encoding_is_a_mapping_with_attributes_as_transformers(ours, theirs):
    settings = {"padding": True, "return_tensors": "pt"}
    got, expected = ours(["a film", "b"], **settings), theirs(["a film", "b"], **settings)
    assert isinstance(got, dict) and list(got.keys()) == list(expected.keys())
    for name, value in expected.items():
        assert torch.equal(getattr(got, name), value) and torch.equal(got[name], value)
    assert [name for name, _ in got.items()] == list(expected)
    assert got.to("meta") is got and got.input_ids.device.type == "meta"
    lists = ours("a film")
    assert lists.to("meta") is lists and lists.input_ids == theirs("a film").input_ids
    without = ours("a film", return_token_type_ids=False)
    for missing in ("token_type_ids", "nonsense"):
        with pytest.raises(AttributeError, match=missing):
            getattr(without, missing)
    again = pickle.loads(pickle.dumps(lists))
    assert type(again) is type(lists) and again == lists


def test_special_tokens_and_vocabulary_as_transformers(ours, theirs):
    for name in ("cls_token", "sep_token", "pad_token", "mask_token", "unk_token"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert sorted(ours.all_special_tokens) == sorted(theirs.all_special_tokens)
    assert ours.convert_tokens_to_ids(ours.all_special_tokens) == ours.all_special_ids
    assert ours.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("skip", [False, True])
def test_back_to_text_as_transformers(ours, theirs, skip):
    for text in ODD:
        pieces = theirs.tokenize(text)
        assert ours.convert_tokens_to_string(pieces) == theirs.convert_tokens_to_string(pieces)
    rows = [theirs.encode(text) for text in ODD]
    expected = theirs.batch_decode(rows, skip_special_tokens=skip)
    assert ours.batch_decode(rows, skip_special_tokens=skip) == expected
    tensor = theirs(ODD, padding=True, truncation=True, max_length=9, return_tensors="pt").input_ids
    expected = theirs.batch_decode(tensor, skip_special_tokens=skip)
    assert ours.batch_decode(tensor, skip_special_tokens=skip) == expected


def test_no_call_changes_the_next(ours):
    text, pair = ODD[-3], PAIRS[11]
    before = ours(text), ours.encode_batch([pair], 512)[0][0].tolist(), ours.fingerprint
    ours([text, "short"], padding="max_length", truncation=True, max_length=9, return_tensors="pt")
    ours.encode_batch([pair], 5)
    ours(text, truncation=True, max_length=3)
    assert (ours(text), ours.encode_batch([pair], 512)[0][0].tolist(), ours.fingerprint) == before
    assert ours.backend.truncation is None and ours.backend.padding is None


def test_tensors_as_the_course_uses_them(ours):
    encoding = ours(
        ["hello world", "hello neural network for NLP"],
        return_tensors="pt",
        padding=True,
        truncation=True,
    )
    expected = [
        [101, 7592, 2088, 102, 0, 0, 0, 0],
        [101, 7592, 15756, 2897, 2005, 17953, 2361, 102],
    ]
    assert torch.LongTensor(encoding["input_ids"]).tolist() == expected
    assert torch.LongTensor(encoding["attention_mask"]).sum(1).tolist() == [4, 8]
    assert encoding["token_type_ids"].dtype == torch.int64 and not encoding["token_type_ids"].any()
    assert ours("hello", return_tensors="pt")["input_ids"].shape == (1, 3)
    assert set(ours("hello", return_token_type_ids=False, return_attention_mask=False)) == {
        "input_ids"
    }


def test_configuration_wins_over_tokenizer_json(embedded, tmp_path):
    for file in ("tokenizer.json", "vocab.txt"):
        shutil.copyfile(embedded / file, tmp_path / file)
    config = {
        "do_lower_case": False,
        "tokenize_chinese_chars": False,
        "strip_accents": None,
        "model_max_length": 13,
    }
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "tokenizer_class": "BertTokenizer"})
    )
    ours, theirs = (
        BertTokenizer.from_pretrained(tmp_path),
        transformers.BertTokenizerFast.from_pretrained(tmp_path),
    )
    for text in ODD:
        assert as_lists(ours(text, truncation=True)) == as_lists(theirs(text, truncation=True))
    assert ours.fingerprint != BertTokenizer.from_pretrained(embedded).fingerprint


def test_saved_is_the_same(ours, tmp_path):
    ours.save_pretrained(tmp_path / "new")
    for file in ("tokenizer.json", "vocab.txt"):  # whole, then the vocabulary alone
        again = BertTokenizer.from_pretrained(tmp_path / "new")
        assert [again(text) for text in ODD] == [ours(text) for text in ODD]
        (tmp_path / "new" / file).unlink()


@pytest.mark.parametrize(
    ("given", "limit"), [("absent", 512), (None, 512), (1e30, 512), (int(1e30), 512), (13, 13)]
)
def test_the_length_limit(embedded, tmp_path, given, limit):
    shutil.copyfile(embedded / "vocab.txt", tmp_path / "vocab.txt")
    config = {} if given == "absent" else {"model_max_length": given}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = BertTokenizer.from_pretrained(tmp_path)
    assert ours.model_max_length == limit == len(ours("word " * 700, truncation=True)["input_ids"])


@pytest.mark.parametrize(
    "rules",
    [
        normalizers.BertNormalizer(
            lowercase=False, strip_accents=False, handle_chinese_chars=False
        ),
        normalizers.BertNormalizer(lowercase=False, strip_accents=True),
        normalizers.BertNormalizer(lowercase=True, strip_accents=False),
        normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=False),
        normalizers.Sequence([normalizers.NFC(), normalizers.Replace("word", "Words")]),
    ],
)
@pytest.mark.parametrize("limit", [512, 13])
def test_transformers_loads_what_is_saved(embedded, tmp_path, rules, limit):
    """A model's folder: the same ids and the same limit, for transformers and for us."""
    backend = BertTokenizer.from_pretrained(embedded).backend
    backend.normalizer = rules
    ours = BertTokenizer(backend, limit)
    ours.save_pretrained(tmp_path)
    again, theirs = (
        BertTokenizer.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    )
    assert again.model_max_length == theirs.model_max_length == limit
    assert again.fingerprint == ours.fingerprint
    for text in ODD:
        expected = as_lists(ours(text, truncation=True))
        assert (
            as_lists(again(text, truncation=True))
            == expected
            == as_lists(theirs(text, truncation=True))
        )
    assert as_lists(theirs(["a", "a b"], padding=True)) == as_lists(
        again(["a", "a b"], padding=True)
    )


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    folder = tmp_path / (
        "x" * 300
    )  # root may look into every folder, but not into one whose name is too long
    monkeypatch.setattr(tokenizer, "find_pretrained", lambda *_, **__: folder)
    with pytest.raises(UserError, match="no tokenizer.json and no vocab.txt"):
        BertTokenizer.from_pretrained(folder)


def test_refusals(ours, tmp_path):
    with pytest.raises(UserError, match="no tokenizer.json and no vocab.txt"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nhello\n")
    with pytest.raises(UserError, match=r"vocab.txt.*lacks \[CLS\], \[SEP\], \[MASK\]"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer.json: not usable") as caught:
        BertTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        BertTokenizer.from_pretrained("no such model")
    with pytest.raises(ValueError, match="different lengths"):
        ours(["one", "one two"], return_tensors="pt")
    with pytest.raises(ValueError, match="padding='no'"):
        ours("one", padding="no")
    with pytest.raises(ValueError, match="return_tensors='tf'"):
        ours("one", return_tensors="tf")
    with pytest.raises(ValueError, match="max_length is 2"):
        ours.encode_batch([("one", "two")], 2)
    with pytest.raises(ValueError):
        ours(["one", "two"], ["three"])


@pytest.mark.real_data
def test_every_sentence_of_the_real_files_as_transformers(ours, theirs, request):
    folder = request.config.getoption("--data_dir")
    if folder is None:
        pytest.skip("give --data_dir=FOLDER")
    files, rows = sorted(Path(folder).glob("*.csv")), 0
    assert files
    for path in files:
        with open(path, encoding="utf-8-sig", newline="") as file:
            texts = [
                tuple(v or "" for k, v in row.items() if k and k.startswith("sentence"))
                for row in csv.DictReader(file, delimiter="\t")
            ]
        assert all(len(text) in (1, 2) for text in texts), path
        rows += len(texts)
        for at in range(0, len(texts), 10_000):
            some = texts[at : at + 10_000]
            expected = theirs(
                [t if len(t) > 1 else t[0] for t in some], truncation=True, max_length=512
            )
            for (ids, types), i, t in zip(
                ours.encode_batch(some, 512),
                expected["input_ids"],
                expected["token_type_ids"],
                strict=True,
            ):
                assert ids.tolist() == i and types.tolist() == t, path
    print(f"{rows} rows of {len(files)} files")
