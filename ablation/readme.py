"""The tables of README.md and benchmarks/README.md, from the records.

What stands between two comments is written here:

<!-- table results/NAME -->                                 a table of ablate.py's
<!-- table results/NAME rows default lora -->               these rows of it, in this order
<!-- table benchmarks/records/train_speed.json -->          a race's
<!-- table benchmarks/records/starts.json -->               how near starts are to an encoder
<!-- end of table -->
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.record import read_lines
from ablation.table import markdown, readme_table, source_of
from errors import UserError
from storage.files import LARGEST_TEXT, read_text, write_text
from storage.json_files import checked, read_json, record

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "benchmarks/README.md")
BASE = "default"  # the row that others are compared with
WIDTH = 130  # of README.md's lines

BEGIN = re.compile(r"<!-- table (\S+)(?: rows (.+))? -->")
END = "<!-- end of table -->"


@dataclass
class Side:
    """What a race measured of a side, on one piece of work for all."""

    title: str
    tokens_per_s: float
    ours_faster: float  # times
    peak_mib: float


def speed_table(sides: Mapping[str, Any]) -> str:
    """A race's table, in Markdown; "ours" is the side that the others are compared with."""
    heads = ["", "real tokens/s", "µs/token", "ours is faster by", "peak memory"]
    cells = []
    for name, values in sides.items():
        side = record(Side, values, name, others_too=True)
        faster = "" if name == "ours" else f"{side.ours_faster:.2f}x"
        speed, time = f"{side.tokens_per_s:.0f}", f"{1e6 / side.tokens_per_s:.0f}"
        cells.append([side.title, speed, time, faster, f"{side.peak_mib:.0f} MiB"])
    return markdown(heads, cells)


def starts_table(starts: Mapping[str, Any]) -> str:
    """How near each start is to the untouched encoder, in Markdown: a row a corpus."""
    corpora = checked(next(iter(starts.values())), dict[str, Any], "starts")
    shown = [flags for flags in starts if "," not in flags]  # what flags ask for
    cells = []
    for corpus in corpora:
        own = [checked(starts[flags][corpus]["mean"], float, flags) for flags in shown]
        cells.append([corpus, *(f"{cosine:.3f}".removeprefix("0") for cosine in own)])
    return markdown(["", *(f"`{flags}`" for flags in shown)], cells)


def table_of(path: Path, rows: Sequence[str]) -> str:
    """The table of a record, above it what its runs were trained on; `rows`: these alone.

    UserError where there is no such record, or no such row in it.
    """
    if path.suffix == ".json":
        held = read_json(path)
        if "starts" in held:
            return starts_table(checked(held["starts"], dict[str, Any], str(path)))
        return speed_table(checked(held.get("sides"), dict[str, Any], str(path)))
    table = readme_table(path, BASE, rows)
    source = source_of(read_lines(path))
    lines = textwrap.wrap(source, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, "", table])


def fill(text: str, root: Path, page: str = PAGES[0]) -> str:
    """A page's text with its tables as the records in the folder `root` have them now.

    UserError, which names the line, for a record or a row that is not there, or no end of a table.
    """
    filled: list[str] = []
    begun = 0  # the line of the table that has not ended
    for number, line in enumerate(text.split("\n"), 1):
        begin = BEGIN.fullmatch(line)
        if begin and begun:
            raise UserError(f"{page}:{begun}: no {END} before the next table")
        if line == END and not begun:
            raise UserError(f"{page}:{number}: the end of a table that has no beginning")

        if begin:
            begun = number
            rows = (begin[2] or "").split()
            try:
                filled += [line, table_of(root / begin[1], rows)]
            except UserError as error:
                raise UserError(f"{page}:{number}: {error}") from None
        elif line == END:
            begun = 0
            filled.append(line)
        elif not begun:
            filled.append(line)
    if begun:
        raise UserError(f"{page}:{begun}: no {END} behind this table")
    return "\n".join(filled)


def write_readme(root: Path = ROOT) -> None:
    """Fill the tables of all pages, and say what changed."""
    for page in PAGES:
        if not (root / page).exists():
            continue
        text = read_text(root / page, LARGEST_TEXT)
        filled = fill(text, root, page)
        if filled == text:
            print(f"{page}: all tables are those of the records")
            continue
        write_text(root / page, filled)
        before = text.split("\n")
        new = [line for line in filled.split("\n") if line not in before]
        print(f"{page}: {len(new)} lines are new\n" + "\n".join(new))
