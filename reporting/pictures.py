"""The pictures of a report: what is drawn, from what a run's records hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reporting.curves import Log, Points, thinned
from reporting.dev import Dev
from reporting.mistakes import confusion
from reporting.style import COLOURS, DRAWN_IN, FIRST, HEIGHT, SECOND, Axes, Picture, draw
from tasks import TASKS, Task

BINS = 20  # of a histogram of lengths
MOST_MARKS = 2000  # of a scatter plot; beyond these an SVG holds them as an image
STRONGEST = 0.6  # of a cell's colour, on which its text must still be read
LEGEND_LINE = 0.19  # inches
# What its files are called: of several groups of runs, each has its number in front.
KINDS = ("loss", "dev-loss", "score", "confusion", "scatter", "labels", "lengths")
FILES = re.compile(rf"(\d+-)?(overall|({'|'.join(TASKS)})-({'|'.join(KINDS)}))\.png")

STYLES = ("-", "--", ":", "-.")  # of runs beyond as many as there are colours


# Captions.
MEANS = "Training loss is the mean over each --log_every steps."
EVALUATIONS = "A point is an evaluation on dev."
LOSSES = f"{MEANS} A point of dev loss is an evaluation."
SCORES = "A point is an evaluation, on dev or on the first examples of the training file."
CONFUSION = (
    "Dev examples with the row's label that were predicted as the column, and how many per cent of "
    "the row these are: on the diagonal, the label's recall."
)
SCATTER = "A point is a dev example; on the line y = x it was predicted as labelled."
BARS_OF_CLASSES = "Dev examples that have a label, and those for which it was predicted."
BARS_OF_NUMBERS = "Dev examples whose label, and whose prediction, is in a tenth of the range."
LENGTHS = (
    "Words of the dev file's sentences, as its blanks separate them, before word-pieces; of a pair "
    "both sentences count."
)
RUNS = "A curve is a run, with its number in the table above."


@dataclass(frozen=True)
class Curve:
    """A line of a picture."""

    label: str
    points: Points
    colour: str
    style: str = "-"
    marked: bool = False  # whether each point is shown as one


def curves(
    name: str,
    title: str,
    of: list[Curve],
    x: str,
    y: str,
    caption: str,
    legend_below: bool = False,
) -> Picture | None:
    """Lines over steps or epochs; None where there is nothing to draw.

    `legend_below`: the names stand below the axes, also that of a single line.
    """
    drawn = [curve for curve in of if curve.points]
    if not drawn:
        return None

    def paint(axes: Axes) -> None:
        """The lines, the axes, and the names of the lines."""
        lines = []
        for curve in drawn:
            xs, ys = zip(*thinned(curve.points), strict=True)
            marker = "o" if curve.marked or len(xs) == 1 else None
            lines += axes.plot(xs, ys, curve.style, color=curve.colour, marker=marker, markersize=4)

        # Steps and epochs are whole numbers.
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(axis="y")

        # Names of runs are long: they stand below.
        labels = [curve.label for curve in drawn]
        if legend_below:
            axes.figure.legend(lines, labels, loc="outside lower left")
        elif len(drawn) > 1:
            axes.legend(lines, labels)

    more = LEGEND_LINE * len(drawn) if legend_below else 0.0
    return draw(name, title, paint, HEIGHT + more, caption)


# ---- of one run


def learning_curves(log: Log, task: str, dev: Dev) -> list[Picture]:
    """A task's loss over the steps, and its score over the epochs."""
    title, metric = dev.task.title, dev.task.metric_name
    losses = [
        Curve("training", log.points(f"loss_{task}"), FIRST),
        Curve("dev", log.points(f"dev_loss_{task}"), SECOND, marked=True),
    ]
    scores = [
        Curve("dev", log.points(f"dev_{task}", "epoch"), SECOND, marked=True),
        Curve("training", log.points(f"train_{task}", "epoch"), FIRST, marked=True),
    ]
    found = [
        curves(f"{task}-loss", f"{title}: loss", losses, "step", "loss", LOSSES),
        curves(f"{task}-score", f"{title}: {metric}", scores, "epoch", metric, SCORES),
    ]
    return [picture for picture in found if picture]


def dev_pictures(task: str, dev: Dev) -> list[Picture]:
    """What the dev set of a task is like, and what was made of it, as far as that is known."""
    if not dev.examples:
        return []
    found = []
    if dev.predictions is not None:
        found.append(confusion_picture(task, dev) if dev.classes else scatter(task, dev))
    return [*found, label_histogram(task, dev), length_histogram(task, dev)]


def confusion_picture(task: str, dev: Dev) -> Picture:
    """Counts and the shares of each label's examples."""
    counts = confusion(dev)
    low = int(dev.task.labels.low)

    def paint(axes: Axes) -> None:
        """A square for each label and prediction, the fuller the more of the label it has."""
        for label, row in enumerate(counts):
            for predicted, count in enumerate(row):
                share = count / max(1, row.sum())
                xs = [predicted - 0.5, predicted + 0.5, predicted + 0.5, predicted - 0.5]
                ys = [label - 0.5, label - 0.5, label + 0.5, label + 0.5]
                axes.fill(xs, ys, color=FIRST, alpha=STRONGEST * share, linewidth=0)
                text = f"{count}\n{share:.0%}"
                axes.text(predicted, label, text, ha="center", va="center", fontsize=9)

        # Classes are named on both axes, the lowest label on top.
        places = range(len(counts))
        names = [str(low + place) for place in places]
        axes.set_xticks(places, names)
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.set_xlabel("predicted")
        axes.set_ylabel("label")

    title = f"{dev.task.title}: label and prediction"
    return draw(f"{task}-confusion", title, paint, caption=CONFUSION)


def scatter(task: str, dev: Dev) -> Picture:
    """Predictions over labels, and the line on which they would be equal."""
    labels = dev.task.labels

    def paint(axes: Axes) -> None:
        """The line of equal values, and a point for each example."""
        ends = [labels.low, labels.high]
        axes.plot(ends, ends, color=DRAWN_IN["quiet"], linewidth=1, label="y = x")
        many = len(dev.examples) > MOST_MARKS
        axes.plot(
            *(dev.labels, dev.predictions, "o"),
            **{"color": FIRST, "alpha": 0.4, "markersize": 4, "markeredgewidth": 0},
            rasterized=many,
        )
        margin = (labels.high - labels.low) / 40
        axes.set_xlim(labels.low - margin, labels.high + margin)
        axes.set_ylim(labels.low - margin, labels.high + margin)
        axes.set_xlabel("label")
        axes.set_ylabel("predicted")
        axes.legend(loc="upper left")

    title = f"{dev.task.title}: label and prediction"
    return draw(f"{task}-scatter", title, paint, caption=SCATTER)


def label_histogram(task: str, dev: Dev) -> Picture:
    """How often each label occurs, and is predicted."""
    labels = dev.task.labels
    sides: list[tuple[str, Any, str]] = [("label", dev.labels, FIRST)]
    if dev.predictions is not None:
        sides.append(("predicted", dev.predictions, SECOND))
    # A bar a class; or ten, of the range of a number.
    edges = np.linspace(labels.low, labels.high, 11)
    if dev.classes:
        edges = np.arange(dev.classes + 1) + labels.low - 0.5

    def paint(axes: Axes) -> None:
        """Bars side by side for each class or range."""
        width = 0.8 * (edges[1] - edges[0]) / len(sides)
        for place, (name, values, colour) in enumerate(sides):
            counts, _ = np.histogram(values, edges)
            middles = (edges[:-1] + edges[1:]) / 2 + (place - (len(sides) - 1) / 2) * width
            axes.bar(middles, counts, width, color=colour, label=name)
        if dev.classes:
            axes.set_xticks(np.arange(dev.classes) + labels.low)
        axes.set_xlabel("label")
        axes.set_ylabel("dev examples")
        axes.grid(axis="y")
        axes.margins(y=0.2)
        axes.legend(ncols=2, loc="upper left")

    caption = BARS_OF_CLASSES if dev.classes else BARS_OF_NUMBERS
    return draw(f"{task}-labels", f"{dev.task.title}: labels", paint, caption=caption)


def length_histogram(task: str, dev: Dev) -> Picture:
    """How long the dev sentences are; of a pair both count."""
    lengths = [len(text.split()) for example in dev.examples for text in example.texts]
    width = max(1, -(-max(lengths) // BINS))
    edges = np.arange(1, max(lengths) + width + 1, width)

    def paint(axes: Axes) -> None:
        """A bar for each range of lengths."""
        axes.hist(lengths, edges, color=FIRST, rwidth=0.9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("words of a sentence")
        axes.set_ylabel("dev sentences")
        axes.grid(axis="y")

    return draw(f"{task}-lengths", f"{dev.task.title}: lengths", paint, caption=LENGTHS)


# ---- of several runs


def overlaid(runs: list[tuple[str, Log]], tasks: Mapping[str, Task]) -> dict[str, list[Picture]]:
    """The curves of several runs on the same data, [(label, log)], laid over one another.

    By heading: first the overall score, then each task.
    """

    def picture(name: str, title: str, value: str, x: str, caption: str) -> Picture | None:
        of = []
        for place, (label, log) in enumerate(runs):
            colour = COLOURS[place % len(COLOURS)]
            style = STYLES[place // len(COLOURS) % len(STYLES)]
            marked = value.startswith("dev_")  # one an evaluation
            of.append(Curve(label, log.points(value, x), colour, style, marked))
        return curves(name, title, of, x, "", f"{RUNS} {caption}", legend_below=True)

    overall = picture("overall", "overall dev score", "dev_overall", "epoch", EVALUATIONS)
    found = {"overall": [overall]}
    for name, task in tasks.items():
        score, title = f"{task.title}: dev {task.metric_name}", task.title
        found[title] = [
            picture(f"{name}-score", score, f"dev_{name}", "epoch", EVALUATIONS),
            picture(f"{name}-loss", f"{title}: training loss", f"loss_{name}", "step", MEANS),
            picture(
                f"{name}-dev-loss", f"{title}: dev loss", f"dev_loss_{name}", "step", EVALUATIONS
            ),
        ]
    return {title: [one for one in own if one] for title, own in found.items()}
