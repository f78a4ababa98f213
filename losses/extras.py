"""Extras: further terms of a step's loss, such as regularisers and contrastive objectives.

An extra is a module, `extra(model, forward, batches) -> {name: scalar}`, called in train mode. Its
terms are added to the step's loss and logged under names of their own. Its parameters train with
the model's and its state is in the checkpoint. It may call `model(forward.packed, embeddings)`
again; without embeddings the dropout on them is drawn anew.

A term must be a mean over all examples of `batches` together, not a sum of tasks' means: with
--accumulation a step calls the extra once a part, with a combiner once a task (whose gradient the
term then joins), and each call is weighed by its share of the step's examples.

EXTRAS maps a name to `(model, options) -> extra`, or to None where the options leave it out.
"""

from collections.abc import Callable, Iterable

from torch import nn

from adapters import diff_pruning
from losses.balance import balance
from options import Options

EXTRAS: dict[str, Callable[[nn.Module, Options], nn.Module | None]] = {
    "open_gates": diff_pruning.penalty,
    "experts_balance": balance,
}


def make_extras(model: nn.Module, options: Options) -> nn.ModuleDict:
    """The extras that the options ask for, by name."""
    made = {name: make(model, options) for name, make in EXTRAS.items()}
    return nn.ModuleDict({name: extra for name, extra in made.items() if extra is not None})


def add_terms(terms: dict, more: dict, tasks: Iterable[str]) -> None:
    """Put an extra's terms beside those that are there; ValueError where a name is taken."""
    taken = (set(terms) | set(tasks)) & set(more)
    if taken:
        raise ValueError(f"two terms of one name: {', '.join(sorted(taken))}")
    terms.update(more)
