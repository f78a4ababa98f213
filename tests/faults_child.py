"""Forked children for the sweeps: each runs the command line in a folder of its own, and one of its
file operations may fail.

The parent imports everything and computes nothing, so that a child starts in milliseconds and finds
no thread of torch's or tokenizers' cut off by the fork.
"""

import builtins
import errno
import gc
import io
import os
import re
import resource
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import scipy.stats  # noqa: F401  (evaluation.measure imports it; here once for all children)
import sklearn.metrics  # noqa: F401  (the same)
import torch
import torch._dynamo  # noqa: F401  (optimizers import it when first made; here once for all)
from safetensors import SafetensorError

import multitask_classifier

ROOT = Path(multitask_classifier.__file__).parent
TIME_LIMIT = 20  # seconds; a child that takes longer is killed by SIGALRM
MEMORY_LIMIT = 2**30  # bytes of address space that a child may add to what it begins with
LONGEST_LINE = 320  # characters of an error's line, with its "error: "


def scratch() -> Path:
    """A new folder, in memory where the system has such a place: a sync costs nothing there."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="minbert-", dir=shared if shared.is_dir() else None))


# ---- children


@dataclass
class Ending:
    """How a child ended."""

    code: int  # its exit status, or minus the number of the signal that ended it
    errors: str  # what it wrote to standard error

    def problem(self, *expected: int) -> str:
        """What is wrong with it; "" where nothing is."""
        if "Traceback" in self.errors or "Exception ignored" in self.errors:
            return f"traceback {innermost(self.errors)}"
        if self.code == -signal.SIGALRM:
            return f"no end within {TIME_LIMIT} s"
        if self.code not in expected:
            return f"exit status {self.code}, expected {expected}: {self.last_line[:200]}"
        if self.code == 2 and not self.last_line.startswith("error: "):
            return f"exit status 2 without an error: {self.last_line[:200]}"
        if self.code == 2 and len(self.last_line) > LONGEST_LINE:
            return f"a line of {len(self.last_line)} characters: {self.last_line[:80]}"
        if self.code == 2 and len(re.findall("^error: ", self.errors, re.MULTILINE)) > 1:
            return f"more than one line: {self.errors[:200]!r}"
        return ""

    @property
    def last_line(self) -> str:
        """The last line of standard error."""
        return (self.errors.strip().splitlines() or [""])[-1]


def innermost(errors: str) -> str:
    """A traceback in one line: the last place in the project, and the exception."""
    places = re.findall(r'File "([^"]+)", line (\d+)', errors)
    own = [(path, line) for path, line in places if path.startswith(f"{ROOT}/")]
    outside = [(path, line) for path, line in own if "/tests/" not in path and ".venv" not in path]
    path, line = (outside or own or places or [("?", "?")])[-1]
    name = path.removeprefix(f"{ROOT}/")
    kinds = re.findall(
        r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)\b.*)$", errors, re.M
    )
    return f"{name}:{line} {(kinds or errors.strip().splitlines() or ['?'])[-1][:120]}"


@dataclass
class Child:
    """A child that runs."""

    pid: int
    pipe: int  # its standard error

    def wait(self) -> Ending:
        """How it ended, once it has."""
        with open(self.pipe, "rb") as file:  # up to the end of the last writer
            errors = file.read().decode("utf-8", "replace")
        _, status = os.waitpid(self.pid, 0)
        return Ending(os.waitstatus_to_exitcode(status), errors)


def limit_memory() -> None:
    """Let this process have no more than MEMORY_LIMIT beyond what it has (Linux only)."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def start(work: Callable[[], object], folder: Path) -> Child:
    """Begin `work` in a child whose current folder is `folder`."""
    sys.stdout.flush()
    gc.freeze()  # or the child's first garbage collection copies every page that it shares with us
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)

    code: Any = 1
    try:
        sys.dont_write_bytecode = True
        signal.alarm(TIME_LIMIT)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, source in enumerate((nothing, nothing, writing)):
            os.dup2(source, descriptor)
        for name, number in (("stdout", 1), ("stderr", 2)):  # new ones: the parent's know its files
            raw = io.FileIO(number, "w")
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True))
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # no threads for a few short texts
        os.chdir(folder)
        limit_memory()
        torch.set_num_threads(1)
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(work: Callable[[], object], folder: Path) -> Ending:
    """`work` in a child, to its end."""
    return start(work, folder).wait()


def command(*argv: str) -> Callable[[], None]:
    """The work that `python multitask_classifier.py ARGV` does."""

    def work() -> None:
        sys.argv = [str(ROOT / "multitask_classifier.py"), *argv]
        runpy.run_path(sys.argv[0], run_name="__main__")

    return work


# ---- faults

KILLS = ("kill before", "kill after")
INTERRUPTS = ("interrupt before", "interrupt after")
ERRORS = ("ENOSPC", "EIO")  # the operation fails, once
FULL = "full"  # from here on no file can grow: the system's own errors, in Rust's writers too
TORN = "torn"  # half of the bytes are written, then a kill
SIGNALS = {"hang-up": signal.SIGHUP, "terminate": signal.SIGTERM}
KINDS = (*KILLS, *INTERRUPTS, *ERRORS, FULL, TORN, *SIGNALS)
EXPECTED = {
    **{name: (0, -number, 128 + number, 130) for name, number in SIGNALS.items()},
    **dict.fromkeys((*KILLS, TORN), (-signal.SIGKILL,)),
    **dict.fromkeys(INTERRUPTS, (0, 130)),
    **dict.fromkeys((*ERRORS, FULL), (0, 2)),
}

# Functions of os, all of which change files.
CHANGES = (
    *("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink"),
    *("truncate", "ftruncate", "chmod", "fchmod", "fsync", "write"),
)


@dataclass
class Operations:
    """The file operations of this process, counted from 1; number `number` meets a fault.

    `held` are their names, with what they were done to.
    """

    number: int = 0
    kind: str | socket.socket = ""  # a socket: a word is sent, and one awaited
    held: list[str] = field(default_factory=list)

    def counted(
        self, name: str, function: Callable[..., Any], half: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """A function that is an operation; `half` does half of its work."""

        def operation(*args: Any, **more: Any) -> Any:
            names = [str(x)[-50:] for x in args[:2] if isinstance(x, str | Path) and "/" in str(x)]
            self.held.append(" ".join([name, *names[-1:]]))
            if len(self.held) != self.number:
                return function(*args, **more)
            self.fail_before(name)
            if self.kind == TORN and half:
                half(*args, **more)
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **more)
            finally:
                self.fail_after(name)

        return operation

    def fail_before(self, name: str) -> None:
        """The faults that strike before the operation."""
        if isinstance(self.kind, socket.socket):
            self.kind.send(b"w")
            self.kind.recv(1)
        if self.kind == "kill before":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "interrupt before":
            os.kill(os.getpid(), signal.SIGINT)
        if self.kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.kind])
        if self.kind == FULL:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        if self.kind in ERRORS and name == "save_file":
            raise SafetensorError(f"Error while serializing: I/O error: {self.kind}")
        if self.kind in ERRORS and name != "close":
            number = getattr(errno, self.kind)
            raise OSError(number, os.strerror(number))

    def fail_after(self, name: str) -> None:
        """The faults that strike when it is done."""
        if self.kind in ("kill after", TORN):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "interrupt after":
            os.kill(os.getpid(), signal.SIGINT)
        if self.kind in ERRORS and name == "close":  # closed all the same, as the system does it
            number = getattr(errno, self.kind)
            raise OSError(number, os.strerror(number))

    def install(self) -> None:
        """Count every operation with which Python code changes files."""
        for name in CHANGES:
            setattr(os, name, self.counted(name, getattr(os, name)))
        self.install_open()

        # safetensors writes in Rust.
        save = safetensors.torch.serialize_file

        def half(tensors: Any, path: Any, **more: Any) -> None:
            save(tensors, path, **more)
            os.truncate(path, os.path.getsize(path) // 2)

        safetensors.torch.serialize_file = self.counted("save_file", save, half)

    def install_open(self) -> None:
        """Count opening a file for writing, and what is done with it."""
        plain_open, plain_os_open = io.open, os.open
        opening = self.counted("open", plain_open)

        def open_counted(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+"):
                return plain_open(file, mode, *args, **more)
            opened = opening(file, mode, *args, **more)
            write, flush = opened.write, opened.flush

            def half(content: Any) -> None:
                write(content[: len(content) // 2])
                flush()

            opened.write = self.counted("file.write", write, half)
            opened.flush = self.counted("flush", flush)
            opened.close = self.counted("close", opened.close)
            return opened

        os_opening = self.counted("os.open", plain_os_open)

        def os_open_counted(path: Any, flags: int, *args: Any, **more: Any) -> int:
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return (os_opening if writes else plain_os_open)(path, flags, *args, **more)

        builtins.open = io.open = open_counted
        os.open = os_open_counted
