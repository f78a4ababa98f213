"""optimizer.py against torch.optim.AdamW, and against the course's form written out number by
number in float64.
"""

import copy
import hashlib
import io
import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import optimizer
from bert import BertConfig, BertModel
from errors import UserError
from optimizer import AdamW, chunks, parameter_groups
from options import Options
from training.named_state import NamedState
from training.optimizers import make_optimizer, set_rates

REFERENCE_SHA256 = "77b817e0dce16a9bc8d3a6bcb88035db68f7d783dc8a565737581fadd05db815"
SHAPES = [(13, 7), (7,), (3, 5, 2), (), (1,), (41, 11)]


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype))
        for shape in SHAPES
    ]


def gradients(
    params: list[nn.Parameter], step: int, skipped: tuple[int, ...] = (), scale: float = 1.0
) -> None:
    draw = torch.Generator().manual_seed(1000 + step)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=draw, dtype=torch.float64) * scale * 10 ** (i - 2)
        p.grad = None if i in skipped else g.to(p.dtype)


def course_step(
    p: list[float], grads: list[list[float]], lr, betas, eps, decay, correct_bias
) -> list[float]:
    """The course's description, one number at a time."""
    out = []
    for i, x in enumerate(p):
        m = v = 0.0
        for t, g in enumerate((grad[i] for grad in grads), start=1):
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * g * g
            size = lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) if correct_bias else lr
            x = x - size * m / (math.sqrt(v) + eps)
            x = x - lr * decay * x
        out.append(x)
    return out


@pytest.mark.parametrize("correct_bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-6])  # at 1e-6, eps decides
def test_course_form(correct_bias, scale):
    settings = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3}
    params = parameters(torch.float64)
    start, seen = [p.detach().clone() for p in params], [[] for _ in params]
    opt = AdamW(params, **settings, correct_bias=correct_bias)
    for step in range(13):
        gradients(params, step, scale=scale)
        for p, grads in zip(params, seen, strict=True):
            grads.append(p.grad.flatten().tolist())
        opt.step()
    for p, x, grads in zip(params, start, seen, strict=True):
        expected = course_step(
            x.flatten().tolist(), grads, 1e-2, (0.8, 0.95), 1e-6, 0.3, correct_bias
        )
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(p.detach().flatten(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_torch_form_is_torchs_adamw(weight_decay, scale):
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    settings = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": weight_decay}
    a, b = AdamW(ours, **settings, form="torch"), torch.optim.AdamW(theirs, **settings)
    for step in range(30):
        for params in (ours, theirs):
            gradients(params, step, skipped=(1,) if step % 3 else (), scale=scale)
        a.step(), b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_forms_differ():
    results = []
    torchs = {"form": "torch"}
    for settings in (
        {},
        torchs,
        {"correct_bias": False},
        {"weight_decay": 0.1},
        {**torchs, "weight_decay": 0.1},
    ):
        params = parameters()
        opt = AdamW(params, lr=1e-2, eps=1e-3, **settings)
        for step in range(5):
            gradients(params, step)
            opt.step()
        results.append(params[0].detach().clone())
    assert len({tuple(x.flatten().tolist()) for x in results}) == len(results)


def test_the_courses_published_test():
    """The task of the course's optimizer_test.py against its own reference, by the optimizer and by
    hand.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    opt = AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, correct_bias=True)
    w = model.weight.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 1001):
        opt.zero_grad()
        x = torch.FloatTensor(rng.uniform(size=[3]))
        y = torch.stack([x[0] + x[1], -x[2]])
        ((y - model(x)) ** 2).sum().backward()
        opt.step()
        g = torch.outer(2 * (w @ x - y), x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 1e-3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (v.sqrt() + 1e-6)
        w = w - 1e-3 * 1e-4 * w
    values = [[0.55482787, 0.86665666, 0.072919816], [-0.44724506, -0.2951228, -0.2717272]]
    reference = np.array(values, dtype=np.float32)
    stored = io.BytesIO()
    np.save(
        stored, reference
    )  # the course's optimizer_test.npy, whose SHA-256 a public Git LFS pointer to it gives
    assert hashlib.sha256(stored.getvalue()).hexdigest() == REFERENCE_SHA256
    for weight in (model.weight, w):
        assert torch.allclose(
            torch.from_numpy(reference), weight.detach()
        )  # the course's own comparison


@pytest.mark.parametrize("form", ["course", "torch"])
def test_chunks_change_nothing(monkeypatch, form):
    """Bit for bit: large tensors in pieces, small ones together, a non-contiguous one whole."""
    shapes = [(300, 1000), (5,), (7, 11), (2**17,), (640, 1024), (3,)]
    results, most = [], []
    for size in (2**62, 2**18, 2**14):
        monkeypatch.setattr(optimizer, "CHUNK", size)
        draw = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(s, generator=draw)) for s in shapes]
        params.append(nn.Parameter(torch.randn(700, 600, generator=draw).t()))
        opt = AdamW(params, lr=1e-2, weight_decay=0.1, form=form)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=draw)
            opt.step()
        parts = [
            (p.detach(), p.grad, *(opt.state[p][k] for k in ("exp_avg", "exp_avg_sq")))
            for p in params
        ]
        pieces = list(chunks(parts))
        assert sum(part[0].numel() for piece in pieces for part in piece) == sum(
            p.numel() for p in params
        )
        most.append(len(pieces))
        results.append([p.detach() for p in params] + [part[3] for part in parts])
    assert most[0] == 1 < most[1] < most[2]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_parameters_without_gradient_stand_still():
    params = parameters()
    opt = AdamW(params, lr=1e-2, weight_decay=0.5)
    gradients(params, 0)
    opt.step()
    before = params[1].detach().clone()
    for step in (1, 2):
        gradients(params, step, skipped=(1,))
        opt.step()
    assert (
        torch.equal(params[1], before)
        and opt.state[params[1]]["step"] == 1
        and opt.state[params[0]]["step"] == 3
    )
    # Its next step is its second, whatever the others have done meanwhile.
    alone = parameters()[1:2]
    single = AdamW(alone, lr=1e-2, weight_decay=0.5)
    for step in (0, 3):
        all_of_them = parameters()
        gradients(all_of_them, step)
        alone[0].grad = all_of_them[1].grad
        single.step()
    gradients(params, 3)
    opt.step()
    assert torch.equal(params[1], alone[0])


@pytest.mark.parametrize("way", ["torch", "names"])
def test_resumed_is_uninterrupted(way):
    """2N steps = N steps, save, load, N steps, bit for bit; one parameter joins late and one
    never.
    """

    def run(opt, params, steps):
        for step in steps:
            gradients(params, step, skipped=(0,) if step > 7 else (2, 0) if step < 3 else (0,))
            opt.step()

    def make(params):
        return AdamW([(f"layer.{i}", p) for i, p in enumerate(params)], lr=1e-2, weight_decay=0.1)

    whole, first, second = parameters(), parameters(), parameters()
    run(make(whole), whole, range(10))
    a, b = make(first), make(second)
    run(a, first, range(5))
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p.data)
    if way == "torch":
        b.load_state_dict(
            copy.deepcopy(a.state_dict())
        )  # torch's load keeps the tensors it is given
    else:
        stored = load(save(NamedState(a).state_dict()))
        assert len(stored) == len(first) + 2 * (len(first) - 1)
        assert (
            stored["step.layer.0"] == 0
            and stored["step.layer.2"] == 2
            and stored["step.layer.5"] == 5
        )
        NamedState(b).load_state_dict(stored)
        stored["exp_avg.layer.1"].fill_(7)  # the optimizer keeps copies
    run(a, first, [99])  # must not touch b
    run(b, second, range(5, 10))
    assert all(torch.equal(p, q) for p, q in zip(whole, second, strict=True))


def test_state_of_another_model_is_refused():
    params = parameters()
    opt = AdamW([(f"a.{i}", p) for i, p in enumerate(params)])
    gradients(params, 0)
    opt.step()
    good = NamedState(opt).state_dict()
    for change, message in (
        (lambda s: s.pop("exp_avg.a.1"), "1 names differ .missing exp_avg.a.1"),
        (lambda s: s.pop("step.a.1"), "3 names differ"),  # its moments have no step then
        (lambda s: s.update({"step.b": torch.tensor(1)}), "unexpected step.b"),
        (
            lambda s: s.update({"exp_avg_sq.a.1": torch.zeros(3)}),
            r"exp_avg_sq.a.1 is \(3,\), expected \(7,\)",
        ),
    ):
        state = dict(good)
        change(state)
        other = AdamW([(f"a.{i}", p) for i, p in enumerate(parameters())])
        with pytest.raises(UserError, match=message):
            NamedState(other).load_state_dict(state)
        assert not other.state
    with pytest.raises(ValueError, match="without names"):
        NamedState(AdamW(parameters()))


class CourseAdamW(torch.optim.Optimizer):
    """An AdamW as the course's scripts have it, in its form, with its state's names."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "correct_bias": True})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (beta1, beta2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                state["step"] += 1
                state["exp_avg"] = beta1 * state["exp_avg"] + (1 - beta1) * p.grad
                state["exp_avg_sq"] = beta2 * state["exp_avg_sq"] + (1 - beta2) * p.grad**2
                t = state["step"]
                size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
                p -= size * state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
                p -= lr * group["weight_decay"] * p


def three_steps(optim, params: list[nn.Parameter], first: int, skipped=()) -> None:
    for step in range(first, first + 3):
        gradients(params, step, skipped)
        optim.step()


def stored(state: dict) -> dict:
    """Through a file, as the scripts do it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


OTHERS = {
    "course": (CourseAdamW, "course"),
    "torch": (torch.optim.AdamW, "torch"),
    "torch, fused": (lambda *a, **k: torch.optim.AdamW(*a, **k, fused=True), "torch"),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", OTHERS)
def test_another_adamws_state_goes_on(kind, named):
    """Settings come with it, our `form` and names stay, and a parameter without a state is new."""
    (make, form), theirs, ours = OTHERS[kind], parameters(), parameters(seed=1)
    other = make(theirs, lr=3e-3, betas=(0.8, 0.98), eps=1e-7, weight_decay=0.1)
    three_steps(other, theirs, 0, skipped=(2,))
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            p.copy_(q)
    mine = AdamW(list(zip("abcdef", ours, strict=True)) if named else ours, form=form)
    mine.load_state_dict(stored(other.state_dict()))
    three_steps(other, theirs, 3)
    three_steps(mine, ours, 3)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
    group = mine.param_groups[0]
    assert group["form"] == form and group["lr"] == 3e-3 and group["betas"] == (0.8, 0.98)
    assert {type(mine.state[p]["step"]) for p in ours} == {int}
    if named:
        assert group["param_names"] == list("abcdef")
        steps = NamedState(mine).state_dict()
        assert steps["step.a"] == 6 and steps["step.c"] == 3


def damage(state: dict, what: str) -> None:
    """Spoil a state dict of two groups in one way."""
    if what in ("exp_avg", "exp_avg_sq", "step"):
        del state["state"][1][what]
    elif what == "a moment of None":
        state["state"][1]["exp_avg"] = None
    elif what == "another shape":
        state["state"][0]["exp_avg_sq"] = torch.zeros(2)
    elif what == "amsgrad":
        state["param_groups"][1]["amsgrad"] = True
    elif what == "maximize":
        state["param_groups"][0]["maximize"] = True
    elif what == "a group":
        del state["param_groups"][1]
    elif what == "params":
        del state["param_groups"][1]["params"]
    else:
        del state[what]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("exp_avg", r"a parameter of shape \(7,\) lacks exp_avg;"),
        ("exp_avg_sq", r"a parameter of shape \(7,\) lacks exp_avg_sq;"),
        ("step", r"a parameter of shape \(7,\) lacks step;"),
        ("a moment of None", r"exp_avg is of type NoneType, expected a tensor of shape \(7,\)"),
        ("another shape", r"exp_avg_sq is of shape \(2,\), expected a tensor of shape \(13, 7\)"),
        ("amsgrad", "amsgrad is set, which this AdamW has not"),
        ("maximize", "maximize is set, which this AdamW has not"),
        ("a group", r"groups of \[1\] parameters, expected \[1, 5\]"),
        ("params", r"groups of \[1, 0\] parameters, expected \[1, 5\]"),
        ("state", "lacks state;"),
        ("param_groups", "lacks param_groups;"),
    ],
)
def test_an_unusable_state_is_refused_at_load(what, message):
    theirs, ours = parameters(), parameters()
    other = CourseAdamW([{"params": theirs[:1]}, {"params": theirs[1:]}])
    three_steps(other, theirs, 0)
    mine = AdamW([{"params": ours[:1]}, {"params": ours[1:]}], lr=0.5)
    state = stored(other.state_dict())
    damage(state, what)
    with pytest.raises(UserError, match=message):
        mine.load_state_dict(state)
    assert not mine.state and mine.param_groups[0]["lr"] == 0.5, "it changed something"


def test_unpickled_optimizers_of_an_older_kind():
    ours = parameters()
    optim = AdamW(ours, weight_decay=0.1)
    three_steps(optim, ours, 0)
    del optim.param_groups[0]["form"], optim.param_groups[0]["correct_bias"]
    optim.state[ours[1]]["step"] = torch.tensor(3.0)
    again = pickle.loads(pickle.dumps(optim))
    copies = again.param_groups[0]["params"]
    optim.param_groups[0].update(form="course", correct_bias=True)
    optim.state[ours[1]]["step"] = 3
    three_steps(optim, ours, 3)
    three_steps(again, copies, 3)
    assert all(torch.equal(p, q) for p, q in zip(ours, copies, strict=True))
    del optim.state[ours[1]]["exp_avg"]
    with pytest.raises(UserError, match="lacks exp_avg;"):
        pickle.loads(pickle.dumps(optim))
    del optim.param_groups[0]["betas"]
    with pytest.raises(UserError, match="a group of parameters lacks betas;"):
        pickle.loads(pickle.dumps(optim))


def test_arguments_are_checked():
    outside = [
        ("lr", -1.0),
        ("eps", -1e-9),
        ("betas", (1.0, 0.9)),
        ("betas", (0.9, -0.1)),
        ("weight_decay", -1.0),
    ]
    for bad in ({key: value} for key, value in [*outside, ("lr", math.nan), ("form", "x")]):
        with pytest.raises(ValueError, match=next(iter(bad))):
            AdamW(parameters(), **bad)
        with pytest.raises(ValueError, match=next(iter(bad))):
            AdamW([{"params": parameters(), **bad}])
    table = nn.Embedding(13, 7, sparse=True)
    table(torch.tensor([3])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        AdamW(table.parameters()).step()


def test_defaults_closure_and_tiny_decay():
    opt = AdamW(parameters())
    assert {
        k: opt.defaults[k] for k in ("lr", "betas", "eps", "weight_decay", "correct_bias", "form")
    } == {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-6,
        "weight_decay": 0.0,
        "correct_bias": True,
        "form": "course",
    }
    p = nn.Parameter(torch.tensor([2.0]))

    def closure():
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert AdamW([p], 1e-1).step(closure) == 4.0 and p < 2.0
    q = nn.Parameter(torch.full((1000,), 1.99))
    opt = AdamW([q], lr=5e-6, weight_decay=1e-2)  # 1 - lr * wd is 1 in float32; the sum is not
    for _ in range(100):
        q.grad = torch.zeros_like(q)
        opt.step()
    assert (q < 1.99).all()


def test_groups_are_disjoint_and_complete():
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 7,
    }
    model = BertModel(BertConfig(vocab_size=13, **sizes))
    model.pos_embedding.weight.requires_grad = False
    decayed, plain = parameter_groups(model, 0.01)
    names = [name for group in (decayed, plain) for name, _ in group["params"]]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in model.named_parameters()} - {"pos_embedding.weight"}
    assert decayed["weight_decay"] == 0.01 and plain["weight_decay"] == 0.0
    assert all(name.endswith("bias") or "norm" in name for name, _ in plain["params"])
    assert not any(name.endswith("bias") or "norm" in name for name, _ in decayed["params"])
    assert set(NamedState(AdamW([decayed, plain])).named) == set(names)
    assert len(parameter_groups(nn.Linear(3, 2, bias=False), 0.01)) == 1


def test_groups_carry_their_peak_rate():
    """Two groups keep their ratio under every factor, whatever their rates were before."""
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 1)})
    optimizer = make_optimizer(model, Options(weight_decay=0.1), lr=1e-3)
    assert [group["peak_lr"] for group in optimizer.param_groups] == [1e-3, 1e-3]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    optimizer.param_groups[1]["peak_lr"] = 4e-3
    for factor in 0.5, 0.25, 1.0, 0.0:
        assert set_rates(optimizer, factor) == 1e-3 * factor
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [1e-3 * factor, 4e-3 * factor]
        assert [group["peak_lr"] for group in optimizer.param_groups] == [1e-3, 4e-3]


def test_a_group_s_rate_is_what_moves_its_parameters():
    """The first step of the torch form is the rate itself, in each coordinate."""
    layers = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    before = [p.item() for p in layers.parameters()]
    groups = []
    for layer, peak in zip(layers.values(), (0.02, 0.06), strict=True):
        groups += parameter_groups(layer, 0.0, peak)
    optimizer = AdamW(groups, eps=0.0, form="torch")
    set_rates(optimizer, 0.5)
    for p in layers.parameters():
        p.grad = torch.full_like(p, 7.0)
    optimizer.step()
    moved = [old - p.item() for old, p in zip(before, layers.parameters(), strict=True)]
    assert moved == pytest.approx([0.01, 0.03], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", ["course", "torch"])
def test_gpu_is_the_cpu(form):
    """The same steps on both, and none that waits for the device."""
    ours, theirs = parameters(), [nn.Parameter(p.detach().cuda()) for p in parameters()]
    a, b = (AdamW(x, lr=1e-2, weight_decay=0.1, form=form) for x in (ours, theirs))
    for step in range(13):
        gradients(ours, step)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad.cuda()
        a.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            b.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q.cpu(), rtol=1e-5, atol=1e-6)
