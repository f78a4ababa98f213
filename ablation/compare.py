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
from storage.json_files import Count, checked, read_json, record, write_json
from tasks import TASKS, overall
from text.reading import seeds

NAME = "comparisons.json"
SAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percent


@dataclass
class Gold:
    """A dev file's labels."""

    labels: np.ndarray  # [examples]
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


@dataclass
class Scored:
    """A run: its scores, and what they would have been on other samples of dev."""

    scores: Mapping[str, float]  # task -> score
    samples: Mapping[str, np.ndarray]  # task -> [SAMPLES]


def read_labels(path: Path, task: str, limit: int) -> np.ndarray:
    """Of a dev file, [examples]; `limit`: the option."""
    examples = read_examples(path, TASKS[task], "dev")[: limit or None]
    return np.array([example.label for example in examples])


def resample(task: str, predictions: Sequence[float], labels: np.ndarray) -> np.ndarray:
    """[SAMPLES]: the scores on examples drawn with replacement, the same ones for every run."""
    # Each task has draws of its own, also beside one with as many examples.
    draws = np.random.default_rng(seeds(TASKS[task], 0))
    guesses = np.array(predictions)
    scores = np.zeros(SAMPLES)
    for number in range(SAMPLES):
        places = draws.integers(len(labels), size=len(labels))
        scores[number] = TASKS[task].metric(guesses[places], labels[places])
    return scores


def scored(table: Path, line: Line, gold: Mapping[str, Gold]) -> Scored:
    """A run with its samples; UserError where the labels are not those that it was scored on."""
    samples = {}
    for task, predictions in predictions_of(table, line).items():
        if task not in gold or gold[task].sha256 != line.data[f"{task}_dev"].sha256:
            raise UserError(f"{table}: its runs were scored on another {task} dev file than this")
        samples[task] = resample(task, predictions, gold[task].labels)
    return Scored(line.best.scores, samples)


def mean_over(runs: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> dict[str, Any]:
    """The mean over runs of each task's score, or of its samples."""
    return {task: sum(run[task] for run in runs) / len(runs) for task in tasks}


def compare_row(
    row: str, ours: Sequence[Scored], base: str, theirs: Sequence[Scored], seeds: list[int]
) -> Comparison:
    """A row's runs beside the base row's, with the same seeds in the same order."""
    tasks = [task for task in ours[0].scores if task in theirs[0].scores]
    our_scores = mean_over([run.scores for run in ours], tasks)
    their_scores = mean_over([run.scores for run in theirs], tasks)
    our_samples = mean_over([run.samples for run in ours], tasks)
    their_samples = mean_over([run.samples for run in theirs], tasks)

    # What they count together, of the scores and of each sample.
    if len(tasks) == len(theirs[0].scores):
        for means in (our_scores, their_scores, our_samples, their_samples):
            means["overall"] = overall(means)

    found = Comparison(row, base, seeds, {}, {}, {})
    for name in our_scores:
        difference = our_scores[name] - their_scores[name]
        low, high = np.percentile(our_samples[name] - their_samples[name], INTERVAL)
        found.difference[name] = round(difference, 6)
        found.low[name] = round(float(low), 6)
        found.high[name] = round(float(high), 6)
    return found


def compare(
    table: Path, lines: Sequence[Line], gold: Mapping[str, Gold], base: str
) -> list[Comparison]:
    """Every row that shares a seed with the base row, beside it.

    Runs whose predictions were not kept, as by older versions, are passed over.
    """
    runs: dict[str, dict[int, Scored]] = {}
    for line in lines:
        if predictions_file(table, line).exists():
            runs.setdefault(line.row, {})[line.seed] = scored(table, line, gold)
    of_base = runs.pop(base, {})

    comparisons = []
    for row, of_row in runs.items():
        shared = sorted(set(of_row) & set(of_base))
        if shared:
            ours = [of_row[seed] for seed in shared]
            theirs = [of_base[seed] for seed in shared]
            comparisons.append(compare_row(row, ours, base, theirs, shared))
    return comparisons


def write_comparisons(table: Path, comparisons: Sequence[Comparison]) -> None:
    """Keep them beside the record, since they need the data files and tables do not."""
    write_json(table / NAME, [asdict(comparison) for comparison in comparisons])


def read_comparisons(table: Path, lines: Sequence[Line], base: str) -> dict[str, Comparison]:
    """{row: comparison} with a base row, as they were kept; none where there are none.

    One that is older than some run of its row or the base row says nothing of these, and is left
    out.
    """
    path = table / NAME
    if not path.exists():
        return {}
    seeds_of: dict[str, set[int]] = {}
    for line in lines:
        seeds_of.setdefault(line.row, set()).add(line.seed)
    found = {}
    for values in checked(read_json(path), list[Any], str(path)):
        held = record(Comparison, values, str(path))
        shared = seeds_of.get(held.row, set()) & seeds_of.get(base, set())
        if held.base == base and set(held.seeds) == shared:
            found[held.row] = held
    return found
