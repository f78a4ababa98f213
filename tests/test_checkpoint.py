"""Checkpoints are whole or not there: a kill is an exception at every single file operation of
replace_folder.
"""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from optimizer import AdamW, NamedState
from training import checkpoint
from training.checkpoint import load_last, recover, replace_folder, save_last


class Killed(BaseException):
    """Nothing may catch it."""


def write(text: str):
    def fill(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)

    return fill


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, write("old"))
    left = [moment]

    def killing(function):
        def one(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **more)

        return one

    with monkeypatch.context() as patch:
        operations = [
            (Path, "mkdir"),
            (Path, "write_text"),
            (Path, "rename"),
            (checkpoint, "sync"),
            (shutil, "rmtree"),
        ]
        for owner, name in operations:
            patch.setattr(owner, name, killing(getattr(owner, name)))
        try:
            replace_folder(folder, write("new"))
            finished = True
        except Killed:
            finished = False
    assert recover(folder) and content(folder) in ({"old"}, {"new"})
    assert not finished or content(folder) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_recover_tells_that_nothing_was_saved(tmp_path: Path) -> None:
    (tmp_path / "last.new").mkdir()  # torn: killed while the first one was written
    assert not recover(tmp_path / "last") and not list(tmp_path.iterdir())


def test_a_failed_write_is_one_line_and_keeps_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, write("old"))

    def full(new: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="last: can't be written \\(No space left on device\\)"):
        replace_folder(folder, full)
    assert content(folder) == {"old"}


# ---- the pieces of a run


class Remembers:
    """What a hook or a combiner may be: something with a state of tensors."""

    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])

    def state_dict(self) -> dict[str, Tensor]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.value = state["value"].clone()


def pieces(seed: int, value: float) -> dict[str, object]:
    """Of each kind one."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = AdamW(model.named_parameters(), lr=0.1)
    model(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    return {
        "model": model,
        "optimizer": NamedState(optimizer),
        "extras": nn.ModuleDict({"extra": nn.Linear(2, 2)}),
        "combiner": Remembers(value),
        "stateless": object(),
        "nothing": None,
        "empty": nn.ModuleDict(),
        "averages": Remembers(value + 1),
    }


def test_every_piece_with_a_state_comes_back(tmp_path: Path) -> None:
    held, other = pieces(0, 7.0), pieces(1, 3.0)
    save_last(tmp_path / "last", held, {"step": 5})
    drawn = torch.rand(3)  # of the generator as it was when saving
    assert {path.name for path in (tmp_path / "last").iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "extras.safetensors",
        "combiner.safetensors",
        "averages.safetensors",
        "random.safetensors",
        "progress.json",
        "manifest.json",
    }
    assert load_last(tmp_path / "last", other) == {"step": 5}
    assert torch.equal(torch.rand(3), drawn)
    for name in ("model", "optimizer", "extras", "combiner", "averages"):
        mine, theirs = held[name].state_dict(), other[name].state_dict()  # type: ignore[attr-defined]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name


@pytest.mark.parametrize("name", ["model", "optimizer", "extras", "combiner", "averages"])
def test_a_missing_piece_is_one_line(tmp_path: Path, name: str) -> None:
    save_last(tmp_path / "last", pieces(0, 7.0), {})
    (tmp_path / "last" / f"{name}.safetensors").unlink()
    with pytest.raises(UserError, match=f"last/{name}.safetensors: No such file") as caught:
        load_last(tmp_path / "last", pieces(1, 3.0))
    assert "\n" not in str(caught.value)


def test_a_piece_that_the_run_has_not_is_refused(tmp_path: Path) -> None:
    """As after a run without the hook that the checkpoint was made with."""
    save_last(tmp_path / "last", pieces(0, 7.0), {})
    fewer = pieces(1, 3.0)
    del fewer["averages"]
    with pytest.raises(UserError, match="last: holds averages, which this run has not"):
        load_last(tmp_path / "last", fewer)


class BeginsLater(Remembers):
    """A piece whose state begins with its first step."""

    def __init__(self) -> None:
        self.states: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Tensor]:
        return self.states

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.states = state


def test_a_state_that_began_with_a_step_comes_back(tmp_path: Path) -> None:
    """And where it had not begun there is none."""
    first, second = BeginsLater(), BeginsLater()
    save_last(tmp_path / "last", {"combiner": first}, {})
    assert load_last(tmp_path / "last", {"combiner": second}) == {} and not second.states
    first.states = {"sst": torch.tensor(3.0)}
    save_last(tmp_path / "last", {"combiner": first}, {})
    load_last(tmp_path / "last", {"combiner": second})
    assert second.states == {"sst": torch.tensor(3.0)}


def test_without_a_checkpoint_nothing_is_loaded(tmp_path: Path) -> None:
    assert load_last(tmp_path / "last", pieces(0, 7.0)) is None
