"""Check the prediction files, and zip them with the code for the course's grader.

    python prepare_submit.py                  # the six files in predictions/
    python prepare_submit.py RUN              # those of a run
    python prepare_submit.py --part 1         # classifier.py's, of both modes
    python prepare_submit.py --name ANDREWID  # all in a folder, as CMU wants it

The zip holds the code and predictions/; no weights, data or runs. Where a
prediction file does not fit the data, a line says how, and nothing is written.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import io
import os
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from commandline.parser import page_parser
from commandline.words import expand, unknown
from errors import UserError, run_main
from options import Options
from storage.files import (
    LARGEST_TEXT,
    check_regular,
    open_regular,
    read_text,
    sha256_of,
    write_bytes,
)
from storage.json_files import read_json
from tasks import LEADERBOARD, TASKS, Task
from text.data_files import BUILT_IN, ROOT, SPLITS, find_files
from text.reading import read_file

CS224N = "cs224n_default_final_project_submission"
PART_1 = ("sst", "cfimdb")
MODES = [("pretrain", "finetune"), ("last-linear-layer", "full-model")]  # 2023's, 2024's
# Beside *.py: what tells how to run them.
PAGES = (
    *("README.md", "STRUCTURE.md", "LICENSE"),
    *("setup.sh", "pyproject.toml", "requirements.txt", "constraints.txt"),
)
# Folders with *.py that running does not need, or that are not the project's.
OUTSIDE = {"tests", "benchmarks", "runs", "predictions", "__pycache__"}
ENVIRONMENT = ("pyvenv.cfg", "conda-meta")  # a folder with one of these is no code


# ---- the prediction files


def expected_files(folder: Path, part: str) -> dict[Path, tuple[str, str]]:
    """The prediction files of a part, or of all, each with its task and split."""
    files = {}
    if part != "2":
        # Which year's names, shows in the folder.
        names = {path.name for path in folder.glob("*-out.csv")}
        year = MODES[1] if any(name.startswith(MODES[1]) for name in names) else MODES[0]
        for mode in year:
            for task in PART_1:
                for split in ("dev", "test"):
                    files[folder / f"{mode}-{task}-{split}-out.csv"] = task, split
    if part != "1":
        for task in LEADERBOARD:
            for split in ("dev", "test"):
                files[folder / f"{task}-{split}-output.csv"] = task, split
    return files


def of_run(run: Path) -> Path:
    """The folder of a run's predictions; UserError where they are none to submit."""
    if not (run / "run.json").exists():
        raise UserError(f"{run}: no run.json in it; expected a run folder, as runs/<date>-<name>")
    facts = read_json(run / "run.json")
    if not isinstance(facts, dict) or "best" not in facts:
        raise UserError(f"{run}: has not finished; go on with --resume {run}")
    if facts.get("built_in_corpus"):
        raise UserError(
            f"{run}: its data was the built-in corpus, not the course's; train on that first"
        )
    options = Options.of_run(run)
    if options.limit:
        raise UserError(
            f"{run}: its predictions are incomplete, by --limit {options.limit}; for all of them: "
            f"python predict.py {run}"
        )
    if not options.test:
        raise UserError(
            f"{run}: has no test predictions, by --no-test; for all of them: "
            f"python predict.py {run}"
        )
    return run / "predictions"


def ids_of(data: Path, task: Task, split: str) -> list[str]:
    """The ids that a prediction file must have, in this order."""
    return [example.id for example in read_file(data, task, split).examples]


def check_file(path: Path, task: Task, data: Path, ids: list[str]) -> None:
    """UserError, which names the line, where a prediction file is not as the grader wants it."""
    header, *rows = read_text(path, LARGEST_TEXT).split("\n")
    if [cell.strip() for cell in header.split("\t")] != ["id", task.header]:
        raise UserError(f'{path}:1: "{header}", expected "id" and "{task.header}", with a tab')
    if rows and not rows[-1].strip():
        rows.pop()

    # The ids, each once and in the order of the data, and values that can be.
    lines: dict[str, int] = {}
    known = set(ids)
    for line, row in enumerate(rows, start=2):
        cells = [cell.strip() for cell in row.split(",")]
        if len(cells) != 2:
            raise UserError(f'{path}:{line}: "{row}", expected an id, a comma and a prediction')
        identity, value = cells
        check_id(identity, f"{path}:{line}", lines, known, task, data)
        lines[identity] = line
        if identity != ids[line - 2]:
            raise UserError(
                f"{path}:{line}: id {identity}, expected {ids[line - 2]}; no row may be missing, "
                f"and all must have the order of {data}"
            )
        try:
            task.labels.parse(value)
        except ValueError as error:
            raise UserError(f'{path}:{line}: prediction "{value}", {error}') from None
    if len(rows) < len(ids):
        raise UserError(
            f"{path}: {len(rows)} predictions, expected {len(ids)} as in {data}; the first that is "
            f"missing is {ids[len(rows)]}"
        )


def check_id(
    identity: str, where: str, lines: dict[str, int], known: set[str], task: Task, data: Path
) -> None:
    """UserError where an id stood in the file before, or is none of the data's."""
    if identity in lines:
        raise UserError(f"{where}: id {identity} stands in line {lines[identity]} already")
    if identity in known:
        return
    advice = f"predict {data.name} anew"
    for split, suffix in SPLITS.items():
        if identity in ids_of(BUILT_IN / task.files.format(suffix), task, split):
            advice = "it is of the built-in corpus: train and predict on the course's data"
    raise UserError(f"{where}: id {identity} is not in {data}; {advice}")


def writer_of(path: Path) -> str:
    """What writes a prediction file."""
    if path.name.endswith("-out.csv"):
        return "classifier.py writes it, in each of its two modes"
    return "predict.py RUN writes it"


def check_all(files: dict[Path, tuple[str, str]], data_dir: str) -> None:
    """Check every prediction file, say how it is, and raise UserError where one is wrong."""
    tasks = tuple(dict.fromkeys(task for task, _ in files.values()))
    paths, built_in = find_files(Options(tasks=tasks, data_dir=data_dir), ("dev", "test"))
    if built_in:
        raise UserError(
            f"no course data in {data_dir}: without it the ids can't be checked; fetch it, or "
            "name its folder with --data_dir"
        )
    ids = {place: ids_of(path, TASKS[place[0]], place[1]) for place, path in paths.items()}

    print(f"checking the predictions in {next(iter(files)).parent}")
    runs = runs_of(files)
    faults = 0
    for path, place in files.items():
        try:
            if not path.exists():
                raise UserError(f"{path}: not there; {writer_of(path)}")
            check_file(path, TASKS[place[0]], paths[place], ids[place])
            print(f"  {path.name}: {len(ids[place])} predictions, {runs[path]}")
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            faults += 1
    if faults:
        raise UserError(f"{faults} of {len(files)} prediction files are wrong; nothing was zipped")
    if len(set(runs.values())) > 1:
        print("these are of more than one run; to submit one run's: prepare_submit.py RUN")


def runs_of(files: Iterable[Path]) -> dict[Path, str]:
    """Which run in runs/ each prediction file is of, in words; one that is not there yet too."""
    known: dict[str, str] = {}
    for path in Path(Options.runs_dir).glob("*/predictions/*.csv"):
        known[sha256_of(path)] = path.parents[1].name
    words = {}
    for path in files:
        run = known.get(sha256_of(path)) if path.exists() else None
        words[path] = f"of {run}" if run else "of an unknown run"
    return words


# ---- the zip


def code_files(root: Path) -> list[Path]:
    """The project's code: its *.py, those of the folders that running needs, and its pages."""
    files = [root / page for page in PAGES if (root / page).is_file()]
    for place, folders, names in os.walk(root):
        here = Path(place)
        folders[:] = sorted(name for name in folders if is_code(here / name))
        files += [here / name for name in sorted(names) if name.endswith(".py")]
    return files


def is_code(folder: Path) -> bool:
    """Whether a folder may hold the project's code."""
    if folder.name in OUTSIDE or folder.name.startswith("."):
        return False
    return not any((folder / sign).exists() for sign in ENVIRONMENT)


def zipped(files: dict[str, Path]) -> bytes:
    """An archive of files under these names."""
    archive = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(archive, "w", kind, strict_timestamps=False) as inside:
        for name, path in files.items():
            check_regular(path)
            inside.write(path, name)
    return archive.getvalue()


def check_zip_name(out: Path) -> None:
    """UserError where something else than an archive would be replaced."""
    if out.suffix != ".zip":
        raise UserError(f"--out {out}: expected a name that ends in .zip")
    if os.path.lexists(out):
        with open_regular(out) as file:
            if file.read(2) not in (b"PK", b""):
                raise UserError(f"{out}: is there, but is no zip file; name another, or delete it")


def prepare(
    run: str = "",
    predictions: str = "predictions",
    data_dir: str = Options.data_dir,
    out: str = "",
    part: str = "2",
    name: str = "",
) -> Path:
    """Check the prediction files and write the zip; see the top of this file. Returns its path."""
    if run and part != "2":
        raise UserError(f"--part {part} needs the files of several runs: leave out {run}")
    if run and predictions != "predictions":
        raise UserError(f"--predictions {predictions}: those of {run} or these? Leave out one")
    if name and not re.fullmatch(r"[\w-][\w.-]*", name):
        raise UserError(f"--name {name}: letters, digits, dot, dash and underscore only")
    target = Path(out or f"{name or CS224N}.zip")
    check_zip_name(target)
    files = expected_files(of_run(Path(run)) if run else Path(predictions), part)
    check_all(files, data_dir)

    # A folder of the name around all, where there is one.
    top = Path(name)
    code = code_files(ROOT)
    inside = {(top / path.relative_to(ROOT)).as_posix(): path for path in code}
    inside |= {(top / "predictions" / path.name).as_posix(): path for path in files}
    content = zipped(inside)
    write_bytes(target, content)
    print(f"written: {target}, {len(content) / 1e6:.1f} MB")
    print(f"  {len(files)} prediction files, {len(code)} of code; no weights, data or runs")
    return target


# ---- the command line


def main(argv: list[str]) -> None:
    """The command line."""
    parser = page_parser(__doc__)
    parser.add_argument("run", metavar="RUN", nargs="?", help="a finished run's folder")
    add = parser.add_argument
    add("--predictions", metavar="DIR", help="where the files are [predictions]")
    add("--data_dir", metavar="DIR", help="the course's data, for the ids [data]")
    add("--out", metavar="FILE", help=f"the zip [{CS224N}.zip]")
    add("--part", choices=("1", "2", "all"), help="1: classifier.py's, 2: the three tasks [2]")
    add("--name", metavar="NAME", help="of a folder around all in the zip, and of the zip")

    words = expand(argv)
    found, rest = parser.parse_known_args(words)
    if rest:
        raise unknown(rest[0], ["predictions", "data_dir", "out", "part", "name"], words)
    prepare(**vars(found))


if __name__ == "__main__":
    run_main(main)
