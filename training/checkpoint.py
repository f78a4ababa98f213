"""Files of a run, written whole or not at all, and checkpoints, resumed bit for bit.

    runs/<date>-<name>/
        options.json      the options
        run.json          exact command, commit, versions, device, data checksums, results
        log.jsonl         a line every --log_every steps and one an evaluation
        last/             what --resume needs: a file for each piece of the run that has a state,
                          random states, and progress.json with all other state of the loop
        best/             what MultitaskBERT.load needs: the model of the best evaluation

A folder is written beside its final name, synced and renamed into place: a kill at any moment
leaves the old or the new one.
"""

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from errors import UserError
from files import reason_of, sync
from json_files import read_json, write_json
from tensor_files import read_tensors, write_tensors
from training.manifest import write_manifest


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder and put it in the place of `folder`."""
    # Both are siblings of the folder, since a rename cannot cross file systems.
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")

    # What an earlier kill left would be in the way.
    recover(folder)
    try:
        new.mkdir(parents=True)
        write(new)

        # The contents must be on the disk before the name that vouches for them.
        for path in [*new.iterdir(), new]:
            sync(path)

        # A folder that is not empty can't be renamed over, so the old one steps aside first.
        if folder.exists():
            folder.rename(old)
        new.rename(folder)

        # The renames themselves are on the disk only once the parent is; then the old one may go.
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{folder}: can't be written ({reason})") from None


def recover(folder: Path) -> bool:
    """Clear up after a kill inside replace_folder; whether `folder` is there, whole."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        # Killed between the two renames: the new one is whole.
        new.rename(folder)

    # What is left over is half-written or replaced by now.
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return folder.exists()


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CUDA too


def random_states() -> dict[str, Tensor]:
    """The states of torch's generators.

    Shuffles and samplers need none: they are functions of seed and position.
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # a run on the CPU leaves the device alone
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """random_states()'s inverse."""
    # A checkpoint may go on where there is no GPU, or come from where there was none.
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])


def states_of(pieces: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each piece of a run that remembers some: what its state_dict() gives."""
    # Pieces without a state, or with an empty one, get no file.
    states: dict[str, dict[str, Tensor]] = {}
    for name, piece in pieces.items():
        state = piece.state_dict() if hasattr(piece, "state_dict") else {}
        if state:
            states[name] = state
    return states


def save_last(folder: Path, pieces: Mapping[str, Any], progress: dict[str, Any]) -> None:
    """Write all that a later process needs to go on.

    That is each piece's tensors, the random states, and `progress`, which is JSON (step, positions,
    best score, ...).
    """

    def write(new: Path) -> None:
        for name, state in states_of(pieces).items():
            write_tensors(new / f"{name}.safetensors", state)

        # Beside the pieces' files; progress.json holds whatever is not a tensor.
        write_tensors(new / "random.safetensors", random_states())
        write_json(new / "progress.json", progress)
        write_manifest(new)

    replace_folder(folder, write)


def load_last(folder: Path, pieces: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give each piece its tensors back, set the random states, and return the progress.

    None where the run had no checkpoint yet. UserError where a file is missing, damaged or of
    another run.
    """
    # A kill may have struck while the checkpoint was written.
    if not recover(folder):
        return None

    # One file a piece; the random states are no piece's.
    held = {path.stem for path in folder.glob("*.safetensors")} - {"random"}
    expected = set(states_of(pieces))  # a piece that remembers nothing yet may have learned since

    # A file of no known piece means that the checkpoint is of a run with other options.
    if unknown := held - set(pieces):
        raise UserError(f"{folder}: holds {', '.join(sorted(unknown))}, which this run has not")

    # A piece that should have a file and has none fails here, as a missing file.
    for name in sorted(held | expected):
        state = read_tensors(folder / f"{name}.safetensors")
        try:
            pieces[name].load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())  # torch's message has a line for each name
            raise UserError(f"{folder}: not this {name}'s weights ({reason})") from None

    # The random states come last, so that nothing above draws from them once they are set.
    set_random_states(read_tensors(folder / "random.safetensors"))
    return read_json(folder / "progress.json")
