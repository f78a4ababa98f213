"""Which kernel a function of MKL takes is settled before several threads call it.

The race itself needs a loaded Intel machine and many processes: benchmarks/first_calls.py.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import multitask_classifier
from options import Options
from training.repeatable import FUNCTIONS, settle_arithmetic

ROOT = Path(__file__).parents[1]


class FirstSizes(TorchDispatchMode):
    """The number of elements in each function's first call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.__name__.split(".")[0].removeprefix("_foreach_")
        if name in FUNCTIONS and name not in self.seen:
            first = args[0][0] if isinstance(args[0], list | tuple) else args[0]
            self.seen[name] = first.numel()
        return function(*args, **(kwargs or {}))


def test_training_settles_the_kernels_before_its_first_step(options: Options) -> None:
    with FirstSizes() as first:
        multitask_classifier.train(options)
    assert first.seen == dict.fromkeys(FUNCTIONS, 1)


def test_it_changes_no_result_and_draws_nothing() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    x = torch.rand(100_000)
    values = {name: getattr(torch, name)(x) for name in FUNCTIONS}
    threads = torch.get_num_threads()
    torch.set_rng_state(before)
    settle_arithmetic()
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert all(getattr(torch, name)(x).equal(y) for name, y in values.items())


def test_mkl_takes_as_many_threads_as_were_set() -> None:
    """MKL_VERBOSE tells whether it may choose a smaller number by itself."""
    if not torch.backends.mkl.is_available():
        pytest.skip("this torch has no MKL")
    code = (
        "import torch; from training.repeatable import settle_arithmetic; "
        "settle_arithmetic(); torch.ones(64, 64) @ torch.ones(64, 64)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"MKL_VERBOSE": "1", "PATH": ""},
        capture_output=True,
        text=True,
    ).stdout
    assert "SGEMM" in told and "Dyn:0" in told
