"""A console that can't be written to, and Ctrl-C at the very beginning: neither is a traceback."""

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from multitask_classifier import train
from options import Options
from streams import Stream, lasting_streams
from tests.test_train import ROOT, flags


def broken_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w")


def closed_terminal() -> TextIO:
    """Of which the other end is gone, as when its window was closed: EIO."""
    master, terminal = pty.openpty()
    os.close(master)
    return open(terminal, "w", buffering=1)


def full_disk() -> TextIO:
    return open("/dev/full", "w")


def closed() -> TextIO:
    with open(os.devnull, "w") as file:
        return file


def none() -> None:
    """What Python makes of a descriptor that was closed before the start."""


LOST: list[Callable[[], TextIO | None]] = [broken_pipe, closed_terminal, full_disk, closed, none]
if not Path("/dev/full").exists():  # only Linux has it
    LOST.remove(full_disk)


@pytest.mark.parametrize("lost", LOST)
def test_a_lost_stream_is_written_to_in_peace(lost: Callable[[], TextIO | None]) -> None:
    stream = Stream(lost())
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)  # type: ignore[call-overload]
    if not stream.closed:
        assert not stream.isatty() and stream.fileno() > 2
        stream.close()  # which flushes: nothing fails even now


def test_what_can_not_be_written_leaves_no_descriptor_open(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as file:
        stream = Stream(file)
    before = os.dup(0)
    os.close(before)
    for _ in range(3):
        print("x", file=stream, flush=True)  # type: ignore[call-overload]
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_a_stream_that_lives_is_written_to_as_ever(capfd: pytest.CaptureFixture) -> None:
    with lasting_streams():
        print("a line")
        print("of error", file=sys.stderr)
    assert capfd.readouterr() == ("a line\n", "of error\n")


def test_what_an_encoding_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii"))
    print("caf\xe9 \udcff", file=stream, flush=True)  # type: ignore[call-overload]
    assert raw.getvalue() == b"caf\\xe9 \\udcff\n"


@pytest.mark.parametrize("lost", LOST)
def test_a_run_outlives_its_console(
    options: Options, lost: Callable[[], TextIO | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a script around it too."""
    monkeypatch.setattr(sys, "stdout", lost())
    monkeypatch.setattr(sys, "stderr", lost())
    folder = train(options)["folder"]
    assert Path(folder, "best").exists() and len(list(Path("predictions").iterdir())) == 6


# ---- scripts

SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from errors import UserError, run_main
from startup import begin_script
begin_script()

def main(argv):
    with open("data.bin", "wb") as file:
        assert file.fileno() > 2
        sys.__stderr__ or __import__("os").write(2, b"a library's warning")
    for number in range(20_000):
        print(number)
        print(number, file=sys.stderr)
    if argv:
        raise UserError("wrong")
    with open("done", "w"):
        pass

run_main(main)
"""


@pytest.mark.parametrize(
    "command",
    [
        "PYTHON script.py 2>&1 | head -1 >shown; exit ${PIPESTATUS[0]}",
        "PYTHON script.py >/dev/full",
        "PYTHON script.py >/dev/full 2>/dev/full",
        "PYTHON script.py >&-",
        "PYTHON script.py 2>&-",
        "PYTHON script.py <&- >&- 2>&-",
        "PYTHON script.py wrong 2>&-; [ $? = 2 ] && touch done",
        "PYTHON script.py wrong >/dev/full 2>/dev/full; [ $? = 2 ] && touch done",
    ],
)
def test_a_script_outlives_its_console(tmp_path: Path, command: str) -> None:
    if "/dev/full" in command and not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        ["bash", "-c", command.replace("PYTHON", sys.executable)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "done").exists() and (tmp_path / "data.bin").read_bytes() == b""


def test_the_main_script_outlives_its_console(options: Options) -> None:
    """And its help, of which the first line is enough."""
    script = f"{sys.executable} {ROOT / 'multitask_classifier.py'}"
    words = " ".join(flags(options))
    command = f"{script} {words} 2>&- | head -1 && {script} --help | head -1"
    command = f"set -o pipefail; {command}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    assert len(list(Path("predictions").iterdir())) == 6


@pytest.mark.parametrize(
    ("script", "slow"),
    [
        ("multitask_classifier.py", "torch"),
        ("classifier.py", "torch"),
        ("data/download.py", "requests"),
    ],
)
def test_ctrl_c_during_the_imports(tmp_path: Path, script: str, slow: str) -> None:
    """A slow package of that name stands in for the real one."""
    (tmp_path / f"{slow}.py").write_text("import time; print('slow', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "slow\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "interrupted\n")
    assert process.returncode == 130


def test_a_python_without_the_packages() -> None:
    """The commonest mistake: python3 instead of the environment's."""
    code = "import startup; startup.PACKAGES = ('torch', 'no_such'); startup.begin_script()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {sys.executable} has no package no_such; ")
    assert done.stderr.count("\n") == 1
    assert "setup.sh" in done.stderr or ".venv/bin/python" in done.stderr
