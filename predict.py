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

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from commandline.jobs import Job, data_jobs, is_named, named_jobs, options_for, outputs_of
from commandline.parser import file_flags, full_help, page_parser, settings
from commandline.words import expand, unknown
from datasets import Split, load_split
from errors import UserError, run_main
from evaluation import flat, measure, predict_logits, predictions_of
from flags import gathered
from multitask_bert import MultitaskBERT
from options import Options
from tasks import overall
from text.data_files import check_names
from text.prediction_files import write_predictions, write_probabilities
from training.console import has_width, prediction_bar
from training.environment import keep_freed_memory, pick_dtype, say_idle_gpu, warn_of_slow
from training.outputs import check_places, kept_files
from training.repeatable import settle_arithmetic

# The options that mean here what they mean in training; `files` but for those of train too.
OPTIONS = ("data_dir", "test", "limit", "predictions", "use_gpu", "precision")


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
    # A task that scores itself does so on dev files. Where it has no prediction files either, that
    # is all.
    results: dict[str, Any] = {}
    if job.task.evaluate and job.reading == "dev":
        results = job.task.evaluate(model, split)
    if job.task.evaluate and job.out is None:
        return results

    # Predict, and write the files.
    with prediction_bar(job.path.name, split.count_tokens(), has_width(sys.stderr)) as bar:
        logits = predict_logits(model, split, bar.update)
    predictions = predictions_of(split, logits)
    if job.out:
        write_predictions(job.out, job.task.name, split.ids, predictions)
    if probabilities and job.table and job.task.probabilities:
        write_probabilities(job.table, split.ids, job.task.probabilities(logits).numpy())

    # All other tasks are scored by the rows that have a label: in a user's own file these may be
    # all rows, some, or none, and then there is no score.
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
