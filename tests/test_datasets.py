"""Finding the files, token ids and their cache, batches. Reading rows is in test_examples.py."""

import math
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import BUILT_IN, Split, find_files, load_split, make_split, tokenize
from errors import UserError
from examples import Example
from options import Options
from packing import Tokens
from tasks import TASKS
from tokenizer import BertTokenizer

SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}
TEXTS = [("A fine film .",), ("Dull",), ("naïve 🎬 [SEP] ??",), ("a " * 40,)]
PAIRS = [("Is it far ?", "How far is it ?"), ("x", "a " * 40)]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


# ---- files


def touch(
    folder: Path, *tasks: str, splits: tuple[str, ...] = tuple(SPLITS)
) -> dict[tuple[str, str], Path]:
    paths = {(t, s): folder / TASKS[t].files.format(SPLITS[s]) for t in tasks for s in splits}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return paths


def test_none_there_means_the_built_in_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths, built_in = find_files(Options())
    assert (
        built_in
        and len(paths) == 9
        and all(path.parent == BUILT_IN and path.exists() for path in paths.values())
    )
    assert list(paths)[:3] == [("sst", "train"), ("sst", "dev"), ("sst", "test")]
    assert paths["sts", "test"].name == "sts-test-student.csv"
    assert find_files(Options(data_dir="./data/"))[1]


def test_any_real_file_there_means_no_built_in_corpus(tmp_path, monkeypatch):
    """Of a task that is not asked for too: it would be false that no real data is there."""
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "cfimdb", splits=("dev",))
    with pytest.raises(
        UserError,
        match=r"missing 9 of 9 data files: .* \(ids-cfimdb-dev\.csv is there, so .*\); fetch",
    ):
        find_files(Options())


def test_all_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = touch(tmp_path / "data", "sst", "para", "sts")
    for options in (Options(data_dir=str(tmp_path / "data")), Options()):
        paths, built_in = find_files(options)
        assert not built_in and {k: path.resolve() for k, path in paths.items()} == expected
    assert set(find_files(Options(tasks=("sts",)))[0]) == {("sts", split) for split in SPLITS}


def test_some_missing_is_an_error_that_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "sst", "para")
    touch(tmp_path / "data", "sts", splits=("train",))
    with pytest.raises(UserError) as caught:
        find_files(Options())
    assert str(caught.value) == (
        "missing 2 of 9 data files: data/sts-dev.csv, data/sts-test-student.csv; "
        "fetch them: python data/download.py"
    )


def test_an_own_folder_is_never_replaced_by_the_built_in_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match="missing 9 of 9 data files: elsewhere/ids-sst-train.csv, .*sts-test-student.csv; ",
    ):
        find_files(Options(data_dir="elsewhere"))


def test_single_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.csv"
    with pytest.raises(UserError, match=r"missing 9 of 9 data files: .*mine\.csv"):
        find_files(Options(files={"sst_dev": str(own)}))
    own.touch()
    with pytest.raises(
        UserError, match="missing 8 of 9 data files"
    ) as caught:  # not quietly the built-in ones beside it
        find_files(Options(files={"sst_dev": str(own)}))
    assert "mine.csv" not in str(caught.value)
    touch(tmp_path / "data", "sst", "para", "sts")
    assert find_files(Options(files={"sst_dev": str(own)}))[0]["sst", "dev"] == own
    (tmp_path / "data" / "ids-sst-dev.csv").unlink()
    assert find_files(Options(files={"sst_dev": str(own)}))[1] is False
    only = {f"sst_{split}": str(own) for split in SPLITS}
    assert set(find_files(Options(tasks=("sst",), files=only))[0].values()) == {own}


def test_a_file_of_no_task():
    with pytest.raises(UserError, match="^files: sts_trian is unknown; expected one of sst, para"):
        find_files(Options(files={"sts_trian": "mine.csv"}))


def test_a_folder_for_a_file(tmp_path, tokenizer):
    (tmp_path / "ids-sst-train.csv").mkdir()
    with pytest.raises(UserError, match="ids-sst-train.csv: Is a directory"):
        load_split(tmp_path / "ids-sst-train.csv", TASKS["sst"], "train", Options(), tokenizer)


@pytest.mark.parametrize("task", TASKS)
def test_the_built_in_files_are_read(task, tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)  # for the cache
    for split, suffix in SPLITS.items():
        path = BUILT_IN / TASKS[task].files.format(suffix)
        loaded = load_split(path, TASKS[task], split, Options(), tokenizer)
        labels = loaded.batch(list(range(len(loaded)))).labels
        assert len(loaded) > 50 and labels.isnan().all() == labels.isnan().any() == (
            split == "test"
        )
        assert len(loaded.tokens) == len(loaded)


def test_load_split(tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sts-dev.csv"
    path.write_text(
        "id\tsentence1\tsentence2\tsimilarity\nA\tOne two\tThree\t4.6\nB\tfour\tfive six\t0\n",
        encoding="utf-8",
    )
    sts = TASKS["sts"]
    cross = load_split(path, sts, "dev", Options(seed=3), tokenizer)
    bi = load_split(path, sts, "dev", Options(pair_encoding="bi"), tokenizer)
    assert (cross.task, cross.seed, cross.bounds, bi.bounds) == (sts, 3, [0, 1, 2], [0, 2, 4])
    same(cross.tokens, tokenizer.encode_batch([("One two", "Three"), ("four", "five six")], 256))
    same(
        bi.tokens,
        tokenizer.encode_batch([("One two",), ("Three",), ("four",), ("five six",)], 256),
    )
    for split in (cross, bi):
        batch = split.batch([1, 0, 1])
        np.testing.assert_allclose(batch.labels, [0.0, 4.6, 0.0], rtol=1e-6)
        assert batch.task == "sts"
        assert [s for i in (1, 0, 1) for s in split.sequences(i)] == batch.tokens
        each = len(split.tokens) // 2
        assert batch.owners.tolist() == [place for place in range(3) for _ in range(each)]
    short = load_split(path, sts, "test", Options(max_length=4), tokenizer)
    assert len(short.tokens[0]) == 4


# ---- the cache of token ids


def same(left: list, right: list) -> None:
    assert [plain(one) for one in left] == [plain(one) for one in right]


def plain(sequence: Tokens | tuple[np.ndarray, np.ndarray]) -> tuple[list[int], list[int]]:
    """The ids and types of what tokenize() or the tokenizer gives."""
    ids, types = (sequence.ids, sequence.types) if isinstance(sequence, Tokens) else sequence
    return ids.tolist(), types.tolist()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of the tokenizer got."""
    calls: list[int] = []
    encode = BertTokenizer.encode_batch

    def counted(self, texts, max_length):
        calls.append(len(texts))
        return encode(self, texts, max_length)

    monkeypatch.setattr(BertTokenizer, "encode_batch", counted)
    return calls


@pytest.mark.parametrize("texts", [TEXTS, PAIRS, TEXTS[:1]])
def test_the_second_time_nothing_is_tokenised(tmp_path, tokenizer, calls, texts):
    first = tokenize(texts, tokenizer, 13, tmp_path / "new" / "cache")
    second = tokenize(texts, tokenizer, 13, tmp_path / "new" / "cache")
    assert calls == [len(texts)] and len(list((tmp_path / "new" / "cache").iterdir())) == 1
    same(first, second)
    same(first, tokenizer.encode_batch(texts, 13))


def test_what_the_cache_depends_on(tmp_path, tokenizer, calls, embedded):
    cased = BertTokenizer.from_pretrained(embedded)
    cased.backend.normalizer = None
    for texts, tok, length in [
        (TEXTS, tokenizer, 13),
        (TEXTS, tokenizer, 12),
        (TEXTS, cased, 13),
        (TEXTS[1:], tokenizer, 13),
        (TEXTS[::-1], tokenizer, 13),
        ([("a", "b")], tokenizer, 13),
        ([("a",), ("b",)], tokenizer, 13),
        ([("a b",)], tokenizer, 13),
        ([("a\1b",)], tokenizer, 13),
        ([("a\0b",)], tokenizer, 13),
    ]:
        same(tokenize(texts, tok, length, tmp_path), tok.encode_batch(texts, length))
    assert len(list(tmp_path.iterdir())) == 10


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, -1])
def test_a_torn_cache_file_is_made_again(tmp_path, tokenizer, calls, keep):
    first = tokenize(TEXTS, tokenizer, 13, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)] if isinstance(keep, float) else whole[:keep])
    same(tokenize(TEXTS, tokenizer, 13, tmp_path), first)
    assert len(calls) == 2 and path.stat().st_size == len(whole)


def test_a_damaged_cache_file_is_made_again(tmp_path, tokenizer, calls):
    first = tokenize(TEXTS, tokenizer, 13, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = bytearray(path.read_bytes())
    for content in (
        b"not an archive",
        bytes(len(whole)),
        bytes(b ^ (200 < i < 300) for i, b in enumerate(whole)),
    ):
        path.write_bytes(content)
        same(tokenize(TEXTS, tokenizer, 13, tmp_path), first)
    np.savez(path.open("wb"), other=np.zeros(3))
    same(tokenize(TEXTS, tokenizer, 13, tmp_path), first)
    ids = np.concatenate([tokens.ids for tokens in first])
    types = np.concatenate([tokens.types for tokens in first])
    ends = np.cumsum([len(tokens) for tokens in first])[:-1]  # whole, one too few
    np.savez(path.open("wb"), ids=ids, types=types, ends=ends)
    same(tokenize(TEXTS, tokenizer, 13, tmp_path), first)
    assert len(calls) == 6


@pytest.mark.parametrize("largest", [2**16 - 1, 2**16])
def test_the_ids_of_a_large_vocabulary_survive_the_cache(tmp_path, tokenizer, monkeypatch, largest):
    ids = np.array([101, largest, 102], dtype=np.int32)
    monkeypatch.setattr(
        BertTokenizer, "encode_batch", lambda *_: [(ids, np.zeros(3, dtype=np.int32))]
    )
    for _ in range(2):
        same(tokenize([("x",)], tokenizer, 13, tmp_path), tokenizer.encode_batch([("x",)], 13))
    (path,) = tmp_path.iterdir()
    assert np.load(path)["ids"].itemsize == (2 if largest < 2**16 else 4)


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, tokenizer, calls, capsys):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        same(tokenize(TEXTS, tokenizer, 13, folder), tokenizer.encode_batch(TEXTS, 13))
        out = capsys.readouterr().out
        assert out.startswith(f"{folder}: token ids not cached (") and out.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


# ---- batches


def split_of(size: int, task: str = "sst", per_example: int = 1, **more) -> Split:
    """`size` examples; the label and the token ids of example i are i, its length is odd in i. Of
    `per_example` sequences each; 0 stands for a varying number of 1 to 3.
    """
    each = [per_example or 1 + i % 3 for i in range(size)]
    bounds = [sum(each[:i]) for i in range(size + 1)]
    examples = [Example(f"id{i}", ("x",), float(i)) for i in range(size)]
    tokens = []
    for i, count in enumerate(each):
        for _ in range(count):
            length = 3 + (7 * len(tokens)) % 13
            tokens.append(Tokens(np.full(length, i), np.zeros(length, dtype=np.int64)))
    return Split(TASKS[task], examples, tokens, bounds, **more)


def drawn(split: Split, *counts: int) -> list[int]:
    labels = []
    for count in counts:
        indices = split.draw(count)
        batch = split.batch(indices)
        assert len(indices) == count and batch.labels.tolist() == indices
        assert [int(own.ids[0]) for own in batch.tokens] == [
            indices[place] for place in batch.owners.tolist()
        ]
        sizes = [len(split.sequences(i)) for i in indices]
        assert batch.owners.bincount(minlength=count).tolist() == sizes
        assert batch.owners.tolist() == sorted(batch.owners.tolist())
        labels += indices
    return labels


@pytest.mark.parametrize("per_example", [1, 2, 0])
@pytest.mark.parametrize("counts", [(13,) * 40, (1,) * 520, (500, 20), (7, 100, 3, 410)])
def test_every_pass_is_another_permutation(per_example, counts):
    labels = drawn(split_of(26, per_example=per_example), *counts)
    passes = [labels[i : i + 26] for i in range(0, 520, 26)]
    assert (
        all(sorted(one) == list(range(26)) for one in passes)
        and len({tuple(one) for one in passes}) == 20
    )
    assert labels == drawn(split_of(26), 520)  # however it is cut


def test_reading_goes_on_at_drawn():
    labels = drawn(split_of(26), 200)
    for at in (0, 1, 25, 26, 27, 130):
        assert drawn(split_of(26, drawn=at), 70) == labels[at : at + 70]
    (split := split_of(26)).draw(33)
    assert split.drawn == 33


def test_the_order_hangs_on_seed_and_task():
    one = drawn(split_of(26), 26)
    assert drawn(split_of(26), 26) == one
    assert drawn(split_of(26, seed=1), 26) != one != drawn(split_of(26, task="sts"), 26)


@pytest.mark.parametrize("per_example", [1, 2, 0])
@pytest.mark.parametrize("tokens", [1, 20, 64, 10_000])
def test_by_length(per_example, tokens):
    split = split_of(137, per_example=per_example)
    lists = split.by_length(tokens)
    sizes = [[sum(map(len, split.batch([i]).tokens)) for i in some] for some in lists]
    assert sizes == [[split.length(i) for i in some] for some in lists]
    assert sorted(i for some in lists for i in some) == list(range(137))
    assert all(len(some) == 1 or sum(some) <= tokens for some in sizes)
    flat = [n for some in sizes for n in some]
    assert flat == sorted(flat, reverse=True)
    assert len(lists) == {1: 137, 10_000: 1}.get(tokens, len(lists))
    for some, following in zip(sizes, sizes[1:], strict=False):  # none is closed too early
        assert sum(some) + following[0] > tokens


def test_without_labels():
    examples = [Example("a", ("x",), None), Example("b", ("y",), 2.0)]
    split = make_split(TASKS["sst"], examples, split_of(2).tokens, Options())
    labels = split.batch([0, 1]).labels.tolist()
    assert math.isnan(labels[0]) and labels[1] == 2.0


def test_the_courses_names_are_here():
    classes = {
        f"Sentence{kind}{test}Dataset"
        for kind in ("Classification", "Pair")
        for test in ("", "Test")
    }
    for name in classes | {"load_multitask_data", "load_multitask_test_data", "preprocess_string"}:
        assert callable(getattr(datasets, name))
