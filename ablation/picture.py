"""A table's picture: the overall score of each row, beside the base row's."""

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


def paint(axes: Axes, rows: Sequence[Summary], base: Summary) -> None:
    """A point a row, a small one a seed; a bar is the interval of its difference from the base."""
    middle = statistics.mean(base.overall)
    axes.axvline(middle, color=SECOND, linewidth=1, zorder=0)
    for height, row in enumerate(reversed(rows)):
        colour = SECOND if row is base else FIRST
        if row.comparison:
            # The interval belongs to the seeds that both rows have.
            ends = [row.comparison.low["overall"], row.comparison.high["overall"]]
            shift = statistics.mean(row.overall) - row.comparison.difference["overall"]
            axes.plot([shift + end for end in ends], [height] * 2, color=colour, alpha=0.5)
        axes.plot(row.overall, [height] * len(row.overall), "o", color=colour, markersize=2.5)
        axes.plot(statistics.mean(row.overall), height, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    compared = any(row.comparison for row in rows)
    axes.set_xlabel("bar: 95 % interval of the difference" if compared else "")


def picture_of(rows: Sequence[Summary], base: str) -> Picture | None:
    """Of the rows that learn all of the base row's tasks; None where there are no two."""
    named = {row.name: row for row in rows}
    if base not in named:
        return None
    whole = [row for row in rows if set(row.scores) == set(named[base].scores)]
    if len(whole) < 2:
        return None
    ordered = sorted(whole, key=lambda row: -row.key)
    return draw(
        NAME,
        "overall dev score of each row",
        lambda axes: paint(axes, ordered, named[base]),
        height=AROUND + LINE * len(ordered),
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
    """What the SVG of a table with this table.csv ends with, by which an old picture is known."""
    return f"<!-- {hashlib.sha256(numbers.encode()).hexdigest()} -->\n"


def write_picture(table: Path, rows: Sequence[Summary], base: str, numbers: str) -> None:
    """overall-light.svg and -dark.svg, for pages in either theme, and overall.png."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture, which needs a package: pip install matplotlib")
        return
    picture = picture_of(rows, base)
    if picture is None:
        return
    for theme in THEMES:
        write_text(table / f"{NAME}-{theme}.svg", svg_file(picture, theme) + mark(numbers))
    write_bytes(table / f"{NAME}.png", picture.png)
