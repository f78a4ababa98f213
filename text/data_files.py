"""Which file is which task's and split's, and when the built-in corpus stands in for them.

It does so only where nobody asked for other data and the usual folder holds nothing that looks like
data. A name looks like data if it ends as tables and archives do (.csv, .zip) or begins as a task's
files do, in letters of either case; what a download left unfinished (.part) and hidden files do
not. Folders in it are looked into too, as an archive may have brought one. A folder that can't be
looked into is refused: there might be data in it.

The usual folder is data/ of the folder that one stands in, or where that has none, the one beside
the scripts.
"""

import contextlib
import difflib
import os
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from errors import UserError, listed
from options import Options
from storage.files import check_regular, reason_of
from tasks import TASKS, Task

ROOT = Path(__file__).parents[1]
BESIDE = ROOT / "data"  # the scripts
BUILT_IN = BESIDE / "builtin"
SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}
ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".xlsx", ".zip", ".tar", ".tgz", ".gz")


def stems_of(tasks: Iterable[Task]) -> tuple[str, ...]:
    """How the names of tasks' files begin; nothing, with which any name does, is no beginning."""
    beginnings = [task.files.split("{}")[0].lower() for task in tasks]
    return tuple(stem for stem in beginnings if stem)


STEMS = stems_of(TASKS.values())


def splits_of(options: Options) -> tuple[str, ...]:
    """The splits that a run reads."""
    return ("train", "dev", "test") if options.test else ("train", "dev")


def is_usual(folder: Path) -> bool:
    """Whether a data folder is the one that is meant where nobody names one."""
    return folder == Path(Options.data_dir)


def data_folder(options: Options) -> Path:
    """The folder that the tasks' files are looked for in."""
    folder = Path(options.data_dir)
    if is_usual(folder) and not os.path.lexists(folder) and data_in(BESIDE):
        return BESIDE
    return folder


def find_files(
    options: Options, splits: Collection[str] | None = None, optional: Collection[str] = ()
) -> tuple[dict[tuple[str, str], Path], bool]:
    """The file of every (task, split), and whether they are the built-in corpus.

    `splits`: those that are wanted, by default a run's; files of the `optional` ones among them are
    left out where they are not there. UserError, which says what was seen, where some are there and
    some not, or not as they should.
    """
    check_names(options)
    folder = data_folder(options)
    wanted = splits_of(options) if splits is None else splits
    # A path given for one file wins over the folder.
    paths: dict[tuple[str, str], Path] = {}
    given = False
    for task in options.tasks:
        for split in wanted:
            named = options.file(f"{task}_{split}")
            if named:
                given = True
                check_given(f"--{task}_{split}", Path(named))
            usual = folder / TASKS[task].files.format(SPLITS[split])
            paths[task, split] = Path(named or usual)

    # Where all are there, each must be a regular file.
    missing = {place: path for place, path in paths.items() if fault(path)}
    needed = [path for (_, split), path in missing.items() if split not in optional]
    if not needed:
        there = {place: path for place, path in paths.items() if place not in missing}
        for path in there.values():
            check_regular(path)
        return there, False

    # Only where nobody asked for other data, and none is there, does the built-in corpus stand in.
    seen = data_in(folder)
    if is_usual(folder) and not given and not seen:
        if not BUILT_IN.exists():  # as in a zip that prepare_submit.py made
            raise UserError(
                f"no course data in {folder}, and no built-in corpus beside the scripts; fetch the "
                f"one: {download_command(folder)}, or write the other: python data/make_corpus.py"
            )
        built_in = {
            (task, split): BUILT_IN / TASKS[task].files.format(SPLITS[split])
            for task, split in paths
        }
        return built_in, True

    # What was seen there instead, what is missing, and the command that fetches it.
    others = [name for name in seen if folder / name not in paths.values()]
    instead = f", which holds {listed(others, 3)}" if others else ""
    without = flags_without(options, missing) if splits is None else ""
    raise UserError(
        f"missing {len(needed)} of {len(paths)} data files in {folder}{instead}: "
        f"{listed(map(with_fault, needed))}; fetch them: {download_command(folder)}{without}"
    )


def flags_without(options: Options, missing: Collection[tuple[str, str]]) -> str:
    """The end of a message: how a run can do without these files; nothing where it can't."""
    if all(split == "test" for _, split in missing):
        return ", or leave them out: --no-test"

    # Where files of some tasks were given, these alone may have been meant.
    meant = [
        task for task in options.tasks if any(options.file(f"{task}_{split}") for split in SPLITS)
    ]
    if not meant or meant == list(options.tasks):
        return ""
    flags = ["--tasks", *meant]
    own = [(task, split) for task, split in missing if task in meant]
    flags += [f"--{task}_{split} FILE" for task, split in own if split != "test"]
    if any(split == "test" for _, split in own):
        flags.append("--no-test")
    return f", or do without: {' '.join(flags)}"


def say_where(options: Options, built_in: bool) -> None:
    """Say it where the data is not that of the folder which the options name."""
    folder = data_folder(options)
    if built_in:
        line = "=" * 80
        print(
            f"{line}\nNo real data in {folder.absolute()}: this run uses the BUILT-IN CORPUS.\n"
            "Its scores say nothing about SST, Quora or STS.\n"
            f"To fetch the course's data: {download_command(folder)}\n{line}"
        )
    elif folder != Path(options.data_dir):
        print(f"no {options.data_dir}/ here, so the data is that beside the scripts:\n  {folder}")


def check_names(options: Options) -> None:
    """UserError where a path was given for what is no file, or one of a task that does not run."""
    options.check_files(TASKS)
    for name, path in options.files:
        if name.partition("_")[0] not in options.tasks:
            raise UserError(
                f"--{name} {path}: that task does not run; expected files of --tasks "
                f"{' '.join(options.tasks)}"
            )


def fault(path: Path) -> str:
    """Why a file can't be had; nothing where it is there."""
    try:
        os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            return f"a broken link to {os.readlink(path)}"
        return "not there"
    except OSError as error:
        return reason_of(error)
    except ValueError:
        return "it has a character that no path can have"
    return ""


def with_fault(path: Path) -> str:
    """A missing file's name in a message, with the reason where it is not the usual one."""
    reason = fault(path)
    return path.name if reason == "not there" else f"{path.name} ({reason})"


def check_given(flag: str, path: Path) -> None:
    """UserError where nothing is at the path that a flag gives, with names there that look like it.

    Data to fetch would not help: another path was meant.
    """
    reason = fault(path)
    if not reason:
        return
    # Names are compared in lower case, and shown as they are.
    names: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        names = {name.lower(): name for name in os.listdir(path.parent)}
    near = difflib.get_close_matches(path.name.lower(), names, 3, 0.7)
    advice = "check the path"
    if near:
        advice = f"did you mean {listed(path.parent / names[name] for name in near)}?"
    raise UserError(f"{flag} {path}: {reason}; {advice}")


def data_in(folder: Path) -> list[str]:
    """The names in a folder that look like data; UserError where it can't be looked into."""
    # Names in the folder, and one folder further down.
    try:
        names = os.listdir(folder)
        for name in names.copy():
            below = folder / name
            if os.path.isdir(below) and name != BUILT_IN.name:
                names += [f"{name}/{one}" for one in os.listdir(below)]
        return sorted(name for name in names if looks_like_data(name))
    # No folder at all is the usual case of a first run; a broken link to one is not.
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return []
        reason = fault(folder) or reason_of(error)
    except ValueError:
        reason = fault(folder)
    raise UserError(f"{folder}: {reason}; expected a folder with the tasks' files")


def looks_like_data(name: str) -> bool:
    """Whether a file of this name may have been meant as data; see the top of this file."""
    lower = name.lower().rpartition("/")[2]
    if lower.startswith(".") or lower.endswith(".part"):
        return False
    return lower.endswith(ENDINGS) or lower.startswith(STEMS)


def download_command(folder: Path) -> str:
    """The command that fetches the course's data into a folder, from wherever one stands."""
    # The script as one would type it from here, or its whole path where it lies elsewhere.
    script = ROOT / "data" / "download.py"
    typed = os.path.relpath(script)
    if typed.startswith(".."):
        typed = str(script)

    # It writes beside itself unless told otherwise.
    command = ["python", typed]
    if folder.absolute() != script.parent:
        command += ["--out", str(folder)]
    return shlex.join(command)
