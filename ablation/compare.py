"""Whether a row is better than the base row: a paired bootstrap over the dev examples.

Both rows' predictions are scored on the same examples, drawn with replacement, many times; the
middle 95 % of the differences are the interval. Efron and Tibshirani 1993, An Introduction to the
Bootstrap; for paired systems Koehn 2004, https://aclanthology.org/W04-3250.

It says what other dev examples could change. What other seeds could change is in the standard
deviation over seeds, and not in here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablation.record import Line
from ablation.runs import predictions_file, predictions_of
from errors import UserError
from examples import read_examples
from storage.json_files import Count, read_json, record, write_json
from tasks import TASKS, overall

NAME = "comparisons.json"
SAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percent


@dataclass
class Labels:
    """A dev file's labels."""

    values: np.ndarray  # [examples]
    sha256: str  # of the file


@dataclass
class Comparison:
    """A row beside the base row, means over the seeds that both have: row minus base.

    Of each task that both have, and "overall" where the row has all of the base row's.
    """

    row: str
    base: str
    seeds: list[Count]
    difference: dict[str, float]
    low: dict[str, float]  # ends of the interval
    high: dict[str, float]


def read_labels(path: Path, task: str, limit: int) -> np.ndarray:
    """Of a dev file, [examples]; `limit`: the option."""
    examples = read_examples(path, TASKS[task], "dev")[: limit or None]
    return np.array([example.label for example in examples])


def resample(task: str, predictions: Sequence[float], labels: np.ndarray) -> np.ndarray:
    """[SAMPLES]: the scores on examples drawn with replacement, the same ones for every run."""
    draws = np.random.default_rng(0)
    guesses = np.array(predictions)
    scores = np.zeros(SAMPLES)
    for number in range(SAMPLES):
        places = draws.integers(len(labels), size=len(labels))
        scores[number] = TASKS[task].metric(guesses[places], labels[places])
    return scores


def resample_run(table: Path, line: Line, labels: Mapping[str, Labels]) -> dict[str, np.ndarray]:
    """{task: [SAMPLES]} of a run; UserError where the labels are not those it was scored on."""
    samples = {}
    for task, predictions in predictions_of(table, line).items():
        if task not in labels or labels[task].sha256 != line.data[f"{task}_dev"].sha256:
            raise UserError(f"{table}: its runs were scored on another {task} dev file than this")
        samples[task] = resample(task, predictions, labels[task].values)
    return samples


def mean_over(
    runs: Sequence[Mapping[str, Any]], tasks: Sequence[str], whole: bool
) -> dict[str, Any]:
    """The mean over runs of each task's score or samples; `whole`: and what they count together."""
    means = {task: sum(run[task] for run in runs) / len(runs) for task in tasks}
    return {**means, "overall": overall(means)} if whole else means


def compare(
    table: Path, lines: Sequence[Line], labels: Mapping[str, Labels], base: str
) -> list[Comparison]:
    """Every row that shares a seed with the base row, beside it.

    Runs whose predictions were not kept, as by older versions, are passed over.
    """
    scores: dict[str, dict[int, Mapping[str, float]]] = {}
    samples: dict[str, dict[int, Mapping[str, np.ndarray]]] = {}
    for line in lines:
        if not predictions_file(table, line).exists():
            continue
        scores.setdefault(line.row, {})[line.seed] = line.best.scores
        samples.setdefault(line.row, {})[line.seed] = resample_run(table, line, labels)

    comparisons = []
    for row in scores:
        seeds = sorted(set(scores[row]) & set(scores.get(base, {})))
        if row == base or not seeds:
            continue
        of_base = set(scores[base][seeds[0]])
        tasks = [task for task in scores[row][seeds[0]] if task in of_base]
        whole = set(tasks) == of_base
        found = Comparison(row, base, seeds, {}, {}, {})
        ours = mean_over([scores[row][seed] for seed in seeds], tasks, whole)
        theirs = mean_over([scores[base][seed] for seed in seeds], tasks, whole)
        our_samples = mean_over([samples[row][seed] for seed in seeds], tasks, whole)
        their_samples = mean_over([samples[base][seed] for seed in seeds], tasks, whole)
        for name in ours:
            low, high = np.percentile(our_samples[name] - their_samples[name], INTERVAL)
            found.difference[name] = round(ours[name] - theirs[name], 6)
            found.low[name] = round(float(low), 6)
            found.high[name] = round(float(high), 6)
        comparisons.append(found)
    return comparisons


def write_comparisons(table: Path, comparisons: Sequence[Comparison]) -> None:
    """Keep them beside the record, since they need the data files and tables do not."""
    write_json(table / NAME, [asdict(comparison) for comparison in comparisons])


def read_comparisons(table: Path) -> dict[str, Comparison]:
    """{row: comparison}, as they were kept; none where there are none."""
    path = table / NAME
    if not path.exists():
        return {}
    held = [record(Comparison, values, str(path)) for values in read_json(path)]
    return {comparison.row: comparison for comparison in held}
