"""What makes arithmetic on a CPU give the same bits in every run of the same machine.

torch hands some functions of fp32 tensors to Intel's MKL, piece by piece from several threads. Each
such function chooses its kernel when it is first called. In the MKL of torch 2.10 to 2.13 (oneMKL
2024.2) a first call from several threads at once may run a low-accuracy kernel for one thread's
piece, on a loaded machine in up to some percent of the processes (pytorch/pytorch#188792;
benchmarks/first_calls.py counts them). AdamW's square root is such a function: of 16 pairs of equal
runs under load 2 had differed. A first call from one thread settles the choice.
"""

import torch

# The functions that torch's vml.h hands to MKL.
FUNCTIONS = (
    "acos",
    "asin",
    "atan",
    "cos",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "sin",
    "sqrt",
    "tan",
    "tanh",
)


def settle_arithmetic() -> None:
    """Fix the kernels of MKL's functions and the number of threads; to be called before any work.

    Costs less than a millisecond and changes no result.
    """
    # One element is less than a thread's share, so that only this thread calls.
    for name in FUNCTIONS:
        for dtype in (torch.float32, torch.float64):
            getattr(torch, name)(torch.full((1,), 0.5, dtype=dtype))

    # Where the number is set, MKL may not choose a smaller one by itself (MKL_DYNAMIC).
    torch.set_num_threads(torch.get_num_threads())
