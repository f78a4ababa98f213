"""Pages: one file of HTML each, from which no request leaves, for any width and both themes.

Functions here give HTML. What they are given as text is escaped: sentences and names may hold
anything. Arguments that are HTML already are called so.
"""

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from errors import UserError
from reporting.pictures import FILES
from reporting.runs import PAGE
from reporting.style import THEMES, Picture, svg_inline
from storage.files import check_replaceable, read_bytes, write_together

# By this a page is known as ours, which may be replaced.
GENERATOR = '<meta name="generator" content="minBERT report.py">'

CSS = """
:root { color-scheme: light dark; --accent: #0969da; --soft: #f6f8fa; LIGHT }
@media (prefers-color-scheme: dark) { :root { --accent: #6cb0f5; --soft: #161b22; DARK } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 75rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
p { margin: .5rem 0 }
a { color: var(--accent) }
.quiet, figcaption, th { color: var(--quiet) }
.note { border-left: 3px solid var(--line); padding-left: .75rem; color: var(--quiet) }
.tag { display: inline-block; border: 1px solid var(--line); border-radius: 1rem;
  padding: 0 .6rem; margin-right: .3rem; font-size: .85rem }
code, pre { font: .85rem/1.5 ui-monospace, monospace }
pre { margin: 0; white-space: pre-wrap }
code { display: inline-block; margin-right: .5rem }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0 }
.tile { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem 1rem; min-width: 8rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums }
dl { display: grid; grid-template-columns: fit-content(12rem) 1fr; gap: .4rem 1rem; margin: 1rem 0 }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr } dd + dt { margin-top: .5rem } }
dt { color: var(--quiet) }
dd { margin: 0; min-width: 0 }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)) }
figure { margin: 0 }
figcaption { font-size: .85rem; line-height: 1.35; padding: .25rem .5rem 0 }
.pictures svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: .5rem;
  padding: .5rem }
svg * { stroke-linejoin: round; stroke-linecap: butt }
svg text { font-family: system-ui, sans-serif !important; white-space: pre }
.wide { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: .5rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem; overflow-wrap: normal }
th, td { padding: .4rem .75rem; text-align: left; vertical-align: top }
th { font-weight: 600; white-space: nowrap; border-bottom: 1px solid var(--line) }
tr + tr td { border-top: 1px solid var(--line) }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.name { white-space: nowrap }
td.flags { min-width: 16rem }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer }
th button::after { content: " \\2195"; opacity: .4 }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1 }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1 }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
.mistakes { padding: 0; margin: 0; list-style: none; columns: 28rem; column-gap: 2rem }
.mistakes li { border-top: 1px solid var(--line); padding: .5rem 0; break-inside: avoid }
.mistakes p { margin: 0 }
footer { margin-top: 3rem; color: var(--quiet); font-size: .85rem }
"""

# A click on a column's head sorts by it, another one the other way round.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, row = head.parentElement;
  const place = [...row.children].indexOf(head), body = head.closest("table").tBodies[0];
  const was = head.getAttribute("aria-sort") || "", first = head.dataset.first;
  const order = was ? (was == "ascending" ? "descending" : "ascending") : first;
  for (const other of row.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const key = (line) => line.children[place].dataset.sort;
  const compare = (a, b) => head.classList.contains("number") ? a - b : a < b ? -1 : a > b ? 1 : 0;
  const sign = order == "ascending" ? 1 : -1;

  // Cells with nothing in them stand last in either order.
  const full = [...body.rows].filter((line) => key(line) !== "");
  const empty = [...body.rows].filter((line) => key(line) === "");
  full.sort((a, b) => sign * compare(key(a), key(b)));
  body.append(...full, ...empty);
};
"""


def css() -> str:
    """The style of all pages."""
    text = CSS
    for name, colours in THEMES.items():
        variables = "; ".join(f"--{key}: {colour}" for key, colour in colours.items())
        text = text.replace(name.upper(), variables)
    return text


def page(title: str, html: Sequence[str], script: str = "") -> str:
    """A whole page. Nothing but its own style and script works in it, whatever stands in it."""
    # What it may load: nothing. Its one script is known by its sum.
    allowed = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
        allowed += f"; script-src 'sha256-{digest}'"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        GENERATOR,
        f"<title>{escape(title)}</title>",
        f"<style>{css()}</style></head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
        *html,
        "<footer>made by minBERT's report.py</footer>",
        f"<script>{script}</script>" if script else "",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def write_page(path: Path, html: str, pictures: Iterable[Picture] = ()) -> Path:
    """Write a page and, beside it, its pictures as PNG files; returns its path.

    Pictures of the page that it replaces go. UserError where that can't be done, or a page stands
    there that is none of ours.
    """
    check_replaceable(path)
    replaced = path.exists()
    if replaced and GENERATOR.encode() not in read_bytes(path, 2**30):
        raise UserError(
            f"{path}: is there, but is no page of report.py, so it is not replaced; name another "
            "folder with --out, or delete it"
        )
    contents = {path.with_name(f"{picture.name}.png"): picture.png for picture in pictures}
    write_together({**contents, path: html.encode("utf-8", errors="replace")})

    # Pictures that only the earlier page showed would be taken for this one's.
    if replaced and path.name == PAGE:
        for old in path.parent.glob("*.png"):
            if old not in contents and FILES.fullmatch(old.name):
                with contextlib.suppress(OSError):
                    old.unlink()
    return path


# ---- parts of pages


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    kind: str = ""  # "number", "name" or "flags"; how it is set
    sort: str = ""  # how a first click sorts, "ascending" or "descending"; "": it can't be sorted
    sorted: bool = False  # whether the rows come in that order


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and by what it is sorted; "" comes last."""

    html: str
    sort: str = ""


def text(value: object) -> Cell:
    """A cell with a text."""
    return Cell(escape(str(value)), str(value))


def number(value: float | None, form: str = ".3f") -> Cell:
    """A cell with a number, or a dash where there is none."""
    return Cell("-") if value is None else Cell(format(value, form), repr(float(value)))


def table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> str:
    """A table in a box of its own, in which it scrolls where it is wider than the page."""
    heads = []
    for column in columns:
        inner = escape(column.title)
        if column.sort:
            inner = f'<button type="button">{inner}</button>'
        order = f' aria-sort="{column.sort}"' if column.sorted else ""
        first = f' data-first="{column.sort}"' if column.sort else ""
        heads.append(f'<th scope="col" class="{column.kind}"{first}{order}>{inner}</th>')
    lines = [f"<tr>{''.join(heads)}</tr></thead><tbody>"]
    for row in rows:
        cells = [
            f'<td class="{column.kind}" data-sort="{escape(cell.sort)}">{cell.html}</td>'
            for column, cell in zip(columns, row, strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    box = f'<div class="wide" role="region" tabindex="0" aria-label="{escape(title)}">'
    return f"{box}<table><thead>{chr(10).join(lines)}</tbody></table></div>"


def link(target: str, name: str) -> str:
    """A link to another file."""
    return f'<a href="{quote(os.fsencode(target))}">{escape(name)}</a>'


def tags(names: Iterable[str]) -> str:
    """A run's tags."""
    return "".join(f'<span class="tag">{escape(name)}</span>' for name in names)


def flags_html(flags: Iterable[str]) -> str:
    """Flags as one would type them, none of them broken at its dashes."""
    return " ".join(f"<code>{escape(flag)}</code>" for flag in flags)


def note(line: str) -> str:
    """A line that says what is missing."""
    return f'<p class="note">{escape(line)}</p>'


def gallery(pictures: Iterable[Picture]) -> str:
    """Pictures side by side, or below each other on a phone, and below each what it shows."""
    figures = []
    for picture in pictures:
        caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
        figures.append(f"<figure>{svg_inline(picture)}{caption}</figure>")
    inside = "\n".join(figures)
    return f'<div class="pictures">{inside}</div>' if inside else ""


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and what they are, the latter HTML."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{html}</dd>' for name, html in pairs)}</dl>"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values that are read first."""
    inside = "".join(
        f'<div class="tile"><span class="quiet">{escape(name)}</span><b>{escape(value)}</b></div>'
        for name, value in pairs
    )
    return f'<div class="tiles">{inside}</div>'
