"""Fetch the files of the course (CS 224N default project) into `data/`.

    python data/download.py [--out data] [--base-url URL] [--only NAME ...] [--force]

fetch.py brings a file whole or not at all. Here its contents are checked: the header and the
checksum, which is that of the text with LF line ends, because copies of the course's files exist
with both. Where no checksum could be known beforehand, the one first seen is kept in
`checksums.json` and holds from then on.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

from data.fetch import LARGEST, Limits, NoConnection, fetch
from errors import UserError, one_line, run_main
from storage.files import check_regular, clear_unfinished, read_bytes, reason_of
from storage.json_files import checked, read_json, write_json

BASE_URL = "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/main/data"


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


def text_sha256(path: Path) -> str:
    """SHA-256 of the text with LF line ends."""
    return hashlib.sha256(read_bytes(path, LARGEST).replace(b"\r\n", b"\n")).hexdigest()


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
    if not os.path.lexists(path):
        return {}
    try:
        recorded = checked(read_json(path), dict[str, str], str(path))
        for name, sha256 in recorded.items():
            if not re.fullmatch("[0-9a-f]{64}", sha256):
                raise UserError(f"{path}: {name} has {sha256}, expected a checksum of 64 digits")
    except UserError as error:
        raise UserError(f"{error}; delete it to start anew") from None
    return recorded


def get(
    name: str,
    folder: Path,
    base_url: str,
    force: bool,
    limits: Limits,
) -> str:
    """Bring one course file into `folder` unless it is there; a word on what was done."""
    path = folder / name
    record = folder / "checksums.json"
    url = f"{base_url.rstrip('/')}/{name}"
    # --force is also how a new version of a file is accepted.
    recorded = {} if force else read_recorded(record)
    if os.path.lexists(path) and not force:
        check_regular(path)
        wrong = fault(path, name, recorded)
        if wrong is None:
            return "was there already"
        raise UserError(f"{path}: {wrong}; it was left alone, --force replaces it")

    def check(part: Path) -> None:
        wrong = fault(part, name, recorded)
        if wrong is not None:
            raise UserError(f"{url}: the server sent {wrong}; nothing was saved")

    fetch(url, path, check, limits)
    if FILES[name].sha256 is None:
        everything = read_recorded(record) | {name: text_sha256(path)}
        write_json(record, dict(sorted(everything.items())))
    return "downloaded"


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make and lock a folder for the block; UserError where another process has locked it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({reason_of(error)}); check --out") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{folder}: another download into it is under way; wait for it") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


class Parser(argparse.ArgumentParser):
    """argparse, but every error is one line."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message}; --help lists the flags")


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags, their numbers in range."""
    parser = Parser(description="Fetch the course's data files.")
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here, help="folder for the files")
    parser.add_argument("--base-url", default=BASE_URL, help="folder on the web that holds them")
    only_help = "these files only"
    parser.add_argument("--only", nargs="+", choices=list(FILES), metavar="NAME", help=only_help)
    parser.add_argument("--force", action="store_true", help="replace files that are there")

    # How patient to be.
    usual = Limits()
    parser.add_argument(
        "--retries", type=int, default=usual.retries, help="further attempts a file"
    )
    timeout_help = "seconds without a byte before an attempt counts as failed"
    parser.add_argument("--timeout", type=float, default=usual.timeout, help=timeout_help)
    backoff_help = "seconds before the second attempt, doubled each time"
    parser.add_argument("--backoff", type=float, default=usual.backoff, help=backoff_help)
    deadline_help = "seconds that a file may take, all attempts together"
    parser.add_argument("--deadline", type=float, default=usual.deadline, help=deadline_help)
    args = parser.parse_args(argv)
    check_number("retries", args.retries, 0, 1000)
    check_number("timeout", args.timeout, 0.001, 86400)
    check_number("backoff", args.backoff, 0, 86400)
    check_number("deadline", args.deadline, 0.001, 86400)
    return args


def check_number(flag: str, value: float, low: float, high: float) -> None:
    """UserError where a number is out of range, or nan."""
    if not low <= value <= high:
        raise UserError(f"--{flag} {value}: expected {low:g} to {high:g}")


def get_all(args: argparse.Namespace) -> list[str]:
    """Bring all files that are asked for, and return what went wrong, a line each."""
    limits = Limits(args.retries, args.timeout, args.backoff, args.deadline)
    failures = []
    for name in args.only or FILES:
        # One file's failure does not keep the others away, unless the server can't be reached.
        try:
            done = get(name, args.out, args.base_url, args.force, limits)
            print(f"{name}: {done}", flush=True)
        except NoConnection as error:
            failures.append(str(error))
            break
        except UserError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{error.filename or args.out}: {reason_of(error)}")
    return failures


def main(argv: list[str]) -> None:
    """The command line: fetch what is missing, then say which files are there."""
    args = parse(argv)
    with sole_writer(args.out):
        clear_unfinished(args.out)
        failures = get_all(args)

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
