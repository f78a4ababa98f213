"""A table of a record: a line for each row, means over its seeds; as Markdown and as CSV."""

import csv
import io
import statistics
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from ablation.compare import Comparison
from ablation.picture import in_markdown, write_picture
from ablation.record import Line, own_files, read_lines
from ablation.summaries import Summary, summaries_of
from commandline.words import typed
from data.download import FILES
from errors import UserError, listed
from storage.files import write_text
from tasks import TASKS

NOTHING = "–"


# ---- cells


def short(number: float, digits: int = 3) -> str:
    """A number as ".812", "-.004" or "1.250"."""
    text = f"{number:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(number) < 1 and float(text) < 1 else text


def mean_sd(values: Sequence[float]) -> str:
    """Several values as ".812 ± .004", one as ".812"."""
    if len(values) == 1:
        return short(values[0])
    return f"{short(statistics.mean(values))} ± {short(statistics.stdev(values))}"


def signed(number: float) -> str:
    """A difference as "+.004"."""
    text = short(number)
    return text if text.startswith("-") else f"+{text}"


def interval(comparison: Comparison | None) -> str:
    """A row's difference from the base row: "+.004 [-.001, +.009]"."""
    if comparison is None or "overall" not in comparison.difference:
        return NOTHING
    low, high = comparison.low["overall"], comparison.high["overall"]
    return f"{signed(comparison.difference['overall'])} [{signed(low)}, {signed(high)}]"


def seeds_of(seeds: Sequence[int]) -> str:
    """Seeds as "1 2 3"."""
    return " ".join(map(str, seeds))


def of_whole(row: Summary, values: Sequence[float], tasks: Sequence[str]) -> str:
    """What is of all tasks together; nothing for a row of fewer, which can't be compared in it."""
    return mean_sd(values) if values and len(row.scores) == len(tasks) else NOTHING


def markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- tables

Column = tuple[str, Callable[[Summary], str]]


def score_columns(tasks: Sequence[str]) -> list[Column]:
    """The columns that every table has."""

    def score(task: str) -> Callable[[Summary], str]:
        return lambda row: mean_sd(row.scores[task]) if task in row.scores else NOTHING

    named = [(f"{TASKS[task].title} {TASKS[task].metric_name}", score(task)) for task in tasks]
    return [
        ("flags", lambda row: row.title),
        ("seeds", lambda row: str(len(row.seeds))),
        *named,
        ("overall", lambda row: of_whole(row, row.overall, tasks)),
        ("minus the base row", lambda row: interval(row.comparison)),
    ]


def further_columns(tasks: Sequence[str]) -> list[Column]:
    """The columns of a table of its own page."""
    return [
        ("last epoch", lambda row: of_whole(row, row.last, tasks)),
        ("change between epochs", lambda row: of_whole(row, row.change, tasks)),
        ("training loss", lambda row: of_whole(row, row.loss, tasks)),
        ("trained parameters", lambda row: f"{row.trained / 1e6:.2f}M" if row.trained else NOTHING),
        ("peak memory", lambda row: f"{row.memory} MiB" if row.memory else NOTHING),
        ("time of a step", lambda row: f"{row.speed:.2f}" if row.speed else NOTHING),
        ("minutes", lambda row: f"{statistics.median(row.seconds) / 60:.1f}"),
    ]


def tasks_of_rows(rows: Sequence[Summary]) -> list[str]:
    """All tasks that some row learns, in the order of the first one's."""
    return list(dict.fromkeys(task for row in rows for task in row.scores))


def of_columns(columns: Sequence[Column], rows: Sequence[Summary]) -> tuple[list[str], str]:
    """The heads of the columns in which some row has something, and the table of these."""
    shown = []
    for head, cell in columns:
        cells = [cell(row) for row in rows]
        if set(cells) != {NOTHING}:
            shown.append((head, cells))
    heads = [head for head, _ in shown]
    by_row = list(zip(*(cells for _, cells in shown), strict=True))
    return heads, markdown(heads, by_row)


def readme_table(table: Path, base: str, only: Sequence[str] = ()) -> str:
    """The scores alone, for the project's README; of all rows, or these, in their order.

    UserError for a row that the record lacks.
    """
    by_name = {row.name: row for row in summaries_of(table, base)}
    for name in only:
        if name not in by_name:
            raise UserError(f"{table}: no row {name} in its record; rows: {listed(by_name)}")
    rows = [by_name[name] for name in only or by_name]
    return of_columns(score_columns(tasks_of_rows(rows)), rows)[1]


def page(table: Path, base: str) -> str:
    """table.md: what was measured, the table, and what its columns mean."""
    rows = summaries_of(table, base)
    tasks = tasks_of_rows(rows)
    columns = [("row", lambda row: row.what), *score_columns(tasks), *further_columns(tasks)]
    heads, cells = of_columns(columns, rows)
    source = source_of(read_lines(table))
    title = [f"# {table.name}", "", source, "", *in_markdown(table)]
    return "\n".join([*title, cells, "", explanation(base, heads), ""])


MEANINGS = {
    "minus the base row": "overall, over the seeds that the row shares with `{base}`, and the 95 % "
    "interval of a paired bootstrap over the dev examples (1,000 samples). It says what other dev "
    "examples could change; what other seeds could, says the standard deviation.",
    "last epoch": "its overall score, for which nothing was chosen on dev.",
    "change between epochs": "how much the overall score moves from one epoch to the next, up or "
    "down, on average.",
    "training loss": "of the last epoch, all tasks together.",
    "peak memory": "of the process.",
    "time of a step": "in steps of the base row, interleaved, nothing else computing "
    "(`benchmarks/row_speed.py`).",
    "minutes": "of a run with its evaluations, the median; other work may have shared the machine.",
}


def explanation(base: str, heads: Sequence[str]) -> str:
    """What the columns mean."""
    said = ["Dev scores of each run's best epoch, mean ± standard deviation over the seeds."]
    for head, meaning in MEANINGS.items():
        if head in heads:
            said.append(f"*{head}*: {meaning.format(base=base)}")
    said.append("Written by `ablate.py`; `table.csv` has all numbers unrounded.")
    return textwrap.fill(" ".join(said), 100)


def corpus_of(lines: Sequence[Line]) -> str:
    """What the data are: the dev files tell."""
    if lines[0].built_in_corpus:
        return "The built-in corpus"
    for line in lines:
        for task in line.best.scores:
            source, known = line.data.get(f"{task}_dev"), FILES[TASKS[task].files.format("dev")]
            if source and source.sha256 == known.sha256:
                return "The course's data"
    return "Data of its own"


def counts_of(lines: Sequence[Line]) -> dict[str, int]:
    """{"sst_train": examples, ...} of the files that rows did not bring themselves."""
    counts = {}
    for line in lines:
        for name, source in line.data.items():
            if name not in own_files(line.flags):
                counts[name] = source.examples
    return counts


def count(number: int) -> str:
    """A number as "8,544"."""
    return f"{number:,}"


def source_of(lines: Sequence[Line]) -> str:
    """What the runs were trained and scored on, with which budget, where."""
    # The data.
    counts = counts_of(lines)
    named = []
    for task in [name.removesuffix("_dev") for name in counts if name.endswith("_dev")]:
        train, dev = count(counts[f"{task}_train"]), count(counts[f"{task}_dev"])
        named.append(f"{TASKS[task].title} {train} and {dev}")

    # The flags for all rows; the encoder and machine of those that have one.
    budget = f"`{' '.join(typed(lines[0].shared))}`" if lines[0].shared else "the default flags"
    trained = [line for line in lines if not line.is_baseline] or lines
    models = dict.fromkeys(line.options["model"] for line in trained)
    devices = dict.fromkeys(line.device for line in trained)
    examples = f" (training and dev examples: {', '.join(named)})" if named else ""
    return (
        f"{corpus_of(lines)}{examples}; {listed(models)}; for all rows {budget}; on "
        f"{listed(devices)}."
    )


def as_csv(rows: Sequence[Summary]) -> str:
    """table.csv: a line a row, all numbers unrounded."""
    tasks = tasks_of_rows(rows)
    parts = [*tasks, "overall"]
    heads = ["row", "flags", "seeds", *parts, *(f"{part}_sd" for part in parts)]
    heads += [f"{part}_{what}" for part in parts for what in ("difference", "low", "high")]
    heads += ["last_epoch", "change_between_epochs", "training_loss", "trained_parameters"]
    heads += ["peak_memory_mib", "seconds", "step_time"]
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(csv_row(row))
    return text.getvalue()


def csv_row(row: Summary) -> dict[str, float | str | None]:
    """A row of table.csv, by column; what it lacks is left out."""
    found: dict[str, float | str | None] = {
        "row": row.name,
        "flags": row.title.strip("`"),
        "seeds": seeds_of(row.seeds),
        "last_epoch": statistics.mean(row.last),
        "change_between_epochs": statistics.mean(row.change) if row.change else None,
        "training_loss": statistics.mean(row.loss) if row.loss else None,
        "trained_parameters": row.trained,
        "peak_memory_mib": row.memory,
        "seconds": statistics.median(row.seconds),
    }
    for part, values in {**row.scores, "overall": row.overall}.items():
        found[part] = statistics.mean(values)
        if len(values) > 1:
            found[f"{part}_sd"] = statistics.stdev(values)
    if row.comparison:
        for part, difference in row.comparison.difference.items():
            found[f"{part}_difference"] = difference
            found[f"{part}_low"] = row.comparison.low[part]
            found[f"{part}_high"] = row.comparison.high[part]
    if row.speed:
        found["step_time"] = row.speed
    return found


def write_tables(table: Path, base: str) -> None:
    """table.md, table.csv and the picture, from the record alone; and say where they are."""
    rows = summaries_of(table, base)
    numbers = as_csv(rows)
    write_picture(table, rows, base, numbers)
    write_text(table / "table.csv", numbers)
    write_text(table / "table.md", page(table, base))
    print(f"{table}/table.md, table.csv: {len(rows)} rows")
