"""One process a run folder: two that train in it at once would tear each other's checkpoints.

The lock is the system's (flock) on the file `lock` in the folder, so it is free as soon as the
process that holds it has died, however it died.
"""

import contextlib
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

from errors import UserError
from storage.files import read_text, reason_of

NAME = "lock"

# The descriptors of the locks that this process holds.
held: set[int] = set()


def take_lock(folder: Path) -> None:
    """Lock a run folder until locks_released() or the process ends.

    UserError, which names the process, where another one holds the lock. Where the file system has
    no locks the run goes on with a warning.
    """
    # A pipe under this name would wait for ever, so opening does not wait.
    path = folder / NAME
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason_of(error)})") from None
    held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        release(descriptor)
        raise UserError(
            f"--resume {folder}: {holder(path)} is running it; wait for its end, or stop it"
        ) from None
    except OSError as error:
        warnings.warn(
            f"{folder}: no locks on this file system ({reason_of(error)}); "
            "take care that no second process resumes this run meanwhile",
            stacklevel=2,
        )

    # For the message above; where it can't be written, as on a full disk, the lock holds as well.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


def holder(path: Path) -> str:
    """Who holds a lock, as its file says: "process 12 on host"."""
    with contextlib.suppress(UserError):
        if text := read_text(path, 1000):
            return text
    return "another process"


def release(descriptor: int) -> None:
    """Give a lock back."""
    held.discard(descriptor)
    os.close(descriptor)


def release_all() -> None:
    """Give back all locks of this process."""
    for descriptor in list(held):
        release(descriptor)


@contextlib.contextmanager
def locks_released() -> Iterator[None]:
    """Around a run: the locks that it takes are given back at its end, however it ends."""
    before = set(held)
    try:
        yield
    finally:
        for descriptor in held - before:
            release(descriptor)


# A forked child shares the lock and would hold it on after its parent's death. Closing its copy
# leaves the parent's lock as it is.
os.register_at_fork(after_in_child=release_all)
