"""Fetch the files of the course (CS 224N default project) into `data/`.

    python data/download.py [--out data] [--base-url URL] [--only NAME ...] [--force]

A download lands in `NAME.part` and is moved into place when it is whole and right, so `NAME` is
never a torn file. A dropped connection is taken up where it broke (HTTP Range with If-Range); where
the server does not offer that, or the file changed meanwhile, the download starts anew. A server
must say where a file ends (by its length or in chunks), or a cut file would look whole, and must
send it as it is, not compressed. Checksums are those of the text with LF line ends, because copies
of the course's files exist with both. Where no checksum could be known beforehand, the one first
seen is kept in `checksums.json` and holds from then on. `fetch` serves other downloads too.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before the slow imports
    from errors import begin_script

    begin_script()

import requests
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError

from errors import UserError, run_main

BASE_URL = "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/main/data"
CHUNK = 1 << 14  # bytes; a broken connection loses less than this
LONGEST_WAIT = 30.0  # seconds between two attempts
BUSY = {408, 425, 429}  # statuses below 500 that another attempt may get past


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


class NoConnection(UserError):
    """The server was not reached at all; the next file would fare no better."""


class Interrupted(Exception):
    """This attempt failed, another may succeed; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


# After these another attempt may succeed.
PASSING = (Interrupted, requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def raw_sha256(path: Path) -> str:
    """SHA-256 of the bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def text_sha256(path: Path) -> str:
    """SHA-256 of the text with LF line ends."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def whole_size(url: str, response: requests.Response) -> int | None:
    """The whole file's size in bytes; None where its last chunk marks the end.

    UserError where a file that was cut could not be told from a whole one.
    """
    encoding = response.headers.get("Content-Encoding", "")
    if encoding not in ("", "identity"):
        raise UserError(
            f"{url}: the server sent it compressed ({encoding}), which was not asked for; "
            "give --base-url"
        )
    if "Transfer-Encoding" in response.headers:
        return None
    # A part's header ends in `/size`, a whole file's is just the size.
    header = "Content-Range" if response.status_code == 206 else "Content-Length"
    size = response.headers.get(header, "").rpartition("/")[2]
    if not size.isdecimal():
        raise UserError(
            f"{url}: the server does not say where the file ends, so it may be cut; give --base-url"
        )
    return int(size)


def check_status(url: str, response: requests.Response) -> None:
    """Interrupted where the server is busy, UserError where it does not have the file."""
    status = response.status_code
    if status >= 500 or status in BUSY:
        asked = response.headers.get("Retry-After", "")
        wait = float(asked) if asked.isdecimal() else 0.0
        raise Interrupted(f"the server answers {status}", wait)
    if status not in (200, 206, 416):
        raise UserError(f"{url}: the server answers {status}; check the address or give --base-url")


def goes_on(response: requests.Response, have: int, etag: str, mark: Path) -> bool:
    """Whether the answer goes on behind the `have` bytes of the file `etag`, or is a whole file.

    Interrupted where it is neither; the mark is gone then, so that the next attempt starts anew.
    """
    if response.status_code == 200:
        return False
    useless = ""
    if response.status_code == 416:
        useless = "the server holds less than what is here already"
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        useless = "the server sent another part than asked for"
    elif response.headers.get("ETag") != etag:  # some servers pass over If-Range
        useless = "the server sent a part of another file"
    if useless:
        mark.unlink(missing_ok=True)
        raise Interrupted(useless)
    return True


def start_anew(part: Path, mark: Path, etag: str) -> None:
    """Empty `part`, and mark whose bytes it will hold where the ETag is a strong one."""
    # The old mark must not outlive the old bytes.
    mark.unlink(missing_ok=True)
    part.write_bytes(b"")
    if etag.startswith('"'):
        mark.write_text(etag, encoding="utf-8")


def receive(response: requests.Response, part: Path, start: int, total: int | None) -> None:
    """Append what the server sends to `part`, with a progress bar that begins at `start`."""
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with part.open("ab") as file, bar:
        for block in response.iter_content(CHUNK):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())


def attempt(url: str, part: Path, mark: Path, timeout: float) -> bool:
    """One request that fills `part`, from where it ends if the server agrees; True if it did.

    `mark` holds the ETag of what is in `part`. Without a strong ETag nothing proves that the rest
    is of the same file.
    """
    etag = mark.read_text(encoding="utf-8") if mark.exists() else ""
    have = part.stat().st_size if etag and part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        check_status(url, response)
        resumed = goes_on(response, have, etag, mark)
        total = whole_size(url, response)
        if not resumed:
            start_anew(part, mark, response.headers.get("ETag", ""))
        receive(response, part, have if resumed else 0, total)
    size = part.stat().st_size
    if total is not None and size != total:
        raise Interrupted(f"the connection ended after {size} of {total} bytes")
    return resumed


def check_whole(
    url: str, part: Path, sha256: str | None, check: Callable[[Path], None] | None
) -> None:
    """Delete a finished download that is not what it should be, and raise UserError."""
    try:
        check_bytes(url, part, sha256)
        if check is not None:
            check(part)
    except UserError:
        part.unlink()
        raise


def check_bytes(url: str, path: Path, sha256: str | None) -> None:
    """UserError where a checksum is given and the file has another."""
    if sha256 is None:
        return
    seen = raw_sha256(path)
    if seen != sha256:
        raise UserError(f"{url}: checksum is {seen}, expected {sha256}; nothing was saved")


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    retries: int = 5,
    timeout: float = 30.0,
    backoff: float = 1.0,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Download `url` to `path`, whole and checked, or raise UserError and leave `path` as it was.

    `sha256` is that of the bytes; `check` may look at the finished file and raise UserError. After
    a failed attempt it waits `backoff` seconds, then twice as long each time, and gives up after
    `retries` further attempts. What arrived of an unfinished download stays in `path.part` for the
    next call; what arrived whole but wrong is deleted.
    """
    part = path.with_name(path.name + ".part")
    mark = path.with_name(path.name + ".part.etag")
    left = retries
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            resumed = attempt(url, part, mark, timeout)
            mark.unlink(missing_ok=True)
            try:
                check_whole(url, part, sha256, check)
            except UserError:
                if resumed and left > 0:
                    raise Interrupted("the pieces do not fit together") from None
                raise
            os.replace(part, path)
            return
        except PASSING as error:
            if left <= 0:
                raise given_up(url, error, retries + 1) from error
            asked = error.wait if isinstance(error, Interrupted) else 0.0
            wait = max(backoff * 2 ** (retries - left), asked)
            time.sleep(min(wait, LONGEST_WAIT))
            left -= 1
        except requests.RequestException as error:
            raise UserError(f"{url}: {' '.join(str(error).split())}") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


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


def first_line(path: Path) -> str:
    """The first line without its end; bytes that are not UTF-8 become marks."""
    with path.open("rb") as file:
        line = file.readline(1000).decode("utf-8", errors="replace")
    return line.removeprefix("\ufeff").rstrip("\r\n")


def fault(path: Path, name: str, recorded: dict[str, str]) -> str | None:
    """What is wrong with a course file, or None."""
    line = first_line(path)
    header = FILES[name].header
    if line != header:
        found = f"a file that starts with {line[:60]!r}"
        if line.lstrip().lower().startswith(("<!doctype", "<html")):
            found = "an HTML page"
        return f"{found}, expected the header {header!r}"
    expected = FILES[name].sha256 or recorded.get(name)
    if expected is None:
        return None
    seen = text_sha256(path)
    if seen != expected:
        return f"a file with checksum {seen}, expected {expected}"
    return None


def read_recorded(path: Path) -> dict[str, str]:
    """The checksums of earlier downloads, by file name; none where there is no such file."""
    try:
        if not path.exists():
            return {}
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); delete it to start anew"
        ) from error
    if not isinstance(recorded, dict):
        raise UserError(
            f"{path}: expected an object of file names and checksums; delete it to start anew"
        )
    return recorded


def write_recorded(path: Path, recorded: dict[str, str]) -> None:
    """Write the checksums, whole or not at all."""
    fresh = path.with_suffix(".json.part")
    fresh.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def get(
    name: str,
    folder: Path,
    base_url: str,
    force: bool,
    retries: int,
    timeout: float,
    backoff: float,
) -> str:
    """Bring one course file into `folder` unless it is there; a word on what was done."""
    path = folder / name
    record = folder / "checksums.json"
    url = f"{base_url.rstrip('/')}/{name}"
    # --force is also how a new version of a file is accepted.
    recorded = {} if force else read_recorded(record)
    if path.exists() and not force:
        wrong = fault(path, name, recorded)
        if wrong is None:
            return "was there already"
        raise UserError(f"{path}: {wrong}; it was left alone, --force replaces it")

    def check(part: Path) -> None:
        wrong = fault(part, name, recorded)
        if wrong is not None:
            raise UserError(f"{url}: the server sent {wrong}; nothing was saved")

    fetch(url, path, retries=retries, timeout=timeout, backoff=backoff, check=check)
    if FILES[name].sha256 is None:
        write_recorded(record, read_recorded(record) | {name: text_sha256(path)})
    return "downloaded"


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags, their numbers in range."""
    parser = argparse.ArgumentParser(description="Fetch the course's data files.")
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here, help="folder for the files")
    parser.add_argument("--base-url", default=BASE_URL, help="folder on the web that holds them")
    only_help = "these files only"
    parser.add_argument("--only", nargs="+", choices=list(FILES), metavar="NAME", help=only_help)
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--retries", type=int, default=5, help="further attempts a file")
    timeout_help = "seconds without a byte before an attempt counts as failed"
    parser.add_argument("--timeout", type=float, default=30.0, help=timeout_help)
    backoff_help = "seconds before the second attempt, doubled each time"
    parser.add_argument("--backoff", type=float, default=1.0, help=backoff_help)
    args = parser.parse_args(argv)
    check_number("retries", args.retries, 0, 1000)
    check_number("timeout", args.timeout, 0.001, 86400)
    check_number("backoff", args.backoff, 0, 86400)
    return args


def check_number(flag: str, value: float, low: float, high: float) -> None:
    """UserError where a number is out of range, or nan."""
    if not low <= value <= high:
        raise UserError(f"--{flag} {value}: expected {low:g} to {high:g}")


def main(argv: list[str]) -> None:
    """The command line: fetch what is missing, then say which files are there."""
    args = parse(argv)

    # One file's failure does not keep the others away, unless the server can't be reached at all.
    failures = []
    for name in args.only or FILES:
        try:
            done = get(
                name,
                args.out,
                args.base_url,
                args.force,
                retries=args.retries,
                timeout=args.timeout,
                backoff=args.backoff,
            )
            print(f"{name}: {done}", flush=True)
        except NoConnection as error:
            failures.append(str(error))
            break
        except UserError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{error.filename or args.out}: {error.strerror or error}")

    # What is there, and all that went wrong in one line.
    there = [name for name in FILES if os.path.exists(args.out / name)]
    listed = ", ".join(there) or "none"
    print(f"{len(there)} of {len(FILES)} course files in {args.out}: {listed}", flush=True)
    if len(failures) > 1:
        more = " | ".join(failures[1:])
        raise UserError(f"{failures[0]} (and {len(failures) - 1} more: {more})")
    if failures:
        raise UserError(failures[0])


if __name__ == "__main__":
    run_main(main)
