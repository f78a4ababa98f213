"""From typed words to those that the parser knows: spellings, aliases, presets, @files.

Also what is said of a word that nobody knows.
"""

import difflib
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from choices.data import DataOptions
from commandline.parser import TABLES
from declare import PerTask, shown
from errors import UserError
from options import Options, read_values
from storage.files import MEBIBYTE, check_regular, read_text
from tasks import TASKS

MOST_WORDS = 10_000  # of a command line, with those of its @files

# What other projects call a flag: taken as what stands behind it.
ALIASES = {
    "use_amp": "--precision auto",
    "no_use_amp": "--precision fp32",
    "scheduler": "--schedule",
    "task_scheduler": "--sampler",
    "model_name": "--model",
    "dora": "--lora --lora_type dora",
}

# What stands for several flags; those typed beside it win.
PRESETS = {
    "smoke": "--limit 32 --epochs 1 --steps_per_epoch 3 --name smoke",
}

# What people type and is no flag: what they are told.
HINTS = {
    # Of training.
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "bs": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "max_len": "max_length",
    "max_seq_length": "max_length",
    "max_samples": "limit",
    "max_train_samples": "limit",
    # Of the model.
    "dropout": "hidden_dropout_prob",
    "attention_probs_dropout_prob": "attention_dropout_prob",
    # Of the device and its precision.
    "gpu": "use_gpu",
    "cuda": "use_gpu",
    "device": "use_gpu",
    "amp": "precision",
    "bf16": "precision",
    "fp16": "precision",
    # Of the adapters.
    "rank": "lora_rank",
    "r": "lora_rank",
    "alpha": "lora_alpha",
    "use_dora": "lora_type",
    "use_rslora": "lora_scale",
    "init_lora_weights": "lora_init",
    # Of the optimizer and the run.
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "wd": "weight_decay",
    "grad_clip": "clip",
    "max_grad_norm": "clip",
    "early_stopping": "patience",
    "model_name_or_path": "model",
    "output_dir": "runs_dir",
    "checkpoint": "resume",
}


Identity = tuple[int, int]  # a file's device and inode, the same by whatever path


def spelled(word: str) -> list[str]:
    """A flag in the spelling of the parser, with its value behind "=" where it has one."""
    name, equals, value = word[2:].partition("=")
    # Both --a-b and --a_b are taken; the parser knows the one with underscores.
    name = name.replace("-", "_")
    if name in PRESETS:
        raise UserError(f"{word}: takes no value; it stands for {PRESETS[name]}")
    # An alias may stand for a flag with a value; what was typed behind it goes to the last word.
    if name in ALIASES:
        *before, last = ALIASES[name].split()
        return [*before, last + equals + value]
    if name.startswith("no_"):
        name = f"no-{name.removeprefix('no_')}"  # as argparse spells it
    return [f"--{name}{equals}{value}"]


def expand(argv: list[str]) -> list[str]:
    """The words with @files read, aliases replaced and flags in the parser's spelling."""
    words: list[str] = []
    presets: list[str] = []  # all that is typed wins, but not the options of a run
    behind = 0  # where the words of the last options.json end
    of_runs: set[Identity] = set()
    # What is still to be looked at, the next one last, each with the files that it was read from.
    todo: list[tuple[str, tuple[Identity, ...]]] = [(word, ()) for word in reversed(argv)]
    seen = 0
    while todo:
        word, reading = todo.pop()
        # Files that name others several times could go on for ever.
        seen += 1
        if seen > MOST_WORDS:
            raise UserError(f"{shown(word)}: over {MOST_WORDS} words; no command line is that long")
        if word.startswith("@"):
            inner, itself = words_of_file(word[1:], reading)
            todo += [(one, (*reading, itself)) for one in reversed(inner)]
            if word.endswith(".json"):
                of_runs.add(itself)
        elif word.startswith("--") and word[2:] in PRESETS:
            presets += PRESETS[word[2:]].split()
        elif word.startswith("--"):
            words += spelled(word)
        else:
            words.append(word)
        if reading and reading[-1] in of_runs:
            behind = len(words)
    return [*words[:behind], *presets, *words[behind:]]


def words_of_file(path: str, reading: tuple[Identity, ...]) -> tuple[list[str], Identity]:
    """The flags in a file, and which file that is; UserError where there are none to be had.

    `reading` are the files whose reading led to this one.
    """
    try:
        found = check_regular(Path(path))
        text = read_text(Path(path), MEBIBYTE)
    except UserError as error:
        raise UserError(f"@ reads flags from a file; {error}") from None

    # Without this a file that names itself, by whatever path, would be read without end.
    itself = (found.st_dev, found.st_ino)
    if itself in reading:
        raise UserError(f"@{shown(path)}: the file reads itself")

    # A run's options are JSON; all else is words as in a shell, which may name further files.
    if path.endswith(".json"):
        return words_of(read_values(text, f"@{path}")), itself
    try:
        return shlex.split(text, comments=True), itself
    except ValueError as error:
        raise UserError(f"@{path}: can't be read as flags ({error})") from None


def words_of(values: Mapping[str, Any]) -> list[str]:
    """Options as they would be typed. What is None is left out, and so is which run is resumed.

    UserError for a name that would be taken for a flag or a file.
    """
    words = []
    for name, value in values.items():
        # A flag can't say None, and a new run must not go on with the old one's folder.
        if name == "resume" or value is None:
            continue
        if name == "files":
            DataOptions(files=value).check_files(TASKS)
            words += [f"--{flag}={path}" for flag, path in value]
        elif isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, PerTask):
            words += [f"--{name}", *plain_words(name, value.split())]
        elif isinstance(value, tuple):
            words += [f"--{name}", *plain_words(name, value)]
        else:
            words.append(f"--{name}={value}")
    return words


def typed(values: Mapping[str, Any]) -> list[str]:
    """Options as tables show them, each with its value: "--lora", "--head mlp sts=linear".

    UserError where they can't be typed; see words_of().
    """
    settled = Options(**values)
    flags: list[str] = []
    for word in words_of({name: getattr(settled, name) for name in values}):
        if word.startswith("--"):
            flags.append(word.replace("=", " ", 1))
        else:
            flags[-1] += f" {word}"
    return flags


def plain_words(name: str, words: Sequence[str]) -> Sequence[str]:
    """The words of an option's value; UserError where one would be taken for a flag or a file."""
    for word in words:
        if word.startswith(("-", "@")):
            expected = f"one of {', '.join(TABLES[name])}" if name in TABLES else "a value"
            raise UserError(f"--{name} {shown(word)}: expected {expected}")
    return words


def unknown(word: str, flags: Collection[str], words: Sequence[str]) -> UserError:
    """The error for a word that is none of the flags, and no value of one.

    `words`: all that were typed.
    """
    if not word.startswith("-"):
        for switch in [f.name for f in fields(Options) if f.type is bool]:
            if (f"--{switch}", word) in zip(words, words[1:], strict=False):
                return UserError(f"--{switch}: takes no value; --no-{switch} turns it off")
        return UserError(f"{word}: no flag, and no flag's value; --help lists the flags")

    # A hint by hand is better than the nearest spelling.
    flag = word.partition("=")[0]
    name = flag.lstrip("-").replace("-", "_")
    near = difflib.get_close_matches(name, flags, 1)
    if HINTS.get(name) in flags:
        near = [HINTS[name]]
    advice = f"did you mean --{near[0]}?" if near else "--help lists the flags"
    return UserError(f"{flag}: no such flag; {advice}")
