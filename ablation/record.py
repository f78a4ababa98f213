"""A table's record: results/TABLE/runs.jsonl, a line for each run of a row with a seed.

Runs of one record can be compared: they had the same data, and the same flags beside their rows'
own. Each line is appended whole, whoever else appends at the same time.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from options import WITHOUT_EFFECT, Options
from storage.files import LARGEST_TEXT, read_bytes, reason_of
from storage.json_files import Count, parse_json, record
from training.progress import Best

NAME = "runs.jsonl"


@dataclass
class Epoch:
    """What an epoch gave."""

    epoch: Count
    scores: dict[str, float]  # task -> dev score
    overall: float
    training_loss: dict[str, float]  # task or extra -> mean over the epoch's steps
    dev_loss: dict[str, float]  # task -> mean over the examples


@dataclass
class Source:
    """A file that was read."""

    sha256: str
    examples: Count


@dataclass
class Line:
    """A run."""

    # Which.
    row: str
    what: str  # the row in words
    flags: dict[str, Any] | None  # the row's own; None: it is not the main job's
    shared: dict[str, Any]  # those typed for all rows
    seed: Count
    options: dict[str, Any]  # all that have an effect

    # What it gave.
    best: Best
    epochs: list[Epoch]
    steps: Count
    seconds: float
    peak_memory_mib: Count | None  # None here and below: an older version did not record it
    parameters: dict[str, Count] | None  # "all" and "trained"

    # On what.
    data: dict[str, Source]  # "sst_train" and so on
    built_in_corpus: bool
    commit: str
    python: str
    versions: dict[str, str]
    device: str
    kernels: str
    dtype: str


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them, without those that say where things are and change no score."""
    kept = {name: value for name, value in values.items() if name not in WITHOUT_EFFECT}
    return json.loads(json.dumps(kept))


def own_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """A row's flags as JSON holds them; files that it names are part of what it is."""
    kept = plain(flags)
    if "files" in flags:
        kept["files"] = dict(flags["files"])
    return kept


def own_files(flags: Mapping[str, Any] | None) -> set[str]:
    """The files that a row names itself: "sst_train" and so on."""
    return set((flags or {}).get("files", {}))


def whole_lines(content: bytes) -> bytes:
    """A record without its last line where a kill tore that."""
    return content[: content.rfind(b"\n") + 1]


def read_lines(folder: Path) -> list[Line]:
    """The runs of a table, in the order of their ends; UserError names the line that is damaged."""
    path = folder / NAME
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(whole_lines(read_bytes(path, LARGEST_TEXT)).split(b"\n"), 1):
        if text.strip():
            source = f"{path}:{number}"
            values = parse_json(text.decode("utf-8", errors="replace"), source)
            lines.append(record(Line, values, source))
    return lines


def append_line(folder: Path, line: Line) -> None:
    """One more run, on the disk when this returns."""
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            # Others wait here; the lock goes with the file.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            file.truncate(len(whole_lines(content)))
            file.write(json.dumps(asdict(line)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason_of(error)})") from None


def differences(options: Options, line: Line) -> list[str]:
    """The options in which a run that is to be differs from one that was: "clip 1.0, not 0.5".

    An option that the record does not know yet has its default there.
    """
    now = plain(options.to_dict())
    then = {**plain(Options().to_dict()), **line.options}
    return [
        f"{name} {then[name]}, not {value}" for name, value in now.items() if then[name] != value
    ]


def is_recorded(lines: Iterable[Line], row: str, options: Options, sums: Mapping[str, str]) -> bool:
    """Whether a row was run with this seed; UserError where it was with other options or files.

    `sums`: {"sst_train": SHA-256, ...} of its files.
    """
    for line in lines:
        if (line.row, line.seed) == (row, options.seed):
            differ = differences(options, line)
            for name, source in line.data.items():
                if sums.get(name, source.sha256) != source.sha256:
                    differ.append(f"another {name} file")
            if differ:
                raise UserError(
                    f"the record holds {row}, seed {line.seed}, with {'; '.join(differ)}: give the "
                    "row another name, or the table another --out"
                )
            return True
    return False


def check_joins(
    folder: Path, lines: Iterable[Line], shared: Mapping[str, Any], sums: Mapping[str, str]
) -> None:
    """UserError where a run can't join a table, since it could not be compared.

    `shared`: the flags typed for all rows; `sums`: {"sst_train": SHA-256, ...} of its files, but
    for those that its row names itself.
    """
    now = plain(shared)
    for line in lines:
        for name in sorted({*now, *line.shared}):
            if now.get(name) != line.shared.get(name):
                then = f"--{name} {line.shared[name]}" if name in line.shared else f"no --{name}"
                raise UserError(
                    f"{folder} holds runs with {then}: a table has the same flags for all rows; "
                    "give another --out"
                )
        for name in set(line.data) - own_files(line.flags):
            if sums.get(name, line.data[name].sha256) != line.data[name].sha256:
                raise UserError(
                    f"{folder} holds runs on another {name} file: scores on different data can't "
                    "share a table; give another --out"
                )
