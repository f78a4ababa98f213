"""The rows of a table: presets, and what is typed for all of them.

A preset is a file of flags for the main job. Its first line, a comment, says what the row is:

    # LoRA on every linear of the encoder
    --lora
"""

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from choices.run import WITHOUT_NETWORK
from commandline.values import COMMAS
from declare import PerTask
from errors import UserError
from flags import read_flags, under_own_names
from options import OF_BASELINES, WITHOUT_EFFECT, Options
from storage.files import read_text
from tasks import TASKS, check_tasks

PRESETS = Path(__file__).parents[1] / "presets"
LARGEST_PRESET = 100_000  # bytes

# How much a row may learn from: in a table that is the same for all.
BUDGET = ("epochs", "steps_per_epoch", "samples_per_epoch", "limit", "train_fraction")

# What ablate.py itself sets for each run.
SET_HERE = ("seed", "resume", "runs_dir", "predictions", "save_every", "log_every")


@dataclass(frozen=True)
class Row:
    """A row: a preset, or the defaults."""

    name: str  # of the preset, as in "lora" or "published/000-lora"
    what: str  # the first line of the preset
    flags: dict[str, Any]  # the options that it sets, by name


# ---- from a file to a row


def flags_for_runs(words: list[str], own: Collection[str] = ()) -> dict[str, Any]:
    """What a command line or a preset says, by the options' names; UserError for what can't be.

    `own`: the names of ablate.py's own flags, which are in `words` no more.
    """
    flags = under_own_names(read_flags(words, "", own=own))
    for name in SET_HERE:
        if name in flags:
            raise UserError(f"--{name}: ablate.py sets it for each run; drop it")
    return flags


def read_row(word: str) -> Row:
    """The row of a preset, which is named as in "lora" or by its path; UserError for no such."""
    path = PRESETS / f"{word}.txt"
    if word.endswith(".txt"):
        path = Path(word)
    if not path.exists():
        names = [str(one.relative_to(PRESETS).with_suffix("")) for one in PRESETS.rglob("*.txt")]
        near = difflib.get_close_matches(word.lower().replace("_", "-"), names, 1)
        advice = f"; did you mean {near[0]}?" if near else ""
        if "," in word:
            advice = COMMAS
        raise UserError(
            f"--rows {word}: no {path}; expected names of presets, or paths of files of flags "
            f"that end in .txt{advice}"
        )
    first = read_text(path, LARGEST_PRESET).partition("\n")[0]
    if not first.startswith("# "):
        raise UserError(f"{path}:1: expected a comment that says what the row is, as in # LoRA")
    try:
        flags = flags_for_runs([f"@{path}"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Row(name_of_row(path), first.removeprefix("# ").strip(), flags)


def name_of_row(path: Path) -> str:
    """What the row of a preset is called: a preset of the project's is known by its name.

    UserError for another file that would be taken for one of these.
    """
    if path.resolve().is_relative_to(PRESETS):
        return str(path.resolve().relative_to(PRESETS).with_suffix(""))
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise UserError(f"--rows {path}: letters, digits, dot, dash and underscore only; rename it")
    if (PRESETS / f"{path.stem}.txt").exists():
        raise UserError(f"--rows {path}: presets/ has a row of this name already; rename the file")
    return path.stem


def all_rows() -> list[Row]:
    """The rows of all presets in presets/; those in folders of it are named one by one."""
    return [read_row(str(path)) for path in sorted(PRESETS.glob("*.txt"))]


# ---- from a row to a run


def for_tasks(given: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """Of what is typed for all rows, what concerns a row of these tasks."""
    kinds = {f.name: f.type for f in fields(Options)}
    others = set(TASKS) - set(tasks)
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name == "files":
            kept[name] = {file: p for file, p in value.items() if file.split("_")[0] not in others}
        elif kinds.get(name) is PerTask:
            words = [word for word in value.split() if word.partition("=")[0] not in others]
            if words:
                kept[name] = " ".join(words)
        else:
            kept[name] = value
    return kept


def for_row(row: Row, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is typed for all rows, what is something to a row.

    Not: what concerns tasks that it does not learn, and for a baseline what only a network has.
    """
    found = for_tasks(shared, row.flags.get("tasks", shared.get("tasks", Options.tasks)))
    if row.flags.get("option") in WITHOUT_NETWORK:
        found = {name: value for name, value in found.items() if name in OF_BASELINES}
    return found


def check_row(row: Row, shared: Mapping[str, Any]) -> None:
    """UserError where a row and what is typed for all rows contradict one another."""
    for file in row.flags.get("files", {}):
        if not file.endswith("_train"):
            raise UserError(
                f"{row.name} names a --{file} file of its own, so it can't be compared; a row may "
                "have its own training files alone"
            )
    for name in row.flags:
        if name in BUDGET and name not in shared:
            raise UserError(
                f"{row.name} sets --{name}, so it can't be compared: give --{name} for all rows, "
                "which replaces it"
            )
        if name in shared and name not in (*BUDGET, *WITHOUT_EFFECT):
            raise UserError(f"{row.name} sets --{name} itself: don't type it for all rows")


def options_of_row(row: Row, shared: Mapping[str, Any], seed: int) -> Options:
    """A row's options: its own flags, those typed for all rows, and the seed.

    UserError, which names the row, where they can't go together.
    """
    check_row(row, shared)
    for_all = for_row(row, shared)
    given = {**row.flags, **for_all, "seed": seed}

    # Files are one option, of which either may name some.
    if "files" in given:
        given["files"] = {**for_all.get("files", {}), **row.flags.get("files", {})}
    try:
        options = Options(**given).check()
        check_tasks(options)
        return options
    except UserError as error:
        raise UserError(f"{row.name}: {error}") from None


# ---- as a record keeps it


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them, each in its one form, without those that change no score.

    Of a model in a folder its name stays: where the folder lies is nobody else's concern.
    """
    settled = Options(**values)
    kept = {name: getattr(settled, name) for name in values if name not in WITHOUT_EFFECT}
    for name in ("model", "init"):
        if kept.get(name) and Path(kept[name]).is_absolute():
            kept[name] = Path(kept[name]).name
    return json.loads(json.dumps(kept))


def recorded_flags(row: Row, shared: Mapping[str, Any]) -> dict[str, Any]:
    """A row's own flags but for those that were replaced; names of files are part of it."""
    own = {name: x for name, x in row.flags.items() if name == "files" or name not in shared}
    found = plain(own)
    if "files" in own:
        found["files"] = {name: Path(path).name for name, path in own["files"].items()}
    return found
