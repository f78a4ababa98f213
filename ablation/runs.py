"""One run of a row: the main job in a process of its own, and what the record keeps of it.

While it runs, its run folder stands in results/TABLE/unfinished/. After a kill the next ablate.py
goes on from there.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablation.record import Epoch, Line, Source
from ablation.rows import Row, plain, recorded_flags
from choices.run import WITHOUT_NETWORK
from errors import Interrupted, UserError
from options import Options
from storage.files import LARGEST_TEXT, read_text, reason_of, write_text
from storage.json_files import checked, parse_json, read_json, record
from tasks import TASKS
from text.prediction_files import prediction_file
from training.outputs import has_finished
from training.progress import Best
from training.signals import ENDING

ROOT = Path(__file__).parents[1]
SAVE_EVERY = 100  # steps: what a kill may cost


class Failed(Exception):
    """The main job ended with an error, which it has told."""


def name_of(row: str, seed: int) -> str:
    """A run's name, which a file can have."""
    return f"{row.replace('/', '--')}-{seed}"


@contextlib.contextmanager
def claimed(place: Path) -> Iterator[int | None]:
    """Inside, this run is ours: yields the descriptor of a lock, or None where it is another's.

    The lock is handed on to the main job, so it holds as long as either lives.
    """
    # Another process that has just recorded this run may remove the folder meanwhile.
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            place.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place / "claim", os.O_RDWR | os.O_CREAT, 0o666)
            break
    else:
        raise UserError(f"{place}: can't be made; is another process removing it?")
    try:
        yield descriptor if take(descriptor) else None
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Lock a file; False where another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        warnings.warn(
            f"no locks on this file system ({reason_of(error)}); take care that no second "
            "ablate.py works on this table",
            stacklevel=2,
        )
    return True


def begun(place: Path, options: Options) -> Path | None:
    """The run folder of a run that was begun with these options; one with others is removed."""
    for path in place.glob("*/options.json"):
        with contextlib.suppress(UserError):
            if plain(Options.of_run(path.parent).to_dict()) == plain(options.to_dict()):
                return path.parent
        shutil.rmtree(path.parent)
    return None


def command_of(place: Path, options: Options) -> list[str]:
    """The main job's command line, for a new run or one to go on with."""
    script = str(ROOT / "multitask_classifier.py")
    folder = begun(place, options)
    trains = options.option not in WITHOUT_NETWORK
    if folder and trains:
        return [sys.executable, script, "--resume", str(folder)]
    if folder:
        shutil.rmtree(folder)  # a baseline takes a minute, and is begun anew

    # What only says where things are; none of it changes a score.
    own = replace(options, runs_dir=str(place), predictions=str(place / "{task}-{split}.csv"))
    if trains:
        # A line of the log a step, so that losses can be averaged over epochs.
        own = replace(own, save_every=SAVE_EVERY, log_every=1)
    write_text(place / "options.json", own.to_json())
    return [sys.executable, script, f"@{place}/options.json"]


def run_main_job(command: list[str], claim: int) -> None:
    """Run the main job to its end; Failed where it fails, Interrupted where it is stopped.

    Signals that ask to end are for both: it is in a session of its own, so that each of them
    reaches it once, from here. It saves, and the same command goes on with it.
    """
    # Take note of signals; those that are ignored, as under nohup, stay so.
    taken: list[int] = []
    before = {}
    for number in ENDING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, lambda one, _: taken.append(one))

    # Wait, and pass on what was taken since the last look.
    told = 0
    try:
        process = subprocess.Popen(command, pass_fds=[claim], start_new_session=True)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.2)
                break
            for one in taken[told:]:
                process.send_signal(one)
                told += 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    # Ended by a signal: by itself, with 128 and the number, or by the system, with its negative.
    ending = -code if code < 0 else code - 128
    if taken or ending in ENDING:
        raise Interrupted("stopped; the same command goes on", 128 + (taken or [ending])[0])
    if code:
        raise Failed


def measure(row: Row, options: Options, shared: dict[str, Any], table: Path, claim: int) -> Line:
    """Run a row, or go on with it, and return the line for the record.

    Its predictions of the dev sets are kept beside the record.
    """
    # One that had ended when it was killed is only read; any other is run, or gone on with.
    place = table / "unfinished" / name_of(row.name, options.seed)
    folder = begun(place, options)
    if folder is None or not has_finished(folder, options.epochs):
        run_main_job(command_of(place, options), claim)
    folder = begun(place, options)
    if folder is None:
        raise UserError(f"{place}: no run folder in it, though the main job ended well")

    # The predictions first: a line of the record never lacks them.
    line = line_of(row, options, shared, folder)
    keep_predictions(table, line, {task: dev_predictions(folder, task) for task in options.tasks})
    return line


def keep_predictions(table: Path, line: Line, predictions: dict[str, list[float]]) -> None:
    """Write the dev predictions of a run to where rows are compared by them."""
    path = predictions_file(table, line)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(predictions, separators=(",", ":")) + "\n")


def clear(row: Row, seed: int, table: Path) -> None:
    """Remove the run folder of a run that is in the record."""
    shutil.rmtree(table / "unfinished" / name_of(row.name, seed), ignore_errors=True)


def predictions_file(table: Path, line: Line) -> Path:
    """Where the dev predictions of a run are kept."""
    return table / "predictions" / f"{name_of(line.row, line.seed)}.json"


def predictions_of(table: Path, line: Line) -> dict[str, list[float]]:
    """{task: its dev predictions, in file order}, as measure() kept them."""
    path = predictions_file(table, line)
    return checked(read_json(path), dict[str, list[float]], str(path))


# ---- what is kept of a run folder


def line_of(row: Row, options: Options, shared: dict[str, Any], folder: Path) -> Line:
    """The record's line of a finished run."""
    facts = read_json(folder / "run.json")
    log = log_of(folder)
    sources = {
        name: Source(file["sha256"], file["examples"]) for name, file in facts["data"].items()
    }
    return Line(
        row=row.name,
        what=row.what,
        flags=recorded_flags(row, shared),
        shared=plain(shared),
        seed=options.seed,
        options=plain(options.to_dict()),
        best=record(Best, facts["best"], f"{folder}/run.json: best"),
        epochs=epochs_of(log, options),
        steps=log[-1]["step"],
        seconds=facts["seconds"],
        peak_memory_mib=facts["peak_memory_mib"],
        parameters=facts["parameters"],
        data=sources,
        built_in_corpus=facts["built_in_corpus"],
        commit=facts["commit"],
        python=facts["python"],
        versions=facts["versions"],
        device=facts["device"],
        kernels=facts["kernels"],
        dtype=facts["dtype"],
        base_weights=facts["base_weights"],
    )


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    path = folder / "log.jsonl"
    return [parse_json(line, str(path)) for line in read_text(path, LARGEST_TEXT).splitlines()]


def epochs_of(log: list[dict[str, Any]], options: Options) -> list[Epoch]:
    """What each epoch gave: the mean of its steps' losses, and its evaluation."""
    epochs: list[Epoch] = []
    losses: dict[str, list[float]] = {}
    for line in log:
        if "dev_overall" not in line:
            for name, value in line.items():
                if name.startswith("loss_"):
                    losses.setdefault(name.removeprefix("loss_"), []).append(value)
            continue

        # A line with dev scores closes an epoch.
        means = {name: sum(values) / len(values) for name, values in losses.items()}
        dev_losses = {
            task: line[f"dev_loss_{task}"] for task in options.tasks if f"dev_loss_{task}" in line
        }
        scores = {task: line[f"dev_{task}"] for task in options.tasks}
        epochs.append(Epoch(line["epoch"], scores, line["dev_overall"], means, dev_losses))
        losses = {}
    return epochs


def dev_predictions(folder: Path, task: str) -> list[float]:
    """The dev predictions of a run's best model, in file order."""
    text = read_text(folder / "best" / prediction_file(task, "dev"), LARGEST_TEXT)
    numbers = [float(line.rpartition(",")[2]) for line in text.splitlines()[1:]]
    whole = TASKS[task].labels.whole
    return [int(number) if whole else round(number, 4) for number in numbers]
