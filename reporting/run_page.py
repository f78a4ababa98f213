"""The page of one run: what it is, how it learned, and what its best model makes of dev."""

from html import escape
from pathlib import Path

from errors import one_line
from reporting.curves import read_log
from reporting.dev import Dev, read_dev
from reporting.mistakes import Mistake, classes, confusion, worst
from reporting.page import (
    Column,
    facts,
    flags_html,
    gallery,
    note,
    number,
    page,
    table,
    tags,
    text,
    tiles,
    write_page,
)
from reporting.pictures import dev_pictures, learning_curves
from reporting.runs import PAGE, ShownRun, data_name
from reporting.style import Picture
from training.console import as_time

BUILT_IN = "The data is minBERT's built-in corpus: scores on it say nothing of SST, Quora or STS."


def write_run_page(row: ShownRun, folder: Path) -> Path:
    """Write the page of a run and its pictures into a folder; the page's path."""
    log = read_log(row.folder)
    html = [heading(row)]
    if not log.lines:
        html.append(note("log.jsonl: no lines in it yet, so there are no learning curves"))
    pictures: list[Picture] = []
    for name in row.tasks:
        dev = read_dev(row, name)
        own = [*learning_curves(log, name, dev), *dev_pictures(name, dev)]
        html += task_section(dev, own)
        pictures += own
    html += ["<h2>The run</h2>", about(row), data_table(row)]
    return write_page(folder / PAGE, page(row.name, html), pictures)


def heading(row: ShownRun) -> str:
    """Scores, how far it came, its tags, what its data is."""
    state = "finished" if row.finished else "not finished"
    html = [
        f'<p class="quiet">{state}: {row.step} steps in {escape(as_time(row.seconds))}, on '
        f"{escape(data_name(row.options, row.identity, row.facts))} {tags(row.options.tags)}</p>"
    ]
    if row.facts.built_in_corpus:
        html.append(note(BUILT_IN))
    if row.best is None:
        return "\n".join([*html, note("no evaluation yet, so there are no scores")])
    scores = [("overall", f"{row.best.overall:.3f}")]
    for name, task in row.tasks.items():
        scores.append((f"{task.title} {task.metric_name}", f"{row.best.scores[name]:.3f}"))
    html.append(tiles([*scores, ("best epoch", str(row.best.epoch))]))
    return "\n".join(html)


def task_section(dev: Dev, pictures: list[Picture]) -> list[str]:
    """What there is to see of one task."""
    html = [f"<h2>{escape(dev.task.title)}</h2>", *map(note, dev.notes), gallery(pictures)]
    if dev.predictions is None:
        return html
    if dev.classes:
        html.append(class_table(dev))
    mistakes = worst(dev)
    if mistakes:
        kind = "most confident" if dev.classes else "largest"
        html.append(f"<h3>{dev.task.title}: the {len(mistakes)} {kind} mistakes on dev</h3>")
        items = "\n".join(mistake_item(dev, mistake) for mistake in mistakes)
        html.append(f'<ol class="mistakes">{items}</ol>')
    return html


def class_table(dev: Dev) -> str:
    """Precision and recall of each class."""
    columns = [Column("class")]
    for title in ("examples", "predicted", "right", "precision", "recall"):
        columns.append(Column(title, "number"))
    rows = []
    for one in classes(confusion(dev), int(dev.task.labels.low)):
        counts = [number(count, ".0f") for count in (one.examples, one.predicted, one.right)]
        rows.append([text(one.label), *counts, number(one.precision), number(one.recall)])
    return table(f"{dev.task.title}: precision and recall of each class", columns, rows)


def mistake_item(dev: Dev, mistake: Mistake) -> str:
    """A wrong example: its text or texts, and how wrong it was."""
    if dev.classes:
        said = f"{mistake.prediction:g} with probability {mistake.size:.3f}"
    else:
        said = f"{mistake.prediction:.2f}, which is {mistake.size:.2f} off"
    texts = "".join(f"<p>{escape(sentence)}</p>" for sentence in mistake.example.texts)
    line = (
        f"label {mistake.example.label:g}, predicted {said}; id&nbsp;{escape(mistake.example.id)}"
    )
    return f'<li>{texts}<p class="quiet">{line}</p></li>'


# ---- what the run was


def about(row: ShownRun) -> str:
    """Command, flags, versions, device, sizes."""
    run = row.identity
    commands = "\n".join(one_line(command, 2000) for command in run.commands)
    pairs = [
        ("command", f"<pre>{escape(commands)}</pre>"),
        ("flags that differ from the defaults", flags_html(row.flags) or "none"),
    ]
    # A baseline has no weights, and no dtype either.
    if run.base_weights:
        pairs.append(("model", escape(row.options.model)))
    machine = (run.device, run.dtype, run.kernels)
    pairs.append(("device", escape(", ".join(word for word in machine if word))))
    versions = {"python": run.python, **run.versions}
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    pairs += [("versions", escape(names)), ("commit", escape(run.commit))]

    # What a run records at its end.
    if row.facts.parameters:
        counts = ", ".join(f"{value:,} {name}" for name, value in row.facts.parameters.items())
        pairs.append(("parameters", escape(counts)))
    if row.facts.peak_memory_mib is not None:
        pairs.append(("peak memory", f"{row.facts.peak_memory_mib:,} MiB"))
    pairs.append(("folder", f"<code>{escape(str(row.folder))}</code>"))
    return facts(pairs)


def data_table(row: ShownRun) -> str:
    """The files that it read."""
    columns = [Column("file", "name"), Column("examples", "number")]
    columns += [Column("of them in train too", "number"), Column("SHA-256"), Column("read from")]
    rows = []
    for file in row.identity.data.values():
        path = Path(file.path)
        counts = [number(file.examples, ",.0f"), number(file.in_train, ",.0f")]
        rows.append([text(path.name), *counts, text(file.sha256[:12]), text(path.parent)])
    return table("data files", columns, rows)
