"""Files read with care, and written whole or not at all.

Reading: only regular files, since a pipe would wait for ever and /dev/zero has no end; and only up
to a size, so that a wrong path can't eat the memory. Writing: beside the file's place, synced to
the disk, then renamed, so that a kill at any moment leaves the old file or the new one.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from errors import UserError

MEBIBYTE = 2**20
LARGEST_TEXT = 2048 * MEBIBYTE  # a data file
LARGEST_SETTINGS = 16 * MEBIBYTE  # a file of settings, flags or a vocabulary

# A file that is being written is locked and has such a name; see clear_unfinished().
UNFINISHED = ".minbert-{}.new"


def reason_of(error: OSError) -> str:
    """Why the system refused, as "No such file or directory"."""
    return error.strerror or type(error).__name__


# ---- reading


def check_regular(path: Path) -> os.stat_result:
    """What the system says of a regular file; UserError for anything else, a pipe or a device."""
    try:
        found = os.stat(path)
    except ValueError:  # a NUL character in it
        raise UserError(
            f"{path}: no path; it has a character that no file's name can have"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {reason_of(error)}; check the path") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: a folder, expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: a pipe or a device, expected a regular file; copy it to a file")
    return found


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open to be read; UserError where there is none, or it may not be read."""
    check_regular(path)
    try:
        # Whatever stands there by now, opening it does not wait.
        return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise UserError(f"{path}: {reason_of(error)}; check the path") from None


def read_bytes(path: Path, most: int = LARGEST_SETTINGS) -> bytes:
    """A regular file's bytes; UserError where there is none, or it has more than `most` bytes."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > most:
                raise UserError(f"{path}: over {most // MEBIBYTE} MiB; not such a file?")
            # No size is given: a read of so many bytes takes the memory for them, however few there
            # are.
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: {reason_of(error)}; check the path") from None


def read_text(path: Path, most: int = LARGEST_SETTINGS) -> str:
    """A regular file's text; UserError where it can't be read, is not UTF-8 or has a NUL.

    A byte order mark, which editors on Windows put first, is dropped.
    """
    return decoded(read_bytes(path, most), path).removeprefix("\ufeff")


def decoded(raw: bytes, path: Path, line: int = 1) -> str:
    """The text of a file's bytes from a line on; UserError where they are not UTF-8 or have a NUL.

    NUL is valid UTF-8, but in text it means a damaged or binary file.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        byte = raw[error.start]
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"
        ) from None
    if "\0" in text:
        line += text.count("\n", 0, text.index("\0"))
        raise UserError(f"{path}:{line}: a NUL character, expected text; is the file damaged?")
    return text


def sha256_of(path: Path) -> str:
    """The SHA-256 of a regular file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(MEBIBYTE):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {reason_of(error)}; check the path") from None


# ---- writing


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    # fsync works on descriptors only, and a folder too can be opened for reading.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def readable_by_others(path: Path) -> None:
    """Give a file the mode that new files have by the user's umask; temporary ones are 0600."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def check_replaceable(path: Path) -> None:
    """UserError where something at `path` must not be replaced.

    That is what is no regular file, such as /dev/null, and a file that is read-only.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    except ValueError:
        raise UserError(
            f"{path}: no path; it has a character that no file's name can have"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason_of(error)})") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: a folder, expected a file's name")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: a device or a pipe, which is never replaced; choose another file")
    if not found.st_mode & stat.S_IWUSR or not os.access(path, os.W_OK):
        raise UserError(f"{path}: read-only; choose another file, or make it writable")


def open_locked(place: Path) -> BinaryIO:
    """A new file beside `place`, under the lock which says that a living process writes it."""
    while True:
        new = place.with_name(UNFINISHED.format(secrets.token_hex(8)))
        file = open(new, "xb")  # noqa: SIM115 (the caller closes it)
        with contextlib.suppress(OSError):  # not on every file system
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Before it was locked another process may have taken it for a dead one's, and deleted it.
        if os.fstat(file.fileno()).st_nlink > 0:
            return file
        file.close()


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, to be filled and then put in its place by finish().

    Where that does not happen nothing is left of it. UserError where it can't be written.
    """
    check_replaceable(path)
    place = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
    new = ""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open_locked(place) as file:
            new = file.name
            yield file
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason_of(error)})") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(new)


def finish(file: BinaryIO, path: Path) -> None:
    """Put a file that unfinished() gave, all of it on the disk by now, in the place of `path`."""
    os.replace(file.name, os.path.realpath(path))


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a new file and put it in the place of `path`, whole or not at all.

    UserError where that can't be done; then the old file is still there, and nothing else.
    """
    with unfinished(path) as file:
        write(file)
        # The contents must be on the disk before the name that vouches for them.
        file.flush()
        os.fsync(file.fileno())
        finish(file, path)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files: where one can't be written, as on a full disk, all old ones stay."""
    with contextlib.ExitStack() as stack:
        written = []
        for path, content in contents.items():
            file = stack.enter_context(unfinished(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            written.append((file, path))
        for file, path in written:
            finish(file, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see replace_file."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    replace_file(path, write)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; see replace_file."""
    write_bytes(path, text.encode("utf-8"))


def clear_unfinished(folder: Path) -> None:
    """Delete what killed processes left of files that they were writing into a folder."""
    for path in folder.glob(UNFINISHED.format("*")):
        with contextlib.suppress(OSError, UserError), open_regular(path) as file:
            # A living writer holds the lock; the system releases a dead one's.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
