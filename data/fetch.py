"""Fetching one file over HTTP, whole and checked or not at all.

A download lands in `NAME.part` and is moved into place when it is whole and right, so `NAME` is
never a torn file. A dropped connection is taken up where it broke (HTTP Range with If-Range); where
the server does not offer that, or the file changed meanwhile, the download starts anew. A server
must say where a file ends (by its length or in chunks), or a cut file would look whole, and must
send it as it is, not compressed. A file has a largest size and a time that it may take, or a server
could fill the disk or drip for ever.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import requests
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError

from data.answers import Interrupted, Mark, check_status, is_strong, size_of_rest, size_of_whole
from errors import UserError
from storage.files import MEBIBYTE, check_replaceable, reason_of
from storage.json_files import read_record, write_json

CHUNK = 1 << 14  # bytes; a broken connection loses less than this
LONGEST_WAIT = 30.0  # seconds between two attempts
LARGEST = 512 * MEBIBYTE  # several times the largest file of the course
DEADLINE = 1800.0  # seconds for a file: 100 MB at 55 KB/s


class NoConnection(UserError):
    """The server was not reached at all; the next file would fare no better."""


class OutOfTime(Exception):
    """The deadline has passed."""


# After these another attempt may succeed.
PASSING = (Interrupted, requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


@dataclass(frozen=True)
class Limits:
    """How patient a download is, and how much it takes."""

    retries: int = 5  # further attempts
    timeout: float = 30.0  # seconds without a byte before an attempt counts as failed
    backoff: float = 1.0  # seconds before the second attempt, doubled each time
    deadline: float = DEADLINE  # seconds for the whole file
    largest: int = LARGEST  # bytes


# ---- what surrounds a download


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """OutOfTime in the block after that many seconds, whatever it waits for.

    A timer does what no time-out of a socket does: each byte that drips in starts those anew.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_mark(path: Path) -> Mark | None:
    """The mark of what is in a `.part`; None where there is none, or a damaged one."""
    try:
        mark = read_record(path, Mark)
    except UserError:
        return None
    return mark if is_strong(mark.etag) else None


# ---- one attempt


def check_room(url: str, part: Path, have: int, total: int, largest: int) -> None:
    """UserError where a file is too large, or the disk too small for the rest of it."""
    if total > largest:
        raise UserError(
            f"{url}: the server announces {total} bytes, over {largest // MEBIBYTE} MiB; no such "
            "file was expected, check the address"
        )
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise UserError(
            f"{part.parent}: {free // MEBIBYTE} MiB free, {url} takes "
            f"{(total - have) // MEBIBYTE + 1}; make room"
        )


def start_anew(part: Path, mark: Path, etag: str, total: int | None) -> None:
    """Empty `part`, and mark whose bytes it will hold where the ETag is a strong one."""
    # The old mark must not outlive the old bytes.
    mark.unlink(missing_ok=True)
    part.write_bytes(b"")
    if is_strong(etag):
        write_json(mark, asdict(Mark(etag, total)))


def receive(response: requests.Response, part: Path, have: int, total: int | None) -> Iterator[int]:
    """Append what the server sends to `part`, which has `have` bytes, and yield its size."""
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with part.open("ab") as file, bar:
        for block in response.iter_content(CHUNK):
            file.write(block)
            bar.update(len(block))
            have += len(block)
            yield have
        file.flush()
        os.fsync(file.fileno())


def attempt(url: str, part: Path, mark_path: Path, limits: Limits) -> bool:
    """One request that fills `part`, from where it ends if the server agrees; True if it did."""
    # Ask for the rest where it is known of what.
    mark = read_mark(mark_path)
    have = part.stat().st_size if mark and part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if mark and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark.etag}
    with requests.get(url, headers=headers, stream=True, timeout=limits.timeout) as response:
        check_status(url, response)
        goes_on = response.status_code != 200
        try:
            total = size_of_rest(response, have, mark) if goes_on else size_of_whole(url, response)
        except Interrupted:
            # Without its mark the next attempt starts anew.
            mark_path.unlink(missing_ok=True)
            raise

        # What it should come to is known before anything is written.
        have = have if goes_on else 0
        if total is not None:
            check_room(url, part, have, total, limits.largest)
        if not goes_on:
            start_anew(part, mark_path, response.headers.get("ETag", ""), total)
        for size in receive(response, part, have, total):
            if size > limits.largest:
                part.unlink()
                mark_path.unlink(missing_ok=True)
                raise UserError(
                    f"{url}: over {limits.largest // MEBIBYTE} MiB came; no such file was "
                    "expected, check the address"
                )
    size = part.stat().st_size
    if total is not None and size != total:
        raise Interrupted(f"the connection ended after {size} of {total} bytes")
    return goes_on


def check_whole(part: Path, check: Callable[[Path], None]) -> None:
    """Delete a finished download that is not what it should be, and raise UserError."""
    try:
        check(part)
    except UserError:
        part.unlink()
        raise


# ---- all attempts


def fetch(
    url: str,
    path: Path,
    check: Callable[[Path], None],
    limits: Limits = Limits(),
) -> None:
    """Download `url` to `path`, whole and checked, or raise UserError and leave `path` as it was.

    `check` looks at the finished file and raises UserError where it is wrong. What arrived of an
    unfinished download stays in `path.part` for the next call; what arrived whole but wrong, or too
    large, is deleted. Only the main thread may call it: the deadline is a signal.
    """
    part = path.with_name(path.name + ".part")
    mark = path.with_name(path.name + ".part.etag")
    for place in (path, part, mark):
        check_replaceable(place)
    try:
        with deadline(limits.deadline):
            fetch_in_time(url, path, check, limits)
    except OutOfTime:
        raise UserError(
            f"{url}: not whole after {limits.deadline:g} s; run it again to go on, or with a "
            "longer --deadline"
        ) from None
    except (requests.RequestException, ValueError) as error:  # of no address, or an odd one
        raise UserError(f"{url}: {error}; check the address") from None
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason_of(error)})") from None


def fetch_in_time(
    url: str,
    path: Path,
    check: Callable[[Path], None],
    limits: Limits,
) -> None:
    """fetch() without its deadline; raises what else can't be mended here."""
    part = path.with_name(path.name + ".part")
    mark = path.with_name(path.name + ".part.etag")
    left = limits.retries
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            resumed = attempt(url, part, mark, limits)
            mark.unlink(missing_ok=True)
            try:
                check_whole(part, check)
            except UserError:
                if resumed and left > 0:
                    raise Interrupted("the pieces do not fit together") from None
                raise
            os.replace(part, path)
            return
        except PASSING as error:
            if left <= 0:
                raise given_up(url, error, limits.retries + 1) from error
            asked = error.wait if isinstance(error, Interrupted) else 0.0
            wait = max(limits.backoff * 2 ** (limits.retries - left), asked)
            time.sleep(min(wait, LONGEST_WAIT))
            left -= 1


def given_up(url: str, error: Exception, attempts: int) -> UserError:
    """The error after the last attempt; a NoConnection where the server was not reached at all."""
    kind = UserError
    if isinstance(error, Interrupted):
        why = str(error)
    elif error.args and isinstance(error.args[0], MaxRetryError):
        kind = NoConnection
        why = "no connection"
    elif "timed out" in str(error).lower():
        why = "the server fell silent"
    else:
        why = "the connection broke"
    return kind(f"{url}: {why}; gave up after {attempts} attempts, run it again to go on")
