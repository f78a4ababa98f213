"""Checkpoints, written whole or not at all, checked when read, resumed bit for bit.

    runs/<date>-<name>/
        options.json      the options
        run.json          exact command, commit, versions, device, data checksums, results
        log.jsonl         a line every --log_every steps and one an evaluation
        last/             what --resume needs: a file for each piece of the run that has a state,
                          random states, and progress.json with all other state of the loop
        previous/         the checkpoint before it, to fall back to where last/ is damaged
        best/             what MultitaskBERT.load needs: the model of the best evaluation
        predictions/      the prediction files; copies go where --predictions says
        damaged/          a last/ that could not be used; nobody reads it
        lock              held by the process that trains here

A folder is written beside its final name, synced and renamed into place: a kill at any moment
leaves the old or the new one. Each has a manifest (manifest.py).

Of a run that has finished last/ holds progress.json and the random states only, since its weights
are best/'s; --keep_last keeps all of it. previous/ and damaged/ go.
"""

import random
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from errors import UserError, listed
from storage.files import reason_of, sha256_of, sync
from storage.json_files import write_json
from storage.tensor_files import read_tensors, write_tensors
from training.manifest import NAME, check_manifest, write_manifest
from training.progress import Progress

# ---- whole folders


def replace_folder(
    folder: Path, write: Callable[[Path], None], previous: Path | None = None
) -> None:
    """Let `write` fill a new folder and put it in the place of `folder`.

    The one that stood there becomes `previous`, or is deleted. That happens last: up to then three
    of them take up space, but a disk that fills up while the new one is written leaves both others.
    """
    # Both are siblings of the folder, since a rename cannot cross file systems.
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")

    # What an earlier kill left would be in the way.
    recover(folder, previous)
    try:
        new.mkdir(parents=True)
        write(new)

        # The contents must be on the disk before the name that vouches for them.
        for path in [*new.rglob("*"), new]:
            sync(path)

        # A folder that is not empty can't be renamed over, so the old one steps aside first.
        if folder.exists():
            folder.rename(old)
        new.rename(folder)

        # The renames themselves are on the disk only once the parent is; then the old one may go.
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(
            f"{folder}: can't be written ({reason}); mend that, then go on with "
            f"--resume {folder.parent}"
        ) from None
    finally:
        recover(folder, previous)


def recover(folder: Path, previous: Path | None = None) -> None:
    """Finish what replace_folder began, or undo it: also what a kill inside it left behind."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    try:
        if not folder.exists() and old.exists():
            # Stopped between the two renames: the new one is whole.
            (new if new.exists() else old).rename(folder)
        shutil.rmtree(new, ignore_errors=True)

        # The old one was replaced by now.
        if previous and old.exists():
            shutil.rmtree(previous, ignore_errors=True)
            old.rename(previous)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be renamed ({reason_of(error)})") from None


# ---- random states


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CUDA and MPS too


def random_states() -> dict[str, Tensor]:
    """The states of torch's generators.

    Shuffles and samplers need none: they are functions of seed and position.
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # a run on the CPU leaves the device alone
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """random_states()'s inverse."""
    # A checkpoint may go on where there is no GPU, or come from where there was none.
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


# ---- checkpoints


def states_of(pieces: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each piece of a run that remembers some: what its state_dict() gives."""
    # Pieces without a state, or with an empty one, get no file.
    states: dict[str, dict[str, Tensor]] = {}
    for name, piece in pieces.items():
        state = piece.state_dict() if hasattr(piece, "state_dict") else {}
        if state:
            states[name] = state
    return states


def save_last(run: Path, pieces: Mapping[str, Any], progress: dict[str, Any]) -> None:
    """Write all that a later process needs to go on into a run's folder, as last/.

    That is each piece's tensors, the random states, and `progress`, which is JSON (step, positions,
    best score, ...). The checkpoint before stays as previous/.
    """

    def write(new: Path) -> None:
        for name, state in states_of(pieces).items():
            write_tensors(new / f"{name}.safetensors", state)

        # Beside the pieces' files; progress.json holds whatever is not a tensor.
        write_tensors(new / "random.safetensors", random_states())
        write_json(new / "progress.json", progress)
        write_manifest(new)

    replace_folder(run / "last", write, previous=run / "previous")


def has_pieces(last: Path) -> bool:
    """Whether a whole last/ has the pieces' tensors: a finished run has kept them or not."""
    return (last / "model.safetensors").exists()


def clear_checkpoints(run: Path, keep_last: bool) -> None:
    """Delete what a run that has finished needs no more; last/ stays whole where `keep_last`.

    Predictions and results are written by now. A kill in between leaves some of it, up to the next
    time that the run is resumed.
    """
    last = run / "last"
    for name in ("previous", "damaged"):
        shutil.rmtree(run / name, ignore_errors=True)
    if keep_last or not has_pieces(last):
        return

    def write(new: Path) -> None:
        for name in ("progress.json", "random.safetensors"):
            shutil.copyfile(last / name, new / name)
        write_manifest(new)

    replace_folder(last, write)


def whole_last(run: Path, read: Callable[[Path], Progress]) -> Progress | None:
    """See to it that last/ is whole, and give its progress; None where there is no checkpoint yet.

    Where last/ is missing or damaged, previous/ takes its place. `read` reads progress.json, and
    raises UserError where it is not this run's. UserError where neither folder can be used.
    """
    # A kill may have struck while one was written.
    last, previous = run / "last", run / "previous"
    recover(last, previous)
    if not last.exists() and not previous.exists():
        return None

    def checked(folder: Path) -> Progress:
        check_manifest(folder)
        return read(folder / "progress.json")

    try:
        return checked(last)
    except UserError as error:
        damage = str(error).removeprefix(f"{run}/")
    if not previous.exists():
        raise UserError(f"{run}: {damage}; there is no checkpoint before it; {best_is(run)}")
    try:
        progress = checked(previous)
    except UserError as error:
        before = str(error).removeprefix(f"{run}/")
        raise UserError(f"{run}: {damage}, and {before}; {best_is(run)}") from None
    warnings.warn(
        f"{run}: {damage}: going on from the checkpoint before it, step {progress.step}",
        stacklevel=2,
    )

    # What is damaged steps aside, or the next save would make it previous/.
    try:
        if last.exists():
            shutil.rmtree(run / "damaged", ignore_errors=True)
            last.rename(run / "damaged")
        previous.rename(last)
    except OSError as error:
        raise UserError(f"{last}: can't be renamed ({reason_of(error)})") from None
    return progress


def best_sum(best: Path) -> str:
    """Which model a best/ holds: the SHA-256 of its manifest."""
    return sha256_of(best / NAME)


def fault_of_best(best: Path, expected: str, may_be_merged: bool) -> tuple[str, bool]:
    """What is wrong with a run's best/, and whether it is damaged; "" where nothing is.

    `expected`: the best_sum() that the checkpoint knows, "" where it knows of no best model.
    `may_be_merged`: any whole model will do where one is expected, since adapters may have been
    folded into that one.
    """
    if not best.exists():
        return f"{best}: missing", False
    try:
        check_manifest(best)
        same = best_sum(best) == expected
    except UserError as error:
        return str(error), True
    if expected and (may_be_merged or same):
        return "", False
    return f"{best}: not the model of the checkpoint's best epoch", False


def best_is(run: Path) -> str:
    """How to go on where no checkpoint of a run can be used."""
    try:
        check_manifest(run / "best")
    except UserError:
        return "there is no good best/ either: begin a new run"
    return f'best/ is good: use it with MultitaskBERT.load("{run}"), or begin a new run'


def check_fits(name: str, expected: dict[str, Tensor], held: dict[str, Tensor]) -> None:
    """UserError where a tensor has another shape or dtype than the piece's own."""
    for key, tensor in held.items():
        own = expected.get(key, tensor)  # a piece may have learned more since it was made
        if tensor.dtype != own.dtype or tensor.shape != own.shape:
            raise UserError(
                f"{name}: {key} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"expected {own.dtype} {tuple(own.shape)}"
            )


def load_last(folder: Path, pieces: Mapping[str, Any]) -> None:
    """Give each piece its tensors back, and set the random states.

    UserError where a file is missing, damaged or of another run.
    """
    # One file a piece; the random states are no piece's.
    held = {path.stem for path in folder.glob("*.safetensors")} - {"random"}
    expected = states_of(pieces)  # a piece that remembers nothing yet may have learned since

    # A file of no known piece means that the checkpoint is of a run with other options.
    if unknown := sorted(held - set(pieces)):
        raise UserError(f"{folder}: holds {listed(unknown)}, which this run has not")

    # A piece that should have a file and has none fails here, as a missing file. The random states
    # come last, so that nothing before draws from them once they are set.
    for name in [*sorted(held | set(expected)), "random"]:
        path = folder / f"{name}.safetensors"
        state = read_tensors(path)
        try:
            load = set_random_states if name == "random" else pieces[name].load_state_dict
            check_fits(str(path), expected.get(name, {}), state)
            load(state)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())  # torch's message has a line for each name
            raise UserError(f"{folder}: not this {name}'s state ({reason})") from None
