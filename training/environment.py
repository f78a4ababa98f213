"""What a run depends on beside its options: machine, versions, folders, memory."""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from errors import UserError
from storage.files import reason_of

PACKAGES = ("torch", "numpy", "tokenizers", "scikit-learn", "safetensors")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def pick_device(use_gpu: bool) -> torch.device:
    """CUDA or the CPU; UserError where CUDA is asked for and absent."""
    if use_gpu and not torch.cuda.is_available():
        raise UserError(
            "--use_gpu: torch sees no CUDA device; leave the flag out to run on the CPU"
        )
    return torch.device("cuda" if use_gpu else "cpu")


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the encoder's activations; "auto" is bf16 where the hardware is faster at it."""
    if precision == "auto" and device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif precision == "auto":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = precision == "bf16"
    return torch.bfloat16 if fast else torch.float32


def processor() -> str:
    """The CPU's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The checkout's commit, with "-dirty" behind it where files were changed since."""
    folder = str(Path(__file__).parent)
    try:
        describe = ["git", "-C", folder, "describe", "--always", "--dirty"]
        found = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git on this machine
        found = ""
    return found or "not a git checkout"


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to repeat the run: command, commit, versions, device."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = f"{processor()}, {torch.get_num_threads()} threads"
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0] or "-"), *sys.argv[1:]]),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": name,
        "kernels": torch.backends.cpu.get_cpu_capability(),  # the instructions that torch uses
    }


def display_path(path: str | Path) -> str:
    """A path as one would type it here: relative where it is below the current folder."""
    absolute = Path(path).absolute()  # not resolved: an environment's python is a link
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def check_writable(folder: Path) -> None:
    """UserError where files can't be made in a folder: better now than after an hour."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{folder}: can't be written ({reason}); choose another folder") from None


def keep_freed_memory() -> None:
    """Have glibc keep what is freed; elsewhere than on Linux nothing happens.

    By itself it hands large blocks back to the system, and then each step faults the embedding's
    gradient and the activations in anew, which is a tenth of its time.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
