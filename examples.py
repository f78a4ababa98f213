"""Files in: reading with a line number for whatever is wrong.

The course's tab-separated files are read as they really are, one Example a row: extra unnamed index
columns, rows without a label (skipped and counted in train and dev), quoted fields, CRLF and a byte
order mark all occur. What can't be right is one line: file, line, what was expected. No test row is
dropped.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from prediction_files import write_predictions  # noqa: F401  (the course's scripts import it here)
from tasks import Task


@dataclass(frozen=True)
class Example:
    """One row: its id, its sentence or two, and its label (None in the test split)."""

    id: str
    texts: tuple[str, ...]
    label: Any  # a number, or what the task's labels are


def read_text(path: Path) -> str:
    """A file's text; UserError where it can't be read or is not UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; check the path, or fetch the data: python data/download.py"
        ) from None

    # Editors on Windows put a byte order mark first; utf-8-sig drops it.
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        decoded = error.object  # the bytes behind the byte order mark
        line = decoded.count(b"\n", 0, error.start) + 1
        byte = decoded[error.start]
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"
        ) from None

    # NUL is valid UTF-8, but in text it means a damaged or binary file.
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}:{line}: a NUL character, expected text; is the file damaged?")
    return text


def runs_on(cell: str) -> bool:
    """Whether a cell holds a tab and a line break.

    A stray quote opened it, and another one rows below closed it, so it has taken in what stands
    between. A text of several lines, or one with tabs, is fine.
    """
    return "\t" in cell and ("\n" in cell or "\r" in cell)


def check_header(names: list[str], columns: list[str], path: Path, line: int) -> None:
    """UserError where the header, which ends in `line`, lacks a column or runs on."""
    if any(runs_on(name) for name in names):
        raise UserError(f"{path}:1: a column's name runs on to line {line}; delete the stray quote")

    # Columns may stand in any order, and more than the asked ones may be there.
    lacking = [column for column in columns if column not in names]
    if lacking:
        found = ", ".join(name for name in names if name) or "nothing"
        raise UserError(
            f"{path}:1: no column {', '.join(lacking)}; found {found}; "
            f"expected tab-separated {', '.join(columns)}"
        )


def keep_apart(names: list[str], columns: list[str]) -> list[str]:
    """The header with a name of its own for each column that is not asked for.

    Such columns often have no name at all, and under one name a row would keep the last of them
    only; a stray quote may stand in any.
    """
    apart = []
    for number, name in enumerate(names, start=1):
        apart.append(name if name in columns else f"column {number}")
    return apart


def check_cells(row: dict[str, str], path: Path, line: int) -> None:
    """UserError where a cell runs on through other rows; `line` is the one that the row ends in."""
    for column, cell in row.items():
        if runs_on(cell):
            # The reader knows only where a row ends; its line breaks lead back to where it begins.
            first = line - sum(text.count("\n") for text in row.values())
            raise UserError(
                f"{path}:{first}: {column} runs on to line {line}, tabs and all; "
                "delete the stray quote"
            )


def read_rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's last line and its cells by column; "" for a cell that the row lacks.

    UserError where `columns` are not all there, or the file is no table.
    """
    # newline="" leaves line breaks to the csv module, which keeps those inside quotes.
    text = io.StringIO(read_text(path), newline="")
    reader = csv.DictReader(text, delimiter="\t", restval="", strict=True)
    line = 0  # the last one that was read well
    try:
        # The header; DictReader reads it when it is first asked for.
        names = list(reader.fieldnames or [])
        check_header(names, columns, path, reader.line_num)
        reader.fieldnames = keep_apart(names, columns)
        line = reader.line_num

        # The rows, one at a time.
        for row in reader:
            line = reader.line_num
            # What has no column stands under None; tabs behind the last cell are fine.
            surplus = row.pop(None, [])
            if any(surplus):
                raise UserError(
                    f"{path}:{line}: more cells than the first line has; "
                    "put texts with tabs in quotes"
                )
            check_cells(row, path, line)
            yield line, row
    # The row that failed begins behind the last good one.
    except csv.Error as error:
        raise UserError(
            f"{path}:{line + 1}: not tab-separated text, or a quote that does not end ({error})"
        ) from None


def parse_texts(row: dict[str, str], task: Task, where: str) -> tuple[str, tuple[str, ...]]:
    """A row's id, in lower case as the leaderboard sees it, and its sentences; none is empty."""
    identity = row["id"].strip().lower()
    texts = tuple(row[column].strip() for column in task.columns)
    # An empty text would be scored like any other; better to hear of it.
    for column, text in zip(["id", *task.columns], [identity, *texts], strict=True):
        if not text:
            raise UserError(f"{where}: {column} is empty; fill it in or delete the row")
    return identity, texts


def parse_label(text: str, task: Task, where: str) -> Any:
    """A legal label, or UserError."""
    try:
        return task.labels.parse(text)
    except ValueError as error:
        raise UserError(f'{where}: {task.label} is "{text}", {error}') from None


def read_examples(path: str | Path, task: Task, split: str) -> list[Example]:
    """All examples of a file, in its order; UserError names the line where something is wrong.

    `split` "test" asks for no labels and keeps every row; elsewhere a row without a label is
    skipped and counted.
    """
    path = Path(path)
    labelled = split != "test"
    # A test file may lack the label column, so it is not asked for there.
    columns = ["id", *task.columns]
    if labelled:
        columns.append(task.label)

    examples: list[Example] = []
    lines: dict[str, int] = {}  # where each id stands
    unlabelled = 0
    for line, row in read_rows(path, columns):
        # The course's own files have a few such rows.
        if labelled and not row[task.label].strip():
            unlabelled += 1
            continue
        where = f"{path}:{line}"

        # Ids tie predictions to rows on the leaderboard: each must occur once.
        identity, texts = parse_texts(row, task, where)
        if identity in lines:
            raise UserError(
                f"{where}: id {identity} stands in line {lines[identity]} already; ids must differ"
            )
        lines[identity] = line

        # Labels that a test file has all the same are not read.
        label = parse_label(row[task.label], task, where) if labelled else None
        examples.append(Example(identity, texts, label))

    # A file of which nothing is left is the wrong one, or asked for as the wrong split.
    if not examples:
        raise UserError(f"{path}: no rows with {'a label' if labelled else 'text'} in it")
    if unlabelled:
        print(f"{path}: skipped {unlabelled} rows without a label")
    return examples
