"""Where the predictions of a run go."""

import os
from pathlib import Path

from errors import UserError
from options import Options
from training.environment import check_writable


def output_path(options: Options, task: str, split: str) -> Path:
    """Where the predictions of a task and split go."""
    given = options.file(f"{task}_{split}_out")
    if given:
        return Path(given)
    return Path(options.predictions.format(task=task, split=split))


def check_outputs(*runs: Options) -> None:
    """UserError where predictions can't be written, or these runs' would overwrite one another."""
    paths = [
        output_path(options, task, split)
        for options in runs
        for task in options.tasks
        for split in ("dev", "test")
    ]
    if len(set(paths)) < len(paths):
        raise UserError(
            "two prediction files would have one name: put {task} and {split} into --predictions"
        )
    for path in paths:
        if os.path.isdir(path):
            raise UserError(f"{path}: a folder; predictions need a file name")
        check_writable(path.parent)
