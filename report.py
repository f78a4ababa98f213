"""What runs came to: tables here, and pages with pictures for the browser.

    python report.py                   # all runs in runs/, and runs/index.html
    python report.py other-runs        # all in another folder
    python report.py RUN               # one run: RUN/report/index.html
    python report.py RUN1 RUN2         # side by side, in runs/report-RUN1+RUN2

A run's page has learning curves, confusion matrices, histograms, and the most
confident mistakes with their text. Each page is one file that needs no network;
its pictures lie beside it as PNG. The list of all runs needs no matplotlib.

The best come first. Runs on other data, or with other tasks, have tables and
pictures of their own: their scores can't be compared.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import sys
from pathlib import Path

from commandline.parser import one_of, page_parser
from commandline.words import expand, unknown
from errors import UserError, run_main
from options import Options
from reporting.list_pages import place_of, write_comparison, write_list_page
from reporting.run_page import write_run_page
from reporting.runs import (
    SORTS,
    Row,
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


def table(rows: list[Row]) -> list[str]:
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


def read_all(places: list[Path], tag: str) -> tuple[list[Row], list[str]]:
    """The runs in these places, each a run's folder or one with such in it; what was left out.

    A run that was asked for must be one; of those in a folder, what can be read is shown.
    """
    rows, left_out = [], []
    for place in places:
        inside = runs_of(place)
        for folder in inside or [place]:
            try:
                row = read_run(folder)
            except UserError as error:
                if not inside:
                    raise
                left_out.append(str(error))
                continue
            if not tag or tag in row.options.tags:
                rows.append(row)
    return rows, left_out


def report(places: list[str], by: str = "overall", tag: str = "", out: str = "") -> Path:
    """Print the tables of runs and write their page; returns its path. See the top of this file."""
    given = [Path(place) for place in places or [Options.runs_dir]]
    if not places and not runs_of(given[0]):
        raise UserError("runs: no runs in it; begin one, or name the folders of runs")

    # What was written beside the runs, which `runs/*` names too, is passed over.
    chosen = [place for place in given if not is_report(place)] or given
    rows, left_out = read_all(chosen, tag)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if not rows:
        raise UserError(f"no run with the tag {tag}" if tag else "no run that can be read")
    groups = comparable(rows, by)
    for group in groups:
        print(group[0].title)
        print("\n".join(table(group)) + "\n")

    # A list of all in a folder, or a page with pictures.
    if len(chosen) == 1 and runs_of(chosen[0]):
        page = write_list_page(groups, left_out, by, Path(out) if out else chosen[0])
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
    add(
        "--sort", dest="by", help="by what the tables are sorted [overall]", **one_of("sort", SORTS)
    )
    add("--tag", metavar="WORD", help="only runs that have it (--tags)")
    add("--out", metavar="FOLDER", help="where the page goes")
    words = expand(argv)
    found, rest = parser.parse_known_args(words)
    if rest:
        raise unknown(rest[0], ["sort", "tag", "out"], words)
    report(**vars(found))


if __name__ == "__main__":
    run_main(main)
