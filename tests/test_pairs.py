"""Joins by their formulas in fp64; in whole models, what --pair_features and the flags beside it
make, save and refuse.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from choices.pair import FEATURES as NAMES
from choices.pair import SYMMETRIC
from errors import UserError
from heads.pairs import (
    COSINE_MAPS,
    FEATURES,
    CosineSimilarity,
    OneSequence,
    PairFeatures,
    Projected,
    make_join,
)
from multitask_bert import MultitaskBERT, build
from multitask_classifier import train
from options import Options
from tasks import TASKS, check_tasks
from tests.multitask import batch, close, logits, texts

COSINE = {"pair_encoding": "bi", "pair_features": "u,v sts=cosine", "sts_loss": "mse"}


def pair(size: int = 13, width: int = 7) -> tuple[Tensor, Tensor]:
    """u and v."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, size, width, generator=generator).unbind(0)
    return u, v


def joined(join: torch.nn.Module, u: Tensor, v: Tensor) -> Tensor:
    """What a join gives for u and v, laid out as u0 v0 u1 v1 ..."""
    return join(torch.stack([u, v], 1).flatten(0, 1), torch.arange(len(u)).repeat_interleave(2))


def model_of(tiny: Path, **change: object) -> MultitaskBERT:
    """A tiny model with all that trains moved, so that nothing is what it is at first."""
    torch.manual_seed(0)
    model = build(Options(**{"precision": "fp32", "model": str(tiny), **change}).check())
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    return model.eval()


# ---- features


def by_hand(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A feature as a formula."""
    return {
        "u": u,
        "v": v,
        "sum": u + v,
        "abssum": abs(u + v),
        "absdiff": abs(u - v),
        "product": u * v,
    }[name]


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_by_hand(name: str) -> None:
    u, v = pair()
    expected = by_hand(name, u.double().numpy(), v.double().numpy())
    np.testing.assert_allclose(joined(PairFeatures(7, [name]), u, v), expected, atol=1e-6)


def test_the_default_features_are_infersent_s() -> None:
    u, v = pair()
    join = make_join(TASKS["sts"], 7, Options(pair_encoding="bi"))
    assert torch.equal(joined(join, u, v), torch.cat([u, v, (u - v).abs(), u * v], 1))
    assert join.features == 28 and not join.is_output and not list(join.parameters())


def test_features_stand_in_the_order_that_was_typed() -> None:
    u, v = pair()
    options = Options(pair_encoding="bi", pair_features="product,u sts=abssum,absdiff").check()
    para = make_join(TASKS["para"], 7, options)
    sts = make_join(TASKS["sts"], 7, options)
    assert torch.equal(joined(para, u, v), torch.cat([u * v, u], 1)) and para.features == 14
    assert torch.equal(joined(sts, u, v), torch.cat([(u + v).abs(), (u - v).abs()], 1))


def test_the_names_are_those_of_the_options() -> None:
    assert {*FEATURES, "cosine"} == set(NAMES)
    u, v = pair()
    for name in FEATURES:
        join = PairFeatures(7, [name])
        assert torch.equal(joined(join, u, v), joined(join, v, u)) == (name in SYMMETRIC)


def test_one_sequence_is_its_vector() -> None:
    u, _ = pair()
    for task, options in (("sst", Options(pair_encoding="bi")), ("sts", Options())):
        join = make_join(TASKS[task], 7, options)
        assert isinstance(join, OneSequence) and join.features == 7
        assert torch.equal(join(u, torch.arange(13)), u)


# ---- the cosine


def cosines(u: Tensor, v: Tensor) -> np.ndarray:
    """In fp64, by the formula."""
    a, b = u.double().numpy(), v.double().numpy()
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def test_cosine_maps_by_hand() -> None:
    u, v = pair()
    cosine = cosines(u, v)
    assert cosine.min() < 0 < cosine.max()
    affine, times5 = (joined(CosineSimilarity(name), u, v) for name in ("affine", "times5"))
    np.testing.assert_allclose(affine[:, 0], 2.5 * (1 + cosine), atol=1e-5)
    np.testing.assert_allclose(times5[:, 0], 5 * cosine, atol=1e-5)  # below 0 too
    for u, low, high in ((v, 5, 5), (-v, 0, -5)):
        assert joined(CosineSimilarity("affine"), u, v).numpy() == pytest.approx(low, abs=1e-5)
        assert joined(CosineSimilarity("times5"), u, v).numpy() == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("name", COSINE_MAPS)
def test_every_cosine_has_a_gradient(name: str) -> None:
    """Below 0 too, where a ReLU would have none; and vectors of zeros make no NaN."""
    u, v = pair()
    u[0] = 0
    u.requires_grad_()
    out = joined(CosineSimilarity(name), u, v)
    out.sum().backward()
    assert out.isfinite().all() and u.grad is not None and u.grad.isfinite().all()
    assert (u.grad[1:].abs().sum(1) > 1e-3).all()


def test_a_similarity_is_the_cosine_itself(tiny: Path) -> None:
    """No head, no shared weights: the pooled vectors say it all, and predictions are 0 to 5."""
    model = model_of(tiny, **COSINE, cosine_map="times5", pooling="sts=mean")
    some = texts("sts")
    with torch.no_grad():
        forward = model.forward_of({"sts": batch(model, "sts", some)})
    u, v = forward.pooled["sts"][0::2], forward.pooled["sts"][1::2]
    np.testing.assert_allclose(forward.logits["sts"][:, 0], 5 * cosines(u, v), atol=1e-5)
    assert not list(model.pipelines["sts"].parameters())
    predicted = model.tasks["sts"].predict(torch.tensor([[-3.0], [2.25], [5.0001]]))
    assert predicted.tolist() == [0.0, 2.25, 5.0]
    model.predict("sts", some)


# ---- a projection first


def test_a_projection_is_a_linear_on_both() -> None:
    torch.manual_seed(0)
    u, v = pair()
    options = Options(pair_encoding="bi", pair_features="abssum", pair_projection="sts=linear")
    join = make_join(TASKS["sts"], 7, options.check())
    assert isinstance(join, Projected) and join.features == 7
    weight, bias = (p.detach().double() for p in (join.project.weight, join.project.bias))
    a, b = (x.double() @ weight.T + bias for x in (u, v))
    torch.testing.assert_close(joined(join, u, v), (a + b).abs().float())
    assert isinstance(make_join(TASKS["para"], 7, options), PairFeatures)
    assert Projected(7, CosineSimilarity("affine")).is_output


# ---- whole models


@pytest.mark.parametrize(
    "change",
    [
        {"pair_features": "u,v sts=sum"},
        {"pair_features": "abssum,absdiff", "pair_projection": "para=linear"},
        COSINE,
        {**COSINE, "pair_projection": "linear", "lora": True, "pooling": "mean"},
    ],
)
def test_neighbours_change_nothing_and_all_is_saved(
    tiny: Path, tmp_path: Path, change: dict
) -> None:
    model = model_of(tiny, **{"pair_encoding": "bi", **change})
    model.save(tmp_path)
    again = MultitaskBERT.load(tmp_path)
    for task in ("para", "sts"):
        some = texts(task, 5)
        whole = logits(model, task, some)
        assert whole.std(0).min() > 1e-3  # or else a leak would not show
        close(torch.cat([logits(model, task, [text]) for text in some]), whole)
        close(logits(model, task, [*some, *texts(task, 2, 200, seed=1)])[:5], whole)
        assert torch.equal(logits(again, task, some), whole)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"pair_features": "cosine", "sts_loss": "mse"},
            "--pair_features para=cosine: Quora has classes, a cosine is a similarity; expected "
            "other features, or sts=cosine",
        ),
        ({"pair_features": "sst=u"}, "--pair_features sst=...: expected a task of pairs; drop it"),
        (
            {"pair_projection": "sst=linear"},
            "--pair_projection sst=...: expected a task of pairs; drop it",
        ),
    ],
)
def test_what_is_not_for_a_task(given: dict, message: str) -> None:
    options = Options(pair_encoding="bi", **given).check()
    with pytest.raises(UserError) as caught:
        check_tasks(options)
    assert str(caught.value) == message


def test_a_cosine_beside_a_task_without_pairs() -> None:
    """The plain value is nothing to SST, whose head may be what it likes."""
    options = Options(
        tasks=("sst", "sts"),
        pair_encoding="bi",
        pair_features="cosine",
        sts_loss="mse",
        head="sst=linear",
        rmsnorm="encoder",
    )
    check_tasks(options.check())


def test_a_run_of_sts_alone_ends(options: Options) -> None:
    """What is said of files of other tasks asks nothing of these, which could not have a cosine."""
    change = {"pair_encoding": "bi", "pair_features": "cosine", "sts_loss": "mse"}
    for task in ("sst", "para"):
        Path(f"predictions/{task}-dev-output.csv").parent.mkdir(exist_ok=True)
        Path(f"predictions/{task}-dev-output.csv").write_text("of another run")
    result = train(replace(options, tasks=("sts",), **change))
    assert Path("predictions/sts-test-output.csv").exists() and result["folder"]
