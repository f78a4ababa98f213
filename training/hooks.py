"""Hooks: what happens around optimizer steps, such as unfreezing layers or averaging weights.

A hook is made from (model, options), or None where the options leave it out; HOOKS maps names to
makers. It may have state_dict() and load_state_dict() of tensors, which the checkpoint keeps.
"""

import contextlib
from collections.abc import Callable, Iterator

from torch import nn

from options import Options


class Hook:
    """A hook that does nothing; others override what they need."""

    def before_step(self, step: int, progress: float) -> None:
        """Before the forward pass; `progress` from 0 to 1. What is frozen here does not move."""

    def after_step(self, step: int) -> None:
        """After the optimizer has moved the weights."""

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation and the saving of the best model: other weights may stand in."""
        yield


HOOKS: dict[str, Callable[[nn.Module, Options], Hook | None]] = {}


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
