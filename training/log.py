"""log.jsonl: one JSON object a line, for each --log_every steps and each evaluation."""

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from evaluation import Evaluation
from storage.files import LARGEST_TEXT, read_bytes, reason_of, write_bytes
from storage.json_files import Count, parse_json, record


@dataclass
class LogLine:
    """What every line has."""

    step: Count


def kept_lines(path: Path, step: int) -> bytes:
    """The lines of an earlier part of the run, up to a step.

    The last one may be torn by a kill. Others that are no such line are dropped with a warning.
    """
    if not path.exists():
        return b""
    *lines, _ = read_bytes(path, LARGEST_TEXT).split(b"\n")  # behind the last line break: torn
    kept: list[bytes] = []
    damaged = 0
    for line in lines:
        try:
            values = parse_json(line.decode("utf-8", errors="replace"), str(path))
            if record(LogLine, values, str(path), others_too=True).step <= step:
                kept.append(line + b"\n")
        except UserError:
            damaged += 1
    if damaged:
        warnings.warn(f"{path}: {damaged} damaged lines were dropped", stacklevel=2)
    return b"".join(kept)


def evaluation_line(
    step: int, epoch: int, seconds: float, found: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """The line of an evaluation; `found`: of "dev", and of "train" where it was scored too."""
    line: dict[str, Any] = {"step": step, "epoch": epoch, "seconds": round(seconds, 1)}
    for split, evaluation in found.items():
        scores = evaluation.scores
        of_tasks = {task: own for task, own in scores.items() if task != "overall"}
        for task, own in of_tasks.items():
            line[f"{split}_{task}"] = own["score"]
        line[f"{split}_overall"] = scores["overall"]
        for task, own in of_tasks.items():
            if "loss" in own:
                line[f"{split}_loss_{task}"] = own["loss"]
        line[split] = of_tasks
    return line


class Log:
    """log.jsonl, and TensorBoard's events on request.

    On resuming, lines after the checkpoint's step are cut off.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool):
        self.folder = folder
        self.path = folder / "log.jsonl"
        self.board = None
        write_bytes(self.path, kept_lines(self.path, step))
        try:
            # Without a buffer a line is in the file or an error, whatever becomes of the process.
            self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (the whole run)
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except ImportError:
            raise UserError("--tensorboard needs a package: pip install tensorboard") from None
        except OSError as error:
            raise self.unwritable(error) from None

    def unwritable(self, error: OSError) -> UserError:
        """The error for a log that can't be written."""
        return UserError(
            f"{self.path}: can't be written ({reason_of(error)}); mend that, then go on with "
            f"--resume {self.folder}"
        )

    def write(self, record: dict[str, Any]) -> None:
        """One line; its numbers go to TensorBoard under their names."""
        line = (json.dumps(record) + "\n").encode("utf-8")
        try:
            if self.file.write(line) < len(line):  # as much as the disk had room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for name, value in record.items():
                if self.board and name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(name, value, record["step"])
        except OSError as error:
            raise self.unwritable(error) from None

    def close(self) -> None:
        """Close the files; a full disk must not hide what ended the run."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self.board:
            with contextlib.suppress(OSError):
                self.board.close()
