"""The model card: README.md beside a run's best model, as the Hugging Face hub shows it.

What the model was trained on, what of dev and test leaked into that, its scores, and the command.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from errors import one_line
from options import Options
from pretrained import EMBEDDED, hub_id
from storage.files import write_text
from tasks import Task, tasks_of
from training.manifest import CARD


class Reader(NamedTuple):
    """A library that loads a saved model, without our heads."""

    library: str
    tag: str  # under which the hub lists the model
    calls: tuple[str, ...]  # any of which loads it


# By the file that tells whether a folder is for it.
READERS = {
    "modules.json": Reader(
        "sentence-transformers",
        "sentence-similarity",
        ('SentenceTransformer("FOLDER")', 'AutoModel.from_pretrained("FOLDER")'),
    ),
    "adapter_config.json": Reader(
        "peft",
        "feature-extraction",
        ('PeftModel.from_pretrained(AutoModel.from_pretrained("BASE"), "FOLDER")',),
    ),
}


def write_card(folder: Path, options: Options, facts: dict[str, Any], best: dict[str, Any]) -> None:
    """Write README.md into the folder of a saved model; its other files are there by now.

    `facts` is what run.json holds, `best` the evaluation as progress.json has it.
    """
    tasks = tasks_of(options)
    reader = next((READERS[name] for name in READERS if (folder / name).exists()), None)
    parts = [
        front_matter(options, tasks, reader, best["scores"]),
        title(options, tasks, facts),
        usage(options, tasks, reader),
        data_table(facts, options),
        score_table(tasks, best),
        origin(facts),
    ]
    write_text(folder / CARD, "\n".join(parts))


def cell(text: object) -> str:
    """A text as it can stand in a table."""
    return one_line(str(text)).replace("|", "\\|").replace("`", "'")


def front_matter(
    options: Options,
    tasks: dict[str, Task],
    reader: Reader | None,
    scores: dict[str, float],
) -> str:
    """The hub's metadata: YAML, whose values may be written as JSON."""
    # A dev score of each task, as the hub's leaderboards read them.
    results = []
    for name, task in tasks.items():
        metric = task.metric_name
        kind = "sentence-similarity" if metric == "Pearson" else "text-classification"
        score = {
            "type": metric.lower(),
            "name": f"{task.title} {metric}",
            "value": round(scores[name], 4),
        }
        results.append(
            {
                "task": {"type": kind, "name": task.title},
                "dataset": {"type": name, "name": f"{task.title} dev", "split": "dev"},
                "metrics": [score],
            }
        )

    # Which library the hub names, and where it lists the model.
    library, tag, _ = reader or Reader("minbert", "text-classification", ())
    values: dict[str, Any] = {
        "language": "en",
        "library_name": library,
        "pipeline_tag": tag,
        "tags": ["minbert", "bert", "multitask", *tasks],
        "model-index": [{"name": options.name, "results": results}],
    }
    if not Path(options.model).is_dir():  # a folder's name says nothing elsewhere
        values["base_model"] = hub_id(options.model)
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---", ""])


def title(options: Options, tasks: dict[str, Task], facts: dict[str, Any]) -> str:
    """What it is."""
    titles = ", ".join(task.title for task in tasks.values())
    base = cell(Path(options.model).name if Path(options.model).is_dir() else options.model)
    lines = [
        f"# minBERT on {titles}",
        "",
        f"One BERT encoder, from `{base}`, and a head for each of {titles}, trained together by",
        "minBERT's `multitask_classifier.py`.",
    ]
    if facts.get("built_in_corpus"):
        lines += ["", "**Trained on minBERT's built-in corpus: its scores say nothing of these.**"]
    return "\n".join([*lines, ""])


def usage(options: Options, tasks: dict[str, Task], reader: Reader | None) -> str:
    """How to load it."""
    name, task = next(iter(tasks.items()))
    text = '"A lovely film ."'
    example = f"({text}, {text})" if task.pair else text
    lines = [
        "## Use",
        "",
        "In a checkout of minBERT; `FOLDER` is this folder, or USER/NAME on the hub:",
        "",
        "```python",
        "from multitask_classifier import MultitaskBERT",
        'model = MultitaskBERT.load("FOLDER")',
        f'model.predict("{name}", [{example}])',
        "```",
    ]
    if reader:
        base = "BASE" if Path(options.model).is_dir() else hub_id(options.model)
        calls = " or ".join(f"`{call.replace('BASE', base)}`" for call in reader.calls)
        lines += ["", f"Without the heads, by {reader.library}: {calls}"]
    return "\n".join([*lines, ""])


def data_table(facts: dict[str, Any], options: Options) -> str:
    """The data files, and what of them leaked."""
    lines = [
        "## Data",
        "",
        "| file | examples | SHA-256 | stand in train too |",
        "|---|---|---|---|",
    ]
    for file in facts["data"].values():
        path = Path(file["path"]).name
        counts = (file.get("examples", ""), file["sha256"][:12], file.get("in_train", ""))
        lines.append(f"| `{cell(path)}` | {counts[0]} | {counts[1]} | {counts[2]} |")
    if options.limit:
        lines += ["", f"Only the first {options.limit} rows of each file were read (`--limit`)."]
    if options.train_fraction < 1:
        share = f"{options.train_fraction:g} of the training rows"
        lines += ["", f"A random {share} was trained on (`--train_fraction`)."]
    if options.init:
        lines += [
            "",
            f"It started from `{cell(Path(options.init).name)}` (`--init`); what that was",
        ]
        lines += ["trained on is not in this table."]
    if options.drop_leaks:
        lines += ["", "What stands in train too was left out of train (`--drop_leaks`)."]
    if options.model.endswith(EMBEDDED) and "para" in options.tasks:
        lines += ["", f"{EMBEDDED} itself was trained on Quora duplicates, among others, so its"]
        lines += ["Quora scores flatter it."]
    return "\n".join([*lines, ""])


def score_table(tasks: dict[str, Task], best: dict[str, Any]) -> str:
    """The scores on the dev files."""
    lines = ["## Dev scores", "", "| task | metric | score |", "|---|---|---|"]
    for name, task in tasks.items():
        lines.append(f"| {task.title} | {task.metric_name} | {best['scores'][name]:.3f} |")
    lines.append(f"| overall | | {best['overall']:.3f} |")
    lines += [
        "",
        f"After epoch {best['epoch']}, step {best['step']}; the best of the run's epochs.",
    ]
    return "\n".join([*lines, ""])


def origin(facts: dict[str, Any]) -> str:
    """The commands, the first one and those that made the run longer, and what it ran on."""
    versions = {"python": facts["python"], **facts["versions"]}
    commands = [one_line(command, 2000) for command in facts["commands"]]
    lines = ["## Training", "", "```bash", *commands, "```", ""]
    lines.append(f"Commit {cell(facts['commit'])}, on {cell(facts['device'])}; all options are in")
    lines.append("`options.json`. " + ", ".join(f"{x} {y}" for x, y in versions.items()) + ".")
    return "\n".join([*lines, ""])
