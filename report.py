"""What runs came to: tables here, and pages with pictures for the browser.

    python report.py                   # all runs in runs/, and runs/index.html
    python report.py other-runs        # all in another folder
    python report.py RUN               # one run: RUN/report/index.html
    python report.py RUN1 RUN2         # side by side, in runs/report-RUN1+RUN2

A run's page has learning curves, confusion matrices, histograms, and the most
confident mistakes with their text. Each page is one file that needs no network;
its pictures lie beside it as PNG. Pictures need `pip install matplotlib`; the
list of all runs does without.

The best come first. Runs on other data, or with other tasks, have tables and
pictures of their own: their scores can't be compared.

Tags are words to find runs by. The main job's --tags gives a run some; --tag
WORD here picks the runs that have one, and their list is runs/index-WORD.html.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import os
import sys
from pathlib import Path

from commandline.parser import page_parser
from commandline.values import choice
from commandline.words import expand, unknown
from errors import UserError, listed, one_line, run_main
from options import Options
from reporting.list_pages import place_of, write_comparison, write_list_page
from reporting.run_page import write_run_page
from reporting.runs import (
    SORTS,
    ShownRun,
    comparable,
    is_report,
    own_flags,
    read_run,
    runs_of,
    shared_flags,
)
from reporting.style import need_matplotlib
from training.console import as_time
from training.environment import display_path


def table(rows: list[ShownRun]) -> list[str]:
    """The lines of a table of runs with the same tasks and data, in their order."""
    tasks = rows[0].tasks
    width = max(len(row.name) for row in rows)
    shared = shared_flags(rows)
    heads = "".join(f"{task.title:>8}" for task in tasks.values())
    lines = [f"{'run':<{width}} overall{heads}  epoch   step   time  flags"]
    for row in rows:
        scores = f"{'-':>8}" * (1 + len(tasks)) + f"{'-':>7}"
        if row.best:
            of_tasks = "".join(f"{row.best.scores[task]:>8.3f}" for task in tasks)
            scores = f"{row.best.overall:>8.3f}{of_tasks}{row.best.epoch:>7}"
        words = " ".join(own_flags(row, shared))
        if row.options.tags:
            words += f"  [{' '.join(row.options.tags)}]"
        lines.append(f"{row.name:<{width}}{scores}{row.step:>7}{as_time(row.seconds):>7}  {words}")
    if shared:
        lines.append(f"all with {' '.join(shared)}")
    return [line.rstrip() for line in lines]


def check_place(place: Path) -> None:
    """UserError, which says what to name instead, for what is no folder, or has a table in it."""
    expected = "expected a run's folder, such as runs/<date>-<name>"
    if not os.path.exists(place):
        raise UserError(f"{place}: no such folder; {expected}")
    if not os.path.isdir(place):
        raise UserError(f"{place}: a file; {expected}")
    if os.path.exists(place / "table.md") and not runs_of(place):
        raise UserError(f"{place}: a table of ablate.py, no run; read {place / 'table.md'}")
    tables = sorted(place.glob("*/table.md"))
    if tables and not runs_of(place):
        raise UserError(f"{place}: tables of ablate.py, no runs; read {tables[0]}")


def read_all(places: list[Path]) -> tuple[list[ShownRun], list[str]]:
    """The runs in these places, each a run's folder or one with runs in it; what was left out.

    UserError where a place is a run's folder and can't be read.
    """
    rows, left_out = [], []
    for place in places:
        inside = runs_of(place)
        # A run that was named: whoever asked for it has to know that it can't be read.
        if not inside:
            rows.append(read_run(place))
        # Runs that stand in a folder: one that can't be read must not hide the others.
        for folder in inside:
            try:
                rows.append(read_run(folder))
            except UserError as error:
                left_out.append(str(error))
    return rows, left_out


def with_tag(rows: list[ShownRun], tag: str) -> list[ShownRun]:
    """The runs that have a tag, all where it is ""; UserError where none has it."""
    found = [row for row in rows if not tag or tag in row.options.tags]
    if not found:
        there = sorted({one for row in rows for one in row.options.tags})
        advice = f"the tags there are: {listed(there, 12)}" if there else "no run here has any"
        raise UserError(f"no run with the tag {one_line(tag, 60)}; {advice}")
    return found


def check_sort(by: str, rows: list[ShownRun]) -> None:
    """UserError where these runs can't be sorted by that; a task's title is told its name."""
    tasks = {name: task for row in rows for name, task in row.tasks.items()}
    titles = {task.title.lower(): name for name, task in tasks.items()}
    choice("sort", [*SORTS, *tasks], titles)(by)


def report(places: list[str], by: str = "overall", tag: str = "", out: str = "") -> Path:
    """Print the tables of runs and write their page; returns its path. See the top of this file."""
    if "" in places:
        raise UserError("'': expected a folder; is a variable of the shell unset?")
    given = [Path(place) for place in places or [Options.runs_dir]]
    if not places and not runs_of(given[0]):
        raise UserError("runs: no runs in it; begin one, or name the folders of runs")

    # What was written beside the runs, which `runs/*` names too, is passed over.
    chosen = [place for place in given if not is_report(place)] or given
    for place in chosen:
        check_place(place)
    rows, left_out = read_all(chosen)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if not rows:
        raise UserError("no run that can be read")
    check_sort(by, rows)
    rows = with_tag(rows, tag)
    groups = comparable(rows, by)
    for group in groups:
        print(group[0].title)
        print("\n".join(table(group)) + "\n")

    # A list of all in a folder, or a page with pictures.
    if len(chosen) == 1 and runs_of(chosen[0]):
        page = write_list_page(groups, left_out, by, Path(out) if out else chosen[0], tag)
    else:
        need_matplotlib("a page with pictures")
        if len(rows) == 1:
            page = write_run_page(rows[0], Path(out) if out else rows[0].folder / "report")
        else:
            page = write_comparison(rows, by, Path(out) if out else place_of(rows))
    print(f"page: {display_path(page)}")
    return page


def main(argv: list[str]) -> None:
    """The command line."""
    parser = page_parser(__doc__)
    add = parser.add_argument
    add(
        "places",
        metavar="RUN",
        nargs="*",
        default=[],
        help="a run's folder, or one with runs in it",
    )
    sorts = f"{{{','.join(SORTS)},TASK}}"
    add("--sort", dest="by", metavar=sorts, help="by what the tables are sorted [overall]")
    add("--tag", metavar="WORD", help="only runs that have it")
    add("--out", metavar="FOLDER", help="where the page goes")
    words = expand(argv)
    found, rest = parser.parse_known_args(words)
    if rest:
        raise unknown(rest[0], ["sort", "tag", "out"], words)
    for name in ("tag", "out"):
        if getattr(found, name, None) == "":
            raise UserError(f"--{name} '': expected a text; is a variable of the shell unset?")
    report(**vars(found))


if __name__ == "__main__":
    run_main(main)
