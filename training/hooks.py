"""Which hooks a run has, and their work around an evaluation.

A hook is made from (model, options), or None where the options leave it out; HOOKS maps names to
makers. It may have state_dict() and load_state_dict() of tensors, which the checkpoint keeps.
"""

import contextlib
from collections.abc import Callable, Iterator

from torch import nn

from adapters import diff_pruning
from options import Options
from training.hook import Hook

HOOKS: dict[str, Callable[[nn.Module, Options], Hook | None]] = {
    # name: maker
    "pruning": diff_pruning.pruning,
}


def make_hooks(model: nn.Module, options: Options) -> dict[str, Hook]:
    """The hooks that the options ask for, by name."""
    made = {name: make(model, options) for name, make in HOOKS.items()}
    return {name: hook for name, hook in made.items() if hook is not None}


@contextlib.contextmanager
def evaluation_weights(hooks: dict[str, Hook]) -> Iterator[None]:
    """Inside all hooks' evaluating()."""
    with contextlib.ExitStack() as stack:
        for hook in hooks.values():
            stack.enter_context(hook.evaluating())
        yield
