"""The README's figure, from the records alone: what the scores are, and how fast.

    python benchmarks/figure.py

Writes benchmarks/figures/overview-light.svg and -dark.svg, for pages in either theme. Each holds
the SHA-256 of the records, by which a test finds that it has to be drawn again.
"""

import hashlib
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib
from matplotlib import pyplot

from ablation.record import NAME, Line, read_lines
from errors import run_main
from reporting.style import SHARED, THEMES
from tasks import TASKS

TABLE = Path(__file__).parents[1] / "results" / "three-epochs"
RECORDS = Path(__file__).parent / "records"
USED = [TABLE / NAME, RECORDS / "train_speed.json", RECORDS / "predict_speed.json"]
FIGURES = Path(__file__).parent / "figures"

COLOURS = {"sst": "#e07a2f", "para": "#3f8fd2", "sts": "#3aa576"}
LABEL_AT = {"sst": 0.03, "para": -0.05, "sts": 0.03}  # above or below the line
OURS, OTHERS = "#3f8fd2", "#9aa4ae"

# The rows of the middle panel, and the label of each.
ROWS = {
    "mean-pooling": "mean pooling",
    "default": "default flags",
    "transformers": "transformers",
    "lora": "LoRA",
    "swiglu-heads": "SwiGLU heads",
    "rmsnorm-heads": "RMSNorm heads",
    "all-three": "all three",
    "bi-encoder": "bi-encoded pairs",
    "last-linear-layer": "frozen encoder",
}
# The bars of the right panel: what the speed records call the sides; the fastest of several counts.
SIDES = {
    "minBERT": ["ours"],
    "transformers": ["sdpa", "eager", "eager_kept"],
    "course-style loop": ["course"],
}


def sum_of_records() -> str:
    """The SHA-256 of all records that the figure is drawn from."""
    digest = hashlib.sha256()
    for path in USED:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def runs_by_row() -> dict[str, list[Line]]:
    """The recorded runs, {row: one a seed}."""
    runs = defaultdict(list)
    for line in read_lines(TABLE):
        runs[line.row].append(line)
    return runs


def draw_epochs(axes: Any, runs: list[Line]) -> None:
    """The tasks' dev scores after each epoch of the default, the mean over its seeds."""
    epochs = range(1, len(runs[0].epochs) + 1)
    for task, colour in COLOURS.items():
        scores = []
        for epoch in epochs:
            of_seeds = [run.epochs[epoch - 1].scores[task] for run in runs]
            scores.append(statistics.mean(of_seeds))
        axes.plot(epochs, scores, color=colour, marker="o", linewidth=2)
        label = f"{TASKS[task].title} {TASKS[task].metric_name}  {scores[-1]:.3f}"
        axes.text(len(scores), scores[-1] + LABEL_AT[task], label, color=colour, ha="right")
    axes.set_title("one encoder, three tasks: dev scores")
    axes.set_ylim(0.4, 0.95)
    axes.set_xlabel("epoch")
    axes.set_xticks(list(epochs))


def draw_rows(axes: Any, runs: dict[str, list[Line]]) -> None:
    """The overall score of each row; a line behind it shows one standard deviation of its seeds."""
    labels = []
    for row, (name, label) in enumerate(reversed(ROWS.items())):
        scores = [line.best.overall for line in runs[name]]
        mean = statistics.mean(scores)
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        colour = OTHERS if label == "transformers" else OURS
        axes.errorbar(mean, row, xerr=spread, color=colour, marker="o", linewidth=2)
        axes.text(0.795, row, f"{mean:.3f}", va="center", ha="right")
        labels.append(f"{label} ({len(scores)})")
    axes.set_title("overall dev score (seeds)")
    axes.set_xlim(0.61, 0.795)
    axes.set_xticks([0.65, 0.7, 0.75])
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)


def draw_speed(axes: Any) -> None:
    """Tokens a second of training and predicting, ours and others."""
    place = 0.0
    for title, name in (("predicting", "predict_speed.json"), ("training", "train_speed.json")):
        sides = json.loads((RECORDS / name).read_text())["sides"]
        for label, names in reversed(SIDES.items()):
            speed = max(sides[name]["tokens_per_s"] for name in names if name in sides) / 1000
            axes.barh(place, speed, color=OURS if label == "minBERT" else OTHERS, height=0.8)
            axes.text(speed + 0.5, place, f"{label} {speed:.1f}", va="center")
            place += 1
        axes.text(0, place - 0.2, title, fontweight="bold", va="center")
        place += 1.2
    axes.set_title("speed on 2 CPU threads")
    axes.set_xlabel("thousand tokens a second")
    axes.set_xlim(0, 62)
    axes.set_ylim(-0.6, place - 0.6)
    axes.set_yticks([])


def draw(theme: str, path: Path) -> None:
    """Draw the figure in a theme."""
    ink, line = THEMES[theme]["ink"], THEMES[theme]["line"]
    of_text = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    colours: dict[Any, Any] = {**dict.fromkeys(of_text, ink), "axes.edgecolor": line}
    matplotlib.rcParams.update({**SHARED, **colours})
    runs = runs_by_row()
    figure, (epochs, rows, speed) = pyplot.subplots(1, 3, figsize=(13, 3.6))
    draw_epochs(epochs, runs["default"])
    draw_rows(rows, runs)
    draw_speed(speed)
    figure.tight_layout(w_pad=3)
    notes = {"Date": None, "Description": f"records {sum_of_records()}"}
    figure.savefig(path, metadata=notes, transparent=True)
    pyplot.close(figure)


def main(argv: list[str]) -> None:
    """The command line; it takes no flags."""
    FIGURES.mkdir(exist_ok=True)
    for theme in THEMES:
        path = FIGURES / f"overview-{theme}.svg"
        draw(theme, path)
        print(path)


if __name__ == "__main__":
    run_main(main)
