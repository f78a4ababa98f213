"""Checkpoints are whole or not there: a kill is an exception at every single file operation of
replace_folder.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from optimizer import AdamW
from storage.tensor_files import read_tensors, write_tensors
from training import checkpoint
from training.checkpoint import (
    clear_checkpoints,
    has_pieces,
    load_last,
    recover,
    replace_folder,
    save_last,
    whole_last,
)
from training.manifest import check_manifest, write_manifest
from training.named_state import NamedState
from training.progress import Progress


class Killed(BaseException):
    """Nothing may catch it."""


def write(text: str):
    def fill(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)

    return fill


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


def replace_with_a_fault(
    folder: Path,
    previous: Path | None,
    fault: type[BaseException],
    moment: int,
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """Whether "new" was put in the place of `folder` although, after so many file operations, each
    further one fails if `fault` is Killed, and one fails otherwise.
    """
    left = [moment]

    def killing(function):
        def one(*args, **more):
            left[0] -= 1
            if left[0] == -1 or (left[0] < 0 and fault is Killed):
                raise fault(28, "No space left on device")
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
            replace_folder(folder, write("new"), previous)
        except (Killed, UserError):
            return False
        return True


MOMENTS = range(17)
FAULTS = pytest.mark.parametrize("fault", [Killed, OSError])


@FAULTS
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fault_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, fault: type[BaseException]
) -> None:
    folder = tmp_path / "best"
    replace_folder(folder, write("old"))
    finished = replace_with_a_fault(folder, None, fault, moment, monkeypatch)
    recover(folder)
    assert content(folder) in ({"old"}, {"new"})
    assert not finished or content(folder) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@FAULTS
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fault_leaves_two_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, fault: type[BaseException]
) -> None:
    """Of three at least the last two, or but for a failed save the first two."""
    folder, previous = tmp_path / "last", tmp_path / "previous"
    replace_folder(folder, write("older"), previous)
    replace_folder(folder, write("old"), previous)
    assert content(previous) == {"older"}
    finished = replace_with_a_fault(folder, previous, fault, moment, monkeypatch)
    recover(folder, previous)
    assert (content(previous), content(folder)) in (({"older"}, {"old"}), ({"old"}, {"new"}))
    assert not finished or content(folder) == {"new"}
    assert {path.name for path in tmp_path.iterdir()} == {"last", "previous"}


def test_all_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what stands in a folder below."""
    synced: list[str] = []

    def note(path: Path) -> None:
        assert (tmp_path / "best").exists() == (path == tmp_path)
        synced.append(path.relative_to(tmp_path).as_posix())

    def fill(new: Path) -> None:
        (new / "below").mkdir()
        (new / "below" / "a").write_text("a")

    monkeypatch.setattr(checkpoint, "sync", note)
    replace_folder(tmp_path / "best", fill)
    assert {"best.new/below/a", "best.new/below", "best.new", "."} == set(synced)


def test_what_was_never_finished_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "last.new").mkdir()  # torn: killed while the first one was written
    recover(tmp_path / "last", tmp_path / "previous")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_is_one_line_and_keeps_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, write("old"))

    def full(new: Path) -> None:
        raise OSError(28, "No space left on device")

    message = r"last: can't be written \(No space left on device\); .* --resume .*"
    with pytest.raises(UserError, match=message + str(tmp_path)):
        replace_folder(folder, full)
    assert content(folder) == {"old"} and [path.name for path in tmp_path.iterdir()] == ["last"]


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
    save_last(tmp_path, held, {"step": 5})
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
    check_manifest(tmp_path / "last")
    assert json.loads((tmp_path / "last" / "progress.json").read_text()) == {"step": 5}
    load_last(tmp_path / "last", other)
    assert torch.equal(torch.rand(3), drawn)
    for name in ("model", "optimizer", "extras", "combiner", "averages"):
        mine, theirs = held[name].state_dict(), other[name].state_dict()  # type: ignore[attr-defined]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name


@pytest.mark.parametrize("name", ["model", "optimizer", "extras", "combiner", "averages"])
def test_a_missing_piece_is_one_line(tmp_path: Path, name: str) -> None:
    save_last(tmp_path, pieces(0, 7.0), {})
    (tmp_path / "last" / f"{name}.safetensors").unlink()
    with pytest.raises(UserError, match=f"last/{name}.safetensors: No such file") as caught:
        load_last(tmp_path / "last", pieces(1, 3.0))
    assert "\n" not in str(caught.value)


def test_a_piece_that_the_run_has_not_is_refused(tmp_path: Path) -> None:
    """As after a run without the hook that the checkpoint was made with."""
    save_last(tmp_path, pieces(0, 7.0), {})
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
    save_last(tmp_path, {"combiner": first}, {})
    load_last(tmp_path / "last", {"combiner": second})
    assert not second.states
    first.states = {"sst": torch.tensor(3.0)}
    save_last(tmp_path, {"combiner": first}, {})
    load_last(tmp_path / "last", {"combiner": second})
    assert second.states == {"sst": torch.tensor(3.0)}


# What can't be this run's, though whole: piece, tensor, what stands in its place, message.
MISFITS: dict[str, tuple[str, str, Tensor | None]] = {
    "weight is torch.float32 \\(2, 2\\), expected torch.float32 \\(2, 3\\)": (
        "model",
        "weight",
        torch.zeros(2, 2),
    ),
    "weight is torch.float64 .*, expected torch.float32": (
        "model",
        "weight",
        torch.zeros(2, 3, dtype=torch.float64),
    ),
    "last: not this model's state .*Missing key": ("model", "weight", None),
    "state is of another model: 3 names differ": ("optimizer", "step.weight", None),
    "exp_avg.weight is torch.float32 \\(3, 2\\)": (
        "optimizer",
        "exp_avg.weight",
        torch.zeros(3, 2),
    ),
    "last: not this combiner's state .'value'": ("combiner", "value", None),
    "last: not this random's state .'cpu'": ("random", "cpu", None),
    "last: not this random's state .*size to be 7": ("random", "cpu", torch.zeros(7).byte()),
    "last: not this random's state .*ByteTensor": ("random", "cpu", torch.zeros(5056)),
}


@pytest.mark.parametrize("message", MISFITS)
def test_tensors_that_do_not_fit_are_one_line(tmp_path: Path, message: str) -> None:
    save_last(tmp_path, pieces(0, 7.0), {})
    piece, key, tensor = MISFITS[message]
    path = tmp_path / "last" / f"{piece}.safetensors"
    held = read_tensors(path)
    del held[key]
    write_tensors(path, held if tensor is None else {**held, key: tensor})
    with pytest.raises(UserError, match=message) as caught:
        load_last(tmp_path / "last", pieces(1, 3.0))
    assert "\n" not in str(caught.value)


# ---- which checkpoint is taken


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def copied(folder: Path, name: str) -> None:
    """A file of the checkpoint before is put into the last one."""
    shutil.copy(folder / "previous" / name, folder / "last")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "last/model.safetensors: changed": lambda run: flip(run / "last" / "model.safetensors"),
    "last/random.safetensors: changed": lambda run: flip(run / "last" / "random.safetensors"),
    "last/combiner.safetensors: changed": lambda run: copied(run, "combiner.safetensors"),
    "last/progress.json: changed": lambda run: copied(run, "progress.json"),
    "last/progress.json: no step": lambda run: write_manifest(run / "last"),
    "last: model.safetensors missing": lambda run: (run / "last" / "model.safetensors").unlink(),
    "last: some.safetensors added": lambda run: (run / "last" / "some.safetensors").touch(),
    "last/manifest.json: not there": lambda run: (run / "last" / "manifest.json").unlink(),
    "last/manifest.json: not readable": lambda run: (run / "last" / "manifest.json").write_text(""),
    "last: No such file": lambda run: shutil.rmtree(run / "last"),
}


def progress_of(path: Path) -> Progress:
    """A checkpoint's progress, which here has nothing but a step."""
    held = json.loads(path.read_text())
    if "step" not in held:
        raise UserError(f"{path}: no step in it")
    return Progress(step=held["step"])


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A run's folder with checkpoints of steps 1 and 2."""
    for step in (1, 2):
        save_last(tmp_path, pieces(step, 7.0 + step), {"step": step})
    return tmp_path


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_checkpoint_is_fallen_back_from(two: Path, message: str) -> None:
    assert whole_last(two, progress_of) == Progress(step=2)
    if "no step" in message:
        (two / "last" / "progress.json").write_text("{}")
    DAMAGES[message](two)
    with pytest.warns(
        UserWarning, match=f"{message}.*going on from the checkpoint before it, .* 1"
    ):
        assert whole_last(two, progress_of) == Progress(step=1)

    # From then on it is the last one; what was damaged is kept aside, and the next save's previous
    # is a good one.
    left = {"last"} if "No such file" in message else {"last", "damaged"}
    assert {path.name for path in two.iterdir()} == left
    save_last(two, pieces(3, 9.0), {"step": 3})
    assert progress_of(two / "previous" / "progress.json").step == 1


def test_where_both_are_damaged_neither_is_touched(two: Path) -> None:
    for name in ("last", "previous"):
        flip(two / name / "model.safetensors")
    message = "last/model.safetensors: changed.*previous/model.*no good best/ either: begin a new"
    with pytest.raises(UserError, match=message):
        whole_last(two, progress_of)
    assert {path.name for path in two.iterdir()} == {"last", "previous"}
    shutil.rmtree(two / "previous")
    with pytest.raises(UserError, match="there is no checkpoint before it; there is no good best/"):
        whole_last(two, progress_of)


# ---- what a finished run keeps


@pytest.mark.parametrize("moment", range(9))
def test_a_finished_run_keeps_positions_and_random_states(
    two: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any of the file operations on the way there it still has a last/, and the next
    time there is nothing left over.
    """
    (two / "damaged").mkdir()
    expected = (two / "last" / "random.safetensors").read_bytes()
    left = [moment]

    def killing(function: Callable[..., object]) -> Callable[..., object]:
        def one(*args: object, **more: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **more)

        return one

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for owner, name in ((shutil, "rmtree"), (shutil, "copyfile"), (Path, "rename")):
            patch.setattr(owner, name, killing(getattr(owner, name)))
        clear_checkpoints(two, keep_last=False)
    assert whole_last(two, progress_of) == Progress(step=2)
    clear_checkpoints(two, keep_last=False)
    assert [path.name for path in two.iterdir()] == ["last"] and not has_pieces(two / "last")
    assert whole_last(two, progress_of) == Progress(step=2)
    assert (two / "last" / "random.safetensors").read_bytes() == expected


def test_all_of_a_finished_run_s_last_is_kept_on_request(two: Path) -> None:
    clear_checkpoints(two, keep_last=True)
    assert [path.name for path in two.iterdir()] == ["last"] and has_pieces(two / "last")


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "last.new").mkdir()  # killed while the first one was written
    assert whole_last(tmp_path, progress_of) is None
