"""Token ids: the same in chunks, in one array, out of the cache, and whatever became of that."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from packing import Tokens
from text import token_ids
from text.token_ids import checksum, read_cache, tokenize
from tokenizer import BertTokenizer

TEXTS = [("A fine film .",), ("Dull",), ("naïve 🎬 [SEP] ??",), ("a " * 40,)]
PAIRS = [("Is it far ?", "How far is it ?"), ("x", "a " * 40)]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


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
    assert len(calls) == 4


@pytest.mark.parametrize("largest", [2**16 - 1, 2**16])
def test_the_ids_of_a_large_vocabulary_survive_the_cache(tmp_path, tokenizer, monkeypatch, largest):
    ids = np.array([101, largest, 102], dtype=np.int32)
    monkeypatch.setattr(
        BertTokenizer, "encode_batch", lambda *_: [(ids, np.zeros(3, dtype=np.int32))]
    )
    for _ in range(2):
        same(tokenize([("x",)], tokenizer, 13, tmp_path), tokenizer.encode_batch([("x",)], 13))
    (path,) = tmp_path.iterdir()
    assert load_file(path)["ids"].element_size() == (2 if largest < 2**16 else 4)


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, tokenizer, calls, capsys):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        same(tokenize(TEXTS, tokenizer, 13, folder), tokenizer.encode_batch(TEXTS, 13))
        out = capsys.readouterr().out
        assert out.startswith(f"token ids not cached: {folder}/") and out.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("texts", [TEXTS, PAIRS])
@pytest.mark.parametrize("chunk", [1, 3, 4, 5])
def test_chunks_change_nothing(tmp_path, tokenizer, monkeypatch, texts, chunk):
    monkeypatch.setattr(token_ids, "CHUNK", chunk)
    table = tokenize(texts, tokenizer, 13, tmp_path)
    same(table, tokenizer.encode_batch(texts, 13))
    assert len(table) == len(texts)


def test_a_table_is_a_list_of_sequences(tmp_path, tokenizer):
    table = tokenize(TEXTS, tokenizer, 13, tmp_path)
    listed = [table[i] for i in range(4)]
    same(list(table), listed)
    same(table[1:3], listed[1:3])
    same([table[-1]], listed[-1:])
    with pytest.raises(IndexError):
        table[4]


def forged(**change: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What a cache of the ids 1 2, 3 holds, some of it changed, with the checksum that fits."""
    held = {
        "ids": torch.tensor([1, 2, 3], dtype=torch.uint16),
        "types": torch.tensor([0, 1, 0], dtype=torch.uint8),
        "ends": torch.tensor([2, 3]),
    }
    held = {name: x for name, x in {**held, **change}.items() if x is not None}
    return {**held, "sha256": checksum(held)}


FORGED = {
    "ids out of range": {"ids": torch.tensor([1, 2, 30_522], dtype=torch.uint16)},
    "ids below 0": {"ids": torch.tensor([1, -2, 3], dtype=torch.int32)},
    "ids of another kind": {"ids": torch.tensor([1, 2, 3])},
    "ids of floats": {"ids": torch.tensor([1, 2, 3], dtype=torch.bfloat16)},
    "a type too many": {"types": torch.tensor([0, 1, 2], dtype=torch.uint8)},
    "too few types": {"types": torch.tensor([0, 1], dtype=torch.uint8)},
    "too few ids": {"ids": torch.tensor([1, 2], dtype=torch.uint16)},
    "of other texts": {"ends": torch.tensor([3])},
    "an empty sequence": {"ends": torch.tensor([3, 3])},
    "one of less than nothing": {"ends": torch.tensor([4, 3])},
    "an empty first one": {"ends": torch.tensor([0, 3])},
    "ends in a square": {"ends": torch.tensor([[2, 3]])},
    "no ends": {"ends": None},
    "more than that": {"other": torch.zeros(3)},
}


@pytest.mark.parametrize("case", FORGED)
def test_a_cache_that_was_not_written_here_is_made_again(tmp_path, tokenizer, calls, case):
    texts = TEXTS[:2]
    first = tokenize(texts, tokenizer, 13, tmp_path)
    (path,) = tmp_path.iterdir()
    save_file(forged(**FORGED[case]), path)
    same(tokenize(texts, tokenizer, 13, tmp_path), first)
    assert len(calls) == 2
    # The forgery itself is fine: without the fault it is taken for what it says.
    save_file(forged(), path)
    assert tokenize(texts, tokenizer, 13, tmp_path)[0].ids.tolist() == [1, 2]


def archive(path: Path, zeros: int) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, ids=np.zeros(zeros), types=np.zeros(3), ends=np.zeros(3))


def objects(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=True, ids=np.array([{}, []], dtype=object))


def test_no_flipped_bit_changes_a_token(tmp_path, tokenizer):
    """A bit of every byte in turn: most are noticed, the others changed nothing that is read."""
    first = tokenize(TEXTS, tokenizer, 13, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        table = read_cache(path, len(TEXTS), 30_522)
        noticed += table is None
        if table is not None:
            same(table, first)
    assert noticed > 0.9 * len(whole)


@pytest.mark.parametrize(
    "put",
    [
        lambda path: archive(path, 2**22),
        objects,
        lambda path: path.write_bytes((2**60).to_bytes(8, "little") + b"{}"),
        lambda path: save_file({"sha256": torch.zeros(1)}, path),
        lambda path: save_file({**forged(), "sha256": torch.zeros(31, dtype=torch.uint8)}, path),
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["bomb", "objects", "header", "alone", "short", "pipe", "folder", "link"],
)
def test_whatever_stands_in_the_cache_s_place(tmp_path, tokenizer, calls, capsys, put):
    first = tokenize(TEXTS, tokenizer, 13, tmp_path)
    (path,) = tmp_path.iterdir()
    path.unlink()
    put(path)
    same(tokenize(TEXTS, tokenizer, 13, tmp_path), first)
    assert len(calls) == 2
    # What can't be replaced is said, and left alone.
    assert bool(capsys.readouterr().out) == (path.is_fifo() or path.is_dir())


def test_a_full_disk_costs_a_line(tmp_path, tokenizer, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    same(tokenize(TEXTS, tokenizer, 13, tmp_path), tokenizer.encode_batch(TEXTS, 13))
    out = capsys.readouterr().out
    assert "can't be written (No space left on device)" in out and out.count("\n") == 1
    assert not list(tmp_path.iterdir())
