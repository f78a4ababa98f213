"""What a run reads before its first step: its options, checked, and its data."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import CACHE, Data, load_task
from errors import UserError
from multitask_bert import MultitaskBERT
from options import Options
from storage.files import clear_unfinished
from text.data_files import find_files, say_where, splits_of
from training.environment import display_path
from training.outputs import check_outputs, has_finished
from training.restore import resumed
from training.start import model_for


def prepared(options: Options, whole: bool = False) -> Options:
    """The options checked, or those of the run to be resumed.

    The model is named, and the output folders are there and writable. `whole`: of a resumed run all
    options are given, not only those that are to change.
    """
    # A resumed run has its options in its folder, with the model's name; a new one is given both.
    finished = False
    if options.resume:
        folder = Path(options.resume)
        options = resumed(options, whole)
        finished = has_finished(folder, options.epochs)
    else:
        options = replace(options.check(), model=model_for(options))

    # Where its predictions are copied to. A run that has finished copies none: by now the files
    # there may be another run's.
    if not finished:
        check_outputs(options)

    # A package that only this option needs.
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    return options


def load_data(options: Options, model: MultitaskBERT) -> tuple[Data, dict[str, Any]]:
    """All files of all tasks, checked and tokenised, and their facts for run.json."""
    clear_unfinished(CACHE)
    paths, built_in = find_files(options)
    say_where(options, built_in)
    splits = splits_of(options)
    data: Data = {split: {} for split in splits}
    read: dict[str, dict[str, Any]] = {}  # of each file, for run.json
    for name in options.tasks:
        own = {split: paths[name, split] for split in splits}
        for split, part in load_task(own, model.tasks[name], options, model.tokenizer).items():
            data[split][name] = part
            read[f"{name}_{split}"] = {"path": display_path(own[split]), **part.facts()}
        counts = ", ".join(f"{len(data[split][name])} {split}" for split in splits)
        print(f"{name}: {counts} examples")
    return data, {"built_in_corpus": built_in, "data": read, "init": model.started_from}
