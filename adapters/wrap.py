"""What all adapters have in common: one record each, and what is saved of an adapted model.

An adapter changes a finished encoder from outside: it wraps linears, fills the slots that bert.py
leaves empty, or freezes parts. The encoder does not know of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from errors import UserError, listed
from options import Options


def no_merge(model: nn.Module) -> None:
    """For adapters that no linear can take in."""
    raise UserError("this adapter can't be folded into the encoder's weights; save it as it is")


@dataclass(frozen=True)
class PeftForm:
    """An adapter as the library PEFT saves it: what its two files hold."""

    config: dict[str, Any]  # adapter_config.json, but for the base model's name
    names: dict[str, str]  # of the encoder's tensors: our name -> that in adapter_model.safetensors


@dataclass(frozen=True)
class Adapter:
    """One kind of adapter; ADAPTERS in multitask_bert.py lists them."""

    prefix: str  # its options are the one of this name and those that begin with it and "_"
    adapt: Callable[[nn.Module, Options], None]  # changes the model in place
    merge: Callable[[nn.Module], None] = no_merge  # folds the update into plain weights, in place
    rate_factor: float = 1.0  # its learning rate as a multiple of full fine-tuning's
    # What of a model it adapted, in a line for the console; None: nothing is said.
    counts: Callable[[nn.Module], str] | None = None
    # How PEFT saves it, made from the adapted encoder; None: PEFT has no such adapter.
    in_peft: Callable[[nn.Module, Options], PeftForm] | None = None

    def wanted(self, options: Options) -> bool:
        """Whether the options ask for it."""
        return bool(getattr(options, self.prefix))

    def merge_wanted(self, options: Options) -> bool:
        """Whether the options ask for its merging at the end of a run."""
        return self.wanted(options) and bool(getattr(options, f"{self.prefix}_merge", False))

    def own_options(self) -> dict[str, Any]:
        """Its options with their defaults."""
        return {
            option.name: option.default
            for option in fields(Options)
            if option.name == self.prefix or option.name.startswith(f"{self.prefix}_")
        }

    def without(self, options: Options) -> Options:
        """The options with all of this adapter's at their defaults."""
        return replace(options, **self.own_options())


def partial_state(model: nn.Module, trained: frozenset[str]) -> dict[str, Tensor]:
    """The tensors that training changes, by name: the parameters in `trained`, and buffers."""
    state = {name: p.detach() for name, p in model.named_parameters() if name in trained}
    for name, buffer in model.named_buffers():
        if not name.endswith("position_ids"):
            state[name] = buffer
    return state


def fits(state: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """UserError where names or shapes of saved tensors are not the model's own.

    The message begins with `source`.
    """
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        raise UserError(
            f"{source}: does not fit the model (the same targets, layers and heads?); "
            f"missing: {listed(missing) or 'none'}; unexpected: {listed(unexpected) or 'none'}"
        )
    wrong = [
        f"{name} {tuple(x.shape)} for {tuple(own[name].shape)}"
        for name, x in state.items()
        if x.shape != own[name].shape
    ]
    if wrong:
        raise UserError(
            f"{source}: does not fit the model (the same rank?); wrong shapes: {'; '.join(wrong)}"
        )
