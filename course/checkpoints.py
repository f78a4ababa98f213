"""The course's checkpoints hold more than tensors: argparse and model settings, and numpy's random
state. Since 2.6 torch.load refuses all classes but those it is told are safe.

Told here: classes of plain data, which run nothing of the file's. Anything else stays refused.
"""

import argparse
import types
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct

SAFE_CLASSES: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    # np.random.get_state() holds one array of uint32. This is what numpy's pickles of it name.
    np.ndarray,
    np.dtype,
    type(np.dtype(np.uint32)),
    _reconstruct,  # makes an empty array, which the pickle then fills
    (_reconstruct, "numpy.core.multiarray._reconstruct"),  # as numpy 1 spelt it
]


def allow_course_checkpoints() -> None:
    """Let torch.load(path) read the course's checkpoints, in this process."""
    torch.serialization.add_safe_globals(SAFE_CLASSES)
