"""Standard output and error of a script, as streams that never fail.

A closed terminal (EIO), a broken pipe (`| head -1`), a full disk (`> out.txt`), a descriptor that
was closed before the start (`2>&-`): nobody reads what is shown then, and hours of training must
not end with it. What can't be written is dropped, and so is all that follows.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Stream:
    """A text stream whose `write` and `flush` never raise; all else is the stream's own."""

    def __init__(self, stream: TextIO | None):
        if stream is None or stream.closed:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (stays open)
        self.stream = stream
        # A name that the terminal's encoding lacks is shown escaped.
        if isinstance(stream, io.TextIOWrapper):
            self.flush()  # or reconfigure does, and may fail
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            self.stream.write(text)
        except (OSError, ValueError):
            self.give_up()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self.give_up()

    def give_up(self) -> None:
        """Lead the stream's descriptor to nowhere, so that what is still buffered goes there."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Inside, standard output and error never fail; at the end they are flushed and put back."""
    before = sys.stdout, sys.stderr
    inside = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, inside[0]), cast(TextIO, inside[1])
    try:
        yield
    finally:
        # Now, since the interpreter's own flush at its end would fail with a traceback.
        for stream in inside:
            stream.flush()
        sys.stdout, sys.stderr = before
