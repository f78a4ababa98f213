"""Signals that end a run early, and what it says then.

Ctrl-C, SIGTERM (kill, and systems that shut down), SIGHUP (the terminal was closed), SIGUSR1
(`sbatch --signal=USR1@120`: two minutes before Slurm's limit) and SIGXCPU (the limit of CPU time)
let the run finish its step and save.
"""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from errors import Interrupted
from training.environment import display_path

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)

# The second of these has its old meaning. Of a closed terminal bash and the kernel both tell, so
# that a second SIGHUP is no sign of haste; nor is a second SIGUSR1.
AT_ONCE = (signal.SIGINT, signal.SIGTERM)

MAIN_SCRIPT = Path(__file__).parents[1] / "multitask_classifier.py"  # which resumes any run


class Signals:
    """Inside, the first signal that asks to end is taken note of; `number` is 0 before.

    Signals that the process was started to ignore, as `nohup` has it for SIGHUP, stay ignored.
    """

    def __init__(self) -> None:
        self.number = 0
        self.handlers: dict[int, Any] = {}  # those from before

    def __enter__(self) -> "Signals":
        """Take over the signals; outside of the main thread Python does not allow it."""
        for number in ENDING:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_IGN, None):  # None: not Python's, so it can't be given back
                continue
            with contextlib.suppress(ValueError):
                self.handlers[number] = handler
                signal.signal(number, self.take)
        return self

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.number = self.number or number
        word = "stopping after this step"
        if number in AT_ONCE:
            signal.signal(number, self.handlers[number])
            word += "; once more stops at once, unsaved"
        # Not by print: the signal may have interrupted one, which can't be entered twice.
        with contextlib.suppress(OSError, ValueError):
            if sys.__stderr__ is not None:
                os.write(sys.__stderr__.fileno(), f"\n{word}\n".encode())

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self.handlers.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)


def interrupted(folder: Path, when: str, number: int = signal.SIGINT) -> Interrupted:
    """What an interrupted run ends with: the command that resumes it, and the signal's number.

    The command has a line of its own: there it can be copied, and mostly fits.
    """
    script = [display_path(sys.executable), display_path(MAIN_SCRIPT)]
    command = shlex.join([*script, "--resume", str(folder)])
    return Interrupted(f"stopped {when}; go on with:\n{command}", 128 + number)


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Around what follows the last step: Ctrl-C ends it with the command that does it again.

    Nothing is to be saved then: the last checkpoint has all steps, and a run without results in
    its run.json counts as unfinished.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted(folder, "after the last step, before the run's end") from None
