"""AdamW by hand, the parameter groups and the learning-rate schedules.

Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101.
Two forms of a step with gradient g, moments m and v, and step count t; they differ where eps
matters, and in what the decay sees:

    course   s = lr * sqrt(1 - b2^t) / (1 - b1^t);  p -= s * m / (sqrt(v) + eps);  p -= lr * wd * p
    torch    p *= 1 - lr * wd;  p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

Left out: AMSGrad, sparse gradients, learning rates as tensors and CUDA graphs.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from errors import UserError

# On a CPU a step is bound by memory. In pieces of this many elements p, g, m and v stay in the
# cache from one operation to the next: 26 ms instead of 64 ms a step for 22M parameters. A power of
# two, so that results do not depend on it.
CHUNK = 2**18

Part = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # p, g, m, v: whole tensors, or flat views of the same piece of each


def chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The same numbers in lists of about CHUNK elements: large tensors in flat pieces, small ones
    together.
    """
    small: list[Part] = []
    size = 0
    for part in parts:
        n = part[0].numel()
        if n > CHUNK and all(x.is_contiguous() for x in part):
            yield from (
                [piece] for piece in zip(*(x.view(-1).split(CHUNK) for x in part), strict=True)
            )
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

    `params`: parameters, (name, parameter) tuples or dicts of them, as in torch; named_state needs
    names. A parameter without a gradient is skipped: its moments, its decay and its t stand still.
    Raises ValueError for arguments out of range and RuntimeError for sparse gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        *,
        form: Literal["course", "torch"] = "course",
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "correct_bias": correct_bias, "form": form})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """torch's, with the arguments checked; the constructor comes through here too, once a
        group.
        """
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
        """torch's, and the state of the course's AdamW or torch's; what their groups lack (`form`,
        names) stays as it is here. Raises UserError, and changes nothing, for a state that step()
        could not go on from.
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
        """Both load_state_dict and unpickling end here. Raises UserError for what step() could not
        go on from.
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
        """Update every parameter that has a gradient. `closure` recomputes the loss, which is
        returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[
                tuple[int, torch.device], list[Part]
            ] = {}  # t: parameters unfrozen later are younger
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(
                        "AdamW takes no sparse gradients; use nn.Embedding(sparse=False)"
                    )
                state = self.state[p]
                if not state:
                    state.update(
                        step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)
                    )
                state["step"] += 1
                part = (p.detach(), p.grad.detach(), state["exp_avg"], state["exp_avg_sq"])
                alike.setdefault((state["step"], p.device), []).append(part)
            for (t, device), parts in alike.items():
                for some in chunks(parts) if device.type == "cpu" else [parts]:
                    update(some, group, t)
        return loss

    def named(self) -> dict[str, nn.Parameter]:
        """Every parameter under its name."""
        if any("param_names" not in group for group in self.param_groups):
            raise ValueError(
                "this optimizer was given parameters without names; give (name, parameter) tuples"
            )
        return {
            n: p
            for g in self.param_groups
            for n, p in zip(g["param_names"], g["params"], strict=True)
        }

    def named_state(self) -> dict[str, Tensor]:
        """The state as one flat dict for safetensors: step.NAME (int64, 0 before the first step),
        exp_avg.NAME and exp_avg_sq.NAME (in the parameter's shape, from the first step on). The
        optimizer's own tensors, not copies.
        """
        flat = {}
        for name, p in self.named().items():
            state = self.state.get(p) or {"step": 0}
            flat[f"step.{name}"] = torch.tensor(state["step"])
            flat.update(
                {f"{key}.{name}": x.contiguous() for key, x in state.items() if key != "step"}
            )
        return flat

    def load_named_state(self, flat: dict[str, Tensor]) -> None:
        """named_state's inverse; copies. Raises UserError, and changes nothing, where a name or
        shape does not fit.
        """
        named = self.named()
        steps = {name: int(flat.get(f"step.{name}", 0)) for name in named}
        moments = ("exp_avg", "exp_avg_sq")
        expected = {
            f"{m}.{name}"
            for name in named
            for m in ("step", *moments)
            if m == "step" or steps[name]
        }
        if wrong := expected ^ set(flat):
            some = ", ".join(
                f"{'missing' if name in expected else 'unexpected'} {name}"
                for name in sorted(wrong)[:4]
            )
            raise UserError(
                f"the optimizer's state is of another model: {len(wrong)} names differ ({some})"
            )
        for name, p in named.items():
            for key in (f"{m}.{name}" for m in moments if steps[name]):
                if flat[key].shape != p.shape:
                    found, expected_shape = tuple(flat[key].shape), tuple(p.shape)
                    raise UserError(f"the optimizer's {key} is {found}, expected {expected_shape}")
        self.state.clear()
        for name, p in named.items():
            if steps[name]:
                copies = {
                    m: torch.empty_like(p, requires_grad=False).copy_(flat[f"{m}.{name}"])
                    for m in moments
                }
                self.state[p] = {"step": steps[name], **copies}


def complete_group(group: dict[str, Any]) -> None:
    """Give a group of parameters the settings that others' optimizers do not have. Raises UserError
    where one is lacking that has no default, or one is set that is not ours.
    """
    group.setdefault("correct_bias", True)
    group.setdefault("form", "course")
    for name in ("lr", "betas", "eps", "weight_decay"):
        if name not in group:
            raise UserError(
                f"the optimizer's state: a group of parameters lacks {name}; is it an AdamW's?"
            )
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
    """One AdamW step, in place, for parameters that have taken t steps with this one. Asks nothing
    of the device.
    """
    p, g, m, v = (list(x) for x in zip(*parts, strict=True))
    lr, eps, decay, (b1, b2) = (
        group["lr"],
        group["eps"],
        group["lr"] * group["weight_decay"],
        group["betas"],
    )
    correction1, correction2 = (
        (1 - b1**t, math.sqrt(1 - b2**t)) if group["correct_bias"] else (1.0, 1.0)
    )
    torch._foreach_lerp_(m, g, 1 - b1)
    torch._foreach_mul_(v, b2)
    torch._foreach_addcmul_(v, g, g, 1 - b2)
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
        if (
            decay
        ):  # added, not multiplied by 1 - decay, which in float32 is 1 for a decay under 3e-8
            torch._foreach_add_(p, p, alpha=-decay)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The model's trainable parameters as groups for AdamW, named; norms, biases and other vectors
    are not decayed.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [(name, p) for name, p in named if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [(name, p) for name, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    ids = [id(p) for group in groups for _, p in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    return [group for group in groups if group["params"]]


Schedule = Callable[[int], float]


def warmed_up(after: Schedule, total_steps: int, warmup_steps: int) -> Schedule:
    """`after` behind a linear warm-up. Steps count from 0; the first has 1 / warmup_steps."""
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warm-up of {warmup_steps} steps out of {total_steps}: expected from 0 to all of them"
        )
    return lambda step: (step + 1) / warmup_steps if step < warmup_steps else after(step)


def constant(total_steps: int, warmup_steps: int) -> Schedule:
    """1 after the warm-up."""
    return warmed_up(lambda step: 1.0, total_steps, warmup_steps)


def linear(total_steps: int, warmup_steps: int) -> Schedule:
    """From 1 after the warm-up in a straight line to 0 at total_steps, and 0 from there on."""
    decay = max(1, total_steps - warmup_steps)
    return warmed_up(lambda step: max(0.0, (total_steps - step) / decay), total_steps, warmup_steps)


def cosine(total_steps: int, warmup_steps: int) -> Schedule:
    """From 1 after the warm-up along half a cosine to 0 at total_steps, and 0 from there on."""
    line = linear(total_steps, warmup_steps)
    return lambda step: (
        line(step) if step < warmup_steps else 0.5 - 0.5 * math.cos(math.pi * line(step))
    )


SCHEDULES = {"linear": linear, "constant": constant, "cosine": cosine}
