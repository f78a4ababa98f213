"""Files in: reading with a line number for whatever is wrong.

The course's tab-separated files are read as they really are, one Example a row: extra unnamed index
columns, rows without a label (skipped and counted in train and dev), quoted fields, CRLF and a byte
order mark all occur. What can't be right is one line: file, line, what was expected. No test row is
dropped.
"""

import csv
import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError, listed, one_line
from storage.files import LARGEST_TEXT, MEBIBYTE, decoded, open_regular, reason_of
from tasks import Task

LONGEST_LINE = 16 * MEBIBYTE  # bytes


@dataclass(frozen=True, slots=True)
class Example:
    """One row: its id, its sentence or two, and its label (None in the test split)."""

    id: str
    texts: tuple[str, ...]
    label: Any  # a number, or what the task's labels are


def read_lines(path: Path, digest: "hashlib._Hash | None" = None) -> Iterator[str]:
    """A data file's lines with their line breaks; `digest` takes its bytes as they are read.

    UserError where it is no regular file, can't be read, is too large, not UTF-8 or has a NUL.
    """
    number = 0
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_TEXT:
                raise UserError(f"{path}: over {LARGEST_TEXT // MEBIBYTE} MiB; split it")
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                if digest:
                    digest.update(raw)
                yield line_of(raw, path, number)
    except OSError as error:
        raise UserError(f"{path}: {reason_of(error)}; check the path") from None


def line_of(raw: bytes, path: Path, number: int) -> str:
    """The text of a line; UserError where it is too long, not UTF-8 or has a NUL."""
    if len(raw) > LONGEST_LINE:
        raise UserError(
            f"{path}:{number}: a line of over {LONGEST_LINE // MEBIBYTE} MiB; no table?"
        )
    text = decoded(raw, path, number)
    # Editors on Windows put a byte order mark first; a file saved twice may have two.
    return text.lstrip("\ufeff") if number == 1 else text


def runs_on(cell: str) -> bool:
    """Whether a cell holds a tab and a line break.

    A stray quote opened it, and another one rows below closed it, so it has taken in what stands
    between. A text of several lines, or one with tabs, is fine.
    """
    return "\t" in cell and "\n" in cell


def check_header(names: list[str], columns: list[str], path: Path, line: int) -> None:
    """UserError where the header, which ends in `line`, lacks or repeats a column or runs on."""
    if any(runs_on(name) for name in names):
        raise UserError(f"{path}:1: a column's name runs on to line {line}; delete the stray quote")

    # Columns may stand in any order, and more than the asked ones may be there.
    lacking = [column for column in columns if column not in names]
    if lacking:
        found = listed(name for name in names if name) or "nothing"
        raise UserError(
            f"{path}:1: no column {', '.join(lacking)}; found {found}; "
            f"{header_advice(names, columns)}"
        )

    # Of two columns under one name nobody knows which is meant.
    for column in columns:
        if names.count(column) > 1:
            raise UserError(
                f"{path}:1: {names.count(column)} columns have the name {column}; "
                "rename all but the one to read"
            )


def header_advice(names: list[str], columns: list[str]) -> str:
    """What a header that lacks columns should be."""
    for separator, word in ((",", "commas"), (";", "semicolons")):
        if len(names) == 1 and separator in names[0]:
            return f"it is separated by {word}, expected tabs"
    capitals = [name for name in names if name.lower() in columns and name not in columns]
    if capitals:
        return f"names are in small letters: {listed(name.lower() for name in capitals)}"
    return f"expected tab-separated {', '.join(columns)}"


def check_cells(cells: list[str], names: list[str], path: Path, first: int, last: int) -> None:
    """UserError where a row, in lines `first` to `last`, has not a cell for each of `names`."""
    # One that runs on through other rows comes first: it is why the others look wrong.
    for number, cell in enumerate(cells, start=1):
        if runs_on(cell):
            name = "".join(names[number - 1 : number]) or f"column {number}"
            raise UserError(
                f"{path}:{first}: {name} runs on to line {last}, tabs and all; "
                "delete the stray quote"
            )
    # Columns without a name at the end of the header may be left out.
    if any(names[len(cells) :]):
        raise UserError(
            f"{path}:{last}: {len(cells)} cells, expected {len(names)}; is the row cut off? "
            "An empty cell needs its tab too"
        )
    # Tabs behind the last cell are fine.
    if any(cells[len(names) :]):
        raise UserError(
            f"{path}:{last}: more cells than the first line has; put texts with tabs in quotes"
        )


def read_rows(
    path: Path,
    columns: list[str],
    digest: "hashlib._Hash | None" = None,
    optional: Collection[str] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's last line and its cells in these columns; `digest` takes the file's bytes.

    UserError where `columns` are not all there, or the file is no table; the `optional` ones among
    them may be missing.
    """
    # The csv module counts the lines that it gets, and keeps line breaks inside quotes.
    reader = csv.reader(read_lines(path, digest), delimiter="\t", strict=True)
    line = 0  # the last one that was read well
    try:
        names = next(reader, [])
        columns = [column for column in columns if column in names or column not in optional]
        check_header(names, columns, path, reader.line_num)
        places = {column: names.index(column) for column in columns}
        line = reader.line_num

        # The rows, one at a time; blank lines between them are fine.
        for cells in reader:
            if cells:
                check_cells(cells, names, path, line + 1, reader.line_num)
                yield reader.line_num, {column: cells[i] for column, i in places.items()}
            line = reader.line_num
    except csv.Error as error:
        # The row that failed begins behind the last good one; where it ends is not known.
        raise UserError(csv_fault(str(error), path, line + 1, reader.line_num)) from None


def csv_fault(reason: str, path: Path, first: int, last: int) -> str:
    """What a fault of the csv module means, of a row that begins in `first` and fails in `last`."""
    if reason.startswith("new-line character"):
        return (
            f"{path}:{last}: a carriage return inside a row; "
            "delete it, or save the file with line breaks of Unix or Windows"
        )
    if reason.startswith("field larger"):
        return (
            f"{path}:{first}: a text of over {csv.field_size_limit():,} characters, or a quote "
            "that does not end; shorten the text or delete the quote"
        )
    return f"{path}:{first}: not tab-separated text, or a quote that does not end ({reason})"


def parse_texts(row: dict[str, str], task: Task, where: str) -> tuple[str, tuple[str, ...]]:
    """A row's id, in lower case as the leaderboard sees it, and its sentences; none is empty."""
    identity = row["id"].strip().lower()
    texts = tuple(row[column].strip() for column in task.columns)
    # An empty text would be scored like any other; better to hear of it.
    for column, text in zip(["id", *task.columns], [identity, *texts], strict=True):
        if not text:
            raise UserError(f"{where}: {column} is empty; fill it in or delete the row")
    # A prediction file has a line an id, and a comma behind it.
    if "," in identity or not identity.isprintable():
        raise UserError(
            f'{where}: id "{one_line(identity, 60)}" has a comma, a line break or the like, which '
            "would break the prediction file; rename it"
        )
    return identity, texts


def parse_label(text: str, task: Task, where: str) -> Any:
    """A legal label, or UserError."""
    try:
        return task.labels.parse(text)
    except ValueError as error:
        raise UserError(f'{where}: {task.label} is "{text}", {error}') from None


def columns_of(task: Task, split: str) -> tuple[list[str], list[str]]:
    """The columns that are read of a file, and which of them it may lack; see read_examples."""
    columns = ["id", *task.columns]
    if split == "test":
        return columns, []
    columns.append(task.label)
    return columns, ["id", task.label] if split == "new" else []


def read_examples(
    path: str | Path, task: Task, split: str, digest: "hashlib._Hash | None" = None
) -> list[Example]:
    """All examples of a file, in its order; UserError names the line where something is wrong.

    `split` "train" and "dev" ask for labels: a row without one is skipped and counted. "test" asks
    for none, reads none, and keeps every row. "new", a file to be predicted, keeps every row too,
    and reads the labels that are there; its rows are numbered from 1 where it has no column id.
    `digest` takes the file's bytes as they are read, all of them.
    """
    path = Path(path)
    columns, optional = columns_of(task, split)
    labelled = split not in ("test", "new")

    examples: list[Example] = []
    lines: dict[str, int] = {}  # where each id stands
    unlabelled = 0
    numbered = False
    for line, row in read_rows(path, columns, digest, optional):
        # The course's own files have a few such rows.
        text = row.get(task.label, "").strip()
        if labelled and not text:
            unlabelled += 1
            continue
        where = f"{path}:{line}"

        # Ids tie predictions to rows on the leaderboard: each must occur once.
        if "id" not in row:
            numbered = True
            row["id"] = str(len(examples) + 1)
        identity, texts = parse_texts(row, task, where)
        if identity in lines:
            raise UserError(
                f"{where}: id {identity} stands in line {lines[identity]} already; ids must differ"
            )
        lines[identity] = line

        # A file may lack the labels of some rows, or of all.
        label = parse_label(row[task.label], task, where) if text else None
        examples.append(Example(identity, texts, label))

    # A file of which nothing is left is the wrong one, or asked for as the wrong split.
    if not examples:
        raise UserError(f"{path}: no rows with {'a label' if labelled else 'text'} in it")
    if unlabelled:
        print(f"{one_line(str(path))}: skipped {unlabelled} rows without a label")
    if numbered:
        print(f"{one_line(str(path))}: has no column id: its rows are numbered from 1")
    return examples
