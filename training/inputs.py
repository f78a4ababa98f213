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
    options = resumed(options, whole) if options.resume else options.check()
    if not options.resume:
        options = replace(options, model=model_for(options))
    # A run that had finished before writes into its own folder only.
    if not (options.resume and has_finished(Path(options.resume), options.epochs)):
        check_outputs(options)
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    return options


def load_data(options: Options, model: MultitaskBERT) -> tuple[Data, dict[str, Any]]:
    """All files of all tasks, checked and tokenised, and their facts for run.json.

    With --train_scores "of_train" stands beside the splits: what of train is scored too.
    """
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
    if options.train_scores:
        data["of_train"] = {
            name: split.first(len(data["dev"][name])) for name, split in data["train"].items()
        }
    return data, {"built_in_corpus": built_in, "data": read, "init": model.started_from}
