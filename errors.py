"""What the user can mend is one exception, turned in one place into a line and an exit code.

A script calls startup.begin_script() before its slow imports, and run_main() at its end.
"""

import signal
import sys
import warnings
from collections.abc import Callable, Iterable

from startup import end_at_once
from streams import lasting_streams

LONGEST_MESSAGE = 300  # characters
LONGEST_ENDING = 110  # characters that a message keeps behind its cut: what to do stands there
SHOWN_NAMES = 5  # of a list in a message


def one_line(text: str, most: int = LONGEST_MESSAGE) -> str:
    """A text as it can stand in a message: on one line, of at most `most` characters.

    Cells of a data file and names of files may hold anything. What would break the line, move the
    cursor or can't be encoded is written as an escape, as \\x1b. A long text is cut in its middle.
    """
    if len(text) > 2 * most:  # the middle would be cut anyway
        text = text[:most] + text[-most:]
    escaped = ""
    for character in text:
        printable = character.isprintable()
        escaped += character if printable else character.encode("unicode_escape").decode("ascii")
    if len(escaped) <= most:
        return escaped
    ending = min(LONGEST_ENDING, most // 3)
    return f"{escaped[: most - ending - 5]} ... {escaped[-ending:]}"


def listed(names: Iterable[object], shown: int = SHOWN_NAMES) -> str:
    """The first names with commas between, and how many more there are."""
    words = [one_line(str(name), 60) for name in names]
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + more


class UserError(Exception):
    """A problem the user can mend.

    The message is one line: what and where, what was expected, what to do. It is cut to 300
    characters, and what can't be shown in it is escaped.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class Interrupted(Exception):
    """The user stopped a run, and it was saved.

    The message says how to go on. The exit code is 128 and the number of the signal, as shells have
    it: 130 after Ctrl-C.
    """

    def __init__(self, message: str, code: int = 128 + signal.SIGINT):
        super().__init__(message)
        self.code = code


def run_main(main: Callable[[list[str]], None]) -> None:
    """Call `main(argv)`; a UserError becomes a line on standard error and exit code 2.

    Ctrl-C is exit code 130. Standard output and error never fail meanwhile; see streams.py.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {one_line(str(message))}\n"
    began = signal.getsignal(signal.SIGINT) is end_at_once
    with lasting_streams():
        try:
            if began:  # from here on there may be something to clean up
                signal.signal(signal.SIGINT, signal.default_int_handler)
            main(sys.argv[1:])
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            sys.exit(stop.code)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        finally:
            # What follows takes a while too: a pipe that is full, the interpreter's clean-up.
            if began:
                signal.signal(signal.SIGINT, end_at_once)
