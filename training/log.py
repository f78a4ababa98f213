"""log.jsonl: one JSON object a line, for each --log_every steps and each evaluation."""

import contextlib
import json
from pathlib import Path
from typing import Any

from errors import UserError
from files import write_text


def kept_lines(path: Path, step: int) -> list[str]:
    """The lines of an earlier part of the run, up to a step."""
    if not path.exists():
        return []
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # a line torn by a kill
            if json.loads(line)["step"] <= step:
                kept.append(line)
    return kept


class Log:
    """log.jsonl, and TensorBoard's events on request.

    On resuming, lines after the checkpoint's step are cut off.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool):
        path = folder / "log.jsonl"
        write_text(path, "".join(line + "\n" for line in kept_lines(path, step)))
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (the whole run)
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
