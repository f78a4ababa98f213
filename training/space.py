"""Whether the disk has room for a run: better known before its first hour than after it."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from errors import UserError
from options import Options
from storage.files import MEBIBYTE
from training.checkpoint import states_of
from training.environment import check_writable
from training.outputs import has_finished

CHECKPOINTS = 3  # the last, the one before it, and a new one that is being written
BEST_MODELS = 2  # the best, and a new one that is being written
FOLDERS = ("last", "previous", "best")  # of a run, in which these are


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes."""
    return sum(x.numel() * x.element_size() for x in tensors.values())


def needed_space(pieces: Mapping[str, Any]) -> int:
    """The most bytes that a run's tensors take at once; logs and predictions are small.

    `pieces` are those of a checkpoint, before the first step: the optimizer remembers nothing yet.
    """
    optimizer = pieces["optimizer"]
    checkpoint = sum(size_of(state) for state in states_of(pieces).values())
    checkpoint += len(optimizer.moments) * size_of(optimizer.named)
    return CHECKPOINTS * checkpoint + BEST_MODELS * size_of(pieces["model"].own_state())


def space_taken(run: Path) -> int:
    """Bytes that a run's checkpoints and its best model take."""
    taken = 0
    for name in FOLDERS:
        for path in (run / name).glob("*"):
            # A process that trains here may replace it meanwhile; the lock refuses this one later.
            with contextlib.suppress(OSError):
                taken += path.stat().st_size
    return taken


def check_space(options: Options, pieces: Mapping[str, Any]) -> None:
    """UserError where the disk of the run folders has not room for a run's checkpoints.

    A resumed run has some of them already, and one that has finished writes no more. Quotas are not
    seen.
    """
    needed = needed_space(pieces)
    folder = Path(options.resume or options.runs_dir)
    if options.resume:
        if has_finished(folder, options.epochs):
            return
        needed -= space_taken(folder)
    check_writable(folder)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free // MEBIBYTE} MiB free on this disk, but the run's checkpoints may "
            f"take {needed // MEBIBYTE + 1} MiB more; free some, or choose another --runs_dir"
        )
