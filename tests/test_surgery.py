"""Gradients of single tasks and a combiner between them and the shared parameters. Oracles: torch's
own backward pass, one task at a time, and formulas in float64.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from datasets import Split
from forward import Forward
from losses.extras import EXTRAS
from multitask_bert import build
from multitask_classifier import Learner, load_data, make_learner, train, update
from options import Options
from packing import Batch
from tests.test_train import weights
from training.draws import micro_batches
from training.gradients import Gradients, TaskGradients
from training.surgery import COMBINERS


class Formula:
    """A combiner that computes a formula of the values, and keeps what it was given."""

    def __init__(self, formula: Callable[[Tensor], Tensor]):
        self.formula = formula
        self.seen: list[Gradients] = []

    def combine(self, gradients: Gradients) -> Tensor:
        self.seen.append(replace(gradients, values=gradients.values.clone()))
        return self.formula(gradients.values)


def total(values: Tensor) -> Tensor:
    return values.sum(0)


def projected(values: Tensor) -> Tensor:
    """PCGrad's idea: where two gradients conflict, both lose what points against the other."""
    a, b = values
    inner = (a @ b).clamp(max=0)
    return (a - inner / (b @ b) * b) + (b - inner / (a @ a) * a)


def weighted(values: Tensor) -> Tensor:
    """Each gradient at the tasks' mean length."""
    lengths = values.norm(dim=1)
    return (values / lengths[:, None]).sum(0) * lengths.mean()


FORMULAS = {"total": total, "projected": projected, "weighted": weighted}


class Model(nn.Module):
    """A shared part, a layer in it for one task only and one for none, and two heads."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict(
            {
                "first": nn.Linear(13, 7),
                "second": nn.Linear(7, 7),
                "only_a": nn.Linear(7, 7),
                "unused": nn.Linear(7, 3),
            }
        )
        self.heads = nn.ModuleDict({"a": nn.Linear(7, 5), "b": nn.Linear(7, 1)})
        self.to(dtype)

    def loss(self, task: str, micro: int) -> Tensor:
        draw = torch.Generator().manual_seed(micro)
        x = torch.randn(11, 13, generator=draw).to(self.heads["a"].weight.dtype)
        hidden = self.body["second"](self.body["first"](x).tanh())
        if task == "a":
            logits = self.heads["a"](hidden + self.body["only_a"](hidden))
            return nn.functional.cross_entropy(logits, torch.arange(11) % 5)
        return (self.heads["b"](hidden) - 3.0).square().mean()

    def gradients(self) -> dict[str, Tensor | None]:
        return {name: p.grad for name, p in self.named_parameters()}


def separate(task: str, micros: int, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """A task's gradient by one plain backward pass over the sum of its micro-batches."""
    model = Model(dtype)
    torch.stack([model.loss(task, micro) for micro in range(micros)]).sum().backward()
    return model.gradients()


def vector(gradients: dict[str, Tensor | None], names: list[str]) -> Tensor:
    """Some parameters' gradient as one vector, zero where there is none."""
    shapes = dict(Model().named_parameters())
    parts = []
    for name in names:
        gradient = gradients[name]
        parts.append(torch.zeros_like(shapes[name]) if gradient is None else gradient)
    return torch.cat([part.flatten().double() for part in parts])


def collected(micros: int) -> tuple[Model, TaskGradients]:
    """The gradients of both tasks over some micro-batches."""
    model = Model()
    gradients = TaskGradients(dict(model.body.named_parameters()))
    for micro in range(micros):
        for task in ("a", "b"):
            model.loss(task, micro).backward()
            gradients.take(task)
            assert all(p.grad is None for p in model.body.parameters())
    return model, gradients


@pytest.mark.parametrize("micros", [1, 3])
@pytest.mark.parametrize("name", FORMULAS)
def test_against_formulas_in_float64(name: str, micros: int) -> None:
    """K gradients are summed over the micro-batches and combined once; heads keep their own, and
    what no loss reaches has none: AdamW would decay it otherwise.
    """
    model, gradients = collected(micros)
    combiner = Formula(FORMULAS[name])
    gradients.combine(combiner, step=5, seed=7)
    assert len(combiner.seen) == 1

    tasks = {task: separate(task, micros, torch.float64) for task in ("a", "b")}
    names = [key for key in tasks["a"] if key.startswith("body.") and "unused" not in key]
    values = torch.stack([vector(tasks[task], names) for task in ("a", "b")])
    found = model.gradients()
    expected = FORMULAS[name](values)
    torch.testing.assert_close(vector(found, names), expected, rtol=1e-4, atol=1e-6)
    for key, gradient in found.items():
        if key.startswith("heads."):
            own = tasks["a" if key.startswith("heads.a") else "b"][key]
            torch.testing.assert_close(gradient, own, check_dtype=False, rtol=1e-4, atol=1e-6)
        assert (gradient is None) == ("unused" in key)


def test_what_a_combiner_sees() -> None:
    """Values in fp32, a row a task; the names and borders of the parameters that some loss reached;
    the step and the seed.
    """
    _, gradients = collected(2)
    combiner = Formula(total)
    gradients.combine(combiner, step=5, seed=7)
    (seen,) = combiner.seen
    assert seen.tasks == ["a", "b"] and (seen.step, seen.seed) == (5, 7)
    assert seen.values.dtype == torch.float32
    parameters = dict(Model().body.named_parameters())
    assert list(seen.borders) == [name for name in parameters if "unused" not in name]
    end = 0
    for name, border in seen.borders.items():
        assert border == slice(end, end + parameters[name].numel())
        end = border.stop
        for row, task in zip(seen.values, seen.tasks, strict=True):
            expected = separate(task, 2, torch.float32)[f"body.{name}"]
            if expected is None:
                assert (name.startswith("only_a"), task) == (True, "b")
                expected = torch.zeros_like(parameters[name])
            torch.testing.assert_close(row[border].view_as(expected), expected)
    assert seen.values.shape == (2, end)


def test_where_nothing_shared_trains_nothing_is_combined() -> None:
    """As with a frozen encoder."""
    model = Model()
    model.body.requires_grad_(False)
    gradients = TaskGradients({})
    model.loss("a", 0).backward()
    gradients.take("a")
    combiner = Formula(total)
    gradients.combine(combiner, step=0, seed=0)
    assert not combiner.seen and model.heads["a"].weight.grad is not None


# ---- in a step of the main job


@pytest.fixture
def plain(options: Options) -> Options:
    """Without dropout, so that two ways to one gradient can be compared."""
    return replace(options, hidden_dropout_prob=0.0, attention_dropout_prob=0.0)


def learner_of(options: Options) -> Learner:
    """As train() makes it."""
    torch.manual_seed(options.seed)
    model = build(options)
    data, _ = load_data(options, model)
    return make_learner(options, model.train(), data["train"])


def drawn_by(training: dict[str, Split], **counts: int) -> dict[str, list[int]]:
    """So many examples of each task."""
    return {task: training[task].draw(count) for task, count in counts.items()}


def test_a_step_tells_its_combiner_all(plain: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks' gradients of the whole step, whatever its micro-batches; oracle: torch.autograd on
    each task's mean loss.
    """
    combiner = Formula(total)
    monkeypatch.setitem(COMBINERS, "spy", lambda options: combiner)
    learner = learner_of(replace(plain, combiner="spy", accumulation=3, seed=17))
    drawn = drawn_by(learner.training, sst=5, para=4, sts=2)
    model = learner.model
    shared = dict(model.bert.named_parameters())
    expected = []
    for task, indices in drawn.items():
        batch = learner.training[task].batch(indices)
        loss = model.tasks[task].loss(model(model.pack({task: batch})), batch)
        found = torch.autograd.grad(loss, list(shared.values()), allow_unused=True)
        expected.append(dict(zip(shared, found, strict=True)))
    update(learner, drawn, 9)

    (seen,) = combiner.seen
    assert (seen.tasks, seen.step, seen.seed) == (["sst", "para", "sts"], 9, 17)
    reached = [name for name in shared if not name.startswith("pooler")]
    assert list(seen.borders) == reached
    for row, task in zip(seen.values, expected, strict=True):
        flat = torch.cat([task[name].flatten() for name in reached])  # type: ignore[union-attr]
        torch.testing.assert_close(row, flat, rtol=1e-4, atol=1e-6)


def test_a_combiner_rules_the_encoder_alone(
    plain: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of zeros leaves the encoder as it was, while every head moves."""
    monkeypatch.setitem(COMBINERS, "zero", lambda options: Formula(lambda values: 0 * values[0]))
    learner = learner_of(replace(plain, combiner="zero", weight_decay=0.0))
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    update(learner, drawn_by(learner.training, sst=3, para=3, sts=3), 0)
    for name, p in learner.model.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("bert."), name


@pytest.mark.filterwarnings("ignore:.*all predictions are")
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_plain_sum_by_hand_trains_as_the_sum(
    plain: Options, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five steps; the decay is so large that a zero gradient in None's place would show."""
    combiner = Formula(total)
    monkeypatch.setitem(COMBINERS, "by hand", lambda options: combiner)
    plain = replace(plain, steps_per_epoch=5, accumulation=accumulation, weight_decay=1.0)
    expected = weights(train(plain)["folder"])
    found = weights(train(replace(plain, combiner="by hand"))["folder"])
    assert [seen.step for seen in combiner.seen] == list(range(5))  # once a step
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0, msg=name)


class Small(nn.Module):
    """An extra that is a mean over the examples: the squares of their logits."""

    def forward(
        self, model: nn.Module, forward: Forward, batches: dict[str, Batch]
    ) -> dict[str, Tensor]:
        squares = [logits.square().mean(1) for logits in forward.logits.values()]
        return {"small": torch.cat(squares).mean()}


@pytest.mark.parametrize("accumulation", [1, 3])
def test_extras_are_the_same_in_a_call_a_task(
    plain: Options, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call's term counts by its share of the step's examples: the sum is the whole step's."""
    monkeypatch.setitem(EXTRAS, "small", lambda model, options: Small())
    monkeypatch.setitem(COMBINERS, "by hand", lambda options: Formula(total))
    steps = []
    for change in {}, {"combiner": "by hand", "accumulation": accumulation}:
        learner = learner_of(replace(plain, **change))
        drawn = drawn_by(learner.training, sst=7, para=4, sts=2)
        done = update(learner, drawn, 0)
        steps.append((done, learner.model.state_dict()))
    (one, expected), (other, found) = steps
    assert one.losses.keys() == other.losses.keys() == {"sst", "para", "sts", "small"}
    torch.testing.assert_close(one.losses, other.losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.norm, other.norm, rtol=1e-4, atol=0)
    assert one.tokens == other.tokens
    torch.testing.assert_close(expected, found, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*all predictions are")
def test_round_robin_gives_a_combiner_all_tasks(
    plain: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step holds a cycle: of one task's gradient there would be nothing to combine."""
    combiner = Formula(total)
    monkeypatch.setitem(COMBINERS, "spy", lambda options: combiner)
    train(replace(plain, combiner="spy", sampler="round_robin", steps_per_epoch=2))
    assert [seen.tasks for seen in combiner.seen] == [["sst", "para", "sts"]] * 2


def test_tasks_fewer_than_micro_batches(plain: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of one example sits micro-batches out, and is one row all the same."""
    combiner = Formula(total)
    monkeypatch.setitem(COMBINERS, "spy", lambda options: combiner)
    learner = learner_of(replace(plain, combiner="spy", accumulation=4))
    drawn = drawn_by(learner.training, sts=1, sst=6)
    assert "sts" not in micro_batches(drawn, 4)[0]
    update(learner, drawn, 0)
    assert set(combiner.seen[0].tasks) == {"sst", "sts"}
