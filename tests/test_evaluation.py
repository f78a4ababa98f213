"""Scores against scikit-learn and scipy; prediction files byte for byte. The course's functions:
test_course_code.py.
"""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from bert import BertModel
from datasets import Split, count_tokens, make_split
from errors import UserError
from evaluation import evaluate, measure, predict, predict_logits, write_predictions
from examples import Example
from multitask_bert import MultitaskBERT
from options import Options
from packing import Tokens
from tasks import TASKS

WORDS = [
    "a",
    "the",
    "film",
    "question",
    "is",
    "not",
    "very",
    "dull",
    "fine",
    "how",
    "where",
    "do",
    "I",
    "play",
    "well",
    "?",
]


@pytest.fixture(scope="module")
def model(tiny: Path) -> MultitaskBERT:
    torch.manual_seed(0)
    model = MultitaskBERT(BertModel.from_pretrained(tiny), Options(pooling="mean"))
    for pipeline in model.pipelines.values():  # far from zero: predictions that differ
        torch.nn.init.normal_(pipeline.head.out.weight, std=4.0)
    with torch.no_grad():
        for task in ("para", "sts"):  # around zero
            mean = predict_logits(model, split_of(model, task)).mean(0)
            model.pipelines[task].head.out.bias -= mean
    return model


def split_of(model: MultitaskBERT, task: str, size: int = 61) -> Split:
    """Random sentences of 1 to 40 words with random labels."""
    rng = np.random.default_rng(len(task))
    k = len(TASKS[task].columns)
    texts = [
        tuple(" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(k))
        for _ in range(size)
    ]
    legal = TASKS[task].labels
    labels = rng.integers(legal.low, legal.high + 1, size)
    examples = [
        Example(f"id{i}", t, float(y)) for i, (t, y) in enumerate(zip(texts, labels, strict=True))
    ]
    encoded = [Tokens(ids, types) for ids, types in model.tokenizer.encode_batch(texts, 256)]
    return make_split(TASKS[task], examples, encoded, Options())


# ---- predictions


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_file_order(model, task, monkeypatch):
    """Batches are by length; what comes back is in the order of the examples, as each gets it
    alone.
    """
    monkeypatch.setattr("evaluation.EVALUATION_TOKENS", 100)  # many batches
    split = split_of(model, task)
    calls = []
    logits = model.logits
    monkeypatch.setattr(
        model, "logits", lambda batches: calls.append(model.training) or logits(batches)
    )
    together = predict_logits(model.train(), split)
    assert (
        len(calls) > 10 and not any(calls) and model.training
    )  # scored in eval mode, left as it was
    assert (
        together.shape == (61, TASKS[task].outputs)
        and together.dtype == torch.float32
        and not together.requires_grad
    )
    with torch.no_grad():
        alone = (
            torch.cat([logits({task: split.batch([i])})[task] for i in range(61)])
            if not model.eval().training
            else None
        )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert together.std(0).min() > 0.05  # a wrong order would show
    predictions = predict(model, split)
    assert len(set(predictions.tolist())) > 1
    np.testing.assert_array_equal(predictions, TASKS[task].predict(together).numpy())
    assert predictions.tolist() == pytest.approx(
        model.predict(task, [e.texts for e in split.examples]), rel=1e-5
    )
    assert not model.training


def test_each_module_goes_back_to_its_own_mode(model, monkeypatch):
    """A frozen part that stays in eval mode while the rest trains; also after an error."""
    model.train()
    model.bert.bert_layers[0].eval()
    modes = [module.training for module in model.modules()]
    assert True in modes and False in modes
    predict_logits(model, split_of(model, "sst"))
    assert [module.training for module in model.modules()] == modes
    monkeypatch.setattr(model, "logits", lambda batches: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_logits(model, split_of(model, "sst"))
    assert [module.training for module in model.modules()] == modes
    model.eval()


def test_outputs_that_are_not_finite(model):
    """In training the rate is to blame, in a loaded model its weights."""
    split = split_of(model, "sst")
    out = model.pipelines["sst"].head.out
    before = {name: x.clone() for name, x in out.state_dict().items()}
    with torch.no_grad():
        out.bias[0] = float("nan")
    with pytest.raises(UserError, match="^sst: .* not finite: training diverged; lower --lr"):
        predict_logits(model.train(), split)
    with pytest.raises(UserError, match="NaN or infinity in its weights pipelines.sst.head.out.b"):
        predict_logits(model.eval(), split)

    # Weights can also be too large for their sums.
    out.load_state_dict(before)
    with torch.no_grad():
        out.weight.fill_(3e38)
    with pytest.raises(
        UserError, match="its weights are, so they are too large; try --precision fp32"
    ):
        predict_logits(model, split)
    out.load_state_dict(before)


def test_evaluate(model):
    splits = {task: split_of(model, task) for task in ("sst", "para", "sts")}
    seen: list[int] = []
    found = evaluate(model, splits, seen.append)
    results = found.scores
    expected = []
    for task, split in splits.items():
        labels = np.array([e.label for e in split.examples])
        measured = measure(TASKS[task], predict(model, split), labels)
        assert results[task] == {**measured, "loss": results[task]["loss"]}
        assert results[task]["count"] == 61
        expected.append(results[task]["score"])
    assert results["overall"] == pytest.approx(
        (expected[0] + expected[1] + (expected[2] + 1) / 2) / 3
    )
    assert list(results) == ["sst", "para", "sts", "overall"]
    json.dumps(results, allow_nan=False)
    alone = evaluate(model, {"sst": splits["sst"]})
    assert alone.scores["overall"] == results["sst"]["score"]

    # The predictions that were scored are there, and each token was told of once.
    for task, split in splits.items():
        assert found.predictions[task].tolist() == predict(model, split).tolist()
    assert sum(seen) == count_tokens(splits.values())
    assert sum(seen) == sum(len(tokens) for split in splits.values() for tokens in split.tokens)


def plain_loss(task: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss over all examples, by torch's own functions on whole tensors."""
    if task == "sst":
        return F.cross_entropy(logits, labels.long())
    targets = labels / 5 if task == "sts" else labels
    return F.binary_cross_entropy(logits.squeeze(1).double().sigmoid(), targets.double())


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_the_dev_loss_is_a_mean_over_all_examples_in_eval_mode(model, task, monkeypatch):
    """Batches of many sizes, so that a mean of their means would be another number."""
    monkeypatch.setattr("evaluation.EVALUATION_TOKENS", 100)
    split = split_of(model, task)
    assert len({len(indices) for indices in split.by_length(100)}) > 1
    labels = torch.tensor([example.label for example in split.examples])
    expected = plain_loss(task, predict_logits(model, split), labels)
    found = evaluate(model.train(), {task: split}).scores[task]["loss"]
    model.eval()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_the_dev_loss_costs_no_second_pass(model, monkeypatch):
    split = split_of(model, "sst")
    calls = []
    forward = model.forward

    def counted(packed):
        calls.append(packed)
        return forward(packed)

    monkeypatch.setattr(model, "forward", counted)
    evaluate(model, {"sst": split})
    assert len(calls) == len(split.by_length(8192))


class LogitsAlone:
    """A model from elsewhere: it has what evaluation.Model says, and no more."""

    def __init__(self, model: MultitaskBERT):
        self.training = False
        self.train, self.modules = model.train, model.modules
        self.named_parameters, self.logits = model.named_parameters, model.logits


def test_a_model_from_elsewhere_is_scored_without_a_loss(model):
    split = split_of(model, "sst")
    alone = evaluate(LogitsAlone(model), {"sst": split}).scores
    whole = evaluate(model, {"sst": split}).scores
    assert "loss" not in alone["sst"]
    assert alone == {**whole, "sst": {**alone["sst"]}} and alone["sst"]["score"] > 0


def test_a_loss_that_is_not_finite(model):
    """Of finite logits, as a loss with a logarithm may have it."""
    split = split_of(model, "sst")
    task = replace(split.task, loss=lambda forward, batch: torch.tensor(float("inf")))
    with pytest.raises(UserError, match="^sst: the outputs are finite, .* check the task's loss"):
        evaluate(model.eval(), {"sst": replace(split, task=task)})
    with pytest.raises(UserError, match="^sst: the outputs are finite, .* training diverged"):
        evaluate(model.train(), {"sst": replace(split, task=task)})
    model.eval()


# ---- scores


@pytest.mark.parametrize("task", ["sst", "para", "cfimdb"])
def test_measure_against_scikit_learn(task):
    rng = np.random.default_rng(0)
    highest = int(TASKS[task].labels.high)
    for top in {highest, max(1, highest - 2)}:  # with classes that do not occur, too
        labels, predictions = rng.integers(0, top + 1, (2, 137))
        predictions[:60] = labels[:60]
        got = measure(TASKS[task], predictions, labels.astype(float))
        assert (
            got["score"] == accuracy_score(labels, predictions)
            and got["metric"] == "accuracy"
            and got["count"] == 137
        )
        assert got["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
        assert (
            got["confusion"]
            == confusion_matrix(labels, predictions, labels=list(range(highest + 1))).tolist()
        )
        assert (
            got["confusion"][0][1] == ((labels == 0) & (predictions == 1)).sum()
        )  # rows are the labels
        json.dumps(got, allow_nan=False)
        assert measure(TASKS[task], predictions.astype(np.float32), labels) == got


def test_measure_against_scipy():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 26, 137) / 5
    predictions = (labels + rng.normal(size=137)).astype(np.float32)
    got = measure(TASKS["sts"], predictions, labels)
    assert (
        got["score"] == pytest.approx(pearsonr(predictions, labels).statistic, abs=1e-6)
        and got["metric"] == "Pearson"
    )
    assert (
        got["spearman"] == pytest.approx(spearmanr(predictions, labels).statistic)
        and got["count"] == 137
    )
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize(
    ("task", "means"),
    [
        ("sst", "accuracy says little"),
        ("para", "accuracy says little"),
        ("sts", "correlation is undefined, counted as 0"),
    ],
)
def test_labels_that_are_all_one_warn(task: str, means: str) -> None:
    predictions = np.array([0.0, 1.0, 1.0])
    with pytest.warns(UserWarning, match=f"^{task}: all labels are 1; {means}$"):
        got = measure(TASKS[task], predictions, np.ones(3))
    assert got["score"] == pytest.approx(0.0 if task == "sts" else 2 / 3)
    assert got.get("spearman", 0.0) == 0.0


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_constant_predictions_warn(task):
    labels = np.array([0.0, 1.0, 1.0])
    with pytest.warns(UserWarning, match=f"^{task}: all predictions are 1$"):
        got = measure(TASKS[task], np.ones(3, dtype=np.float32), labels)
    assert (
        got["score"] == pytest.approx(0.0 if task == "sts" else 2 / 3)
        and got.get("spearman", 0.0) == 0.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(TASKS[task], labels, labels)


# ---- prediction files

FILES = {  # as an f-string writes numpy's numbers: float32 with the digits of a float64
    "sst": (torch.tensor([4, 0, 2]), b"id \t Predicted_Sentiment \nx1 , 4 \ny2 , 0 \nz3 , 2 \n"),
    "para": (
        torch.tensor([1.0, 0.0, 1.0]),
        b"id \t Predicted_Is_Paraphrase \nx1 , 1.0 \ny2 , 0.0 \nz3 , 1.0 \n",
    ),
    "sts": (
        torch.tensor([0.1, 4.5, 3.0]),
        b"id \t Predicted_Similiary \nx1 , 0.10000000149011612 \ny2 , 4.5 \nz3 , 3.0 \n",
    ),
    "cfimdb": (torch.tensor([1, 0, 1]), b"id \t Predicted_Sentiment \nx1 , 1 \ny2 , 0 \nz3 , 1 \n"),
}


@pytest.mark.parametrize("task", FILES)
def test_the_leaderboards_format(tmp_path, task):
    predictions, expected = FILES[task]
    path = tmp_path / "new" / "folder" / "out.csv"
    for given in (path, str(path)):
        write_predictions(given, task, ["x1", "y2", "z3"], predictions.numpy())
        assert path.read_bytes() == expected
    assert [p.name for p in path.parent.iterdir()] == [
        "out.csv"
    ] and path.stat().st_mode & 0o777 == 0o644


def test_similarities_are_what_the_courses_f_string_writes(tmp_path):
    values = np.random.default_rng(0).random(500, dtype=np.float32) * np.float32(5)
    values[:3] = 1e-5, 2.5, 5.0
    write_predictions(tmp_path / "out.csv", "sts", [f"i{n}" for n in range(500)], values)
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    read = [row.removesuffix(" ").split(" , ")[1] for row in rows]
    assert [float(text) for text in read] == values.tolist() and read[1:3] == ["2.5", "5.0"]
    assert read == [f"{x}" for x in values]


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_every_id_once_in_file_order(model, tmp_path, task, monkeypatch):
    """From the model to the file, through batches by length."""
    monkeypatch.setattr("evaluation.EVALUATION_TOKENS", 100)
    split = split_of(model, task)
    write_predictions(
        tmp_path / "out.csv", task, [e.id for e in split.examples], predict(model, split)
    )
    header, *rows = (tmp_path / "out.csv").read_text().split("\n")[:-1]
    assert header == f"id \t {TASKS[task].header} " and [r.split(" , ")[0] for r in rows] == [
        f"id{i}" for i in range(61)
    ]
    alone = [model.predict(task, [e.texts])[0] for e in split.examples]
    assert [float(r.split(" , ")[1]) for r in rows] == pytest.approx(alone, rel=1e-4)


def test_ids_without_a_prediction(tmp_path):
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(tmp_path / "out.csv", "sst", ["a", "b"], [1])
    assert (tmp_path / "out.csv").read_text() == "old"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "out.csv", tmp_path / "file" / "below" / "out.csv"):
        with pytest.raises(UserError) as caught:
            write_predictions(path, "sst", ["a"], [1])
        assert str(caught.value).startswith(f"{path}: can't be written (") and "\n" not in str(
            caught.value
        )
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: a folder, expected a file"):
        write_predictions(tmp_path / "folder", "sst", ["a"], [1])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "file",
        "folder",
    ]  # and nothing half written beside it


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "out.csv"
    write_predictions(path, "sst", ["a"], [1])
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"out.csv: can't be written \(No space left on device\)$"):
        write_predictions(path, "sst", ["a"], [2])
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["out.csv"]
