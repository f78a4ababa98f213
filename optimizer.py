"""AdamW by hand, and the parameter groups.

Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101.
Two forms of a step with gradient g, moments m and v, and step count t; they differ where eps
matters, and in what the decay sees:

    course   s = lr * sqrt(1 - b2^t) / (1 - b1^t);  p -= s * m / (sqrt(v) + eps);  p -= lr * wd * p
    torch    p *= 1 - lr * wd;  p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

Left out: AMSGrad, sparse gradients, learning rates as tensors and CUDA graphs.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from errors import UserError

# On a CPU a step is bound by memory. In pieces of this many elements p, g, m and v stay in the
# cache from one operation to the next: 26 ms instead of 64 ms a step for 22M parameters. A power of
# two, so that results do not depend on it.
CHUNK = 2**18

# p, g, m, v: whole tensors, or flat views of the same piece of each.
Part = tuple[Tensor, Tensor, Tensor, Tensor]


def pieces(part: Part) -> Iterator[Part]:
    """The same numbers as flat views of CHUNK elements each."""
    p, g, m, v = (x.view(-1).split(CHUNK) for x in part)
    return zip(p, g, m, v, strict=True)


def chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The same numbers, about CHUNK a list: large tensors in pieces, small ones together."""
    small: list[Part] = []
    size = 0
    for part in parts:
        n = part[0].numel()
        if n > CHUNK and all(x.is_contiguous() for x in part):
            for piece in pieces(part):
                yield [piece]
            continue
        if small and size + n > CHUNK:
            yield small
            small, size = [], 0
        small.append(part)
        size += n
    if small:
        yield small


class AdamW(torch.optim.Optimizer):
    """AdamW with the course's arguments, and `form`, which says whose order of operations.

    `params`: parameters, (name, parameter) tuples or dicts of them, as in torch; NamedState needs
    names. A parameter without a gradient is skipped: its moments, its decay and its t stand still.
    Raises ValueError for arguments out of range and RuntimeError for sparse gradients.
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        *,
        form: str = "course",
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "correct_bias": correct_bias, "form": form})
        # On some MKLs a first call from several threads is inexact: see training/repeatable.py.
        torch.ones(1).sqrt()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """torch's, with the arguments checked; the constructor too comes here, once a group."""
        full = {**self.defaults, **param_group}
        for name in ("lr", "eps", "weight_decay"):
            if not full[name] >= 0.0:
                raise ValueError(f"{name} is {full[name]}, expected at least 0")
        for beta in full["betas"]:
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"betas are {full['betas']}, expected numbers in [0, 1)")
        if full["form"] not in ("course", "torch"):
            raise ValueError(f'form is "{full["form"]}", expected "course" or "torch"')
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state of this AdamW, the course's or torch's.

        What the groups of the others lack (`form`, names) stays as it is here. Raises UserError,
        and changes nothing, for a state that step() could not go on from.
        """
        for name in ("state", "param_groups"):
            if name not in state_dict:
                raise UserError(f"the optimizer's state lacks {name}; is it an optimizer's?")
        given = [len(group.get("params", [])) for group in state_dict["param_groups"]]
        expected = [len(group["params"]) for group in self.param_groups]
        if given != expected:
            raise UserError(
                f"the optimizer's state has groups of {given} parameters, expected {expected}; "
                "is it of another model?"
            )
        groups = []
        for group, own in zip(state_dict["param_groups"], self.param_groups, strict=True):
            groups.append({**own, **group})
        super().load_state_dict({**state_dict, "param_groups": groups})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Both load_state_dict and unpickling end here.

        Raises UserError for what step() could not go on from.
        """
        for group in state.get("param_groups", []):
            complete_group(group)
        for p, moments in state.get("state", {}).items():
            if moments and isinstance(p, Tensor):
                check_moments(moments, p)
                moments["step"] = int(moments["step"])  # torch's own AdamW keeps a tensor
        super().__setstate__(state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure`, if given, does."""
        # A closure computes the loss anew, as torch's optimizers allow.
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Those of one age t go together; parameters that were unfrozen later are younger.
            alike: dict[tuple[int, torch.device], list[Part]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(
                        "AdamW takes no sparse gradients; use nn.Embedding(sparse=False)"
                    )
                # The moments begin at zero with the parameter's first gradient.
                state = self.state[p]
                if not state:
                    state.update(
                        step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)
                    )
                state["step"] += 1
                part = (p.detach(), p.grad.detach(), state["exp_avg"], state["exp_avg_sq"])
                alike.setdefault((state["step"], p.device), []).append(part)

            # On a CPU in pieces that stay in its cache, elsewhere all at once.
            for (t, device), parts in alike.items():
                for some in chunks(parts) if device.type == "cpu" else [parts]:
                    update(some, group, t)
        return loss


def complete_group(group: dict[str, Any]) -> None:
    """Give a group of parameters the settings that others' optimizers do not have.

    Raises UserError where one is lacking that has no default, or one is set that is not ours.
    """
    # The course's and torch's AdamW both correct the bias, and neither says so.
    group.setdefault("correct_bias", True)
    group.setdefault("form", "course")
    for name in ("lr", "betas", "eps", "weight_decay"):
        if name not in group:
            raise UserError(
                f"the optimizer's state: a group of parameters lacks {name}; is it an AdamW's?"
            )

    # Settings of torch's that would make another update.
    for name in ("amsgrad", "maximize"):
        if group.get(name):
            raise UserError(
                f"the optimizer's state: {name} is set, which this AdamW has not; "
                "go on with torch.optim.AdamW"
            )


def check_moments(moments: dict[str, Any], p: Tensor) -> None:
    """Raise UserError unless a parameter's state holds a step and both moments in its shape."""
    shape = tuple(p.shape)
    for name in ("step", "exp_avg", "exp_avg_sq"):
        if name not in moments:
            raise UserError(
                f"the optimizer's state: a parameter of shape {shape} lacks {name}; "
                "is it an AdamW's?"
            )
    for name in ("exp_avg", "exp_avg_sq"):
        moment = moments[name]
        found = f"type {type(moment).__name__}"
        if isinstance(moment, Tensor):
            found = f"shape {tuple(moment.shape)}"
        if found != f"shape {shape}":
            raise UserError(
                f"the optimizer's state: {name} is of {found}, expected a tensor of shape {shape}"
            )


def update(parts: list[Part], group: dict[str, Any], t: int) -> None:
    """One AdamW step, in place, for parameters that have taken t steps with this one.

    Reads nothing back from the device.
    """
    p, g, m, v = (list(x) for x in zip(*parts, strict=True))
    lr, eps = group["lr"], group["eps"]
    b1, b2 = group["betas"]
    decay = lr * group["weight_decay"]
    correction1, correction2 = 1.0, 1.0
    if group["correct_bias"]:
        correction1, correction2 = 1 - b1**t, math.sqrt(1 - b2**t)

    # The moments: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2.
    torch._foreach_lerp_(m, g, 1 - b1)
    torch._foreach_mul_(v, b2)
    torch._foreach_addcmul_(v, g, g, 1 - b2)

    # The step, in one of the two forms at the top of this file.
    denominator = torch._foreach_sqrt(v)
    if group["form"] == "torch":
        if decay:
            torch._foreach_mul_(p, 1 - decay)
        torch._foreach_div_(denominator, correction2)
        torch._foreach_add_(denominator, eps)
        torch._foreach_addcdiv_(p, m, denominator, -lr / correction1)
    else:
        torch._foreach_add_(denominator, eps)
        torch._foreach_addcdiv_(p, m, denominator, -lr * correction2 / correction1)
        if decay:
            # Added, not multiplied by 1 - decay, which in float32 is 1 for a decay under 3e-8.
            torch._foreach_add_(p, p, alpha=-decay)


def parameter_groups(
    model: nn.Module, weight_decay: float, lr: float | None = None
) -> list[dict[str, Any]]:
    """The model's trainable parameters as named groups for an optimizer.

    Norms, biases and other vectors are not decayed. With `lr` each group carries it as its peak
    rate, for set_rates().
    """
    # Matrices are decayed, all else is not.
    matrices: list[tuple[str, nn.Parameter]] = []
    vectors: list[tuple[str, nn.Parameter]] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (matrices if p.ndim > 1 else vectors).append((name, p))

    # A group without members would be an error to torch.
    groups: list[dict[str, Any]] = []
    for members, decay in ((matrices, weight_decay), (vectors, 0.0)):
        if members:
            groups.append({"params": members, "weight_decay": decay})
    if lr is not None:
        for group in groups:
            group.update(lr=lr, peak_lr=lr)
    return groups
