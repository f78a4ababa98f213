"""The files that predict.py is to predict: which, how they are read, where predictions go."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from errors import UserError
from options import Options
from tasks import Task
from text.data_files import check_given, find_files, say_where
from training.outputs import output_path


@dataclass(frozen=True)
class Job:
    """A file to be predicted."""

    task: Task
    split: str  # "dev" or "test"
    path: Path
    named: bool  # on the command line, and so the user's own; else a file of the run's data
    out: Path | None  # None: the task has no prediction files

    @property
    def reading(self) -> str:
        """As what its rows are read: read_examples()'s `split`.

        A run's dev file is read as in training, where rows without a label are skipped. Everything
        else is read as "new": no row is skipped, and none needs a label. A task with a reader of
        its own knows only the usual splits.
        """
        if self.task.read:
            return self.split
        if self.split == "dev" and not self.named:
            return "dev"
        return "new"

    @property
    def table(self) -> Path | None:
        """Where its probabilities go, where they are asked for and there are any."""
        if self.out is None or self.task.probabilities is None:
            return None
        return self.out.with_name(f"{self.out.stem}-probabilities.csv")


def options_for(saved: Options, given: Mapping[str, Any]) -> Options:
    """A saved model's options with what was typed; UserError where that can't be."""
    # What is read: the files that were typed, or those of --data_dir. Where neither was typed, the
    # dev and test files that the run was given by name (--sst_dev and so on) take the place of its
    # --data_dir's, as they did in the run.
    files = dict(given.get("files", {}))
    if not is_named(files) and "data_dir" not in given:
        splits = ("_dev", "_test") if given.get("test", True) else ("_dev",)
        of_run = {name: path for name, path in saved.files if name.endswith(splits)}
        files = {**of_run, **files}

    # What is written: files at the run's usual place. But not with --limit: predictions of some
    # rows must not lie where the leaderboard's are taken from.
    limit = given.get("limit", 0)
    predictions = usual_place(saved)
    if limit:
        predictions = f"predictions/limit-{limit}/{{task}}-{{split}}-output.csv"

    # The run's own --limit and --no-test were about training.
    unless_typed = {"predictions": predictions, "limit": 0, "test": True}
    return replace(saved, **{**unless_typed, **given, "files": files}).check()


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
