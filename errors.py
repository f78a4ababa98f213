"""What the user can mend is one exception, turned in one place into a line and an exit code."""

import sys
import warnings
from collections.abc import Callable


class UserError(Exception):
    """A problem the user can mend.

    The message is one line: what and where, what was expected, what to do.
    """


class Interrupted(Exception):
    """The user stopped a run, and it was saved. The message says how to go on."""


def run_main(main: Callable[[list[str]], None]) -> None:
    """Call `main(argv)`; a UserError becomes a line on standard error and exit code 2.

    Ctrl-C is exit code 130.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
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
