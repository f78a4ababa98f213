"""Baselines as runs: without a network, and what every other row of a table has to beat.

    python multitask_classifier.py --option random        # labels drawn by --seed
    python multitask_classifier.py --option bag_of_words  # linear models on word counts

A run of one leaves what any run does (options, scores, predictions, and their copies), but no
model: it can't be resumed, predicted with or exported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from errors import UserError
from evaluation import Evaluation, flat, measure
from examples import Example
from models.folder import Base
from options import Options, pick
from storage.files import write_text
from storage.json_files import write_json
from streams import lasting_streams
from tasks import Labels, Task, overall, tasks_of
from text.prediction_files import write_predictions
from text.reading import DataFile, seeds
from training.best import write_dev
from training.checkpoint import best_sum, replace_folder
from training.console import as_time
from training.environment import check_writable, environment, peak_memory
from training.identity import new_identity
from training.inputs import check_tensorboard, read_files
from training.lock import locks_released, take_lock
from training.log import Log, evaluation_line
from training.manifest import write_manifest
from training.outputs import check_outputs, hand_out, outputs_of
from training.progress import Progress
from training.run import new_folder

# What stands behind a task's seeds for each kind of draws, so that none repeats another's, nor
# those of datasets.py: [pass] for shuffles, [0, 1] for --train_fraction.
LABELS_DRAWN = (0, 2)
ORDER_DRAWN = (0, 3)

Predicted = Mapping[str, Evaluation]  # "dev" and "test" -> what a baseline makes of it
Files = Mapping[str, Mapping[str, DataFile]]  # task -> split -> what was read

# From examples to their labels [examples], and the probabilities behind these where there are any:
# [examples, classes], or [examples] of the class 1 where a task has one output.
Predict = Callable[[Sequence[Example]], tuple[np.ndarray, np.ndarray | None]]


# ---- the baselines: (task, its training examples, options) -> Predict; dev is asked before test


def random(task: Task, training: Sequence[Example], options: Options) -> Predict:
    """Labels drawn uniformly from all legal ones; the same for the same --seed."""
    draws = np.random.default_rng([*seeds(task, options.seed), *LABELS_DRAWN])
    low, high = task.labels.low, task.labels.high

    def predict(examples: Sequence[Example]) -> tuple[np.ndarray, None]:
        if task.labels.whole:
            return draws.integers(int(low), int(high) + 1, len(examples)), None
        return draws.uniform(low, high, len(examples)), None

    return predict


def bag_of_words(task: Task, training: Sequence[Example], options: Options) -> Predict:
    """Linear models on word counts."""
    from training.bag_of_words import learn  # scikit-learn is slow to import

    print(f"{task.name}: counting words and fitting", flush=True)
    draws = np.random.default_rng([*seeds(task, options.seed), *ORDER_DRAWN])
    order = draws.permutation(len(training))
    labels = np.array([example.label for example in training])
    learned = learn(task, [example.texts for example in training], labels, order)

    def predict(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray | None]:
        return learned.predict([example.texts for example in examples])

    return predict


BASELINES: dict[str, Callable[[Task, Sequence[Example], Options], Predict]] = {
    "random": random,
    "bag_of_words": bag_of_words,
}


# ---- a run of one


def predict_all(options: Options, files: Files) -> dict[str, Evaluation]:
    """What a baseline makes of dev and test; of dev with scores."""
    make = pick(BASELINES, options.option, "--option")
    dev, test = Evaluation({}, {}), Evaluation({}, {})
    for name, task in tasks_of(options).items():
        if task.evaluate or not isinstance(task.labels, Labels):
            raise UserError(
                f"--option {options.option}: no baseline for {name}, which has not one number an "
                "example to predict; leave it out of --tasks"
            )
        predict = make(task, files[name]["train"].examples, options)

        # Dev comes first, so that --no-test draws the same for it.
        for split, found in (("dev", dev), ("test", test)):
            if split in files[name]:
                values, probabilities = predict(files[name][split].examples)
                found.predictions[name] = list(as_predictions(task, values))
                if probabilities is not None and task.probabilities:
                    found.probabilities[name] = probabilities
        labels = np.array([example.label for example in files[name]["dev"].examples])
        dev.scores[name] = measure(task, flat(dev.predictions[name]), labels)
    dev.scores["overall"] = overall({name: dev.scores[name]["score"] for name in files})
    return {"dev": dev, "test": test}


def as_predictions(task: Task, values: np.ndarray) -> np.ndarray:
    """Labels as the leaderboard writes them: 3 for one of several classes, else 1.0 or 2.5."""
    return values.astype(np.int64 if task.outputs > 1 else np.float32)


def write_predicted(folder: Path, options: Options, files: Files, found: Predicted) -> None:
    """Write best/ and predictions/ into a run's folder."""

    def write(new: Path) -> None:
        write_dev(new, {task: own["dev"].ids for task, own in files.items()}, found["dev"])
        write_manifest(new)

    replace_folder(folder / "best", write)
    for task, split, name, _ in outputs_of(options):
        ids, predictions = files[task][split].ids, found[split].predictions[task]
        write_predictions(folder / "predictions" / name, task, ids, predictions)


def write_progress(folder: Path, progress: Progress) -> None:
    """Write last/progress.json, where a run's scores are looked up."""

    def write(new: Path) -> None:
        write_json(new / "progress.json", progress.to_dict())
        write_manifest(new)

    replace_folder(folder / "last", write)


def begin(options: Options, read: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A run's folder, begun as a training run begins it, and what its run.json holds.

    `read`: the facts of the data.
    """
    text = options.to_json() + "\n"
    here = environment(torch.device("cpu"))
    commands = [here.pop("command")]
    identity = new_identity(text, Base("", "", ""))
    facts = {"commands": commands, **here, **read, "init": "", "dtype": "", **identity}
    folder = new_folder(options)
    take_lock(folder)
    write_json(folder / "run.json", facts)
    write_text(folder / "options.json", text)
    return folder, facts


@lasting_streams()
@locks_released()
def baseline(options: Options) -> dict[str, Any]:
    """Run the baseline that --option names.

    Returns what multitask_classifier.train() returns: what run.json records, and the folder.
    """
    # Everything that can fail without learning, fails here.
    began = time.monotonic()
    if options.resume:
        raise UserError(
            f"{options.resume}: a run of --option {options.option}, which has no model to go on "
            f"with; begin it anew: python multitask_classifier.py @{options.resume}/options.json"
        )
    options.check()
    check_tensorboard(options)
    check_outputs(options)
    check_writable(Path(options.runs_dir))
    files, read = read_files(options)

    # Its one evaluation, after no step.
    found = predict_all(options, files)
    scores, seconds = found["dev"].scores, time.monotonic() - began
    of_tasks = {task: scores[task]["score"] for task in options.tasks}
    best = {"epoch": 0, "step": 0, "overall": scores["overall"], "scores": of_tasks}

    # The folder, and in it what any run leaves.
    folder, facts = begin(options, read)
    log = Log(folder, 0, options.tensorboard)
    log.write(evaluation_line(0, 0, seconds, {"dev": found["dev"]}))
    log.close()
    write_predicted(folder, options, files, found)
    progress = Progress(run=facts["run"], seconds=seconds, best=best)
    progress.best_manifest = best_sum(folder / "best")
    progress.history.append((0, scores["overall"]))
    write_progress(folder, progress)

    # The copies; with the results in run.json the run is complete.
    predictions = hand_out(folder, options)
    results = {"best": best, "predictions": str(predictions), "epochs": options.epochs}
    facts.update(results, seconds=round(time.monotonic() - began, 1))
    facts["parameters"] = {"all": 0, "trained": 0}  # of a network
    facts["peak_memory_mib"] = round(peak_memory(torch.device("cpu")))
    write_json(folder / "run.json", facts)
    say_scores(options, best)
    print(f"run: {folder}   time: {as_time(facts['seconds'])}")
    return {**facts, "folder": str(folder)}


def say_scores(options: Options, best: Mapping[str, Any]) -> None:
    """The scores on dev."""
    print(f"{options.option}: overall {best['overall']:.3f}")
    tasks = tasks_of(options)
    cells = [f"{tasks[x].title} {tasks[x].metric_name} {y:.3f}" for x, y in best["scores"].items()]
    print("  ".join(cells))
