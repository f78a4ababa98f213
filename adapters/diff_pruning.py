"""Diff pruning (Guo et al. 2020, https://arxiv.org/abs/2012.07463): a sparse change of all weights.

A frozen weight W becomes W + z * w, with a learned w, 0 at first, and hard-concrete gates z. The
loss gets the expected number of open gates, times --diff_pruning_penalty (section 3.1). Structured,
each weight and each bias is a group with a gate of its own too, so z is the product of two (section
3.3). At a share of the run, --diff_pruning_fix, the largest |z * w| stay, as many as
--diff_pruning_target says of all, and train on with gates that are fixed (section 3.2). Before that
share every evaluation, and the model that is kept of it, is pruned in the same way.

Here the paper's one draw of z at the end is its value without noise. Left out: changes of the
embeddings and norms, and sparse files: a change is saved dense, with its gates.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.hard_concrete import CLOSED, OPEN, expected, open_probability, sampled
from adapters.wrap import Adaptable, Adapter
from options import Options
from training.hook import Hook

START = 5.0  # log alpha of every gate: nearly all are open
# Gates are held as log alpha / SPEED. An optimizer such as AdamW moves all numbers by about the
# learning rate, which would not close them in a run's time: the paper's code has .1 for them.
SPEED = 500.0


class Diff(nn.Module):
    """The change of one tensor, and its gates.

    All are flat: vectors get no weight decay, which would close the gates by half.
    """

    def __init__(self, like: Tensor, structured: bool):
        super().__init__()
        flat = like.detach().flatten()
        self.shape = like.shape
        self.diff = nn.Parameter(torch.zeros_like(flat))
        self.gates = nn.Parameter(torch.full_like(flat, START / SPEED))
        self.group = nn.Parameter(torch.full_like(flat[:1], START / SPEED)) if structured else None

    def forward(self) -> Tensor:
        """z * w in the tensor's shape; z is drawn anew in train mode."""
        draw = sampled if self.training else expected
        change = draw(self.gates * SPEED) * self.diff
        if self.group is not None:
            change = change * draw(self.group * SPEED)
        return change.view(self.shape)

    def expected_count(self) -> Tensor:
        """How many gates are open on average: a scalar."""
        count = open_probability(self.gates * SPEED).sum()
        return count if self.group is None else count * open_probability(self.group * SPEED).sum()

    @torch.no_grad()
    def fix(self, change: Tensor) -> None:
        """Make `change`, flat, the one: its gates are open where it is not 0, and closed else."""
        self.diff.copy_(change)
        self.gates.copy_(torch.where(change != 0, OPEN / SPEED, CLOSED / SPEED))
        if self.group is not None:
            self.group.fill_(OPEN / SPEED)


class DiffLinear(nn.Module):
    """A frozen linear whose weight and bias are changed: [..., in] -> [..., out], in x's dtype."""

    def __init__(self, base: nn.Linear, structured: bool):
        super().__init__()
        self.base = base.requires_grad_(False)
        # The sum is made in fp32, in which a small change is not lost: see Adapter.adapt.
        self.master = [base.weight, base.bias]
        self.weight = Diff(base.weight, structured)
        self.bias = Diff(base.bias, structured)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        weight, bias = self.master[0] + self.weight(), self.master[1] + self.bias()
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base, changed by z * w without noise."""
        self.eval()
        self.base.weight.add_(self.weight())
        self.base.bias.add_(self.bias())
        return self.base


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and let all linears of its layers change."""
    structured = options.diff_pruning == "structured"
    model.bert.requires_grad_(False)
    for layer in model.bert.bert_layers:
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear):
                layer.set_submodule(name, DiffLinear(module, structured))


def diffs_of(model: nn.Module) -> list[Diff]:
    """All changes of a model."""
    return [module for module in model.modules() if isinstance(module, Diff)]


def counts(model: Adaptable) -> str:
    """How many weights may change."""
    numbers = sum(diff.diff.numel() for diff in diffs_of(model))
    return f"diff pruning: a change and a gate for each of {numbers / 1e6:.2f}M weights"


def merge(model: Adaptable) -> None:
    """Fold every change into its weights, in place."""
    for name, module in list(model.bert.named_modules()):
        if isinstance(module, DiffLinear):
            model.bert.set_submodule(name, module.merged())


# The paper and its code train the change at full fine-tuning's rates.
ADAPTER = Adapter("diff_pruning", adapt, merge, counts=counts)


# ---- the penalty


class OpenGates(nn.Module):
    """The expected number of changed weights as a term of the loss: "open_gates"."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, model: nn.Module, forward: Any, batches: Any) -> dict[str, Tensor]:
        """{name: scalar}, the same for all examples."""
        counted = [diff.expected_count() for diff in diffs_of(model)]
        return {"open_gates": self.weight * torch.stack(counted).sum()}


def penalty(model: nn.Module, options: Options) -> OpenGates | None:
    """The extra term, where there are gates and a penalty."""
    if options.diff_pruning == "off" or options.diff_pruning_penalty == 0:
        return None
    return OpenGates(options.diff_pruning_penalty)


# ---- from gates to a number of changes


@torch.no_grad()
def largest(diffs: list[Diff], target: float) -> list[Tensor]:
    """z * w of each, flat and without noise, all but the largest share `target` set to 0."""
    # The largest of all tensors together, as many as the target allows.
    training = [diff.training for diff in diffs]
    changes = [diff.eval()().flatten() for diff in diffs]
    for diff, mode in zip(diffs, training, strict=True):
        diff.train(mode)
    flat = torch.cat(changes)
    kept = torch.zeros_like(flat)
    where = flat.abs().topk(max(1, int(target * len(flat)))).indices
    kept[where] = flat[where]
    return list(kept.split([len(change) for change in changes]))


class Pruning(Hook):
    """Prunes for good at a share of the run, and until then for each evaluation."""

    def __init__(self, model: nn.Module, target: float, share: float):
        self.diffs = diffs_of(model)
        self.target = target
        self.share = share
        self.fixed = torch.zeros(1)  # 1 once the gates are fixed

    def freeze_gates(self) -> None:
        """Let nothing but open changes train."""
        for diff in self.diffs:
            diff.gates.requires_grad_(False)
            if diff.group is not None:
                diff.group.requires_grad_(False)

    def before_step(self, step: int, progress: float) -> None:
        """Prune, once the share of the run is over."""
        if progress >= self.share and not self.fixed:
            self.prune()
            self.fixed.fill_(1)
            self.freeze_gates()

    def prune(self) -> None:
        """Keep the largest changes, and fix all gates."""
        for diff, change in zip(self.diffs, largest(self.diffs, self.target), strict=True):
            diff.fix(change)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the pruned model stands in."""
        if self.fixed:
            yield
            return
        held = [[p.detach().clone() for p in diff.parameters()] for diff in self.diffs]
        self.prune()
        try:
            yield
        finally:
            with torch.no_grad():
                for diff, before in zip(self.diffs, held, strict=True):
                    for p, x in zip(diff.parameters(), before, strict=True):
                        p.copy_(x)

    def state_dict(self) -> dict[str, Tensor]:
        """Whether the gates are fixed; they themselves are the model's."""
        return {"fixed": self.fixed}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where a checkpoint was."""
        self.fixed.copy_(state["fixed"])
        if self.fixed:
            self.freeze_gates()


def pruning(model: nn.Module, options: Options) -> Pruning | None:
    """The hook, where there are gates."""
    if options.diff_pruning == "off":
        return None
    return Pruning(model, options.diff_pruning_target, options.diff_pruning_fix)
