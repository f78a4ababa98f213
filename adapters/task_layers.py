"""Layers of which each task has its own copy, at the top of the encoder.

The cheap kind of an expert: the lower layers are shared, and a task's rows go through its own last
layers (Stickland and Murray 2019, https://arxiv.org/abs/1902.02671, compare PALs with parts of a
task's own on top of BERT). All copies start as the pretrained layer, so step 0 is the identity.
Tokens of no task, as those of a padded batch (BertModel.forward), go through the layers of
the first of --tasks, and these stand in a saved encoder's file; the others are in
heads.safetensors.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adapters.by_task import put, take
from adapters.wrap import Adaptable, Adapter
from attention import Rows, as_rows
from errors import UserError
from options import Options


class TaskLayer(nn.Module):
    """A layer of the encoder, once for each task.

    adapters/wrap.py says what `by_task` is to the files of a saved model.
    """

    def __init__(self, layer: nn.Module, tasks: Iterable[str]):
        super().__init__()
        first, *others = tasks
        self.first = first
        self.by_task = nn.ModuleDict({first: layer})
        for task in others:
            self.by_task[task] = copy.deepcopy(layer)

    def forward(
        self, hidden_states: Tensor, attention_mask: Rows | Tensor, wanted: Tensor | None = None
    ) -> Tensor:
        """As BertLayer's: [..., H] -> [..., H], or of the wanted tokens [K] -> [K, H]."""
        rows = as_rows(attention_mask, hidden_states)
        if not rows.tasks:
            return self.by_task[self.first](hidden_states, rows, wanted)
        if wanted is not None:
            return self.forward_wanted(hidden_states, rows, wanted)

        # What fills the rows of a group up is of no task, and read by nobody: it stays zero.
        out = torch.zeros_like(hidden_states)
        for task in rows.tasks:
            places, own = rows.of_task(task)
            put(out, places, self.by_task[task](take(hidden_states, places), own))
        return out

    def forward_wanted(self, hidden: Tensor, rows: Rows, wanted: Tensor) -> Tensor:
        """Only the wanted tokens [K] of [N, H]: [K, H]."""
        out = hidden.new_zeros(len(wanted), hidden.shape[1])
        everywhere = torch.arange(len(hidden), device=hidden.device)
        for task in rows.tasks:
            places, own = rows.of_task(task)

            # Which of the wanted tokens are this task's, and where they stand among its own.
            mine = take(everywhere, places)
            number = torch.full_like(everywhere, -1)
            number[mine] = torch.arange(len(mine), device=hidden.device)
            local = number[wanted]
            asked = (local >= 0).nonzero().squeeze(1)
            layer = self.by_task[task]
            out[asked] = layer(take(hidden, places), own, local[asked])
        return out


def add_copies(model: Adaptable, options: Options) -> None:
    """Give each task its own copy of the last --task_layers layers."""
    layers = model.bert.bert_layers
    count = options.task_layers
    if count > len(layers):
        raise UserError(
            f"--task_layers {count}: expected at most {len(layers)}, the encoder's layers"
        )
    for number in range(len(layers) - count, len(layers)):
        layers[number] = TaskLayer(layers[number], model.tasks)


def counts(model: Adaptable) -> str:
    """How many layers are copied, and how much the copies add."""
    copied = [layer for layer in model.bert.bert_layers if isinstance(layer, TaskLayer)]
    added = 0
    for layer in copied:
        for task, own in layer.by_task.items():
            if task != layer.first:
                added += sum(p.numel() for p in own.parameters())
    return (
        f"task layers: the last {len(copied)} of {len(model.bert.bert_layers)}, each for "
        f"{len(model.tasks)} tasks, {added / 1e6:.2f}M parameters more"
    )


ADAPTER = Adapter("task_layers", add_copies, combines=True, counts=counts)
