"""Files read and tokenised, what train shares with dev and test, batches."""

import hashlib
import itertools
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datasets
from datasets import Split, load_split, load_task, make_split
from errors import UserError
from examples import Example
from options import Options
from packing import Tokens
from tasks import TASKS, Task
from tests.test_token_ids import same
from text.data_files import BUILT_IN, SPLITS
from tokenizer import BertTokenizer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


# ---- reading files


def test_a_folder_for_a_file(tmp_path, tokenizer):
    (tmp_path / "ids-sst-train.csv").mkdir()
    with pytest.raises(UserError, match="ids-sst-train.csv: a folder, expected a file"):
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
    assert (cross.task, cross.seed, *cross.bounds, *bi.bounds) == (sts, 3, 0, 1, 2, 0, 2, 4)
    assert cross.sha256 == bi.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    same(cross.tokens, tokenizer.encode_batch([("One two", "Three"), ("four", "five six")], 256))
    same(
        bi.tokens,
        tokenizer.encode_batch([("One two",), ("Three",), ("four",), ("five six",)], 256),
    )
    for split in (cross, bi):
        batch = split.batch([1, 0, 1])
        np.testing.assert_allclose(batch.labels, [0.0, 4.6, 0.0], rtol=1e-6)
        assert batch.task == "sts"
        same([s for i in (1, 0, 1) for s in split.sequences(i)], batch.tokens)
        each = len(split.tokens) // 2
        assert batch.owners.tolist() == [place for place in range(3) for _ in range(each)]
    short = load_split(path, sts, "test", Options(max_length=4), tokenizer)
    assert len(short.tokens[0]) == 4


# ---- a part of the examples


def test_the_first_examples_of_each_file(tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)
    rows = [f"text {i}\t{i}" for i in range(5)]
    paths = paths_of(tmp_path, "sst", train=rows, dev=["old\t", *rows[3:]], test=rows[:2])
    found = load_task(paths, TASKS["sst"], Options(limit=2), tokenizer)
    ids = {split: [example.id for example in part.examples] for split, part in found.items()}
    assert ids == {
        "train": ["train0", "train1"],
        "dev": ["dev1", "dev2"],
        "test": ["test0", "test1"],
    }
    assert found["train"].sha256 == hashlib.sha256(paths["train"].read_bytes()).hexdigest()
    # What is wrong further down is still found.
    paths["train"].write_text(paths["train"].read_text() + "x\ttext\t9\n")
    with pytest.raises(UserError, match="train.csv:7: sentiment is"):
        load_task(paths, TASKS["sst"], Options(limit=2), tokenizer)


def test_a_share_of_train(tmp_path, monkeypatch, tokenizer, capsys):
    """Drawn by the seed and the task; a smaller one is part of a larger, in the file's order."""
    monkeypatch.chdir(tmp_path)
    rows = [f"text {i}\t{i % 2}" for i in range(40)]

    def ids(task: str, **given: Any) -> list[str]:
        paths = paths_of(tmp_path, task, train=rows, dev=["other\t1"])
        found = load_task(paths, TASKS[task], Options(**given), tokenizer)
        assert len(found["dev"]) == 1
        return [example.id for example in found["train"].examples]

    whole = ids("sst")
    assert whole == [f"train{i}" for i in range(40)]
    capsys.readouterr()
    shares = [ids("sst", train_fraction=share) for share in (0.001, 0.1, 0.5, 0.9, 1.0)]
    assert [len(share) for share in shares] == [1, 4, 20, 36, 40]
    assert capsys.readouterr().out.splitlines()[1] == (
        "sst: 4 of 40 training examples (--train_fraction)"
    )
    for smaller, larger in itertools.pairwise(shares):
        assert set(smaller) < set(larger)
        assert smaller == [name for name in whole if name in smaller]
    assert ids("sst", train_fraction=0.5) == shares[2] != whole[:20]
    assert ids("sst", train_fraction=0.5, seed=1) != shares[2]
    assert ids("cfimdb", train_fraction=0.5) != shares[2]
    # Of what --limit leaves.
    both = ids("sst", train_fraction=0.5, limit=10)
    assert len(both) == 5 and set(both) < set(whole[:10])


# ---- what train shares with dev and test


def paths_of(folder: Path, task: str, **rows: list[str]) -> dict[str, Path]:
    """Files of a task with these rows, behind an id of their own; `split=[...]`."""
    columns = [*TASKS[task].columns, TASKS[task].label]
    paths = {}
    for split, lines in rows.items():
        paths[split] = folder / f"{split}.csv"
        text = "\t".join(["id", *columns]) + "\n"
        text += "".join(f"{split}{i}\t{line}\n" for i, line in enumerate(lines))
        paths[split].write_text(text, encoding="utf-8")
    return paths


SHARED = {
    "sst": {
        "train": ["Fine film .\t3", "dull\t1", "Great\t4", "dull \t0", "own\t2"],
        "dev": ["fine FILM .\t3", "unseen\t2", "Fine film\t3"],
        "test": [" DULL\t", "unseen\t", "dull\t"],
    },
    "sts": {
        "train": ["a\tb\t1", "c\td\t2", "e\tf\t3", "a\ta\t4", "own\town\t4"],
        "dev": ["B\tA\t1", "a\tc\t2", "b\tb\t5"],
        "test": ["c\tD\t", "e \tf\t", 'a\t"a b"\t'],
    },
}


@pytest.mark.parametrize(
    "task,found,left",
    [
        ("sst", "1 of 3 dev and 2 of 3 test", ["train2", "train4"]),
        ("sts", "1 of 3 dev and 2 of 3 test", ["train3", "train4"]),
    ],
)
def test_what_train_shares(tmp_path, monkeypatch, tokenizer, capsys, task, found, left):
    monkeypatch.chdir(tmp_path)
    paths = paths_of(tmp_path, task, **SHARED[task])
    kept = load_task(paths, TASKS[task], Options(), tokenizer)
    message = f"{task}: {found} examples stand in train too"
    assert capsys.readouterr().out == f"{message}; --drop_leaks leaves them out of train\n"
    assert len(kept["train"]) == 5
    dropped = load_task(paths, TASKS[task], Options(drop_leaks=True), tokenizer)
    assert capsys.readouterr().out == f"{message}; left out 3 of 5 from train\n"
    train = dropped["train"]
    assert [e.id for e in train.examples] == left
    same(train.tokens, [kept["train"].tokens[int(name[-1])] for name in left])
    assert train.sha256 == kept["train"].sha256
    for split in ("dev", "test"):
        assert dropped[split].examples == kept[split].examples


def test_nothing_shared_is_no_line(tmp_path, monkeypatch, tokenizer, capsys):
    monkeypatch.chdir(tmp_path)
    paths = paths_of(tmp_path, "sst", train=["a\t1"], dev=["b\t1"], test=["c\t"])
    for drop in (False, True):
        loaded = load_task(paths, TASKS["sst"], Options(drop_leaks=drop), tokenizer)
        assert len(loaded["train"]) == 1 and capsys.readouterr().out == ""


@pytest.mark.parametrize("copy", [False, True])
def test_one_file_for_two_splits_is_said_loudly(tmp_path, monkeypatch, tokenizer, capsys, copy):
    monkeypatch.chdir(tmp_path)
    paths = paths_of(tmp_path, "sst", train=["a\t1", "b\t2"], dev=[], test=["c\t"])
    paths["dev"] = tmp_path / "mine.csv"
    if copy:
        shutil.copyfile(paths["train"], paths["dev"])
    else:
        paths["dev"].symlink_to(paths["train"])
    load_task(paths, TASKS["sst"], Options(), tokenizer)
    out = capsys.readouterr().out
    assert f"sst: train and dev are THE SAME FILE ({tmp_path}/mine.csv).\n" in out
    assert "sst: 2 of 2 dev and 0 of 1 test examples stand in train too" in out
    with pytest.raises(UserError, match="^--drop_leaks leaves nothing of .*/train.csv: all of it"):
        load_task(paths, TASKS["sst"], Options(drop_leaks=True), tokenizer)


def test_a_reader_of_a_task_s_own(tmp_path, monkeypatch, tokenizer):
    """Its file has a checksum too."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lines.txt"
    path.write_text("A fine film .\n", encoding="utf-8")

    def read(path: Path, task: Task, split: str) -> list[Example]:
        return [Example("a", (path.read_text().strip(),), 1.0)]

    split = load_split(path, replace(TASKS["sst"], read=read), "dev", Options(), tokenizer)
    assert split.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert split.examples[0].texts == ("A fine film .",)


def test_a_large_file_takes_little_memory(tmp_path, tiny):
    """Peak memory of reading and encoding 16,000 pairs; it was 5 KB a pair."""
    words = "How do I find a good film for a dull evening in a large city of many small towns"
    rows = "".join(f"{i}\t{words} {i} ?\t{words} {i + 1} ?\t{i % 2}\n" for i in range(16_000))
    (tmp_path / "train.csv").write_text(f"id\tsentence1\tsentence2\tis_duplicate\n{rows}")
    code = (
        "import resource, sys; from pathlib import Path; from tokenizer import BertTokenizer\n"
        "from datasets import load_split; from options import Options; from tasks import TASKS\n"
        "tokenizer = BertTokenizer.from_pretrained(sys.argv[1])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "tokenizer.encode_batch([('a ' * 30, 'b ' * 30)] * 4096, 256); before = peak()\n"
        "split = load_split(Path('train.csv'), TASKS['para'], 'train', Options(), tokenizer)\n"
        "print((peak() - before) / len(split))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(datasets.__file__).parent)}
    command = [sys.executable, "-c", code, str(tiny)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    assert float(done.stdout) * unit < 3000, done.stderr


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


# ---- Hugging Face's package of this name


def python(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    """Python in the project's folder, where a package stands in for Hugging Face's."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text("load_dataset = print")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    line = [sys.executable, *words]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_who_wants_hugging_face_s_datasets_is_told_why_not(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", "from datasets import load_dataset")
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: load_dataset is in Hugging Face's datasets, which {ROOT}/datasets.py hides: "
        "put your script or notebook in another folder, or run it with python -P"
    )


def test_python_p_finds_hugging_face_s(tmp_path: Path) -> None:
    done = python(tmp_path, "-P", "-c", "from datasets import load_dataset; load_dataset('it')")
    assert (done.stdout, done.stderr) == ("it\n", "")


def test_other_names_are_not_there_as_in_any_module() -> None:
    assert not hasattr(datasets, "nonesuch") and not hasattr(datasets, "__path__")
    with pytest.raises(ImportError, match="python -P"):
        attrgetter("Features")(datasets)
    assert [name for name in datasets.HUGGING_FACE if name in vars(datasets)] == []
