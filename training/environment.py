"""What a run depends on beside its options: machine, versions, folders, memory."""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from errors import UserError
from storage.files import MEBIBYTE, reason_of

PACKAGES = ("torch", "numpy", "tokenizers", "scikit-learn", "safetensors")
NVIDIA_DRIVER = Path("/proc/driver/nvidia")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def find_gpu() -> torch.device | None:
    """CUDA, else Apple's MPS; None where torch sees neither."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return None


def gpu_name(device: torch.device) -> str:
    """What a GPU calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    # Older torch knows no name of Apple's.
    name_of_mps = getattr(torch.backends.mps, "get_name", platform.machine)
    return f"{name_of_mps()}, MPS"


def why_no_gpu() -> str:
    """What is in the way of a GPU, and what to do, in words."""
    version = torch.__version__
    if platform.system() == "Darwin":
        return f"torch {version} sees no MPS, which takes Apple silicon and a recent macOS"
    if torch.version.cuda is None and torch.version.hip is None:
        if not NVIDIA_DRIVER.exists():
            return f"torch {version} is a build for the CPU, and no NVIDIA driver is here"
        plain = version.partition("+")[0]
        return (
            f"an NVIDIA driver is here, but torch {version} is a build for the CPU; "
            f"pip install --force-reinstall --index-url https://pypi.org/simple torch=={plain}"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return f"torch {version} sees no GPU, and CUDA_VISIBLE_DEVICES is '{hidden}'; unset it"
    return f"torch {version} sees no GPU; does nvidia-smi show one, and is its driver new enough?"


def pick_device(use_gpu: bool) -> torch.device:
    """The GPU where it is asked for, else the CPU; UserError, which says why, where there is none.

    CUDA goes before Apple's MPS.
    """
    if not use_gpu:
        return torch.device("cpu")
    found = find_gpu()
    if found is None:
        raise UserError(f"--use_gpu: {why_no_gpu()}; without the flag the CPU trains")
    return found


def name_of_idle(device: torch.device) -> str:
    """What a GPU calls itself that is left alone: asked by its name, CUDA takes memory there."""
    if device.type != "cuda":
        return gpu_name(device)
    names = set()
    for path in NVIDIA_DRIVER.glob("gpus/*/information"):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "Model":
                names.add(value.strip())
    return ", ".join(sorted(names)) or "CUDA"


def say_idle_gpu(device: torch.device) -> None:
    """Say that a GPU is here, where the CPU is to do the work."""
    found = find_gpu()
    if device.type == "cpu" and found is not None:
        print(f"A GPU is here ({name_of_idle(found)}); --use_gpu runs on it.")


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the encoder's activations; "auto" is what the hardware is fastest at.

    On CUDA that is bf16 from Ampere on and fp16 from Volta on (V100, T4); on a CPU bf16 where it
    has instructions for it. On MPS it is fp32: Apple's M1 has no bf16, and fp16 asks for a scaler
    that torch has for MPS only lately.
    """
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        # Before Volta there are no units for fp16.
        return torch.float16 if torch.cuda.get_device_capability() >= (7, 0) else torch.float32
    if device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def warn_of_slow(dtype: torch.dtype, device: torch.device) -> None:
    """Warn of fp16 on a CPU: few have instructions for it, and torch computes it piecemeal."""
    if dtype == torch.float16 and device.type == "cpu":
        warnings.warn("fp16 on a CPU is many times slower than --precision fp32", stacklevel=2)


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
    name = f"{processor()}, {torch.get_num_threads()} threads"
    if device.type != "cpu":
        name = gpu_name(device)
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


def peak_memory(device: torch.device) -> float:
    """MiB: on CUDA the most memory that tensors took, else the most that this process held.

    Not getrusage on Linux: its ru_maxrss survives exec, so a child process would report its
    parent's peak.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MEBIBYTE

    # VmHWM is the largest resident set of this process alone, in KiB.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE  # bytes on macOS


def keep_freed_memory() -> None:
    """Have glibc keep what is freed; elsewhere than on Linux nothing happens.

    By itself it hands large blocks back to the system, and then each step faults the embedding's
    gradient and the activations in anew, which is a tenth of its time.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
