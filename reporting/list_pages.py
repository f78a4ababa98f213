"""Pages of several runs: the sortable list of all, and some side by side with their curves.

Runs that were scored on other data, or learned other tasks, have a table and pictures of their own.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from reporting.curves import read_log
from reporting.page import (
    SCRIPT,
    Cell,
    Column,
    flags_html,
    gallery,
    link,
    note,
    number,
    page,
    table,
    tags,
    text,
    write_page,
)
from reporting.pictures import overlaid
from reporting.runs import PAGE, ShownRun, comparable, data_name, list_page, own_flags, shared_flags
from reporting.style import Picture
from training.console import as_time

LONGEST_PLACE = 120  # bytes of a folder's name
LONGEST_LABEL = 42  # of a run's in a picture


def write_list_page(
    groups: list[list[ShownRun]], left_out: Sequence[str], by: str, folder: Path, tag: str = ""
) -> Path:
    """Write the list of all runs, or of those with a tag, into a folder; needs no matplotlib.

    `by`: how they are sorted.
    """
    html = []
    for rows in groups:
        html += [heading(rows[0]), run_table(rows, folder, by)]
    html += [note(f"left out: {line}") for line in left_out]
    title = f"runs with the tag {tag}" if tag else "runs"
    return write_page(folder / list_page(tag), page(title, html, SCRIPT))


def write_comparison(rows: list[ShownRun], by: str, folder: Path) -> Path:
    """Write the page of several runs and its pictures into a folder."""
    groups = comparable(rows, by)
    html = []
    if len(groups) > 1:
        html.append(
            note(
                "These runs were scored on different dev files or learned different tasks: what "
                "can't be compared has a table and pictures of its own."
            )
        )
    pictures: list[Picture] = []
    for place, group in enumerate(groups, start=1):
        html += [heading(group[0]), run_table(group, folder, by, numbered=True)]
        for title, own in curves_of(group).items():
            # Of several groups, each names its files for itself.
            if len(groups) > 1:
                own = [replace(picture, name=f"{place}-{picture.name}") for picture in own]
            html += [f"<h3>{escape(title)}</h3>", gallery(own) or note("nothing logged yet")]
            pictures += own
    return write_page(folder / PAGE, page(f"{len(rows)} runs", html, SCRIPT), pictures)


def curves_of(group: list[ShownRun]) -> dict[str, list[Picture]]:
    """The curves of runs that can be compared, by heading; each has its number in the table."""
    runs = []
    for place, row in enumerate(group, start=1):
        runs.append((f"{place} {short(row.name)}", read_log(row.folder)))
    return overlaid(runs, group[0].tasks)


def heading(row: ShownRun) -> str:
    """What a run and those that can be compared with it were scored on."""
    titles = ", ".join(task.title for task in row.tasks.values())
    name = data_name(row.options, row.identity, row.facts)
    return f'<h2>{escape(titles)} on {escape(name)}</h2><p class="quiet">{escape(row.title)}</p>'


def short(name: str) -> str:
    """A run's name as a picture has room for it."""
    if len(name) <= LONGEST_LABEL:
        return name
    return f"{name[: LONGEST_LABEL // 2]}...{name[-LONGEST_LABEL // 2 :]}"


def place_of(rows: Sequence[ShownRun]) -> Path:
    """Where the page of several runs goes, unless one says it: beside the first, by their names."""
    names = [row.name for row in rows]
    name = "report-" + "+".join(names)
    if len(name.encode("utf-8")) > LONGEST_PLACE:
        digest = hashlib.sha256("\n".join(names).encode("utf-8")).hexdigest()
        name = f"report-{len(rows)}-runs-{digest[:8]}"
    return Path(os.path.abspath(rows[0].folder)).parent / name


def run_table(rows: list[ShownRun], folder: Path, by: str, numbered: bool = False) -> str:
    """Runs that can be compared, a row each, and the flags in which they differ.

    `folder`: where the page will stand. `numbered`: each has the number that pictures call it by.
    """
    # A column is sorted by a click on its head: scores the best first, times the shortest.
    tasks = rows[0].tasks
    columns = [Column("run", "name", "ascending", by == "name")]
    columns.append(Column("overall", "number", "descending", by == "overall"))
    for name, task in tasks.items():
        columns.append(Column(task.title, "number", "descending", by == name))
    columns += [
        Column("epoch", "number", "descending"),
        Column("step", "number", "descending"),
        Column("time", "number", "ascending", by == "time"),
        Column("date", "name", "descending", by == "date"),
        Column("tags", "name", "ascending"),
        Column("flags", "flags", "ascending"),
    ]
    if numbered:
        columns.insert(0, Column("no.", "number"))

    # The rows; flags that all of them share say nothing here, and stand below.
    shared = shared_flags(rows)
    lines = []
    for place, row in enumerate(rows, start=1):
        before = [number(place, ".0f")] if numbered else []
        lines.append([*before, *run_cells(row, shared, folder)])
    html = table("runs", columns, lines)
    if shared:
        html += f'<p class="quiet">all with {flags_html(shared)}</p>'
    return html


def run_cells(row: ShownRun, shared: list[str], folder: Path) -> list[Cell]:
    """A run's cells in run_table()."""
    # Its name leads to its own page, where there is one.
    its_page = row.folder / "report" / PAGE
    name = text(row.name)
    if its_page.exists():
        name = Cell(link(os.path.relpath(its_page, folder), row.name), row.name)
    best, flags = row.best, own_flags(row, shared)
    scores = [number(best.overall if best else None)]
    scores += [number(best.scores[task] if best else None) for task in row.tasks]
    return [
        name,
        *scores,
        number(best.epoch if best else None, ".0f"),
        number(row.step, ".0f"),
        Cell(escape(as_time(row.seconds)), repr(row.seconds)),
        text(row.date),
        Cell(tags(row.options.tags), " ".join(row.options.tags)),
        Cell(flags_html(flags), " ".join(flags)),
    ]
