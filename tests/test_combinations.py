"""A dozen of the random combinations of tests/combinations.py, and that faults are found there."""

import random
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from declare import check_value, settled
from errors import UserError
from multitask_bert import MultitaskBERT
from options import Options
from tests import combinations
from tests.combinations import FIELDS, LEFT_OUT, SAMPLES, Case, Finding, Place, new_case, run_case
from training.run import Run

SEED = 11711
NAMES = [f.name for f in fields(Options)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return combinations.prepare(tmp_path_factory.mktemp("combinations"))


@pytest.mark.parametrize("number", range(12))
def test_a_combination(
    number: int, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case, rng = new_case(SEED, number, place)
    try:
        run_case(case, place, rng)
    except Exception as error:
        raise AssertionError(f"{case.command()}: {error}") from error


# ---- what is drawn


@pytest.mark.parametrize("name", NAMES)
def test_each_option_is_drawn_or_left_out(name: str) -> None:
    """One that is neither needs a row of SAMPLES."""
    assert name in LEFT_OUT or combinations.is_drawable(FIELDS[name])


def test_no_name_is_out_of_date() -> None:
    assert LEFT_OUT | set(SAMPLES) <= set(NAMES) and not LEFT_OUT & set(SAMPLES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT_OUT])
def test_what_is_drawn_is_legal_by_itself(name: str) -> None:
    f = FIELDS[name]
    values = set()
    for seed in range(30):
        value = settled(f, combinations.draw_value(f, random.Random(seed), ("sst", "sts")))
        check_value(f, value)
        values.add(value)
    assert f.default not in values or len(values) > 1 or len(combinations.words_of(f)) == 1


def test_a_case_follows_from_its_seed(place: Place) -> None:
    drawn = [[new_case(seed, n, place)[0].given for n in range(40)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set().union(*drawn[0]) >= set(NAMES) - LEFT_OUT - {"word_tags"}


# ---- faults are found


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A plain one, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Case({"tasks": ("sst",), "steps_per_epoch": 2}, [])


def test_a_state_that_is_not_saved_is_found(
    case: Case, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The random states, here."""
    begin = Run.steps

    def disturbed(self: Run) -> object:
        torch.rand(int(self.progress.step > 0))
        return begin(self)

    monkeypatch.setattr(Run, "steps", disturbed)
    with pytest.raises(Finding, match=r"^resumed after step 1 of 2, .*safetensors differs: \["):
        run_case(case, place, random.Random(0))


def test_a_model_that_is_loaded_otherwise_is_found(
    case: Case, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MultitaskBERT.load

    def changed(folder: Path, *rest: bool) -> MultitaskBERT:
        model = load(folder, *rest)
        model.pipelines["sst"].head.out.bias.data[0] += 1e-4  # type: ignore[union-attr, index]
        return model

    monkeypatch.setattr(MultitaskBERT, "load", changed)
    with pytest.raises(Finding, match=r"^sst: predictions of the loaded model differ by up to"):
        run_case(case, place, random.Random(0))


def test_a_refusal_without_its_flags_is_found(
    case: Case, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(options: Options) -> None:
        raise UserError("this does not go with --no_such flag, nor with --lr")

    monkeypatch.setattr(combinations, "train", refused)
    with pytest.raises(Finding, match="^the refusal names no flag that was given: this does not"):
        run_case(case, place, random.Random(0))


def test_a_refusal_that_names_its_flags_drops_one(place: Place, case: Case) -> None:
    case.given |= {"lora": True, "option": "pretrain", "lora_rank": 3}
    run_case(case, place, random.Random(0))
    assert case.refusals[0].startswith("--lora trains the encoder, --option pretrain freezes it")
    assert case.options is not None and not (
        case.options.lora and case.options.option != "finetune"
    )
