"""The disk's room for a run, compared with what a run writes."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

import multitask_classifier
import training.space
from errors import UserError
from multitask_classifier import train
from options import Options

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_the_estimate_is_what_a_run_writes(
    options: Options, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = []
    needed_space = training.space.needed_space

    def note(pieces: dict) -> int:
        estimates.append(needed_space(pieces))
        return estimates[-1]

    monkeypatch.setattr(training.space, "needed_space", note)
    folder = Path(train(replace(options, **change))["folder"])
    last = sum(path.stat().st_size for path in (folder / "last").glob("*.safetensors"))
    best = sum(path.stat().st_size for path in (folder / "best").glob("*.safetensors"))
    assert estimates[0] == pytest.approx(3 * last + 2 * best, rel=0.05)


def test_a_full_disk_is_known_before_the_run(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 40 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))
    with pytest.raises(UserError, match="^runs: 40 MiB free .* may take 43 MiB more; free some"):
        train(options)
    assert list(Path("runs").iterdir()) == []
    free = 44 * 2**20
    with monkeypatch.context() as patch:
        patch.setattr(multitask_classifier, "finish", lambda run, *_: {"folder": str(run.folder)})
        folder = train(options)["folder"]

    # What is there already is not needed again, but for what was damaged; and a finished run needs
    # no more.
    free = 8 * 2**20
    Path(folder, "damaged").mkdir()
    Path(folder, "damaged", "model.safetensors").write_bytes(bytes(20 * 2**20))
    with pytest.raises(UserError, match="8 MiB free .* may take 27 MiB more"):
        train(Options(resume=folder))
    free = 28 * 2**20
    train(Options(resume=folder))
    free = 0
    train(Options(resume=folder))

    # Longer it does again, except for what it kept.
    with pytest.raises(UserError, match="0 MiB free .* may take 27 MiB more"):
        train(Options(resume=folder, epochs=2))
