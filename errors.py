"""What the user can mend is one exception, turned in one place into a line and an exit code."""

import sys
import warnings
from collections.abc import Callable, Iterable

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
    """The user stopped a run, and it was saved. The message says how to go on."""


def run_main(main: Callable[[list[str]], None]) -> None:
    """Call `main(argv)`; a UserError becomes a line on standard error and exit code 2.

    Ctrl-C is exit code 130.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {one_line(str(message))}\n"
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
