"""A table's picture: each row beside the base row."""

import hashlib
import importlib.util
import statistics
from collections.abc import Sequence
from pathlib import Path

from ablation.summaries import Summary
from reporting.style import FIRST, SECOND, THEMES, Axes, Picture, draw, svg_file
from storage.files import write_bytes, write_text

NAME = "overall"
LINE = 0.27  # inches of a row
AROUND = 1.1  # inches for title and axis


def name_rows(axes: Axes, rows: Sequence[Summary]) -> None:
    """A row of the picture for each row of the table, the first one on top."""
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def paint_differences(axes: Axes, rows: Sequence[Summary]) -> None:
    """A point for the difference from the base row, a bar for its interval."""
    axes.axvline(0.0, color=SECOND, linewidth=1, zorder=0)
    for height, row in enumerate(reversed(rows)):
        if row.comparison:
            found = row.comparison
            ends = [found.low["overall"], found.high["overall"]]
            axes.plot(ends, [height, height], color=FIRST, alpha=0.5)
            axes.plot(found.difference["overall"], height, "o", color=FIRST, markersize=6)
    name_rows(axes, rows)


def paint_scores(axes: Axes, rows: Sequence[Summary], base: Summary) -> None:
    """A large point for a row's mean, a small one for each seed; a line at the base row's mean."""
    axes.axvline(statistics.mean(base.overall), color=SECOND, linewidth=1, zorder=0)
    for height, row in enumerate(reversed(rows)):
        colour = SECOND if row is base else FIRST
        axes.plot(row.overall, [height] * len(row.overall), "o", color=colour, markersize=2.5)
        axes.plot(statistics.mean(row.overall), height, "o", color=colour, markersize=6)
    name_rows(axes, rows)


def difference_of(row: Summary) -> float:
    """The overall difference of a row that was compared."""
    return row.comparison.difference["overall"] if row.comparison else 0.0


def picture_of(rows: Sequence[Summary], base: str) -> Picture | None:
    """Of the rows that learn all of the base row's tasks; None where there are no two.

    The differences where rows were compared, else the scores.
    """
    named = {row.name: row for row in rows}
    if base not in named:
        return None
    # Differences, where there are any, say more than scores.
    whole = [row for row in rows if set(row.scores) == set(named[base].scores)]
    compared = [row for row in whole if row.comparison]
    if compared:
        compared.sort(key=difference_of, reverse=True)
        return draw(
            NAME,
            f"overall dev score minus {base}'s, 95 % intervals",
            lambda axes: paint_differences(axes, compared),
            height=AROUND + LINE * len(compared),
        )
    if len(whole) < 2:
        return None
    whole.sort(key=lambda row: -row.key)
    return draw(
        NAME,
        "overall dev score; small points are seeds",
        lambda axes: paint_scores(axes, whole, named[base]),
        height=AROUND + LINE * len(whole),
    )


def in_markdown(table: Path) -> list[str]:
    """The picture of a table in Markdown, in the reader's theme; nothing where there is none."""
    light, dark = (f"{NAME}-{theme}.svg" for theme in THEMES)
    if not (table / light).exists():
        return []
    return [
        "<picture>",
        f'  <source media="(prefers-color-scheme: dark)" srcset="{dark}">',
        f'  <img src="{light}" alt="The overall dev score of each row, beside the base row\'s">',
        "</picture>",
        "",
    ]


def mark(numbers: str) -> str:
    """What the SVG of a table with this table.csv ends with: a test tells an old one by it."""
    return f"<!-- {hashlib.sha256(numbers.encode()).hexdigest()} -->\n"


def write_picture(table: Path, rows: Sequence[Summary], base: str, numbers: str) -> None:
    """overall-light.svg and -dark.svg, for pages in either theme, and overall.png.

    Where none can be drawn, an old one goes: beside new numbers it would be wrong.
    """
    # What can be drawn.
    svgs = {theme: table / f"{NAME}-{theme}.svg" for theme in THEMES}
    png = table / f"{NAME}.png"
    picture = None
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture, which needs a package: pip install matplotlib")
    else:
        picture = picture_of(rows, base)

    # What is written, or goes.
    if picture is None:
        for path in (*svgs.values(), png):
            path.unlink(missing_ok=True)
        return
    for theme, path in svgs.items():
        write_text(path, svg_file(picture, theme) + mark(numbers))
    write_bytes(png, picture.png)
