"""What a run depends on: the same is taken, another is refused or warned of."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from errors import UserError
from models.folder import Base
from training.identity import check_same, new_identity, read_facts

FACTS: dict[str, Any] = {
    "commands": ["python multitask_classifier.py"],
    "run": "ab",
    "options": "",
    "data": {"sst_train": {"path": "data/a.csv", "sha256": "1" * 64}},
    "base_weights": "2" * 64,
    "tokenizer": "3" * 64,
    "dtype": "torch.float32",
    "init": "",
    "commit": "abc1234",
    "python": "3.11.2",
    "versions": {"torch": "2.13.0", "numpy": "2.1.0"},
    "device": "some CPU, 1 threads",
    "kernels": "AVX512",
}


def changed(*path: str, value: str) -> dict[str, Any]:
    """FACTS with another value at a path."""
    facts = copy.deepcopy(FACTS)
    inner = facts
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return facts


def test_the_same_is_taken_and_data_may_move() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(Path("run"), FACTS, changed("data", "sst_train", "path", value="moved/a.csv"))
        check_same(Path("run"), FACTS, changed("run", value="cd"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("data", "sst_train", "sha256"), "the data changed since: data/a.csv; put it back"),
        (("base_weights",), "the pretrained weights of --model changed"),
        (("tokenizer",), "the tokenizer of --model changed"),
        (("init",), "the model that --init started from changed"),
        (("dtype",), "began in torch.float32, would go on in other"),
    ],
)
def test_another_run_is_refused(path: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=f"--resume run: {message}"):
        check_same(Path("run"), FACTS, changed(*path, value="other"))


def test_other_code_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="^run: began at commit abc1234, goes on at other$"):
        check_same(Path("run"), FACTS, changed("commit", value="other"))


@pytest.mark.parametrize(
    ("path", "was"),
    [
        (("python",), "3.11.2"),
        (("versions", "torch"), "2.13.0"),
        (("versions", "scipy"), "None"),
        (("device",), "some CPU, 1 threads"),
        (("kernels",), "AVX512"),
    ],
)
def test_other_rounding_is_warned_of(path: tuple[str, ...], was: str) -> None:
    with pytest.warns(UserWarning) as caught:
        check_same(Path("run"), FACTS, changed(*path, value="other"))
    (warning,) = caught
    message = f"run: {path[-1]} was {was}, is other now; the results may differ in the last digits"
    assert str(warning.message) == message


def test_only_the_options_of_the_beginning_are_taken(tmp_path: Path) -> None:
    text = '{"seed": 1}\n'
    facts = {**FACTS, **new_identity(text, Base("some", "2" * 64, "3" * 64))}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "options.json").write_text(text)
    assert read_facts(tmp_path) == facts
    (tmp_path / "options.json").write_text(text.replace("1", "2"))
    with pytest.raises(UserError, match="its options.json was changed since the run began; put it"):
        read_facts(tmp_path)


@pytest.mark.parametrize("name", FACTS)
def test_a_damaged_record_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "options.json").touch()
    for value in (7, None, [{}]):
        (tmp_path / "run.json").write_text(json.dumps({**FACTS, name: value}))
        with pytest.raises(UserError, match=f"run.json: {name}.* is .*, expected"):
            read_facts(tmp_path)
