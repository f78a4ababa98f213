"""Files in, prediction files out: reading the course's tab-separated files as they really are, one
Example a row, and writing the leaderboard's.

Extra unnamed index columns, rows without a label (skipped and counted in train and dev), quoted
fields, CRLF and a byte order mark all occur. What can't be right is one line: file, line, what was
expected. No test row is dropped.

Prediction files are the leaderboard's, byte for byte: a header, then one line an example, in the
order of the data file.
"""

import csv
import io
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from tasks import TASKS, Task


@dataclass(frozen=True)
class Example:
    """One row: its id, its sentence or two, and its label (None in the test split)."""

    id: str
    texts: tuple[str, ...]
    label: float | None


def read_text(path: Path) -> str:
    """A file's text; UserError where it can't be read or is not UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; check the path, or fetch the data: python data/download.py"
        ) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:  # its object lacks the byte order mark
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}:{line}: a NUL character, expected text; is the file damaged?")
    return text


def parse_label(text: str, task: Task, where: str) -> float:
    """A label in range, or UserError."""
    kind = "a whole number" if task.whole else "a number"
    try:
        label = float(text)
    except ValueError:
        label = math.nan
    if not task.low <= label <= task.high or (task.whole and label != int(label)):
        raise UserError(
            f'{where}: {task.label} is "{text}", expected {kind} from {task.low:g} to {task.high:g}'
        )
    return label


def runs_on(cell: object) -> bool:
    """Whether a cell holds a tab and a line break: a stray quote opened it, and another one rows
    below closed it, so it has taken in what stands between. A text of several lines, or one with
    tabs, is fine.
    """
    return isinstance(cell, str) and "\t" in cell and ("\n" in cell or "\r" in cell)


def read_examples(path: str | Path, task: Task, split: str) -> list[Example]:
    """All examples of a file, in its order. `split` "test" asks for no labels and keeps every
    row.
    """
    path = Path(path)
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t", strict=True)
    columns = ["id", *task.columns] + ([] if split == "test" else [task.label])
    examples: list[Example] = []
    seen: dict[str, int] = {}
    line = unlabelled = 0
    try:
        if any(map(runs_on, reader.fieldnames or [])):
            raise UserError(
                f"{path}:1: a column's name runs on to line {reader.line_num}; delete the stray quote"
            )
        lacking = [c for c in columns if c not in (reader.fieldnames or [])]
        if lacking:
            found = ", ".join(c for c in reader.fieldnames or [] if c) or "nothing"
            expected = ", ".join(columns)
            raise UserError(
                f"{path}:1: no column {', '.join(lacking)}; found {found}; expected tab-separated {expected}"
            )
        # All columns stay apart, those without a name too: a stray quote may stand in any.
        reader.fieldnames = [
            c if c in columns else f"column {i}" for i, c in enumerate(reader.fieldnames or [], 1)
        ]
        line = reader.line_num
        for row in reader:
            line = reader.line_num
            where = f"{path}:{line}"
            if any(row.get(None, [])):
                raise UserError(
                    f"{where}: more cells than the first line has; put texts with tabs in quotes"
                )
            if column := next((c for c in row if runs_on(row[c])), ""):
                first = line - sum(cell.count("\n") for cell in row.values() if cell)
                raise UserError(
                    f"{path}:{first}: {column} runs on to line {line}, tabs and all; delete the stray quote"
                )
            if split != "test" and not (row[task.label] or "").strip():
                unlabelled += 1
                continue
            identity = (row["id"] or "").strip().lower()
            texts = tuple((row[c] or "").strip() for c in task.columns)
            if not identity or not all(texts):
                empty = "id" if not identity else task.columns[texts.index("")]
                raise UserError(f"{where}: {empty} is empty; fill it in or delete the row")
            if identity in seen:
                raise UserError(
                    f"{where}: id {identity} stands in line {seen[identity]} already; ids must differ"
                )
            seen[identity] = line
            label = None if split == "test" else parse_label(row[task.label], task, where)
            examples.append(Example(identity, texts, label))
    except csv.Error as error:
        raise UserError(
            f"{path}:{line + 1}: not tab-separated text, or a quote that does not end ({error})"
        ) from None
    if not examples:
        raise UserError(f"{path}: no rows with {'a label' if split != 'test' else 'text'} in it")
    if unlabelled:
        print(f"{path}: skipped {unlabelled} rows without a label")
    return examples


def write_predictions(
    path: str | Path, task: str, ids: list[str], predictions: Iterable[Any]
) -> None:
    """A prediction file in the leaderboard's format, written whole or not at all."""
    path = Path(path)
    new = ""
    lines = [
        f"id \t {TASKS[task].header} \n",
        *(f"{i} , {p} \n" for i, p in zip(ids, predictions, strict=True)),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, delete=False
        ) as file:
            new = file.name
            file.writelines(lines)
        os.chmod(new, 0o644)  # temporary files are the owner's only
        os.replace(new, path)
    except OSError as error:
        if new:
            Path(new).unlink(missing_ok=True)
        raise UserError(f"{path}: can't be written ({error.strerror})") from None
