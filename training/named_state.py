"""An optimizer's state by the names of its parameters, as checkpoints hold it."""

from typing import Any

import torch
from torch import Tensor, nn

from errors import UserError


class NamedState:
    """An optimizer's state by the names of its parameters, flat, as checkpoints hold it.

    step.NAME (int64, 0 before the first step) and, from the first step on, MOMENT.NAME in the
    parameter's shape for each of `optimizer.moments`. Raises ValueError where the optimizer was
    given parameters without names.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.moments: tuple[str, ...] = optimizer.moments  # type: ignore[attr-defined]

        # All parameters of all groups under their names.
        self.named: dict[str, nn.Parameter] = {}
        for group in optimizer.param_groups:
            if "param_names" not in group:
                raise ValueError(
                    "this optimizer was given parameters without names; "
                    "give (name, parameter) tuples"
                )
            self.named.update(zip(group["param_names"], group["params"], strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's own tensors, not copies."""
        flat: dict[str, Tensor] = {}
        for name, p in self.named.items():
            # A parameter that has never had a gradient has no state yet.
            state = self.optimizer.state.get(p) or {"step": 0}
            flat[f"step.{name}"] = torch.tensor(state["step"])
            for moment in self.moments:
                if moment in state:
                    flat[f"{moment}.{name}"] = state[moment].contiguous()
        return flat

    def check(self, flat: dict[str, Tensor]) -> None:
        """UserError where a state's names or shapes are not this optimizer's."""
        # Which names there must be, and of which shape; one that took no step has no moments.
        expected: dict[str, torch.Size | None] = {}
        for name, p in self.named.items():
            expected[f"step.{name}"] = None
            if int(flat.get(f"step.{name}", 0)):
                expected.update({f"{moment}.{name}": p.shape for moment in self.moments})

        # Names first: without them shapes can't be compared.
        wrong = sorted(set(expected) ^ set(flat))
        if wrong:
            named = [f"{'missing' if x in expected else 'unexpected'} {x}" for x in wrong[:4]]
            raise UserError(
                "the optimizer's state is of another model: "
                f"{len(wrong)} names differ ({', '.join(named)})"
            )
        for key, shape in expected.items():
            if shape is not None and flat[key].shape != shape:
                raise UserError(
                    f"the optimizer's {key} is {tuple(flat[key].shape)}, expected {tuple(shape)}"
                )

    def load_state_dict(self, flat: dict[str, Tensor]) -> None:
        """state_dict's inverse; copies.

        Raises UserError, and changes nothing, where a name or shape does not fit.
        """
        # Only a state that fits as a whole may replace what is there.
        self.check(flat)
        self.optimizer.state.clear()
        for name, p in self.named.items():
            step = int(flat[f"step.{name}"])
            if step:
                state: dict[str, Any] = {"step": step}
                for moment in self.moments:
                    empty = torch.empty_like(p, requires_grad=False)
                    state[moment] = empty.copy_(flat[f"{moment}.{name}"])
                self.optimizer.state[p] = state
