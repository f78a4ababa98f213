"""Options: everything that can be chosen for a run.

The folder choices/ declares them, a file a section, one declaration an option (declare.py): it
carries the default, the help text, the choices or the range, and the option without which it would
do nothing. commandline/parser.py makes a flag from it, `check()` what is refused, `to_json()` the
file in a run's folder. A section is a group of flags, and what a function that needs no more takes.

Choices that a table of the code holds (HEADS, SAMPLERS, ...) are not repeated there: TABLES in
commandline/parser.py says which table, and whoever uses it looks the name up with `pick`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from choices.adapter import adapters_in
from choices.chosen import SECTIONS, Chosen
from choices.conflicts import CONFLICTS
from choices.run import WITHOUT_NETWORK
from declare import PerTask, check_value, settled, shown
from errors import UserError, listed
from storage.files import read_text
from storage.json_files import parse_json

# What may be given anew when a run is resumed; that data is the same is checked by its contents.
MOVING = ("resume", "use_gpu", "data_dir", "files", "keep_last", "tags")
# Options that say where things are, what is kept, or how a run is watched: they change no score.
WITHOUT_EFFECT = {
    *("files", "predictions", "runs_dir", "data_dir", "name", "tags", "resume"),
    *("save_every", "keep_last", "log_every", "tensorboard", "train_scores"),
}
# What matters to runs that train no network.
OF_BASELINES = (
    *("option", "seed", "tasks", "name", "tags", "runs_dir", "resume", "tensorboard"),
    *("data_dir", "files", "test", "drop_leaks", "limit", "train_fraction", "predictions"),
)


@dataclass(frozen=True)
class Options(Chosen):
    """Everything that a run depends on."""

    def check(self) -> "Options":
        """These options, or UserError where a value or a pair of them can't work."""
        # Values one by one first: the checks of several rely on each being legal.
        self.check_values()
        self.check_needs()
        for f in fields(self):
            if f.type is PerTask:
                self.check_tasks_of(f.name)

        self.check_of_baseline()

        # What only shows when options meet.
        for conflict in CONFLICTS:
            if conflict.found(self):
                values = {**self.to_dict(), "adapter": " and ".join(adapters_in(self))}
                raise UserError(conflict.message.format(**values))
        return self

    def check_of_baseline(self) -> None:
        """UserError where a baseline, which has no network, is given an option of one."""
        if self.option not in WITHOUT_NETWORK:
            return
        for f in fields(self):
            if f.name not in OF_BASELINES and getattr(self, f.name) != f.default:
                raise UserError(
                    f"--{f.name} is nothing to --option {self.option}, which has no network: "
                    "drop one"
                )

    def check_tasks_of(self, name: str) -> None:
        """UserError where an option has a value for a task that is not learned."""
        value: PerTask = getattr(self, name)
        for task in value.named:
            if task not in self.tasks:
                raise UserError(
                    f"--{name} {shown(value)}: expected tasks of --tasks {' '.join(self.tasks)}"
                )

    def of_same_run(self, given: dict[str, Any]) -> "Options":
        """These options, of a run that is resumed, with what may change as `given` has it.

        That is folder, device and files, and there may be more epochs. UserError where more
        differs.
        """
        # Only the files that were typed replace those of the run; then all is compared.
        files = {**dict(self.files), **dict(given.get("files", ()))}
        wanted = replace(self, **{**given, "files": files}).to_dict()
        for name, was in self.to_dict().items():
            value = wanted[name]
            # A run and its data may move, and it may get longer; anything else would make it
            # another run.
            if name == "epochs" and value < was:
                raise UserError(f"--epochs {value}: the run has {was}, and --resume only adds some")
            if name not in (*MOVING, "epochs") and value != was:
                before = "not given" if was is None else f"{was}, not {value}"
                raise UserError(
                    f"--resume goes on with the run's own options; --{name} was {before}"
                )
        moved = {name: value for name, value in given.items() if name in (*MOVING, "epochs")}
        return replace(self, **{**moved, "files": files}).check()

    @classmethod
    def of_run(cls, folder: Path) -> "Options":
        """The options that a run folder holds, checked as those of a new run are."""
        # A wrong folder is the usual mistake, so the message shows what one looks like.
        path = folder / "options.json"
        if not os.path.exists(path):
            raise UserError(
                f"{shown(folder)}: no options.json in it; expected a run folder, such as "
                "runs/<date>-<name>"
            )
        return cls.from_json(read_text(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Section by section, under the options' names, with `files` as a dict."""
        names = [f.name for section in SECTIONS.values() for f in fields(section)]
        return {**{name: getattr(self, name) for name in names}, "files": dict(self.files)}

    def to_json(self) -> str:
        """As saved in a run folder."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str, source: str = "options.json") -> "Options":
        """From the text of a run folder's file, checked as those of a new run are.

        UserError, which names the source, where they can't work, or it is damaged.
        """
        options = cls(**read_values(text, source))
        try:
            return options.check()
        except UserError as error:
            raise UserError(f"{source}: {error}") from None


def read_values(text: str, source: str) -> dict[str, Any]:
    """The options that a JSON text holds, checked one by one but not with one another.

    UserError, which names the source, where it is damaged or holds what is no option.
    """
    # The text as a whole.
    values = parse_json(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected an object of options and their values")

    # Its names, all unknown ones at once.
    known = {f.name: f for f in fields(Options)}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"{source} holds unknown options: {listed(unknown)}")

    # Its values; lists become tuples and the like before they are checked.
    try:
        values = {name: settled(known[name], value) for name, value in values.items()}
        for name, value in values.items():
            check_value(known[name], value)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return values


def pick(table: Mapping[str, Any], key: str, flag: str) -> Any:
    """table[key], or UserError that names the flag and the choices."""
    if key not in table:
        raise UserError(f"{flag} {shown(key)}: expected one of {', '.join(table)}")
    return table[key]
