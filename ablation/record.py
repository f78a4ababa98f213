"""A table's record: results/TABLE/runs.jsonl, a line for each run of a row with a seed.

Runs of one record can be compared: they share their terms, which are the data, the encoder and the
flags beside the rows' own. Each line is appended whole, whoever else appends at the same time.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ablation.rows import plain
from choices.run import WITHOUT_NETWORK
from errors import UserError
from options import Options
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
    base_weights: str = ""  # SHA-256 of the encoder's before training; "" as above

    @property
    def is_baseline(self) -> bool:
        """Whether it has no network."""
        return self.options["option"] in WITHOUT_NETWORK


# ---- the file


def whole_lines(content: bytes) -> bytes:
    """A record without a last line that a kill tore; one that only lacks its end gets that."""
    end = content.rfind(b"\n") + 1
    with contextlib.suppress(ValueError):
        json.loads(content[end:])
        return content + b"\n"
    return content[:end]


def parsed(content: bytes, path: Path) -> list[Line]:
    """The runs of a record; UserError names the line that is damaged."""
    lines: list[Line] = []
    seen: dict[tuple[str, int], int] = {}  # which line of the file a run is
    for number, text in enumerate(whole_lines(content).split(b"\n"), 1):
        if not text.strip():
            continue
        source = f"{path}:{number}"
        values = parse_json(text.decode("utf-8", errors="replace"), source)
        line = record(Line, values, source)
        if not line.epochs or not {"option", "model"} <= set(line.options):
            raise UserError(f"{source}: no epochs or options in it; is it damaged?")
        before = seen.setdefault((line.row, line.seed), number)
        if before != number:
            raise UserError(
                f"{source}: {line.row} with seed {line.seed} stands in line {before} too; delete "
                "one of them"
            )
        lines.append(line)
    return lines


def read_lines(folder: Path) -> list[Line]:
    """The runs of a table, in the order of their ends; UserError names the line that is damaged."""
    path = folder / NAME
    return parsed(read_bytes(path, LARGEST_TEXT), path) if path.exists() else []


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[BinaryIO]:
    """Inside, no other process changes a table; yields its record, open for reading and appending.

    UserError where it can't be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115 (closed below, where the lock goes with it)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason_of(error)})") from None
    with file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def append_line(folder: Path, line: Line) -> None:
    """One more run, on the disk when this returns.

    UserError where its terms are not the table's, as when two commands began it at once.
    """
    path = folder / NAME
    with locked(folder) as file:
        file.seek(0)
        content = file.read()
        check_joins(folder, parsed(content, path), terms_of(line))
        try:
            # What stands there stays, but for a torn end.
            whole = whole_lines(content)
            file.truncate(min(len(whole), len(content)))
            missing_end = whole[len(content) :]
            file.write(missing_end + json.dumps(asdict(line)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{path}: can't be written ({reason_of(error)})") from None


# ---- what may stand in one record


def shown(value: Any) -> str:
    """An option's value as one would type it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not given" if value is None else str(value)


@dataclass
class Terms:
    """What the runs of a table have in common. What is "" or not there is not known, or differs."""

    shared: dict[str, Any]  # the flags typed for all rows
    model: str  # the encoder, unless the row names its own
    weights: str  # SHA-256 of it
    sums: dict[str, str]  # {"sst_train": SHA-256, ...} of files that the row does not name itself


def terms(
    shared: Mapping[str, Any],
    flags: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    weights: str,
    sums: Mapping[str, str],
) -> Terms:
    """The terms of a run; `flags`: its row's own, `options`: all of them as plain() has them."""
    own = flags or {}
    files = own_files(own)
    if "model" in own or options["option"] in WITHOUT_NETWORK:
        model, weights = "", ""
    else:
        model = options["model"]
    kept = {name: sha256 for name, sha256 in sums.items() if name not in files}
    return Terms(plain(shared), model, weights, kept)


def terms_of(line: Line) -> Terms:
    """The terms of a run that is recorded, or will be."""
    sums = {name: source.sha256 for name, source in line.data.items()}
    return terms(line.shared, line.flags, line.options, line.base_weights, sums)


def own_files(flags: Mapping[str, Any] | None) -> set[str]:
    """The training files that a row brings itself: "sst_train" and so on."""
    return {name for name in (flags or {}).get("files", {}) if name.endswith("_train")}


def check_joins(folder: Path, lines: Iterable[Line], now: Terms) -> None:
    """UserError where a run can't join a table, since it could not be compared."""
    for line in lines:
        then = terms_of(line)
        problem = difference(then, now)
        if problem:
            raise UserError(
                f"{folder} holds runs {problem}: they can't share a table; give another --out"
            )


def difference(then: Terms, now: Terms) -> str:
    """How a table's terms differ from a run's, in words; "" where they don't."""
    for name in sorted({*now.shared, *then.shared}):
        before, after = then.shared.get(name), now.shared.get(name)
        if before != after:
            here = f"this command has {shown(after)}" if name in now.shared else "not this command"
            if name not in then.shared:
                return f"without --{name} for all rows, this command has it"
            return f"with --{name} {shown(before)} for all rows, {here}"
    if then.model and now.model and then.model != now.model:
        return f"of --model {then.model}, not {now.model}"
    if then.weights and now.weights and then.weights != now.weights:
        return "of another encoder's weights"
    for name, sha256 in then.sums.items():
        if name in now.sums and now.sums[name] != sha256:
            return f"on another {name} file"
    return ""


def is_recorded(lines: Iterable[Line], row: str, options: Options, sums: Mapping[str, str]) -> bool:
    """Whether a row was run with this seed.

    UserError where it was run, with any seed, under other options or on other files: its runs are
    taken together. `sums`: {"sst_train": SHA-256, ...} of its files. An option that the record does
    not know yet has its default there.
    """
    found = False
    for number, line in enumerate(lines, 1):
        if line.row == row:
            differ = changes(line, options, sums)
            if differ:
                raise UserError(
                    f"the record has {row} with {'; '.join(differ)}: give the row another name, or "
                    f"delete what was run before (line {number} of {NAME})"
                )
            found = found or line.seed == options.seed
    return found


def changes(line: Line, options: Options, sums: Mapping[str, str]) -> list[str]:
    """How a recorded run differs from one that is wanted, but for its seed."""
    found = []
    now = plain(options.to_dict())
    then = {**plain(Options().to_dict()), **line.options}
    for name, value in now.items():
        if name != "seed" and then[name] != value:
            found.append(f"--{name} {shown(then[name])}, not {shown(value)}")

    # Files that either does not have can't differ.
    for name, source in line.data.items():
        if name in sums and sums[name] != source.sha256:
            found.append(f"another {name} file")
    return found
