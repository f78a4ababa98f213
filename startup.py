"""What a script does before its slow imports, in which Ctrl-C would be a traceback.

Imports only what Python itself has loaded by then, so that little time is left for a traceback.
"""

import os
import signal
import sys
from types import FrameType

# What the scripts import before anything else could say that it is missing.
PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "sklearn", "scipy", "tqdm", "requests")


def begin_script() -> None:
    """Have Ctrl-C end the script quietly until errors.run_main() takes over.

    And end it with a line where this Python has not the packages.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored stays ignored
        signal.signal(signal.SIGINT, end_at_once)
    open_closed_descriptors()
    check_packages()


def check_packages() -> None:
    """End with one line where a package is missing: the usual cause is another Python than ours."""
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not missing:
        return
    here = os.path.dirname(os.path.abspath(__file__))
    ours = os.path.join(here, ".venv", "bin", "python")
    advice = f"use {os.path.relpath(ours)}" if os.path.exists(ours) else "run: bash setup.sh"
    text = f"error: {sys.executable} has no package {', '.join(missing)}; {advice}\n"
    os.write(2, text.encode(errors="backslashreplace"))
    os._exit(2)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler of Ctrl-C where nothing is to be saved or cleaned up: a word, no traceback."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(128 + number)


def open_closed_descriptors() -> None:
    """Lead standard descriptors that were closed (`2>&-`) to nowhere.

    Otherwise the next file to be opened gets the number 2, and what a library writes to standard
    error lands in it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
