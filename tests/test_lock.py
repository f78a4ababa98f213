"""One process a run folder. Others are real processes: a lock is the system's."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from tests.test_train import ROOT
from training import lock
from training.lock import locks_released, take_lock

# Takes the lock of a folder, says so, and stays; with "fork" a child outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
from training.lock import take_lock
take_lock(Path(sys.argv[1]))
if sys.argv[2:] == ["fork"]:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, b"forked")
        os.close(0)
        time.sleep(20)
        os._exit(0)
    os.read(reading, 6)  # a child that has not run yet still holds the lock
print("taken", flush=True)
sys.stdin.read()
"""


def hold(folder: Path, *how: str) -> "subprocess.Popen[str]":
    """A process that holds a folder's lock."""
    command = [sys.executable, "-c", HOLDER, str(folder), *how]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout and process.stdout.readline() == "taken\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    """End a process and its children."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_second_process_is_refused_and_the_first_named(tmp_path: Path) -> None:
    process = hold(tmp_path)
    message = f"--resume {tmp_path}: process {process.pid} on .* is running it; wait for its end"
    with locks_released(), pytest.raises(UserError, match=message):
        take_lock(tmp_path)
    (tmp_path / "lock").write_text("")  # not noted yet
    with locks_released(), pytest.raises(UserError, match="another process is running it"):
        take_lock(tmp_path)
    end(process)
    with locks_released():
        take_lock(tmp_path)


def test_a_child_does_not_hold_the_lock_of_a_dead_run(tmp_path: Path) -> None:
    process = hold(tmp_path, "fork")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with locks_released():
        take_lock(tmp_path)
    end(process)


def test_a_lock_ends_with_the_run_even_if_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locks_released():
        take_lock(tmp_path)
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            take_lock(tmp_path)
        raise ZeroDivisionError
    assert not lock.held
    end(hold(tmp_path))


def test_without_locks_a_run_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locks_released(), pytest.warns(UserWarning, match="no locks on this file system"):
        take_lock(tmp_path)


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lock: can't be written .No such file"):
        take_lock(tmp_path / "nowhere")
