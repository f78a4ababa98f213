"""Metrics against scipy and scikit-learn; losses in fp64 and the overall score by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score

from forward import Forward
from losses import supervised
from options import Options
from packing import Batch
from tasks import LEADERBOARD, TASKS, Labels, accuracy, from_correlation, overall, pearson


def loss_of(task: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A task's loss of an encoder call of which it reads the logits alone."""
    nothing: dict = {"packed": None, "embeddings": None, "states": [], "pooled": {}}
    batch = Batch(task, [], torch.arange(len(labels)), labels)
    return TASKS[task].loss(Forward(**nothing, logits={task: logits}), batch)


def test_pearson_against_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 13, 700):
        x = rng.normal(size=n)
        for y in (x + rng.normal(size=n), -3 * x + 1, rng.normal(size=n)):
            oracle = pearsonr(x, y).statistic
            assert pearson(x, y) == pytest.approx(oracle, abs=1e-12)
            assert pearson(x.astype(np.float32), y) == pytest.approx(oracle, abs=1e-5)


def test_pearson_of_what_is_constant():
    x = np.array([0.1, 2.0, 3.3])
    for constant in (np.full(3, 2.5), np.full(3, 0.1, dtype=np.float32)):
        assert pearson(constant, x) == 0.0
        assert pearson(x, constant) == 0.0
        assert pearson(constant, constant) == 0.0
    assert pearson(np.array([2.5, 2.5, 2.5 + 1e-12]), x) != 0.0


def test_accuracy_against_scikit_learn():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 137))
    oracle = accuracy_score(y, x)
    assert accuracy(x, y.astype(float)) == oracle
    assert accuracy(x.astype(np.float32), y) == oracle
    assert accuracy(y, x) == oracle


def test_overall_by_hand():
    scores = {"sst": 0.5, "para": 0.8, "sts": 0.6}
    assert overall(scores) == pytest.approx((0.5 + 0.8 + (0.6 + 1) / 2) / 3)
    assert overall(scores) == pytest.approx(0.7)
    assert overall({"sts": -1.0}) == 0.0
    assert overall({"sts": 1.0}) == 1.0
    assert overall({"sst": 1.0, "para": 1.0}) == 1.0
    assert overall({"cfimdb": 0.25}) == 0.25
    assert from_correlation(0.0) == 0.5


def test_the_tasks():
    assert set(Options().tasks) == set(LEADERBOARD) < set(TASKS)
    facts = {
        name: (task.pair, task.outputs, task.labels, task.metric_name)
        for name, task in TASKS.items()
    }
    assert facts == {
        "sst": (False, 5, Labels(0, 4, True), "accuracy"),
        "para": (True, 1, Labels(0, 1, True), "accuracy"),
        "sts": (True, 1, Labels(0, 5, False), "Pearson"),
        "cfimdb": (False, 2, Labels(0, 1, True), "accuracy"),
    }
    assert all(task.name == name for name, task in TASKS.items())
    assert all(task.files.count("{}") == 1 for task in TASKS.values())
    assert len({task.files for task in TASKS.values()}) == len(TASKS)


def test_predicted_classes():
    logits = torch.tensor([[0.1, 3.0, -1.0, 0.0, 2.9], [-5.0, -4.0, -4.5, -3.9, -4.0]])
    sst = TASKS["sst"].predict(logits)
    assert sst.tolist() == [1, 3]
    assert sst.dtype == torch.int64
    assert TASKS["cfimdb"].predict(logits[:, :2]).tolist() == [1, 1]


def test_predictions_from_one_logit():
    logits = torch.tensor([[-80.0], [-1e-3], [0.0], [1e-3], [2.0], [80.0]])
    para = TASKS["para"].predict(logits)
    assert para.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert para.dtype == torch.float32
    sts = TASKS["sts"].predict(logits)
    by_hand = [5 / (1 + math.exp(-x)) for x in logits[:, 0].tolist()]
    assert sts.tolist() == pytest.approx(by_hand, rel=1e-6)
    assert sts.dtype == torch.float32
    assert sts[2] == 2.5
    assert sts.min() >= 0 and sts.max() <= 5


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_predictions_are_one_an_example(task):
    logits = torch.zeros(1, task.outputs, dtype=torch.bfloat16)
    assert task.predict(logits).shape == (1,)


def test_cross_entropy_by_hand():
    """-log softmax at the label.

    Softmax taken twice would keep the loss above log(e + 4) - 1 > 0.9.
    """
    torch.manual_seed(0)
    logits = torch.randn(13, 5, dtype=torch.float64) * 7
    labels = torch.arange(13.0) % 5
    by_hand = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        by_hand.append(-math.log(math.exp(row[int(label)]) / total))
    for task in ("sst", "cfimdb"):
        assert TASKS[task].loss is supervised.cross_entropy
    assert loss_of("sst", logits, labels).item() == pytest.approx(np.mean(by_hand), rel=1e-6)
    assert loss_of("sst", torch.eye(5) * 100, torch.arange(5.0)) < 1e-6


@pytest.mark.parametrize("task,highest", [("para", 1.0), ("sts", 5.0)])
def test_sigmoid_cross_entropies_by_hand(task, highest):
    torch.manual_seed(0)
    logits = torch.randn(13, 1, dtype=torch.float64) * 7
    labels = torch.rand(13, dtype=torch.float64) * highest
    labels[:2] = torch.tensor([0.0, highest])
    by_hand = []
    for x, y in zip(logits[:, 0].tolist(), (labels / highest).tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        by_hand.append(-y * math.log(p) - (1 - y) * math.log1p(-p))
    assert loss_of(task, logits, labels).item() == pytest.approx(np.mean(by_hand), rel=1e-6)
    surest = loss_of(task, torch.tensor([[100.0], [-100.0]]), torch.tensor([highest, 0.0]))
    assert surest < 1e-6


def test_the_similarity_loss_is_least_at_the_label():
    for label in (0.4, 2.0, 4.6):
        logit = torch.zeros(1, 1, requires_grad=True)
        for _ in range(200):
            loss = loss_of("sts", logit, torch.tensor([label]))
            (gradient,) = torch.autograd.grad(loss, logit)
            logit = (logit - 4 * gradient).detach().requires_grad_()
        assert TASKS["sts"].predict(logit).item() == pytest.approx(label, abs=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_fp32_means_with_gradients(task):
    torch.manual_seed(0)
    logits = torch.randn(7, TASKS[task].outputs).bfloat16().requires_grad_()
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])  # as Batch holds them
    loss = loss_of(task, logits, labels)
    assert loss.dtype == torch.float32 and loss.shape == ()
    twice = loss_of(task, torch.cat([logits, logits]), torch.cat([labels, labels]))
    torch.testing.assert_close(loss, twice)
    loss.backward()
    assert (logits.grad != 0).all()
