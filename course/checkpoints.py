"""The course's checkpoints hold more than tensors: argparse and model settings, and numpy's random
state. Since 2.6 torch.load refuses all classes but those it is told are safe.

Told here: two classes of plain settings, and stand-ins for the three names in np.random's state.
numpy's own are not safe: np.ndarray(1, "O", bytes) takes a file's bytes for addresses of objects.
Anything else stays refused, arrays of other kinds too.
"""

import argparse
import pickle
import types
from typing import Any

import numpy as np
import torch


class UnsignedType:
    """Stands in for np.dtype, of which a random state names one, little-endian uint32."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if code != "u4":
            raise pickle.UnpicklingError(f"an array of {code}, expected u4, numpy's random state")

    def __setstate__(self, state: tuple) -> None:
        if state[1] != "<":
            raise pickle.UnpicklingError(f"a byte order {state[1]}, expected <")


class RandomNumbers(np.ndarray):
    """Stands in for np.ndarray: uint32 [N], empty until a pickle fills it."""

    def __new__(cls, *arguments: Any) -> "RandomNumbers":
        if arguments:
            raise pickle.UnpicklingError("an array made of arguments, expected a random state")
        return super().__new__(cls, (0,), np.uint32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, content = state
        if not isinstance(dtype, UnsignedType) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of objects, expected numpy's random state")
        if shape != (len(content) / 4,):
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(content)} bytes")
        numbers = np.frombuffer(content, dtype="<u4")
        self.resize(numbers.shape, refcheck=False)
        self[:] = numbers

    def __reduce__(self) -> Any:
        """As a plain array: a checkpoint made of this one is the course's again."""
        return self.view(np.ndarray).__reduce__()


def empty_numbers(kind: Any, shape: Any, code: Any) -> RandomNumbers:
    """Stands in for numpy's _reconstruct, which makes the empty array that a pickle fills."""
    return RandomNumbers()


SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    (UnsignedType, "numpy.dtype"),
    (RandomNumbers, "numpy.ndarray"),
    (empty_numbers, "numpy._core.multiarray._reconstruct"),
    (empty_numbers, "numpy.core.multiarray._reconstruct"),  # as numpy 1 spelt it
]


def allow_course_checkpoints() -> None:
    """Let torch.load(path) read the course's checkpoints, in this process."""
    torch.serialization.add_safe_globals(SAFE_GLOBALS)
