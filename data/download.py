"""Fetch the files of the course (CS 224N default project) into `data/`.

    python data/download.py [--out data] [--base-url URL] [--only NAME ...] [--force]

A file comes into memory, is checked there (its length, its header and its checksum) and then
written whole, so what stands in the folder is never half a file. A checksum is that of the text
with LF line ends, because copies of the course's files exist with both. Where none could be known
beforehand, the one first seen is kept in `checksums.json` and holds from then on.
"""

import argparse
import contextlib
import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import requests
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError

from errors import UserError, one_line, run_main
from storage.files import MEBIBYTE, clear_unfinished, read_bytes, reason_of, write_bytes
from storage.json_files import checked, read_json, write_json

BASE_URL = "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/main/data"
CHUNK = 2**16  # bytes
LARGEST = 512 * MEBIBYTE  # several times the largest file of the course
LONGEST_WAIT = 30.0  # seconds between two attempts
LONGEST_TIME = 1800.0  # seconds for a file, over all attempts; a minute is usual
BUSY = {408, 425, 429, 500, 502, 503, 504}  # statuses that another attempt may get past


class CourseFile(NamedTuple):
    """First line, and SHA-256 of the text with LF line ends where it is known."""

    header: str
    sha256: str | None


SENTENCES = "\tid\tsentence\tsentiment"
SENTENCES_TEST = "0\t\tid\tsentence"
QUESTIONS = "\tid\tsentence1\tsentence2\tis_duplicate"
SIMILARITIES = "\tid\tsentence1\tsentence2\tsimilarity"
PAIRS_TEST = "\tid\tsentence1\tsentence2"
FILES: dict[str, CourseFile] = {
    "ids-sst-train.csv": CourseFile(
        SENTENCES, "03b2b625c090f94a6afd59f114cde5282e2053aab0b101e87ed695d8a0c5b1df"
    ),
    "ids-sst-dev.csv": CourseFile(
        SENTENCES, "a186ce94577635fbe10beaaddd50f16cccf6c30973221cefdf90deed2a584bfe"
    ),
    "ids-sst-test-student.csv": CourseFile(
        SENTENCES_TEST, "bdd5a767faa0c26782117e37767ece154c30d5d04fb8727d09c71e3850a55c7b"
    ),
    "quora-train.csv": CourseFile(QUESTIONS, None),
    "quora-dev.csv": CourseFile(QUESTIONS, None),
    "quora-test-student.csv": CourseFile(PAIRS_TEST, None),
    "sts-train.csv": CourseFile(
        SIMILARITIES, "15d12efc2d656fffb1d61ac1f08ec4227f43925fd16f420c037cbd063699c21b"
    ),
    "sts-dev.csv": CourseFile(
        SIMILARITIES, "ce3cad6f16062586ac7ba462c28b010a9be10c530fd5074165860d7b7ab4e93d"
    ),
    "sts-test-student.csv": CourseFile(
        PAIRS_TEST, "dee455745b72e9ca3ff74e7c056bd73e34bad5b8d5641045a2c1e7e131866f47"
    ),
    "ids-cfimdb-train.csv": CourseFile(
        SENTENCES, "140fc513045a966109faed46a5c7a898767b96714d71bcb9c15f659129fadcea"
    ),
    "ids-cfimdb-dev.csv": CourseFile(
        SENTENCES, "3087f571b66860fe5d035b5a018d08202ad3fd3720e4821c04b2acf6c7ded559"
    ),
    "ids-cfimdb-test-student.csv": CourseFile(
        SENTENCES_TEST, "7ae611548c9eac879e9ebb406cc9f8ae68ff12f78090e4965af5cbdfa06240f4"
    ),
}


# ---- over the network


class NoConnection(UserError):
    """The server was not reached at all, or is too slow; the next file would fare no better."""


class Passing(Exception):
    """This attempt failed, another may succeed."""


def without_password(url: str) -> str:
    """An address as it may be shown: `https://me:secret@host/x` is `https://host/x`."""
    return re.sub(r"^([a-z]+://)?.*@", r"\1", url, flags=re.IGNORECASE | re.DOTALL)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Inside, NoConnection after so many seconds; by a signal, so in the main thread only.

    Requests' own limit is between two bytes: a server that drips would keep it waiting for ever.
    """

    def give_up(*_: object) -> None:
        raise NoConnection(f"not there after {seconds:g} seconds; run it again on a faster line")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def receive(url: str, name: str, timeout: float) -> bytes:
    """What one request brings, whole; Passing where it is cut off, or the server is busy."""
    headers = {"Accept-Encoding": "identity"}  # so that the length is that of the file
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status = response.status_code
        if status in BUSY:
            raise Passing(f"the server answers {status}")
        if status != 200:
            raise UserError(f"the server answers {status}; check the address or give --base-url")
        length = response.headers.get("Content-Length", "")
        total = int(length[:15]) if length.isdecimal() else None
        if total is None and "Transfer-Encoding" not in response.headers:
            raise UserError("the server does not say where the file ends; give --base-url")

        # A server that never ends must not fill the memory.
        content = bytearray()
        with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=None) as bar:
            for block in response.iter_content(CHUNK):
                content += block
                bar.update(len(block))
                if len(content) > LARGEST:
                    raise UserError(f"over {LARGEST // MEBIBYTE} MiB came; check the address")
    if total not in (None, len(content)):
        raise Passing("the connection broke")
    return bytes(content)


def fetch(url: str, name: str, retries: int, timeout: float) -> bytes:
    """A file's bytes, asked for again while another attempt may help; else UserError."""
    for attempt in range(retries + 1):
        if attempt > 0:
            time.sleep(min(2.0 ** (attempt - 1), LONGEST_WAIT))
        kind = UserError
        try:
            return receive(url, name, timeout)
        except Passing as error:
            reason = str(error)
        except requests.Timeout:
            reason = "the server fell silent"
        except (requests.ConnectionError, ChunkedEncodingError) as error:
            reason = "the connection broke"
            if error.args and isinstance(error.args[0], MaxRetryError):
                kind, reason = NoConnection, "no connection"
        except (requests.RequestException, ValueError) as error:  # their text may show a password
            raise UserError(f"{type(error).__name__}; check the address") from None
    raise kind(f"{reason}; gave up after {retries + 1} attempts, run it again")


# ---- into the folder


def fault(content: bytes, name: str, recorded: dict[str, str]) -> str | None:
    """What is wrong with the contents of a course file, or None."""
    line = content[:1000].decode("utf-8-sig", errors="replace").partition("\n")[0].rstrip("\r")
    header = FILES[name].header
    if line != header:
        found = f"a file that starts with {line[:60]!r}"
        if line.lstrip().lower().startswith(("<!doctype", "<html")):
            found = "an HTML page"
        return f"{found}, expected the header {header!r}"
    expected = FILES[name].sha256 or recorded.get(name)
    seen = text_sha256(content)
    if expected not in (None, seen):
        return f"a file with checksum {seen}, expected {expected}"
    return None


def text_sha256(content: bytes) -> str:
    """SHA-256 of a text with LF line ends."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def read_recorded(path: Path) -> dict[str, str]:
    """The checksums of earlier downloads, by file name; none where there is no such file."""
    if not os.path.lexists(path):
        return {}
    try:
        return checked(read_json(path), dict[str, str], str(path))
    except UserError as error:
        raise UserError(f"{error}; delete it to start anew") from None


def get(name: str, args: argparse.Namespace) -> str:
    """Bring one course file into the folder unless it is there; a word on what was done."""
    path = args.out / name
    record = args.out / "checksums.json"
    # --force is also how a new version of a file is accepted.
    recorded = {} if args.force else read_recorded(record)
    if os.path.lexists(path) and not args.force:
        wrong = fault(read_bytes(path, LARGEST), name, recorded)
        if wrong is not None:
            raise UserError(f"{path}: {wrong}; it was left alone, --force replaces it")
        return "was there already"

    url = f"{args.base_url.rstrip('/')}/{name}"
    try:
        with time_limit(LONGEST_TIME):
            content = fetch(url, name, args.retries, args.timeout)
    except UserError as error:
        raise type(error)(f"{without_password(url)}: {error}") from None
    wrong = fault(content, name, recorded)
    if wrong is not None:
        raise UserError(f"{without_password(url)}: the server sent {wrong}; nothing was saved")
    write_bytes(path, content)
    if FILES[name].sha256 is None:
        write_json(record, read_recorded(record) | {name: text_sha256(content)})
    return "downloaded"


# ---- the command


class Parser(argparse.ArgumentParser):
    """argparse, but every error is one line."""

    def error(self, message: str) -> Any:
        # Behind the colon stands what was typed, which may be an address.
        what, colon, typed = message.partition(": ")
        raise UserError(f"{what}{colon}{without_password(typed)}; --help lists the flags")


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags, their numbers in range."""
    parser = Parser(description="Fetch the course's data files.")
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here, help="folder for the files")
    parser.add_argument("--base-url", default=BASE_URL, help="folder on the web that holds them")
    only_help = "these files only"
    parser.add_argument("--only", nargs="+", choices=list(FILES), metavar="NAME", help=only_help)
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--retries", type=int, default=5, help="further attempts a file")
    timeout_help = "seconds without a byte before an attempt counts as failed"
    parser.add_argument("--timeout", type=float, default=30.0, help=timeout_help)
    args = parser.parse_args(argv)
    for flag, value, least, most in (
        ("retries", args.retries, 0, 1000),
        ("timeout", args.timeout, 0.001, 86400),
    ):
        if not least <= value <= most:
            raise UserError(f"--{flag} {value}: expected {least:g} to {most:g}")
    return args


def main(argv: list[str]) -> None:
    """The command line: fetch what is missing, then say which files are there."""
    args = parse(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        clear_unfinished(args.out)
    except OSError as error:
        raise UserError(f"{args.out}: can't be written ({reason_of(error)}); check --out") from None
    failures = []
    for name in args.only or FILES:
        # One file's failure does not keep the others away, unless the server can't be reached.
        try:
            print(f"{name}: {get(name, args)}", flush=True)
        except NoConnection as error:
            failures.append(str(error))
            break
        except UserError as error:
            failures.append(str(error))

    # What is there, and how much went wrong, in a line each.
    there = [name for name in FILES if os.path.exists(args.out / name)]
    counts = f"{len(there)} of {len(FILES)} course files in {one_line(str(args.out))}"
    print(f"{counts}: {', '.join(there) or 'none'}", flush=True)
    if len(failures) > 1:
        more = " | ".join(failures[1:])
        raise UserError(f"{failures[0]} (and {len(failures) - 1} more: {more})")
    if failures:
        raise UserError(failures[0])


if __name__ == "__main__":
    run_main(main)
