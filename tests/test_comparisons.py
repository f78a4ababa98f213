"""Losses that a flag chooses, against torch and formulas in fp64; what is predicted from their
outputs, and that all that reads it goes on working.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classifier import main as classify
from errors import UserError
from forward import Forward
from multitask_classifier import MultitaskBERT, train
from options import Options
from packing import Batch
from predict import predict_with
from report import main as report
from tasks import SST_LOSSES, STS_LOSSES, TASKS, Task, check_tasks, tasks_of

LOSSES = [("sst", name) for name in SST_LOSSES if SST_LOSSES[name]]
LOSSES += [("cfimdb", name) for _, name in LOSSES]
LOSSES += [("sts", name) for name in STS_LOSSES if STS_LOSSES[name]]


def task_of(name: str, loss: str) -> Task:
    """A task with its loss chosen."""
    flag = TASKS[name].loss_option
    return tasks_of(Options(tasks=(name,), **{flag: loss}))[name]


def loss_of(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of an encoder call of which the logits alone are read."""
    nothing: dict = {"packed": None, "embeddings": None, "states": [], "pooled": {}}
    batch = Batch(task.name, [], torch.arange(len(labels)), labels)
    return task.loss(Forward(**nothing, logits={task.name: logits}), batch)


def outputs(count: int, size: int = 13) -> Tensor:
    """Random outputs, some of them far out."""
    return 4 * torch.randn(size, count, generator=torch.Generator().manual_seed(0))


CLASSES = torch.arange(13.0) % 5


# ---- losses


def test_one_against_all_by_torch() -> None:
    """BCEWithLogitsLoss of each class alone; and the formula in fp64."""
    logits = outputs(5)
    loss = loss_of(task_of("sst", "one_vs_all"), logits, CLASSES)
    alone = [nn.BCEWithLogitsLoss()(logits[:, k], (k == CLASSES).float()) for k in range(5)]
    torch.testing.assert_close(loss, torch.stack(alone).sum())
    total = 0.0
    for row, label in zip(logits.double().tolist(), CLASSES.tolist(), strict=True):
        for k, x in enumerate(row):
            total += math.log1p(math.exp(-x if k == label else x))
    assert loss.item() == pytest.approx(total / 13, rel=1e-6)


def test_ordinal_by_torch() -> None:
    """BCEWithLogitsLoss of each step alone; and the formula in fp64."""
    logits = outputs(4)
    loss = loss_of(task_of("sst", "ordinal"), logits, CLASSES)
    alone = [nn.BCEWithLogitsLoss()(logits[:, k], (k < CLASSES).float()) for k in range(4)]
    torch.testing.assert_close(loss, torch.stack(alone).sum())
    total = 0.0
    for row, label in zip(logits.double().tolist(), CLASSES.tolist(), strict=True):
        for k, x in enumerate(row):
            total += math.log1p(math.exp(-x if k < label else x))
    assert loss.item() == pytest.approx(total / 13, rel=1e-6)


def test_squared_error_by_torch() -> None:
    """On the labels' own scale, and not cut off."""
    logits, labels = 3 * outputs(1), torch.linspace(0, 5, 13)
    loss = loss_of(task_of("sts", "mse"), logits, labels)
    torch.testing.assert_close(loss, nn.MSELoss()(logits[:, 0], labels))
    by_hand = np.mean((logits[:, 0].double().numpy() - labels.double().numpy()) ** 2)
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("name", "loss"), LOSSES)
def test_losses_are_fp32_means_with_gradients(name: str, loss: str) -> None:
    """From bf16 outputs too, and from ones so large that their exponentials overflow."""
    task = task_of(name, loss)
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    logits = outputs(task.outputs, 7).bfloat16().requires_grad_()
    found = loss_of(task, logits, labels)
    assert found.dtype == torch.float32 and found.shape == ()
    twice = loss_of(task, torch.cat([logits, logits]), torch.cat([labels, labels]))
    torch.testing.assert_close(found, twice)
    found.backward()
    assert (logits.grad != 0).all()
    for far in (-3e4, 3e4):
        large = torch.full((7, task.outputs), far, dtype=torch.bfloat16).requires_grad_()
        loss_of(task, large, labels).backward()
        assert large.grad.isfinite().all()
        if task.probabilities:
            assert task.probabilities(large.detach()).isfinite().all()


# ---- predictions and probabilities


def test_one_against_all_is_the_largest_and_shares_of_sigmoids() -> None:
    task, logits = task_of("sst", "one_vs_all"), outputs(5)
    assert task.predict(logits).tolist() == logits.argmax(1).tolist()
    sigmoids = 1 / (1 + np.exp(-logits.double().numpy()))
    shares = sigmoids / sigmoids.sum(1, keepdims=True)
    np.testing.assert_allclose(task.probabilities(logits), shares, rtol=1e-12)


def test_ordinal_counts_steps() -> None:
    """By hand, with steps that do not fall in the third row and the last: there a difference is
    below 0 and cut off.
    """
    task = task_of("sst", "ordinal")
    above = torch.tensor(
        [[0.9, 0.8, 0.6, 0.2], [0.4, 0.3, 0.2, 0.1], [0.6, 0.3, 0.7, 0.1], [0.5, 0.9, 0.9, 0.9]],
        dtype=torch.float64,
    )
    logits = above.log() - (1 - above).log()
    logits[-1, 0] = 0.0  # exactly a half is not passed
    assert task.predict(logits).tolist() == [3, 0, 2, 3]
    assert task.predict(logits).dtype == torch.int64
    expected = [
        [0.1, 0.1, 0.2, 0.4, 0.2],
        [0.6, 0.1, 0.1, 0.1, 0.1],
        [0.4 / 1.4, 0.3 / 1.4, 0, 0.6 / 1.4, 0.1 / 1.4],
        [0.5 / 1.4, 0, 0, 0, 0.9 / 1.4],
    ]
    np.testing.assert_allclose(task.probabilities(logits), expected, atol=1e-12)
    best = task.by_class(logits)
    assert best.shape == (4, 5) and torch.equal(best.argmax(1), task.predict(logits))


@pytest.mark.parametrize("loss", ["one_vs_all", "ordinal"])
@pytest.mark.parametrize("name", ["sst", "cfimdb"])
def test_probabilities_are_of_all_classes_and_sum_to_one(name: str, loss: str) -> None:
    task, classes = task_of(name, loss), TASKS[name].outputs
    found = task.probabilities(10 * outputs(task.outputs, 137))
    assert found.shape == (137, classes) and task.columns_of_probabilities == classes
    assert found.min() >= 0 and found.sum(1).numpy() == pytest.approx(1)
    assert TASKS["para"].columns_of_probabilities == 1 == 1 + TASKS["sts"].columns_of_probabilities


def test_similarities_are_cut_off() -> None:
    task = task_of("sts", "mse")
    found = task.predict(torch.tensor([[-1.0], [0.25], [5.5]], dtype=torch.bfloat16))
    assert found.tolist() == [0.0, 0.25, 5.0] and found.dtype == torch.float32


# ---- in runs


def test_the_default_tasks_are_those_of_the_table() -> None:
    assert tasks_of(Options()) == {name: TASKS[name] for name in Options().tasks}


def test_a_loss_that_no_task_has() -> None:
    with pytest.raises(UserError, match="^--sst_loss ordinal is for SST, CFIMDB alone, not"):
        check_tasks(Options(tasks=("para", "sts"), sst_loss="ordinal"))
    with pytest.raises(UserError, match="^--sts_loss mse is for STS alone, not --tasks"):
        check_tasks(Options(tasks=("sst", "cfimdb"), sts_loss="mse"))
    with pytest.raises(UserError, match="^--sst_loss x: expected one of softmax, one_vs_all, ord"):
        tasks_of(Options(sst_loss="x"))


def test_a_run_of_other_outputs(options: Options, capsys: pytest.CaptureFixture) -> None:
    """Tables of probabilities, predict.py, the report and the course's faces read it."""
    options = replace(options, sst_loss="ordinal", sts_loss="mse", tasks=("sst", "sts"))
    folder = train(options)["folder"]
    model = MultitaskBERT.load(folder)
    texts = ["A lovely film .", "It is not good , sadly ."]
    assert set(model.predict("sst", texts)) <= set(range(5))
    assert np.array(model.predict("sst", texts, probabilities=True)).shape == (2, 5)
    batch = model.tokenizer(texts, return_tensors="pt", padding=True)
    found = model.predict_sentiment(batch["input_ids"], batch["attention_mask"])
    assert found.shape == (2, 5) and found.argmax(1).tolist() == model.predict("sst", texts)
    assert all(0 <= x <= 5 for x in model.predict("sts", [(texts[0], texts[1])]))

    # The same from files; the report finds probabilities and predictions of a legal kind.
    kept = Path(folder, "best", "sst-dev-probabilities.csv").read_text()
    assert kept.startswith(
        "id,Probability_0,Probability_1,Probability_2,Probability_3,Probability_4"
    )
    scores = predict_with(folder, {}, probabilities=True)
    assert scores["sst_dev"]["count"] == 12
    capsys.readouterr()
    report([folder, "--out", "page"])
    page = "".join(path.read_text() for path in Path("page").rglob("*.html"))
    assert "damaged" not in page and "not known how sure" not in page


def test_part_1_learns_by_it_too(options: Options, capsys: pytest.CaptureFixture) -> None:
    words = f"--model {options.model} --data_dir {options.data_dir} --epochs 1 --batch_size 13"
    classify([*words.split(), "--steps_per_epoch", "1", "--sst_loss", "ordinal", "--no-test"])
    heads = [MultitaskBERT.load(path).pipelines for path in sorted(Path("runs").iterdir())]
    sizes = {name: x.head.out.out_features for found in heads for name, x in found.items()}
    assert sizes == {"sst": 4, "cfimdb": 1}
