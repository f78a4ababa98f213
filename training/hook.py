"""What a hook is: what happens around optimizer steps, such as unfreezing or averaging weights."""

import contextlib
from collections.abc import Iterator


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
