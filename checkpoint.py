"""Run folders and checkpoints: written whole or not at all, resumed bit for bit.

    runs/<date>-<name>/
        options.json      the options; run.json: exact command, commit, versions, device, data checksums, results
        log.jsonl         a line every --log_every steps and one an evaluation
        last/             what --resume needs: model, optimizer, random states, positions in the data
        best/             what MultitaskBERT.load needs: the model of the best evaluation

A folder is written beside its final name, synced and renamed into place: a kill at any moment
leaves the old or the new one.
"""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from errors import UserError


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder and put it in the place of `folder`."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    recover(folder)
    try:
        new.mkdir(parents=True)
        write(new)
        for path in [*new.iterdir(), new]:
            sync(path)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: can't be written ({getattr(error, 'strerror', None) or error})"
        ) from None


def recover(folder: Path) -> bool:
    """Clear up after a kill inside replace_folder; whether `folder` is there, whole."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # killed between the two renames: the new one is whole
        new.rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return folder.exists()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(text, encoding="utf-8")
        sync(new)
        os.replace(new, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, or UserError."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({error})") from None


def read_json(path: Path) -> Any:
    """A JSON file, or UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error})") from None


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CUDA too


def random_states() -> dict[str, Tensor]:
    """The states of torch's generators. Shuffles and samplers need none: they are functions of seed
    and position.
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def save_last(
    folder: Path, model: dict[str, Tensor], optimizer: dict[str, Tensor], progress: dict[str, Any]
) -> None:
    """Write all that a later process needs to go on: `progress` is JSON (step, positions, best
    score, ...).
    """

    def write(new: Path) -> None:
        save_file({k: v.detach().contiguous() for k, v in model.items()}, new / "model.safetensors")
        save_file(optimizer, new / "optimizer.safetensors")
        save_file(random_states(), new / "random.safetensors")
        write_json(new / "progress.json", progress)

    replace_folder(folder, write)


def load_last(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """Model, optimizer and progress of the last checkpoint, the random states set; None where the
    run had none yet.
    """
    if not recover(folder):
        return None
    states = read_tensors(folder / "random.safetensors")
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    return (
        read_tensors(folder / "model.safetensors"),
        read_tensors(folder / "optimizer.safetensors"),
        read_json(folder / "progress.json"),
    )


class Log:
    """log.jsonl, and TensorBoard's events on request. On resuming, lines after the checkpoint's
    step are cut off.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool):
        self.path = folder / "log.jsonl"
        kept = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line torn by a kill
                    kept += [line] if json.loads(line)["step"] <= step else []
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (open for the whole run)
        self.board = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError("--tensorboard needs a package: pip install tensorboard") from None
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, record: dict[str, Any]) -> None:
        """One line; its numbers go to TensorBoard under their names."""
        self.file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if self.board and name != "step" and isinstance(value, int | float):
                self.board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.board:
            self.board.close()
