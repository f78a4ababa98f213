"""What run.json says of the surroundings. Oracles: sha256sum, git, importlib."""

import ctypes
import importlib.metadata
import subprocess
from pathlib import Path

import pytest
import torch

from errors import UserError
from training import environment

ROOT = Path(__file__).parents[1]


def test_paths_as_one_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "real").mkdir(parents=True)
    (here / "link").symlink_to(here / "real")
    monkeypatch.chdir(here)
    assert environment.display_path(here / "a" / "b") == "a/b"
    assert environment.display_path("a/b") == "a/b"
    assert environment.display_path(here / "link" / "python") == "link/python"
    assert environment.display_path(tmp_path / "elsewhere") == str(tmp_path / "elsewhere")


def test_the_environment_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [str(ROOT / "some.py"), "--name", "two words"])
    found = environment.environment(torch.device("cpu"))
    assert found["command"] == "python some.py --name 'two words'"
    assert found["device"].endswith(f", {torch.get_num_threads()} threads")
    for name, version in found["versions"].items():
        assert version == importlib.metadata.version(name)
    assert {"torch", "numpy", "tokenizers"} <= set(found["versions"])


def test_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever one stands; and none where there is no git."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
    except OSError:
        pytest.skip("there is no git")
    if done.returncode:
        pytest.skip("not a git checkout")
    monkeypatch.chdir("/")
    described = environment.commit().removesuffix("-dirty").split("-g")[-1]
    tags = subprocess.check_output(["git", "-C", str(ROOT), "tag", "--points-at"], text=True)
    assert done.stdout.startswith(described) or described in tags.split()

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert environment.commit() == "not a git checkout"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    environment.check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file" / "below", tmp_path / "a\0b"):
        with pytest.raises(
            UserError, match=f"{bad.name[0]}.*: can't be written .*; choose another"
        ):
            environment.check_writable(bad)


def test_without_glibc_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    environment.keep_freed_memory()
