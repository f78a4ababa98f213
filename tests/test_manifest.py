"""A folder that is not what its manifest says is refused, by the name of the file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import UserError
from training.manifest import check_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files and a manifest."""
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "b.json").write_text('{"step": 3}')
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.json").write_text('{"mean": true}')
    write_manifest(tmp_path)
    return tmp_path


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def another_sum(folder: Path) -> None:
    """A digit of a checksum in the manifest is another."""
    held = json.loads((folder / "manifest.json").read_text())
    held["files"]["a.bin"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(held))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a.bin: changed": lambda folder: flip(folder / "a.bin"),
    "b.json: changed": lambda folder: (folder / "b.json").write_text('{"step": 4}'),
    "a.bin missing": lambda folder: (folder / "a.bin").unlink(),
    "a.bin: changed since it was written": another_sum,
    "new.bin added since it was written": lambda folder: (folder / "new.bin").touch(),
    "below/new.bin added": lambda folder: (folder / "below" / "new.bin").touch(),
    "below/c.json: changed": lambda folder: flip(folder / "below" / "c.json"),
    "below/c.json missing": lambda folder: (folder / "below" / "c.json").unlink(),
    "manifest.json: not there": lambda folder: (folder / "manifest.json").unlink(),
    "(bin|json): (changed|not readable)": lambda folder: flip(folder / "manifest.json"),
    "manifest.json: not readable JSON": lambda folder: (folder / "manifest.json").write_text(""),
    "manifest.json: no files": lambda folder: (folder / "manifest.json").write_text("{}"),
    "manifest.json: files.a is 1": lambda folder: (folder / "manifest.json").write_text(
        '{"files": {"a": 1}}'
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_folder_is_refused_by_the_file_s_name(folder: Path, message: str) -> None:
    DAMAGES[message](folder)
    with pytest.raises(UserError, match=message):
        check_manifest(folder)


def test_a_whole_folder_is_taken_wherever_it_lies(folder: Path) -> None:
    (folder / ".DS_Store").touch()  # of a file manager
    (folder / "below" / ".DS_Store").touch()
    (folder / "README.md").write_text("edited on the hub")
    check_manifest(folder)
    check_manifest(folder.rename(folder.with_name("moved")))


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: No such file"):
        check_manifest(tmp_path / "nowhere")
