"""What the benchmarks share: flags, data, steps of examples, padded batches, records."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from commandline.words import expand
from datasets import Split, load_task
from errors import UserError
from flags import parse
from multitask_bert import MultitaskBERT
from options import Options
from packing import Tokens
from tasks import tasks_of
from text.data_files import SPLITS, find_files
from tokenizer import BertTokenizer
from training.draws import Draw
from training.environment import check_writable, environment, pick_device
from training.plan import make_plan

# What the sides of a training benchmark are given to work on.
Step = dict[str, list[int]]  # task -> indices of the examples of one optimizer step


def arguments(
    argv: list[str], own: argparse.ArgumentParser, description: str
) -> tuple[argparse.Namespace, Options]:
    """A benchmark's own flags, of a parser that own_parser() began, and the rest as Options."""
    # What the benchmark's own parser doesn't know belongs to the main job's.
    mine, rest = own.parse_known_args(expand(argv))
    if {"-h", "--help"} & set(rest):
        print(f"flags of this benchmark alone:\n{own.format_help()}\nflags of the main job:")
    return mine, parse(rest, description)


def own_parser() -> argparse.ArgumentParser:
    """An empty parser for arguments()."""
    return argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)


def load(
    options: Options, tokenizer: BertTokenizer, splits: tuple[str, ...]
) -> tuple[dict[str, dict[str, Split]], bool]:
    """{split: {task: examples}} of the main job's files; whether they are the built-in corpus."""
    # The lookup also decides, once for all splits, whether the built-in corpus stands in.
    paths, built_in = find_files(options)
    data: dict[str, dict[str, Split]] = {split: {} for split in splits}
    # What is left out of train hangs on dev and test.
    needed = tuple(SPLITS) if options.drop_leaks else splits
    for name, task in tasks_of(options).items():
        own = {split: paths[name, split] for split in needed}
        loaded = load_task(own, task, options, tokenizer)
        for split in splits:
            data[split][name] = loaded[split]
    return data, built_in


def sampler(options: Options, training: dict[str, Split]) -> Draw:
    """The main job's sampler over these examples: how many of each task a step takes."""
    return make_plan(options, training, joint=False).draw


def check_followed(options: Options, *more: str) -> None:
    """UserError where an option that some side of a benchmark would ignore is not at its default.

    The sides of every benchmark follow the options named here (--epochs, --batch_size and --lr
    where they train), and those of one benchmark also `more`.
    """
    # What all sides understand; anything else would change one side and not the others.
    followed = {
        "model",
        "tasks",
        "seed",
        "epochs",
        "batch_size",
        "lr",
        "hidden_dropout_prob",
        "attention_dropout_prob",
        "use_gpu",
        "precision",
        "data_dir",
        *more,
    }

    # `files` is a mapping, not a flag of its own: only its outputs are of no use here.
    named = [f for f in fields(Options) if f.name not in {*followed, "files"}]
    changed = [f"--{f.name}" for f in named if getattr(options, f.name) != f.default]
    if changed := changed + [f"--{name}" for name, _ in options.files if name.endswith("_out")]:
        raise UserError(
            f"not every side of this benchmark follows {', '.join(changed)}: leave it out"
        )


def draw_steps(options: Options, training: dict[str, Split], count: int) -> list[Step]:
    """The examples of the main job's first `count` steps with this seed."""
    draw = sampler(options, training)

    # Copies: drawing moves a split's position, and the caller's must stay at the start.
    splits = {task: replace(split, drawn=0) for task, split in training.items()}
    steps: list[Step] = []
    for number in range(count):
        counts = draw(number, 0.0)
        steps.append({task: splits[task].draw(examples) for task, examples in counts.items()})
    return steps


def by_similar_length(steps: list[Step], training: dict[str, Split], seed: int) -> list[Step]:
    """The same examples in steps of the same sizes, each task's sorted by length over all of them.

    This is length grouping, as transformers' Trainer has it. Steps stay in random order; a step has
    all tasks' short or long ones.
    """
    # One order for all tasks, so that a step gets the short examples of each, or the long ones.
    order = np.random.default_rng(seed).permutation(len(steps))
    grouped: list[Step] = [{} for _ in steps]
    for task, split in training.items():
        # Deal a task's sorted examples out to its steps in that order, each as many as it had.
        drawn = [i for step in steps for i in step.get(task, [])]
        ordered = sorted(drawn, key=split.length)
        begin = 0
        for number in order:
            if task in steps[number]:
                end = begin + len(steps[number][task])
                grouped[number][task] = ordered[begin:end]
                begin = end
    return grouped


def real_tokens(steps: list[Step], training: dict[str, Split]) -> int:
    """Word-pieces of the steps' examples, pairs as `[CLS] a [SEP] b [SEP]`, without padding."""
    tokens = 0
    for step in steps:
        for task, indices in step.items():
            tokens += sum(map(training[task].length, indices))
    return tokens


def padded(sequences: list[Tokens], device: torch.device) -> dict[str, Tensor]:
    """Sequences padded to the longest, under transformers' names: [B, T] each."""
    # One array for the three inputs, [3, B, T]: a single copy to the device; zeros are padding.
    width = max(map(len, sequences))
    rows = np.zeros((3, len(sequences), width), dtype=np.int64)
    for i, tokens in enumerate(sequences):
        rows[:, i, : len(tokens)] = tokens.ids, tokens.types, np.ones(len(tokens))
    names = ("input_ids", "token_type_ids", "attention_mask")
    return dict(zip(names, torch.from_numpy(rows).to(device, non_blocking=True), strict=True))


@torch.no_grad()
def check_agreement(
    ours: MultitaskBERT, others: dict[str, Callable[[dict[str, Tensor]], Tensor]], split: Split
) -> float:
    """The largest difference between our last hidden states and the others', in fp32.

    They are those of a split's first 32 examples. The others must be in eval mode; ours is put into
    it. RuntimeError above 1e-4: then the times compare different models.
    """
    # The same examples twice: padded for the others, packed without padding for ours.
    batch = split.batch(list(range(min(32, len(split)))))
    inputs = padded(batch.tokens, ours.device)
    packed = ours.pack({split.task.name: batch})
    mine = ours.eval().bert.encode_packed(packed)[-1]

    # Padding has no counterpart in the packed states: compare the real tokens only.
    places = list(zip(packed.starts.tolist(), packed.lengths.tolist(), strict=True))

    # The bound leaves room for another order of summation, not for another model.
    worst = 0.0
    for name, encode in others.items():
        theirs = encode(inputs).float()
        for i, (start, length) in enumerate(places):
            difference = (theirs[i, :length] - mine[start : start + length]).abs().max()
            worst = max(worst, float(difference))

        # Written this way round so that NaN fails too.
        if not worst <= 1e-4:
            raise RuntimeError(
                f"{name}: last hidden states differ from ours by {worst:.1e}, expected at most 1e-4"
            )
    return worst


def facts(options: Options, built_in: bool) -> dict[str, Any]:
    """Command, commit, versions, device and data of a record."""
    # transformers is a side of some benchmarks only, so it may be missing.
    from importlib.metadata import PackageNotFoundError, version

    found = environment(pick_device(options.use_gpu))
    try:
        found["versions"]["transformers"] = version("transformers")
    except PackageNotFoundError:
        found["versions"]["transformers"] = "not installed"
    return {
        **found,
        "model": options.model,
        "data_dir": options.data_dir,
        "built_in_corpus": built_in,
    }


def check_place(record: str | None) -> None:
    """UserError where a record can't be written, before the work is done."""
    # A benchmark runs for minutes or hours: a bad path must not show at the end.
    if record and Path(record).is_dir():
        raise UserError(f"--record {record}: a folder; expected a file's name")
    if record:
        check_writable(Path(record).parent)
