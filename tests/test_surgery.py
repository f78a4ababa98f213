"""Gradients of several losses: the plain sum, and a combiner between them and the shared
parameters.
"""

import pytest
import torch
from surgery import COMBINERS, backward
from torch import nn


class Model(nn.Module):
    """A shared part, two heads on it, a layer for one task only and one for none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Sequential(nn.Linear(13, 7), nn.Tanh(), nn.Linear(7, 7))
        self.only_a, self.unused = nn.Linear(7, 7), nn.Linear(7, 3)
        self.heads = nn.ModuleDict({"a": nn.Linear(7, 5), "b": nn.Linear(7, 1)})

    def losses(self, seed: int = 0) -> dict[str, torch.Tensor]:
        x = torch.randn(11, 13, generator=torch.Generator().manual_seed(seed))
        hidden = self.shared(x)
        a, b = self.heads["a"](hidden + self.only_a(hidden)), self.heads["b"](hidden)
        return {"a": nn.functional.cross_entropy(a, torch.arange(11) % 5), "b": b.square().mean()}

    def body(self) -> list[nn.Parameter]:
        return [*self.shared.parameters(), *self.only_a.parameters(), *self.unused.parameters()]

    def gradients(self) -> dict[str, torch.Tensor | None]:
        return {
            name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()
        }


def total(rows: torch.Tensor) -> torch.Tensor:
    return rows.sum(0)


def plain(*seeds: int) -> dict[str, torch.Tensor | None]:
    model = Model()
    for seed in seeds:
        sum(model.losses(seed).values()).backward()
    return model.gradients()


def same(left: dict, right: dict) -> None:
    assert {k for k, g in left.items() if g is None} == {k for k, g in right.items() if g is None}
    for name, gradient in left.items():
        if gradient is not None:
            torch.testing.assert_close(gradient, right[name], msg=name)


@pytest.mark.parametrize("combine", [COMBINERS["sum"], total])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_sum_is_the_plain_backward(combine, seeds):
    """Over accumulated passes too. What no loss reaches has no gradient: AdamW would decay it
    otherwise.
    """
    model = Model()
    for seed in seeds:
        backward(model.losses(seed), model.body(), combine)
    assert model.unused.weight.grad is None and model.only_a.weight.grad is not None
    same(model.gradients(), plain(*seeds))


def test_a_combiner_sees_each_task_and_rules_the_shared_part_only():
    model, seen = Model(), []

    def first_only(rows):
        seen.append(rows.clone())
        return rows[0]

    backward(model.losses(), model.body(), first_only)
    separate = []
    for task in ("a", "b"):
        other = Model()
        other.losses()[task].backward()
        separate.append(other)
    (rows,) = seen
    assert rows.shape == (2, sum(p.numel() for p in model.body())) and rows.dtype == torch.float32
    for row, other in zip(rows, separate, strict=True):
        flat = torch.cat(
            [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in other.body()]
        )
        torch.testing.assert_close(row, flat)
    for p, q in zip(model.shared.parameters(), separate[0].shared.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)  # the first task's alone
    for task, other in zip(("a", "b"), separate, strict=True):
        torch.testing.assert_close(
            model.heads[task].weight.grad, other.heads[task].weight.grad
        )  # each head its own


def test_accumulation_adds_what_was_combined():
    """The combiner works on each pass's gradients, not on what has piled up."""
    model, parts = Model(), []
    for seed in (0, 1):
        backward(model.losses(seed), model.body(), lambda rows: rows[1] - rows[0])
        one = Model()
        backward(one.losses(seed), one.body(), lambda rows: rows[1] - rows[0])
        parts.append(one.gradients())
    added = {
        name: None if parts[0][name] is None else parts[0][name] + parts[1][name]
        for name in parts[0]
    }
    same(model.gradients(), added)


def test_one_task():
    model = Model()
    backward({"a": model.losses()["a"]}, model.body(), total)
    other = Model()
    other.losses()["a"].backward()
    same(model.gradients(), other.gradients())
