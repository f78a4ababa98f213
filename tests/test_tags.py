"""Tags of words and of their pieces, with a real spaCy pipeline that conftest.py assembles, and
what becomes of their cache.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from declare import rules_of
from errors import UserError
from options import Options
from tasks import TASKS
from text import features, tagger, tags
from text.features import encoded_texts
from text.sequences import encode_texts
from text.tagger import NER, POS, TAGS, Tagger, cached_words, load_tagger, tag_words
from text.tags import WordTags, feature
from text.token_ids import checksum, encode
from tokenizer import BertTokenizer

SENTENCES = [
    "Is New Haven a film ?",
    "",
    "   ",
    "Embroideries",
    "Do zyzzyva  [SEP] the film\tYesterday",
    "naïve 🎬 Ada's question.",
]
PAIRS = [("Is Ada a film ?", "The question"), ("", "New Haven"), ("do", "  "), ("a " * 9, "the")]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


@pytest.fixture
def made(pipeline: Path) -> Tagger:
    return load_tagger(str(pipeline))


@pytest.fixture
def calls(made: Tagger, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many sentences spaCy got each time."""
    counted: list[int] = []
    pipe = type(made.pipeline).pipe

    def count(self: object, texts: list[str], **settings: object) -> object:
        counted.append(len(texts))
        return pipe(self, texts, **settings)

    monkeypatch.setattr(type(made.pipeline), "pipe", count)
    yield counted


def names(kind: str, numbers: np.ndarray) -> list[str]:
    """Tags by name; "-" for none."""
    return ["-" if number == 0 else TAGS[kind][number - 1] for number in numbers]


def test_the_sets_are_spacy_s_too() -> None:
    """Oracle: spaCy's glossary, and its list of parts of speech."""
    spacy = pytest.importorskip("spacy")
    universal = set(spacy.parts_of_speech.IDS) - {"", "CONJ", "EOL", "SPACE"}
    assert set(POS) == universal and len(POS) == 17
    assert all(spacy.explain(name) for name in NER) and len(set(NER)) == 18


def test_the_choices_are_the_sets() -> None:
    (choices,) = (
        rules_of(f).choices
        for f in vars(Options)["__dataclass_fields__"].values()
        if f.name == "word_tags"
    )
    assert choices == tuple(TAGS)


def test_pieces_have_their_words_tags(made: Tagger, tokenizer: BertTokenizer) -> None:
    """Written out by hand."""
    texts = [("Embroideries of New Haven!", "Do Ada's zyzzyva")]
    found = WordTags(made, ["pos", "ner"])(texts, tokenizer, 64, None)
    table = [
        *(
            ("[CLS]", "-", "-"),
            ("em", "NOUN", "-"),
            ("##bro", "NOUN", "-"),
            ("##ider", "NOUN", "-"),
        ),
        *(("##ies", "NOUN", "-"), ("of", "-", "-"), ("new", "-", "GPE"), ("haven", "-", "GPE")),
        *(("!", "-", "-"), ("[SEP]", "-", "-"), ("do", "VERB", "-"), ("ada", "-", "PERSON")),
        *(
            ("'", "-", "-"),
            ("s", "-", "-"),
            ("z", "X", "-"),
            ("##y", "X", "-"),
            ("##zzy", "X", "-"),
        ),
        *(("##va", "X", "-"), ("[SEP]", "-", "-")),
    ]
    ids = tokenizer.encode_batch(texts, 64)[0][0]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    columns = zip(pieces, names("pos", found["pos"]), names("ner", found["ner"]), strict=True)
    assert list(columns) == table


@pytest.mark.parametrize("texts", [[(s,) for s in SENTENCES], PAIRS])
@pytest.mark.parametrize("length", [7, 64])
def test_pieces_by_their_first_character(
    made: Tagger, tokenizer: BertTokenizer, texts: list[tuple[str, ...]], length: int
) -> None:
    """Oracle: spaCy's own spans, character by character; ids and lengths are the tokenizer's."""
    found = WordTags(made, ["pos", "ner"])(texts, tokenizer, length, None)
    expected: dict[str, list[str]] = {"pos": [], "ner": []}
    for text, (ids, _) in zip(texts, tokenizer.encode_batch(texts, length), strict=True):
        encoding = tokenizer.backend_for(length).encode(*text)
        assert encoding.ids == ids.tolist()
        for token, (begin, end) in enumerate(encoding.offsets):
            sentence = encoding.token_to_sequence(token)
            word = None
            if sentence is not None and end > begin:
                doc = made.pipeline(text[sentence])
                word = next((t for t in doc if t.idx <= begin < t.idx + len(t)), None)
            labels = {"pos": word.pos_, "ner": word.ent_type_} if word is not None else {}
            known = {"SPACE": "X", "SONG": "-", "": "-"}
            for kind in expected:
                label = labels.get(kind, "")
                expected[kind].append(known.get(label, label))
    assert {kind: names(kind, found[kind]) for kind in found} == expected
    assert {x.dtype for x in found.values()} == {np.dtype("uint8")}


def test_features_ride_with_their_tokens(
    pipeline: Path, made: Tagger, tokenizer: BertTokenizer
) -> None:
    """Only what is asked for; nothing where it is off."""
    table = encode(PAIRS, tokenizer, 12)
    options = Options(word_tags=("ner",), word_tags_model=str(pipeline), max_length=12)
    tagged = encoded_texts(PAIRS, tokenizer, options, 12)
    flat = WordTags(made, ["ner"])(PAIRS, tokenizer, 12, None)["ner"]
    assert [x.ids.tolist() for x in tagged] == [x.ids.tolist() for x in table]
    assert np.concatenate([x.features["ner"] for x in tagged]).tolist() == flat.tolist()
    assert all(len(x.features["ner"]) == len(x) and set(x.features) == {"ner"} for x in tagged)
    assert not encoded_texts(PAIRS, tokenizer, Options(), 12).features
    assert set(features.FEATURES) == {"word_tags"} and feature(Options()) is None


def test_features_are_cut_with_their_tokens(pipeline: Path, tokenizer: BertTokenizer) -> None:
    """Segments of texts: each token has the tag that it has in the whole text."""
    texts = [(text,) for pair in PAIRS for text in pair]
    base = Options(word_tags=("pos",), word_tags_model=str(pipeline))
    whole, _ = encode_texts(TASKS["sst"], texts, base, tokenizer)
    cut, counts = encode_texts(TASKS["sst"], texts, replace(base, segment_length=5), tokenizer)
    assert counts is not None and counts.max() > 1
    begin = 0
    for tokens, count in zip(whole, counts.tolist(), strict=True):
        inner = [x.features["pos"][1:-1] for x in list(cut)[begin : begin + count]]
        assert np.concatenate(inner).tolist() == tokens.features["pos"][1:-1].tolist()
        begin += count


def test_chunks_change_nothing(
    made: Tagger, tokenizer: BertTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = WordTags(made, ["pos"])(PAIRS, tokenizer, 64, None)["pos"]
    monkeypatch.setattr(tags, "CHUNK", 3)
    monkeypatch.setattr(tagger, "AT_ONCE", 2)
    assert WordTags(made, ["pos"])(PAIRS, tokenizer, 64, None)["pos"].tolist() == whole.tolist()


# ---- the cache


def test_sentences_are_tagged_once(
    made: Tagger, tokenizer: BertTokenizer, calls: list[int], tmp_path: Path
) -> None:
    """Of a list each, and of a file of pairs once for both ways to encode them."""
    pairs = [("a film", "the film"), ("the film", "a film")]
    single = [(sentence,) for pair in pairs for sentence in pair]
    both = WordTags(made, ["pos", "ner"])
    first = both(pairs, tokenizer, 64, tmp_path / "new")
    assert both(pairs, tokenizer, 64, tmp_path / "new")["pos"].tolist() == first["pos"].tolist()
    both(single, tokenizer, 9, tmp_path / "new")
    assert calls == [2] and len(list((tmp_path / "new").iterdir())) == 1


def test_what_the_cache_depends_on(
    made: Tagger, tokenizer: BertTokenizer, calls: list[int], tmp_path: Path, pipeline: Path
) -> None:
    shutil.copytree(pipeline, tmp_path / "other")
    (tmp_path / "other" / "vocab" / "more").write_text("x")
    other = load_tagger(str(tmp_path / "other"))
    assert other.fingerprint != made.fingerprint
    calls.clear()  # of its own patterns
    for pipe, texts in ((made, ["a", "b"]), (made, ["b", "a"]), (made, ["a b"]), (other, ["a b"])):
        cached_words(texts, pipe, tmp_path / "cache")
    assert calls == [2, 2, 1, 1]


def forged(**change: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a cache of a word, and of none, holds, some of it changed, with a checksum that fits."""
    held = {
        "starts": torch.tensor([0], dtype=torch.int32),
        "ends": torch.tensor([1], dtype=torch.int32),
        "bounds": torch.tensor([1, 1]),
        "pos": torch.tensor([17], dtype=torch.uint8),
        "ner": torch.tensor([18], dtype=torch.uint8),
    }
    held |= change
    return {**held, "sha256": checksum(held)}


@pytest.mark.parametrize(
    "change",
    [
        {"pos": torch.tensor([18], dtype=torch.uint8)},
        {"ner": torch.tensor([19], dtype=torch.uint8)},
        {"ner": torch.tensor([1, 1], dtype=torch.uint8)},
        {"bounds": torch.tensor([1])},
        {"bounds": torch.tensor([1, 0])},
        {"bounds": torch.tensor([1, 2])},
        {"bounds": torch.tensor([-1, 1])},
        {"starts": torch.tensor([0])},
        {"starts": torch.tensor([[0]], dtype=torch.int32)},
        {"more": torch.tensor([0])},
    ],
)
def test_a_forged_cache_is_made_again(change: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(forged(), tmp_path / "good.safetensors")
    save_file(forged(**change), tmp_path / "bad.safetensors")
    assert tagger.read_cache(tmp_path / "good.safetensors", 2) is not None
    assert tagger.read_cache(tmp_path / "bad.safetensors", 2) is None


def test_a_damaged_cache_is_made_again(made: Tagger, calls: list[int], tmp_path: Path) -> None:
    whole = cached_words(SENTENCES, made, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    starts = content.index(load_file(path)["starts"].numpy().tobytes())
    flipped = content[:starts] + bytes([content[starts] ^ 1]) + content[starts + 1 :]
    for damaged in (b"", content[:100], flipped, b"no tensors"):
        path.write_bytes(damaged)
        assert cached_words(SENTENCES, made, tmp_path).starts.tolist() == whole.starts.tolist()
        assert path.read_bytes() == content
    assert len(calls) == 5


def test_a_cache_that_cannot_be_written_costs_a_line(
    made: Tagger, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = cached_words(["a film"], made, tmp_path / "file")
    assert words.tags["pos"].tolist() == [POS.index("DET") + 1, POS.index("NOUN") + 1]
    assert f"tags not cached: {tmp_path}/file/" in capsys.readouterr().out


# ---- what is said, and refused


def test_what_the_sets_lack_is_told(made: Tagger, capsys: pytest.CaptureFixture) -> None:
    tag_words(["Yesterday a zyzzyva"], made)
    assert capsys.readouterr().out == ""
    tag_words(["Yesterday a zyzzyva"], made, show=True)
    expected = "en_pipeline 0.0.0: SONG, SPACE: no such tag here, counted as X or none\n"
    assert capsys.readouterr().out == expected


def test_a_pipeline_that_tags_nothing_is_told(
    made: Tagger, tokenizer: BertTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    WordTags(made, ["pos", "ner"])([("a question",), ("x",)], tokenizer, 9, tmp_path)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "en_pipeline 0.0.0: gives none of 3 words a tag of ner"


def test_without_spacy_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagger.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs spaCy: pip install spacy, then python -m spacy do"):
        load_tagger("xx_no_such")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("en_no_such_thing", "not installed; python -m spacy download en_no_such_thing$"),
        ("antigravity", "no such folder, and no name of a pipeline, such as en_core_web_sm$"),
        ("no/such/folder", "no such folder, and no name of a pipeline"),
        ("{}", "spaCy can't load it"),
    ],
)
def test_a_pipeline_that_is_none(pipeline: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^--word_tags_model .*{message}"):
        load_tagger(name.format(tmp_path))


@pytest.mark.parametrize("file", ["meta.json", "config.cfg", "attribute_ruler/patterns"])
def test_a_damaged_pipeline(pipeline: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(pipeline, tmp_path / "copy")
    (tmp_path / "copy" / file).write_bytes(b"\xff{")
    with pytest.raises(UserError, match="spaCy can't load it"):
        load_tagger(str(tmp_path / "copy"))


def test_a_relative_name_is_of_where_one_stands(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for place in ("here", "there"):
        shutil.copytree(pipeline, tmp_path / place / "pipe")
        meta = json.loads((pipeline / "meta.json").read_text())
        (tmp_path / place / "pipe" / "meta.json").write_text(json.dumps({**meta, "name": place}))
        monkeypatch.chdir(tmp_path / place)
        found.append(load_tagger("pipe").name)
    assert found == ["en_here 0.0.0", "en_there 0.0.0"]
