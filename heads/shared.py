"""Layers that several tasks share beside their own heads.

They are modules of the model, `model.shared`, so that they are saved once; the pipelines only know
of them. What one gives for a task's features [B, F] is added to the task's logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dropout import Dropout
from errors import UserError
from options import Options
from tasks import Task


def shared_pair_layer(
    tasks: Mapping[str, Task], pipelines: nn.ModuleDict, options: Options
) -> nn.Module | None:
    """Dropout and a linear for all tasks of pairs, from their features to their logits.

    None where it is not asked for; UserError where the tasks' features do not have one width.
    """
    if not options.shared_pair_layer:
        return None

    # A task that replaces its pipeline has features of another kind.
    own: dict[str, Any] = {
        name: pipelines[name] for name, task in tasks.items() if task.pair and not task.pipeline
    }
    sizes = {name: (own[name].join.features, tasks[name].outputs) for name in own}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size} to {outputs}" for name, (size, outputs) in sizes.items())
        raise UserError(
            f"--shared_pair_layer needs features of one width ({found}): give tasks of pairs the "
            "same --pooling and --pair_features"
        )

    # The pipelines hold it in a tuple, where it is no part of theirs.
    features, outputs = next(iter(sizes.values()))
    layer = nn.Sequential(Dropout(options.hidden_dropout_prob), nn.Linear(features, outputs))
    for pipeline in own.values():
        pipeline.beside += (layer,)
    return layer


# name: maker of a module, or of None where the options leave it out
SHARED: dict[str, Callable[[Mapping[str, Task], nn.ModuleDict, Options], nn.Module | None]] = {
    "pairs": shared_pair_layer,
}


def make_shared(
    tasks: Mapping[str, Task], pipelines: nn.ModuleDict, options: Options
) -> nn.ModuleDict:
    """The shared layers that the options ask for, by name; the tasks' pipelines know of them."""
    made = {name: make(tasks, pipelines, options) for name, make in SHARED.items()}
    return nn.ModuleDict({name: layer for name, layer in made.items() if layer is not None})
