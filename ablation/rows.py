"""The rows of a table: presets, and what is typed for all of them.

A preset is a file of flags for the main job. Its first line, a comment, says what the row is:

    # LoRA on every linear of the encoder
    --lora
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from commandline.words import words_of
from declare import PerTask
from errors import UserError
from flags import options_of, read_flags
from options import OF_BASELINES, WITHOUT_NETWORK, Options
from storage.files import read_text
from tasks import TASKS

PRESETS = Path(__file__).parents[1] / "presets"
LARGEST_PRESET = 100_000  # bytes

# How much a row may learn from: in a table that is the same for all.
BUDGET = ("epochs", "steps_per_epoch", "samples_per_epoch", "limit", "train_fraction")


@dataclass(frozen=True)
class Row:
    """A row: a preset, or the defaults."""

    name: str  # of the preset, as in "lora" or "published/004-concat-10"
    what: str  # the first line of the preset
    flags: dict[str, Any]  # the options that it sets, by name


def read_row(word: str) -> Row:
    """The row of a preset, which is named as in "lora" or by its path; UserError for no such."""
    path = PRESETS / f"{word}.txt"
    if word.endswith(".txt"):
        path = Path(word)
    if not path.exists():
        raise UserError(
            f"--rows {word}: no {path}; expected a preset's name or the path of a file of flags "
            f"that ends in .txt"
        )
    first = read_text(path, LARGEST_PRESET).partition("\n")[0]
    if not first.startswith("# "):
        raise UserError(f"{path}:1: expected a comment that says what the row is, as in # LoRA")

    # A preset of the project's is known by its name, any other by its file's.
    name = path.stem
    if path.resolve().is_relative_to(PRESETS):
        name = str(path.resolve().relative_to(PRESETS).with_suffix(""))
    return Row(name, first.removeprefix("# ").strip(), read_flags([f"@{path}"], ""))


def all_rows() -> list[Row]:
    """The rows of all presets in presets/; those in folders of it are named one by one."""
    return [read_row(str(path)) for path in sorted(PRESETS.glob("*.txt"))]


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


def options_of_row(row: Row, shared: Mapping[str, Any], seed: int) -> Options:
    """A row's options: its own flags, over them those typed for all rows, and the seed.

    What would be nothing to a row is left out: other tasks' parts, and to a baseline the network's.
    UserError where they can't go together, or the row has another budget than is typed for all.
    """
    own = [name for name in row.flags if name in BUDGET and name not in shared]
    if own:
        raise UserError(
            f"{row.name} sets --{own[0]}, so it can't be compared: give --{own[0]} for all rows, "
            "which replaces it"
        )
    tasks = shared.get("tasks", row.flags.get("tasks", Options.tasks))
    for_all = for_tasks(shared, tasks)
    if row.flags.get("option") in WITHOUT_NETWORK:
        for_all = {name: value for name, value in for_all.items() if name in OF_BASELINES}
    files = {**row.flags.get("files", {}), **for_all.get("files", {})}
    given = {**row.flags, **for_all, "seed": seed}
    if files:
        given["files"] = files
    try:
        return options_of(given)
    except UserError as error:
        raise UserError(f"{row.name}: {error}") from None


def typed(flags: Mapping[str, Any]) -> str:
    """Options as one would type them: "--lora --rmsnorm all"."""
    settled = Options(**flags)
    words = words_of({name: getattr(settled, name) for name in flags})
    return " ".join(word.replace("=", " ", 1) if word.startswith("--") else word for word in words)
