"""export.py: a run's best model in a folder of its own, adapters merged or kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError

import export
from errors import UserError
from multitask_bert import MultitaskBERT
from multitask_classifier import train
from options import Options
from tests.multitask import BASE, LORA_FILES, close, logits, texts
from tests.test_run import interrupted
from tests.test_start import saved


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_it_is_whole_and_computes_the_same(
    tiny: Path, tmp_path: Path, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = saved(tiny, "run", **change)
    Path("out").mkdir()
    export.main(["run", "out"])
    after = MultitaskBERT.load("out")
    assert after.whole and Path("out/model.safetensors").exists()
    for task in BASE.tasks:
        close(logits(after, task, texts(task)), logits(before, task, texts(task)))
    # Saved once more it is whole again, and its encoder is one to train from.
    Path("again").mkdir()
    after.save(Path("again"))
    assert MultitaskBERT.load("again").whole
    with torch.no_grad():
        encoder = type(after.bert).from_pretrained("out").state_dict()
    assert all(torch.equal(x, after.bert.state_dict()[name]) for name, x in encoder.items())


def test_a_finished_run_with_its_card(options: Options, capsys: pytest.CaptureFixture) -> None:
    folder = train(replace(options, lora=True))["folder"]
    capsys.readouterr()
    export.main([folder, "merged"])
    export.main([folder, "kept", "--keep_adapter"])
    printed = capsys.readouterr().out.splitlines()
    assert "merged: the encoder and heads of sst, para, sts" in printed
    assert 'load it: MultitaskBERT.load("merged")' in printed
    assert "kept: the adapter and heads of sst, para, sts" in printed
    assert {path.name for path in Path("kept").iterdir()} == LORA_FILES | {"README.md"}
    libraries = [ModelCard.load(f"{x}/README.md").data.library_name for x in ("merged", "kept")]
    assert libraries == ["sentence-transformers", "peft"]
    assert not list(Path().glob(".*.new"))


def test_a_run_that_has_not_ended(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(replace(options, epochs=2), 4, monkeypatch)
    export.main([str(folder), "out"])
    assert "After epoch 1, step 3" in Path("out/README.md").read_text()

    # Of a newer best model than the checkpoint knows, as a kill may leave it, no score is known.
    path = folder / "last" / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_manifest": "older"}))
    export.main([str(folder), "newer"])
    assert MultitaskBERT.load("newer").whole and not Path("newer/README.md").exists()


def test_a_record_without_its_scores(options: Options) -> None:
    folder = train(replace(options, steps_per_epoch=1, tasks=("sst",)))["folder"]
    path = Path(folder, "run.json")
    facts = json.loads(path.read_text())
    for best in ({**facts["best"], "scores": {}}, {"epoch": 1}):
        path.write_text(json.dumps({**facts, "best": best}))
        with pytest.raises(UserError, match="run.json: best.*damaged"):
            export.main([folder, "out"])
        assert not Path("out").exists()


def test_a_kill_between_the_best_model_and_the_checkpoint(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores stand nowhere then, so there is no card; it's never one of other scores."""

    def kill(*_: object) -> None:
        raise UserError("killed")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="killed"):
        patch.setattr("training.console.Console.score_row", kill)
        train(replace(options, save_every=2))
    (folder,) = Path("runs").iterdir()
    assert not json.loads((folder / "last/progress.json").read_text())["best"]
    export.main([str(folder), "out"])
    assert MultitaskBERT.load("out").whole and not Path("out/README.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder, no model in it; expected a run folder"),
        (["run", "full"], "full: is there already, and not empty; name another folder"),
        (["run", "run/best/out"], "run/best/out: lies in a saved model"),
        (["run", "run/out"], "run/out: lies in a run's folder"),
        (["run", "out", "--keep_adapter"], "^run: has no adapter to keep; leave out --keep"),
        (["run", "full/file"], "full/file: is there already"),
        (["run", "full/file/below"], "full/file/below: (is|can't|Not)"),
        (["run"], "required: folder; --help lists the flags"),
        (["run", "out", "--merge"], "unrecognized arguments: --merge"),
    ],
)
def test_refusals(tiny: Path, tmp_path: Path, words: list[str], message: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tiny, "run")
    Path("run/run.json").touch()
    Path("full").mkdir()
    Path("full/file").touch()
    with pytest.raises(UserError, match=message):
        export.main(words)
    assert {path.name for path in Path().iterdir()} == {"run", "full"}


def test_help_is_narrow(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        export.main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tiny, "run")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("models.folder.write_tensors", full)
    with pytest.raises(UserError, match="^out: can't be written .No space left"):
        export.main(["run", "out"])
    assert [path.name for path in Path().iterdir()] == ["run"]


def test_into_the_folder_that_one_stands_in(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tiny, "run")
    Path("here").mkdir()
    monkeypatch.chdir("here")
    export.main(["../run", "."])
    assert MultitaskBERT.load(tmp_path / "here").whole
