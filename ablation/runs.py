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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablation.record import Epoch, Line, Source, own_flags, plain
from ablation.rows import Row
from errors import Interrupted, UserError
from options import WITHOUT_NETWORK, Options
from storage.files import read_text, write_text
from storage.json_files import checked, read_json
from tasks import TASKS
from text.prediction_files import prediction_file
from training.outputs import has_finished

ROOT = Path(__file__).parents[1]
SAVE_EVERY = 100  # steps: what a kill may cost
PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Failed(Exception):
    """The main job ended with an error, which it has told."""


def name_of(row: str, seed: int) -> str:
    """A run's name, which a file can have."""
    return f"{row.replace('/', '-')}-{seed}"


@contextlib.contextmanager
def claimed(place: Path) -> Iterator[int | None]:
    """Inside, this run is ours: yields the descriptor of a lock, or None where it is another's.

    The lock is handed on to the main job, so it holds as long as either lives.
    """
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place / "claim", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        yield None
    finally:
        os.close(descriptor)


def begun(place: Path) -> Path | None:
    """The run folder of a run that was begun."""
    for options in place.glob("*/options.json"):
        return options.parent
    return None


def command_of(place: Path, options: Options) -> list[str]:
    """The main job's command line, for a new run or one to go on with."""
    script = str(ROOT / "multitask_classifier.py")
    folder = begun(place)
    trains = options.option not in WITHOUT_NETWORK
    if folder and trains:
        return [sys.executable, script, "--resume", str(folder)]
    if folder:
        shutil.rmtree(folder)  # a baseline takes a minute, and is begun anew

    # So many saves as a kill may cost, and a log from which losses can be averaged over epochs.
    own = replace(options, runs_dir=str(place), predictions=str(place / "{task}-{split}.csv"))
    if trains:
        own = replace(own, save_every=SAVE_EVERY, log_every=1)
    write_text(place / "options.json", own.to_json())
    return [sys.executable, script, f"@{place}/options.json"]


def run_main_job(command: list[str], claim: int) -> None:
    """Run the main job to its end; Failed where it fails, Interrupted where it was stopped."""
    process = subprocess.Popen(command, pass_fds=[claim])

    # Ctrl-C reaches the main job by itself; other signals are passed on. Both of us wait for it.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in PASSED_ON:
        handler = signal.getsignal(number)
        if handler != signal.SIG_IGN:
            before[number] = signal.signal(number, lambda one, _: process.send_signal(one))
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code in {128 + number for number in (signal.SIGINT, *PASSED_ON)}:
        raise Interrupted("stopped; the same command goes on", code)
    if code:
        raise Failed


def measure(row: Row, options: Options, shared: dict[str, Any], table: Path, claim: int) -> Line:
    """Run a row, or go on with it, and return the line for the record.

    Its predictions of the dev sets are kept beside the record.
    """
    name = name_of(row.name, options.seed)
    place = table / "unfinished" / name
    folder = begun(place)
    if folder is None or not has_finished(folder, options.epochs):
        run_main_job(command_of(place, options), claim)
    folder = begun(place)
    if folder is None:
        raise UserError(f"{place}: no run folder in it, though the main job ended well")

    predictions = {task: dev_predictions(folder, task) for task in options.tasks}
    (table / "predictions").mkdir(exist_ok=True)
    text = json.dumps(predictions, separators=(",", ":"))
    write_text(table / "predictions" / f"{name}.json", text + "\n")
    return line_of(row, options, shared, folder)


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
    epochs = epochs_of(folder, options)
    sources = {
        name: Source(file["sha256"], file["examples"]) for name, file in facts["data"].items()
    }
    return Line(
        row=row.name,
        what=row.what,
        flags=own_flags(row.flags),
        shared=plain(shared),
        seed=options.seed,
        options=plain(options.to_dict()),
        best=facts["best"],
        epochs=epochs,
        steps=steps_of(folder),
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
    )


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in read_text(folder / "log.jsonl", 2**28).splitlines()]


def steps_of(folder: Path) -> int:
    """The steps of a run."""
    return int(log_of(folder)[-1]["step"])


def epochs_of(folder: Path, options: Options) -> list[Epoch]:
    """What each epoch gave: the mean of its steps' losses, and its evaluation."""
    epochs: list[Epoch] = []
    losses: dict[str, list[float]] = {}
    for line in log_of(folder):
        if "dev_overall" not in line:
            for name, value in line.items():
                if name.startswith("loss_"):
                    losses.setdefault(name.removeprefix("loss_"), []).append(value)
            continue
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
    text = read_text(folder / "best" / prediction_file(task, "dev"), 2**28)
    numbers = [float(line.rpartition(",")[2]) for line in text.splitlines()[1:]]
    whole = TASKS[task].labels.whole
    return [int(number) if whole else round(number, 4) for number in numbers]
