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

import requests
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from errors import UserError, run  # noqa: E402

BASE_URL = "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/main/data"
CHUNK = 1 << 14  # bytes; a broken connection loses less than this
LONGEST_WAIT = 30.0  # seconds between two attempts
BUSY = {408, 425, 429}


class CourseFile(NamedTuple):
    """First line, and SHA-256 of the text with LF line ends where it is known."""

    header: str
    sha256: str | None


TRAIN_SST, TEST_SST = "\tid\tsentence\tsentiment", "0\t\tid\tsentence"
FILES: dict[str, CourseFile] = {
    "ids-sst-train.csv": CourseFile(
        TRAIN_SST, "03b2b625c090f94a6afd59f114cde5282e2053aab0b101e87ed695d8a0c5b1df"
    ),
    "ids-sst-dev.csv": CourseFile(
        TRAIN_SST, "a186ce94577635fbe10beaaddd50f16cccf6c30973221cefdf90deed2a584bfe"
    ),
    "ids-sst-test-student.csv": CourseFile(
        TEST_SST, "bdd5a767faa0c26782117e37767ece154c30d5d04fb8727d09c71e3850a55c7b"
    ),
    "quora-train.csv": CourseFile("\tid\tsentence1\tsentence2\tis_duplicate", None),
    "quora-dev.csv": CourseFile("\tid\tsentence1\tsentence2\tis_duplicate", None),
    "quora-test-student.csv": CourseFile("\tid\tsentence1\tsentence2", None),
    "sts-train.csv": CourseFile(
        "\tid\tsentence1\tsentence2\tsimilarity",
        "15d12efc2d656fffb1d61ac1f08ec4227f43925fd16f420c037cbd063699c21b",
    ),
    "sts-dev.csv": CourseFile(
        "\tid\tsentence1\tsentence2\tsimilarity",
        "ce3cad6f16062586ac7ba462c28b010a9be10c530fd5074165860d7b7ab4e93d",
    ),
    "sts-test-student.csv": CourseFile(
        "\tid\tsentence1\tsentence2",
        "dee455745b72e9ca3ff74e7c056bd73e34bad5b8d5641045a2c1e7e131866f47",
    ),
    "ids-cfimdb-train.csv": CourseFile(
        TRAIN_SST, "140fc513045a966109faed46a5c7a898767b96714d71bcb9c15f659129fadcea"
    ),
    "ids-cfimdb-dev.csv": CourseFile(
        TRAIN_SST, "3087f571b66860fe5d035b5a018d08202ad3fd3720e4821c04b2acf6c7ded559"
    ),
    "ids-cfimdb-test-student.csv": CourseFile(
        TEST_SST, "7ae611548c9eac879e9ebb406cc9f8ae68ff12f78090e4965af5cbdfa06240f4"
    ),
}


class NoConnection(UserError):
    """The server was not reached at all; the next file would fare no better."""


class Interrupted(Exception):
    """This attempt failed, another may succeed; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


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
    """The size of the whole file in bytes, None where its end is marked by the last chunk;
    UserError where a file that was cut could not be told from a whole one.
    """
    if (encoding := response.headers.get("Content-Encoding", "")) not in ("", "identity"):
        raise UserError(
            f"{url}: the server sent it compressed ({encoding}), which was not asked for; give --base-url"
        )
    if "Transfer-Encoding" in response.headers:
        return None
    resumed = response.status_code == 206
    size = response.headers.get("Content-Range" if resumed else "Content-Length", "").rpartition(
        "/"
    )[2]
    if not size.isdecimal():
        raise UserError(
            f"{url}: the server does not say where the file ends, so it may be cut; give --base-url"
        )
    return int(size)


def attempt(url: str, part: Path, mark: Path, timeout: float) -> bool:
    """One request that fills `part`, from where it ends if the server agrees; True if it began in
    the middle.

    `mark` holds the ETag of what is in `part`. Without a strong ETag nothing proves that the rest
    is of the same file.
    """
    etag = mark.read_text(encoding="utf-8") if mark.exists() else ""
    have = part.stat().st_size if etag and part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | (
        {"Range": f"bytes={have}-", "If-Range": etag} if have else {}
    )
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status = response.status_code
        if status == 416:
            mark.unlink(missing_ok=True)
            raise Interrupted("the server holds less than what is here already")
        if status >= 500 or status in BUSY:
            asked = response.headers.get("Retry-After", "")
            raise Interrupted(
                f"the server answers {status}", float(asked) if asked.isdecimal() else 0.0
            )
        if status not in (200, 206):
            raise UserError(
                f"{url}: the server answers {status}; check the address or give --base-url"
            )
        resumed = status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            mark.unlink(missing_ok=True)
            raise Interrupted("the server sent another part than asked for")
        if resumed and response.headers.get("ETag") != etag:  # some servers pass over If-Range
            mark.unlink(missing_ok=True)
            raise Interrupted("the server sent a part of another file")
        start = have if resumed else 0
        total = whole_size(url, response)
        if not resumed:
            # The old mark must not outlive the old bytes.
            mark.unlink(missing_ok=True)
            part.write_bytes(b"")
            found = response.headers.get("ETag", "")
            if found.startswith('"'):
                mark.write_text(found, encoding="utf-8")
        with (
            part.open("ab") as file,
            tqdm(
                total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None
            ) as bar,
        ):
            for block in response.iter_content(CHUNK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    size = part.stat().st_size
    if total is not None and size != total:
        raise Interrupted(f"the connection ended after {size} of {total} bytes")
    return resumed


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
    part, mark = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.etag")
    left = retries
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            resumed = attempt(url, part, mark, timeout)
            mark.unlink(missing_ok=True)
            try:
                if sha256 is not None and (seen := raw_sha256(part)) != sha256:
                    raise UserError(
                        f"{url}: checksum is {seen}, expected {sha256}; nothing was saved"
                    )
                if check is not None:
                    check(part)
            except UserError:
                part.unlink()
                if resumed and left > 0:
                    raise Interrupted("the pieces do not fit together") from None
                raise
            os.replace(part, path)
            return
        except (
            Interrupted,
            requests.ConnectionError,
            requests.Timeout,
            ChunkedEncodingError,
        ) as error:
            if left <= 0:
                kind, why = reason(error)
                raise kind(
                    f"{url}: {why}; gave up after {retries + 1} attempts, run it again to go on"
                ) from error
            time.sleep(
                min(max(backoff * 2 ** (retries - left), getattr(error, "wait", 0.0)), LONGEST_WAIT)
            )
            left -= 1
        except requests.RequestException as error:
            raise UserError(f"{url}: {' '.join(str(error).split())}") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def reason(error: Exception) -> tuple[type[UserError], str]:
    """Whether the server was reached at all, and what failed, on one line."""
    if isinstance(error, Interrupted):
        return UserError, str(error)
    if error.args and isinstance(error.args[0], MaxRetryError):
        return NoConnection, "no connection"
    return UserError, "the server fell silent" if "timed out" in str(
        error
    ).lower() else "the connection broke"


def first_line(path: Path) -> str:
    """The first line without its end; bytes that are not UTF-8 become marks."""
    with path.open("rb") as file:
        return (
            file.readline(1000)
            .decode("utf-8", errors="replace")
            .removeprefix("\ufeff")
            .rstrip("\r\n")
        )


def fault(path: Path, name: str, recorded: dict[str, str]) -> str | None:
    """What is wrong with a course file, or None."""
    line = first_line(path)
    if line != FILES[name].header:
        page = (
            "an HTML page"
            if line.lstrip().lower().startswith(("<!doctype", "<html"))
            else f"a file that starts with {line[:60]!r}"
        )
        return f"{page}, expected the header {FILES[name].header!r}"
    expected = FILES[name].sha256 or recorded.get(name)
    if expected is not None and (seen := text_sha256(path)) != expected:
        return f"a file with checksum {seen}, expected {expected}"
    return None


def read_recorded(path: Path) -> dict[str, str]:
    """The checksums of earlier downloads."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); delete it to start anew"
        ) from error
    if not isinstance(recorded, dict):
        raise UserError(
            f"{path}: expected an object of file names and checksums; delete it to start anew"
        )
    return recorded


def get(
    name: str,
    folder: Path,
    base_url: str,
    force: bool,
    retries: int,
    timeout: float,
    backoff: float,
) -> str:
    """Bring one course file into `folder` unless it is there; a word on what was done, or
    UserError.
    """
    path, record = folder / name, folder / "checksums.json"
    # --force is also how a new version of a file is accepted.
    recorded = {} if force else read_recorded(record)
    url = f"{base_url.rstrip('/')}/{name}"
    if path.exists() and not force:
        wrong = fault(path, name, recorded)
        if wrong is None:
            return "was there already"
        raise UserError(f"{path}: {wrong}; it was left alone, --force replaces it")

    def check(part: Path) -> None:
        if (wrong := fault(part, name, recorded)) is not None:
            raise UserError(f"{url}: the server sent {wrong}; nothing was saved")

    fetch(url, path, retries=retries, timeout=timeout, backoff=backoff, check=check)
    if FILES[name].sha256 is None:
        known = read_recorded(record) | {name: text_sha256(path)}
        fresh = record.with_suffix(".json.part")
        fresh.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(fresh, record)
    return "downloaded"


def main(argv: list[str]) -> None:
    """The command line: fetch what is missing, then say which files are there."""
    parser = argparse.ArgumentParser(description="Fetch the course's data files.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder for the files"
    )
    parser.add_argument("--base-url", default=BASE_URL, help="folder on the web that holds them")
    parser.add_argument(
        "--only", nargs="+", choices=list(FILES), metavar="NAME", help="these files only"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--retries", type=int, default=5, help="further attempts a file")
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        help="seconds without a byte before an attempt counts as failed",
    )
    parser.add_argument(
        "--backoff",
        type=float,
        default=1.0,
        help="seconds before the second attempt, doubled each time",
    )
    args = parser.parse_args(argv)
    for flag, value, low, high in (
        ("retries", args.retries, 0, 1000),
        ("timeout", args.timeout, 0.001, 86400),
        ("backoff", args.backoff, 0, 86400),
    ):
        if not low <= value <= high:  # nor is nan
            raise UserError(f"--{flag} {value}: expected {low:g} to {high:g}")
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
        except UserError as error:
            failures.append(str(error))
            if isinstance(error, NoConnection):
                break
        except OSError as error:
            failures.append(f"{error.filename or args.out}: {error.strerror or error}")
    there = [name for name in FILES if os.path.exists(args.out / name)]
    print(
        f"{len(there)} of {len(FILES)} course files in {args.out}: {', '.join(there) or 'none'}",
        flush=True,
    )
    if failures:
        more = (
            f" (and {len(failures) - 1} more: {' | '.join(failures[1:])})"
            if len(failures) > 1
            else ""
        )
        raise UserError(failures[0] + more)


if __name__ == "__main__":
    run(main)
