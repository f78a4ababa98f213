"""log.jsonl on resuming, and where it can't be written. TensorBoard beside it: test_train.py."""

import warnings
from pathlib import Path

import pytest

from errors import UserError
from training.log import Log


def test_the_log_drops_torn_lines_and_those_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a torn line is what a kill leaves
        log = Log(tmp_path, step=2, tensorboard=False)
    log.write({"step": 3, "loss": 0.5})
    log.close()
    assert (tmp_path / "log.jsonl").read_text().splitlines() == [
        '{"step": 1}',
        '{"step": 2}',
        '{"step": 3, "loss": 0.5}',
    ]


def test_damaged_lines_are_dropped_and_counted(tmp_path: Path) -> None:
    damaged = [
        b"",
        b"[]",
        b'{"step": "2"}',
        b'{"loss": 1}',
        b'{"step": 1',
        b"\xff\x00",
        b"[" * 9999,
    ]
    whole = b'{"step": 1, "of": "' + "\u2028é".encode() + b'"}\n'
    (tmp_path / "log.jsonl").write_bytes(whole + b"\n".join(damaged) + b"\n" + whole)
    with pytest.warns(UserWarning, match=f"log.jsonl: {len(damaged)} damaged lines were dropped"):
        Log(tmp_path, step=2, tensorboard=False).close()
    assert (tmp_path / "log.jsonl").read_bytes() == whole + whole


class FullDisk:
    """A file on a disk with so much room."""

    def __init__(self, room: int):
        self.room = room

    def write(self, line: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        return self.room

    def close(self) -> None:
        pass


@pytest.mark.parametrize("room", [0, 1])
def test_a_full_disk_is_one_line(tmp_path: Path, room: int) -> None:
    log = Log(tmp_path, step=0, tensorboard=False)
    log.close()
    log.file = FullDisk(room)  # type: ignore[assignment]
    message = r"log.jsonl: can't be written \(No space left on device\); .* --resume "
    with pytest.raises(UserError, match=message + str(tmp_path)):
        log.write({"step": 2})
    log.close()


def test_a_log_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(UserError, match="log.jsonl: a folder"):
        Log(tmp_path, step=0, tensorboard=False)
