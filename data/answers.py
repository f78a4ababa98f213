"""What a server's answer to a request for a file, or for the rest of one, is worth."""

import re
from dataclasses import dataclass

import requests

from errors import UserError
from storage.json_files import Count

BUSY = {408, 425, 429}  # statuses below 500 that another attempt may get past
LONG_NUMBER = 15  # digits; no size of a file has more
PART = r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})"  # the header Content-Range


class Interrupted(Exception):
    """This attempt failed, another may succeed; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Mark:
    """Whose bytes a `.part` holds: without it nothing proves that the rest is of the same file."""

    etag: str  # a strong one
    total: Count | None  # bytes of the whole file; None where its last chunk marks the end


def is_strong(etag: str) -> bool:
    """Whether an ETag promises that two files which have it are the same, byte for byte."""
    return re.fullmatch(r'"[!#-~]*"', etag) is not None


def check_status(url: str, response: requests.Response) -> None:
    """Interrupted where the server is busy, UserError where it does not have the file."""
    status = response.status_code
    if status >= 500 or status in BUSY:
        asked = response.headers.get("Retry-After", "")
        wait = float(asked) if asked.isdecimal() else 0.0
        raise Interrupted(f"the server answers {status}", wait)
    if status not in (200, 206, 416):
        raise UserError(f"{url}: the server answers {status}; check the address or give --base-url")
    encoding = response.headers.get("Content-Encoding", "")
    if encoding not in ("", "identity"):
        raise UserError(
            f"{url}: the server sent it compressed ({encoding}), which was not asked for; "
            "give --base-url"
        )


def size_of_whole(url: str, response: requests.Response) -> int | None:
    """The size in bytes of a file that is sent whole; None where its last chunk marks the end.

    UserError where a file that was cut could not be told from a whole one.
    """
    if "Transfer-Encoding" in response.headers:
        return None
    size = response.headers.get("Content-Length", "")
    if not size.isdecimal():
        raise UserError(
            f"{url}: the server does not say where the file ends, so it may be cut; give --base-url"
        )
    return int(size[:LONG_NUMBER])  # too large either way


def size_of_rest(response: requests.Response, have: int, mark: Mark | None) -> int:
    """The size in bytes of a file whose rest is sent, behind `have` bytes of the one marked.

    Interrupted where the answer is anything else.
    """
    if response.status_code == 416:
        raise Interrupted("the server holds less than what is here already")
    if mark is None or not have:
        raise Interrupted("the server sent a part that was not asked for")
    if response.headers.get("ETag") != mark.etag:  # some servers pass over If-Range
        raise Interrupted("the server sent a part of another file")

    # First and last byte, and the whole file's size: all three must agree with what is known.
    found = re.fullmatch(PART, response.headers.get("Content-Range", ""), re.ASCII)
    if found is None:
        raise Interrupted("the server does not say which part it sent")
    first, last, total = (int(number) for number in found.groups())
    if first != have or not first <= last < total:
        raise Interrupted("the server sent another part than asked for")
    if mark.total not in (None, total):
        raise Interrupted(f"the server says {total} bytes now, and said {mark.total} before")
    return total
