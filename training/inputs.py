"""What a run reads before its first step: its options, checked, and its data."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from choices.run import WITHOUT_NETWORK
from datasets import CACHE, Data, encode_file
from errors import UserError
from multitask_bert import MultitaskBERT
from options import Options
from storage.files import clear_unfinished
from tasks import check_tasks, tasks_of
from text.data_files import find_files, say_where, splits_of
from text.reading import DataFile, read_task
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
        options = options.check()
    if options.option in WITHOUT_NETWORK:
        raise UserError(
            f"--option {options.option} has no network to train; it is run by baseline(options) "
            "of training/baselines.py"
        )
    check_tasks(options)
    if not options.resume:
        options = replace(options, model=model_for(options))

    # Where its predictions are copied to. A run that has finished copies none: by now the files
    # there may be another run's.
    if not finished:
        check_outputs(options)
    check_tensorboard(options)
    return options


def check_tensorboard(options: Options) -> None:
    """UserError where --tensorboard can't be had."""
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")


def read_files(options: Options) -> tuple[dict[str, dict[str, DataFile]], dict[str, Any]]:
    """All files of all tasks, checked, {task: {split: file}}, and their facts for run.json."""
    paths, built_in = find_files(options)
    say_where(options, built_in)
    splits = splits_of(options)
    files: dict[str, dict[str, DataFile]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, task in tasks_of(options).items():
        files[name] = read_task({split: paths[name, split] for split in splits}, task, options)
        for split, file in files[name].items():
            facts[f"{name}_{split}"] = {"path": display_path(file.path), **file.facts()}
        counts = ", ".join(f"{len(files[name][split].examples)} {split}" for split in splits)
        print(f"{name}: {counts} examples")
    return files, {"built_in_corpus": built_in, "data": facts}


def load_data(options: Options, model: MultitaskBERT) -> tuple[Data, dict[str, Any]]:
    """All files of all tasks, checked and tokenised, and their facts for run.json.

    With --train_scores "of_train" stands beside the splits: what of train is scored too.
    """
    clear_unfinished(CACHE)
    files, facts = read_files(options)
    data: Data = {split: {} for split in splits_of(options)}
    for name, own in files.items():
        for split, file in own.items():
            data[split][name] = encode_file(file, model.tasks[name], options, model.tokenizer)
        if options.swap_pairs and model.tasks[name].is_ordered(options):
            data["train"][name].swap = True
    if options.train_scores:
        data["of_train"] = {
            name: split.first(len(data["dev"][name])) for name, split in data["train"].items()
        }
    return data, {**facts, "init": model.started_from}
