"""safetensors files: names and shapes before anything is allocated, reading, writing, checksums."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from errors import UserError
from storage.files import check_regular, readable_by_others, reason_of


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file of tensors that can't be read."""
    reason = reason_of(error) if isinstance(error, OSError) and error.strerror else error
    return UserError(f"{path}: not a readable safetensors file ({reason}); is it damaged?")


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a file's tensors, from its header alone; UserError if damaged."""
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise unreadable(path, error) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU; UserError where it can't be read or is damaged."""
    check_regular(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise unreadable(path, error) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the place of a file; not atomic, and errors are safetensors' own."""
    # safetensors takes contiguous tensors only.
    plain = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    save_file(plain, path, metadata={"format": "pt"})
    readable_by_others(path)


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A SHA-256 of names, dtypes, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # numpy knows no bf16; bytes are bytes.
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
