"""Finding the files, token ids and their cache, batches. Reading rows is in test_examples.py."""

import math
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import BUILT_IN, Split, find_files, load_split, tokenize
from errors import UserError
from examples import Example
from options import Options
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
        load_split(tmp_path / "ids-sst-train.csv", "sst", "train", Options(), tokenizer)


@pytest.mark.parametrize("task", TASKS)
def test_the_built_in_files_are_read(task, tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)  # for the cache
    for split, suffix in SPLITS.items():
        loaded = load_split(
            BUILT_IN / TASKS[task].files.format(suffix), task, split, Options(), tokenizer
        )
        labels = loaded.batch(list(range(len(loaded)))).labels
        assert len(loaded) > 50 and labels.isnan().all() == labels.isnan().any() == (
            split == "test"
        )
        assert len(loaded.sequences) == len(loaded)


def test_load_split(tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sts-dev.csv"
    path.write_text(
        "id\tsentence1\tsentence2\tsimilarity\nA\tOne two\tThree\t4.6\nB\tfour\tfive six\t0\n",
        encoding="utf-8",
    )
    cross = load_split(path, "sts", "dev", Options(seed=3), tokenizer)
    bi = load_split(path, "sts", "dev", Options(pair_encoding="bi"), tokenizer)
    assert (cross.task, cross.seed, cross.per_example, bi.per_example) == ("sts", 3, 1, 2)
    same(cross.sequences, tokenizer.encode_batch([("One two", "Three"), ("four", "five six")], 256))
    same(
        bi.sequences,
        tokenizer.encode_batch([("One two",), ("Three",), ("four",), ("five six",)], 256),
    )
    for split in (cross, bi):
        batch = split.batch([1, 0, 1])
        np.testing.assert_allclose(batch.labels, [0.0, 4.6, 0.0], rtol=1e-6)
        k = split.per_example
        assert [s for i in (1, 0, 1) for s in split.sequences[k * i : k * i + k]] == batch.sequences
    assert (
        len(load_split(path, "sts", "test", Options(max_length=4), tokenizer).sequences[0][0]) == 4
    )


# ---- the cache of token ids


def same(left: list, right: list) -> None:
    assert len(left) == len(right)
    for (ids, types), (ids2, types2) in zip(left, right, strict=True):
        assert ids.tolist() == ids2.tolist() and types.tolist() == types2.tolist()


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
    ids, types = (np.concatenate(x) for x in zip(*first, strict=True))
    np.savez(
        path.open("wb"), ids=ids, types=types, ends=np.cumsum([len(x) for x, _ in first])[:-1]
    )  # whole, one too few
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
    """`size` examples; the label and the token ids of example i are i, its length is odd in i."""
    texts = ("x",) * per_example
    examples = [Example(f"id{i}", texts, float(i)) for i in range(size)]
    lengths = [3 + (7 * i) % 13 for i in range(size * per_example)]
    sequences = [
        (np.full(n, i // per_example), np.zeros(n, dtype=np.int64)) for i, n in enumerate(lengths)
    ]
    return Split(task, examples, sequences, per_example, **more)


def drawn(split: Split, *counts: int) -> list[int]:
    labels = []
    for count in counts:
        batch = split.take(count)
        assert len(batch.labels) == count and len(batch.sequences) == count * split.per_example
        owners = [int(ids[0]) for ids, _ in batch.sequences]
        assert owners == [int(x) for x in batch.labels.tolist() for _ in range(split.per_example)]
        labels += [int(x) for x in batch.labels]
    return labels


@pytest.mark.parametrize("per_example", [1, 2])
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
    (split := split_of(26)).take(33)
    assert split.drawn == 33


def test_the_order_hangs_on_seed_and_task():
    one = drawn(split_of(26), 26)
    assert drawn(split_of(26), 26) == one
    assert drawn(split_of(26, seed=1), 26) != one != drawn(split_of(26, task="sts"), 26)


@pytest.mark.parametrize("per_example", [1, 2])
@pytest.mark.parametrize("tokens", [1, 20, 64, 10_000])
def test_by_length(per_example, tokens):
    split = split_of(137, per_example=per_example)
    lists = split.by_length(tokens)
    sizes = [
        [sum(len(ids) for ids, _ in split.batch([i]).sequences) for i in some] for some in lists
    ]
    assert sorted(i for some in lists for i in some) == list(range(137))
    assert all(len(some) == 1 or sum(some) <= tokens for some in sizes)
    flat = [n for some in sizes for n in some]
    assert flat == sorted(flat, reverse=True)
    assert len(lists) == {1: 137, 10_000: 1}.get(tokens, len(lists))
    for some, following in zip(sizes, sizes[1:], strict=False):  # none is closed too early
        assert sum(some) + following[0] > tokens


def test_without_labels():
    split = Split(
        "sst", [Example("a", ("x",), None), Example("b", ("y",), 2.0)], split_of(2).sequences, 1
    )
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
