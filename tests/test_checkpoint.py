"""Checkpoints are whole or not there: a kill is an exception at every single file operation of
replace_folder.
"""

import os
import shutil
from pathlib import Path

import checkpoint
import pytest
from checkpoint import Log, recover, replace_folder, write_json

from errors import UserError


class Killed(BaseException):
    """Nothing may catch it."""


def write(text: str):
    def fill(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)

    return fill


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, write("old"))
    left = [moment]

    def killing(function):
        def one(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **more)

        return one

    with monkeypatch.context() as patch:
        operations = [
            (Path, "mkdir"),
            (Path, "write_text"),
            (Path, "rename"),
            (checkpoint, "sync"),
            (shutil, "rmtree"),
        ]
        for owner, name in operations:
            patch.setattr(owner, name, killing(getattr(owner, name)))
        try:
            replace_folder(folder, write("new"))
            finished = True
        except Killed:
            finished = False
    assert recover(folder) and content(folder) in ({"old"}, {"new"})
    assert not finished or content(folder) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_recover_tells_that_nothing_was_saved(tmp_path: Path) -> None:
    (tmp_path / "last.new").mkdir()  # torn: killed while the first one was written
    assert not recover(tmp_path / "last") and not list(tmp_path.iterdir())


def test_a_failed_write_is_one_line_and_keeps_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, write("old"))

    def full(new: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="last: can't be written \\(No space left on device\\)"):
        replace_folder(folder, full)
    assert content(folder) == {"old"}


def test_json_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        write_json(tmp_path / "x.json", {"a": 2})
    assert checkpoint.read_json(tmp_path / "x.json") == {"a": 1}


def test_the_log_drops_torn_lines_and_those_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    log = Log(tmp_path, step=2, tensorboard=False)
    log.write({"step": 3, "loss": 0.5})
    log.close()
    assert (tmp_path / "log.jsonl").read_text().splitlines() == [
        '{"step": 1}',
        '{"step": 2}',
        '{"step": 3, "loss": 0.5}',
    ]
