"""Files: only regular ones are read, up to a size; what is written is whole or not there."""

import fcntl
import os
import stat
import tracemalloc
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from errors import LONGEST_MESSAGE, UserError, listed, one_line
from storage import files
from storage.files import (
    clear_unfinished,
    read_bytes,
    read_text,
    replace_file,
    sha256_of,
    write_text,
    write_together,
)
from storage.tensor_files import read_tensors, sha256_of_tensors, shapes_of, write_tensors

# ---- messages


def test_a_message_is_one_line_that_can_be_shown() -> None:
    """ANSI codes, line breaks, bytes that were no UTF-8 and right-to-left marks."""
    message = str(UserError("a\x1b[31mb\nc\udcffd\u202ee"))
    assert message == "a\\x1b[31mb\\nc\\udcffd\\u202ee"
    message.encode("utf-8")


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    message = str(UserError("begin " + "x" * 1_000_000 + " delete the row"))
    assert len(message) == LONGEST_MESSAGE
    assert message.startswith("begin xxx") and message.endswith("xxx delete the row")
    assert one_line("x" * LONGEST_MESSAGE) == "x" * LONGEST_MESSAGE


def test_a_list_shows_five_names_and_counts_the_rest() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
    assert len(listed(["x" * 100_000] * 9)) < LONGEST_MESSAGE + 60


# ---- reading


@pytest.mark.parametrize("read", [read_bytes, read_text, sha256_of, read_tensors, shapes_of])
def test_only_regular_files_are_read(tmp_path: Path, read) -> None:
    """A pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: a pipe or a device, expected a regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(UserError, match="/dev/zero: a pipe or a device"):
        read(Path("/dev/zero"))
    with pytest.raises(UserError, match="a folder, expected a file"):
        read(tmp_path)
    with pytest.raises(UserError, match="none: No such file or directory"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="no path"):
        read(Path("a\0b"))


def test_a_size_is_not_exceeded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 11)
    assert read_bytes(tmp_path / "a", 11) == b"x" * 11
    with pytest.raises(UserError, match="a: over 0 MiB"):
        read_bytes(tmp_path / "a", 10)


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """However large a file may be."""
    (tmp_path / "a").write_bytes(b"x" * 11)
    tracemalloc.start()
    try:
        read_bytes(tmp_path / "a", files.LARGEST_TEXT)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# ---- writing


def test_what_is_read_only_or_no_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(UserError, match="a: read-only; choose another file"):
        write_text(path, "new")
    assert path.read_text() == "old"
    with pytest.raises(UserError, match="/dev/null: a device or a pipe, which is never replaced"):
        write_text(Path("/dev/null"), "new")
    with pytest.raises(UserError, match="a folder, expected a file's name"):
        write_text(tmp_path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def full(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="a: can't be written .No space left on device"):
        replace_file(tmp_path / "a", full)
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_files_that_belong_together_are_all_replaced_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the second one."""
    paths = {tmp_path / "a": b"new a", tmp_path / "b": b"new b"}
    for path in paths:
        path.write_text("old")
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="b: can't be written .No space left on device"):
            write_together(paths)
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    write_together(paths)
    assert {path: path.read_bytes() for path in paths} == paths


def test_others_may_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "text")
        write_tensors(tmp_path / "b.safetensors", {"x": torch.ones(1)})
    finally:
        os.umask(before)
    for name in ("a", "b.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_only_what_nobody_writes_any_more_is_cleared(tmp_path: Path) -> None:
    dead = tmp_path / files.UNFINISHED.format("dead")
    alive = tmp_path / files.UNFINISHED.format("alive")
    other = tmp_path / "mine.new"
    for path in (dead, alive, other):
        path.write_text("half")
    with open(alive) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_unfinished(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([alive, other])
    clear_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_file_that_was_cleared_before_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    cleared: list[str] = []

    def late(file: BinaryIO, how: int) -> None:
        if not cleared:
            cleared.append(file.name)
            os.unlink(file.name)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_text(tmp_path / "a", "text")
    assert cleared and (tmp_path / "a").read_text() == "text"


# ---- tensors


def test_tensors_come_back_and_their_shapes_before(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    write_tensors(tmp_path / "x.safetensors", tensors)
    assert shapes_of(tmp_path / "x.safetensors") == {"a": (2, 3), "b": (3,)}
    again = read_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert sha256_of_tensors(again) == sha256_of_tensors(dict(reversed(tensors.items())))


@pytest.mark.parametrize("change", ["value", "dtype", "shape", "name"])
def test_the_checksum_sees_every_change(change: str) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3)}
    others = {
        "value": {"a": torch.arange(6.0).view(2, 3).nextafter(torch.tensor(9.0))},
        "dtype": {"a": torch.arange(6).view(2, 3).to(torch.int32)},
        "shape": {"a": torch.arange(6.0).view(3, 2)},
        "name": {"b": torch.arange(6.0).view(2, 3)},
    }
    assert sha256_of_tensors(tensors) != sha256_of_tensors(others[change])


@pytest.mark.parametrize("kept", [0, 4, 60])
def test_a_torn_file_of_tensors_is_one_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(50)})
    path.write_bytes(path.read_bytes()[:kept])
    for read in (read_tensors, shapes_of):
        with pytest.raises(UserError, match="not a readable safetensors file"):
            read(path)
