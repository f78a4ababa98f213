"""Predict with a run's best model, and score what has labels; nothing is trained.

    python predict.py RUN                     # the run's dev and test files
    python predict.py RUN --sst_test new.csv  # this file alone
    python predict.py RUN --probabilities     # with tables of probabilities

RUN is a run's folder or a saved model's. A file that is named may lack labels
and ids; its predictions go to predictions/<its name>-<task>-output.csv, all
others to where a run copies its own.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from commandline.parser import file_flags, full_help, page_parser, settings
from commandline.words import expand, unknown
from datasets import Split, load_split
from errors import UserError, run_main
from evaluation import flat, measure, predict_logits, predictions_of
from flags import gathered
from multitask_bert import MultitaskBERT
from options import Options
from tasks import Task, overall
from text.data_files import check_given, check_names, find_files, say_where
from text.prediction_files import write_predictions, write_probabilities
from training.console import has_width, prediction_bar
from training.environment import keep_freed_memory, pick_dtype, say_idle_gpu, warn_of_slow
from training.outputs import check_places, kept_files, output_path
from training.repeatable import settle_arithmetic

# The options that mean here what they mean in training; `files` but for those of train too.
OPTIONS = ("data_dir", "test", "limit", "predictions", "use_gpu", "precision")


@dataclass(frozen=True)
class Job:
    """A file to be predicted."""

    task: Task
    split: str  # "dev" or "test"
    path: Path
    named: bool  # with a flag, so that nothing is known of its rows
    out: Path | None  # None: the task has no prediction files

    @property
    def reading(self) -> str:
        """How its rows are read, for read_examples: as in training where it is a run's dev file."""
        if self.task.read or (self.split == "dev" and not self.named):
            return self.split
        return "new"

    @property
    def table(self) -> Path | None:
        """Where its probabilities go, where they are asked for and there are any."""
        if self.out is None or self.task.probabilities is None:
            return None
        return self.out.with_name(f"{self.out.stem}-probabilities.csv")


# ---- what is to be done


def options_for(saved: Options, given: Mapping[str, Any]) -> Options:
    """A saved model's options with what was typed; UserError where that can't be."""
    # Files that were typed, and those of the run where nothing else says what to read.
    files = dict(given.get("files", {}))
    if not is_named(files) and "data_dir" not in given:
        splits = ("_dev", "_test") if given.get("test", True) else ("_dev",)
        own = {name: path for name, path in saved.files if name.endswith(splits)}
        files = {**own, **files}

    # Incomplete predictions stay out of the leaderboard's place.
    limit = given.get("limit", 0)
    predictions = usual_place(saved)
    if limit:
        predictions = f"predictions/limit-{limit}/{{task}}-{{split}}-output.csv"
    plain = {"predictions": predictions, "limit": 0, "test": True}
    return replace(saved, **{**plain, **given, "files": files}).check()


def usual_place(saved: Options) -> str:
    """Where a run of these options copies its predictions, if that is in predictions/.

    Else the default: a model's folder may be anyone's, and what it names elsewhere is not written.
    """
    inside = re.fullmatch(r"predictions/[\w{}][\w{}.-]*", saved.predictions)
    return saved.predictions if inside else Options.predictions


def is_named(files: Mapping[str, str]) -> bool:
    """Whether a file to be predicted is among those that were typed."""
    return any(not name.endswith("_out") for name in files)


def named_jobs(tasks: Mapping[str, Task], options: Options, given: Mapping[str, Any]) -> list[Job]:
    """The files that were typed, in that order."""
    jobs = []
    for name, path in given["files"].items():
        task, split = name.split("_", 1)
        if split.endswith("_out"):
            if options.file(name.removesuffix("_out")) is None:
                raise UserError(
                    f"--{name} {path}: --{name.removesuffix('_out')} was not given, so that file "
                    "is not predicted; name it, or drop this flag"
                )
            continue
        check_given(f"--{name}", Path(path))
        out = Path("predictions", f"{Path(path).stem}-{task}-output.csv")
        if "predictions" in given or options.file(f"{name}_out"):
            out = output_path(options, task, split)
        jobs.append(Job(tasks[task], split, Path(path), True, out if tasks[task].header else None))
    return jobs


def data_jobs(tasks: Mapping[str, Task], options: Options) -> list[Job]:
    """The dev files of all tasks, and those of test that are there."""
    wanted = ("dev", "test") if options.test else ("dev",)
    paths, built_in = find_files(options, wanted, optional=("test",))
    say_where(options, built_in)
    jobs = []
    for (task, split), path in paths.items():
        out = output_path(options, task, split) if tasks[task].header else None
        jobs.append(Job(tasks[task], split, path, False, out))
    return jobs


def outputs_of(jobs: Sequence[Job], probabilities: bool) -> list[Path]:
    """The files that will be written."""
    outputs = []
    for job in jobs:
        if job.out:
            outputs.append(job.out)
        if job.table and probabilities:
            outputs.append(job.table)
    return outputs


# ---- doing it


def predict_with(
    folder: str, given: Mapping[str, Any], probabilities: bool = False
) -> dict[str, dict[str, Any]]:
    """Predict with the model of a folder; `given` is what was typed, under the options' names.

    Returns the measures of each file that has labels: {"sst_dev": evaluation.measure's, ...}.
    """
    # The same arithmetic as in training.
    keep_freed_memory()
    settle_arithmetic()
    model = MultitaskBERT.load(folder, given.get("use_gpu", False))
    say_idle_gpu(model.device)
    options = options_for(model.options, given)
    model.compute_dtype = pick_dtype(options.precision, model.device)
    warn_of_slow(model.compute_dtype, model.device)

    # All that can go wrong does so before anything is predicted.
    check_names(options)
    if is_named(given.get("files", {})):
        jobs = named_jobs(model.tasks, options, given)
    else:
        jobs = data_jobs(model.tasks, options)
    outputs = outputs_of(jobs, probabilities)
    check_places(outputs, [*(job.path for job in jobs), *kept_files(options)])
    splits = [load_split(job.path, job.task, job.reading, options, model.tokenizer) for job in jobs]

    # A bar for each file where one can be drawn; elsewhere the table grows file by file.
    print(f"model: {folder}")
    if not has_width(sys.stderr):
        print(f"predicting {sum(map(len, splits))} rows of {len(splits)} files", flush=True)
    print(f"{'task':<7}{'rows':>6}{'labels':>7}  {'score':<14} {'beside it':<14} file")
    scores = {}
    for job, split in zip(jobs, splits, strict=True):
        results = predict_file(model, job, split, probabilities)
        print(row_of(job, split, results), flush=True)
        if results:
            scores[f"{job.task.name}_{job.split}"] = results
    say_results(model, options, jobs, scores, probabilities)
    return scores


def predict_file(model: MultitaskBERT, job: Job, split: Split, probabilities: bool) -> dict:
    """Predict a file's rows and write that; the measures of those rows that have a label."""
    # A task may score itself, and may have nothing to be written.
    results: dict[str, Any] = {}
    if job.task.evaluate and job.reading == "dev":
        results = job.task.evaluate(model, split)
    if job.task.evaluate and job.out is None:
        return results

    with prediction_bar(job.path.name, split.count_tokens(), has_width(sys.stderr)) as bar:
        logits = predict_logits(model, split, bar.update)
    predictions = predictions_of(split, logits)
    if job.out:
        write_predictions(job.out, job.task.name, split.ids, predictions)
    if probabilities and job.table and job.task.probabilities:
        write_probabilities(job.table, split.ids, job.task.probabilities(logits).numpy())

    # All others are scored where rows have a label.
    labelled = places_of_labels(split)
    if labelled and not job.task.evaluate:
        labels = flat([split.examples[place].label for place in labelled])
        results = measure(job.task, flat([predictions[place] for place in labelled]), labels)
    return results


def places_of_labels(split: Split) -> list[int]:
    """Which examples have a label."""
    return [place for place, example in enumerate(split.examples) if example.label is not None]


# ---- what is said of it


def row_of(job: Job, split: Split, results: Mapping[str, Any]) -> str:
    """A line of the table."""
    score = beside = ""
    if results:
        score = f"{job.task.metric_name} {results['score']:.3f}"
    if "macro_f1" in results:
        beside = f"macro F1 {results['macro_f1']:.3f}"
    elif "spearman" in results:
        beside = f"Spearman {results['spearman']:.3f}"
    counts = f"{len(split):>6}{len(places_of_labels(split)):>7}"
    return f"{job.task.title:<7}{counts}  {score:<14} {beside:<14} {job.path.name}"


def say_results(
    model: MultitaskBERT,
    options: Options,
    jobs: Sequence[Job],
    scores: Mapping[str, Any],
    probabilities: bool,
) -> None:
    """The overall score, where all of its parts are there, and the files that were written."""
    of_dev = {name: scores.get(f"{name}_dev") for name in model.tasks}
    if all(of_dev.values()):
        together = overall({name: found["score"] for name, found in of_dev.items() if found})
        print(f"overall on dev: {together:.3f}")

    print("written:")
    for path in outputs_of(jobs, probabilities):
        print(f"  {path}")
    for title in dict.fromkeys(job.task.title for job in jobs if not job.task.probabilities):
        if probabilities:
            print(f"{title} has no probabilities, only predictions")
    if options.limit:
        print(f"only the first {options.limit} rows of each file (--limit)")


# ---- the command line


def request_of(flags: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The folder and the rest of what was typed as `multitask_classifier.py --option test`."""
    given = {name: value for name, value in flags.items() if name != "option"}
    folders = [given.pop(name) for name in ("model", "resume") if name in given]
    if len(folders) != 1:
        raise UserError(
            "--option test: expected the run to test, as in --option test --model "
            "runs/<date>-<name>"
        )
    for name in [*given, *given.get("files", {})]:
        if name not in (*OPTIONS, "files") and not name.endswith(("_dev", "_test", "_out")):
            raise UserError(f"--option test trains nothing: --{name} would do nothing; drop it")
    return folders[0], given


def read_arguments(argv: list[str]) -> dict[str, Any]:
    """What the command line gives: `run`, `probabilities`, and options under their names."""
    parser = page_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a saved model's")
    for f in fields(Options):
        if f.name in OPTIONS:
            parser.add_argument(f"--{f.name}", help=full_help(f), **settings(f))
    parser.add_argument(
        "--probabilities", action="store_true", help="write a table of probabilities too"
    )
    group = parser.add_argument_group("single files")
    files = {flag: text for flag, text in file_flags().items() if not flag.endswith("_train")}
    for flag, text in files.items():
        group.add_argument(f"--{flag}", metavar="FILE", help=text)

    words = expand(argv)
    found, rest = parser.parse_known_args(words)
    if rest:
        raise unknown(rest[0], [*OPTIONS, "probabilities", *files], words)
    return gathered(vars(found))


def main(argv: list[str]) -> None:
    """The command line."""
    given = read_arguments(argv)
    folder, probabilities = given.pop("run"), given.pop("probabilities", False)
    predict_with(folder, given, probabilities)


if __name__ == "__main__":
    run_main(main)
