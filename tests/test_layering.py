"""The house's rules for its modules, read from their source: who imports whom, what stands in a
package, and how long things may be. Each rule is also shown to find what is planted for it.
"""

import ast
import re
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from choices.chosen import SECTIONS

ROOT = Path(__file__).parents[1]

# Reference implementations: what tests and benchmarks compare with, never what the project runs on.
ORACLES = {"transformers", "peft", "sentence_transformers", "accelerate"}
ORACLE_FOLDERS = ("tests/", "benchmarks/")

LONGEST_FUNCTION = 60  # lines, signature and docstring included
LONGEST_MODULE = 320  # lines; tests may be longer
LONG_MODULES = {
    "data/corpus_words.py",  # lists of words, not code
    "data/make_corpus.py",
}
LONG_FUNCTIONS: set[str] = set()  # "file.py:function"


def sources(root: Path) -> dict[str, ast.Module]:
    """Every module of the project, parsed, under its path as `folder/name.py`. Hidden folders and
    virtual environments are not the project's.
    """
    paths = sorted(root.glob("*.py"))
    for folder in sorted(root.iterdir()):
        own = folder.is_dir() and not folder.name.startswith(".")
        if own and not (folder / "pyvenv.cfg").exists():
            paths += sorted(folder.rglob("*.py"))
    trees = {}
    for path in paths:
        trees[path.relative_to(root).as_posix()] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def dotted(path: str) -> str:
    """The name under which a file is imported from the project's root."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def import_names(tree: ast.Module, path: str) -> set[str]:
    """All names that a module imports, fully dotted, wherever in it: in functions and under
    TYPE_CHECKING too. `from a import b` gives a.b, whether b is a module or something in a.
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the folder that the file is in, each further one the folder above.
            above = path.split("/")[: -node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def module_of(name: str, modules: set[str], folder: str) -> str | None:
    """The project's module that an imported name is or stands in; None if it is someone else's."""
    candidates = [name]
    if folder and folder not in modules:  # scripts, not a package: they import their neighbours
        candidates.append(f"{folder}.{name}")
    for candidate in candidates:
        parts = candidate.split(".")
        for length in range(len(parts), 0, -1):
            prefix = ".".join(parts[:length])
            if prefix in modules:
                return prefix
    return None


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which of the project's modules each of them imports."""
    modules = {dotted(path) for path in trees}
    graph = {}
    for path, tree in trees.items():
        folder = ".".join(path.split("/")[:-1])
        targets = {module_of(name, modules, folder) for name in import_names(tree, path)}
        graph[dotted(path)] = {target for target in targets if target is not None}
    return graph


def circle(graph: dict[str, set[str]]) -> str:
    """One import circle as `a imports b imports a`, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " imports ".join(reversed(error.args[1]))  # graphlib names the imported one first
    return ""


def oracle_imports(trees: dict[str, ast.Module]) -> list[str]:
    """Where an oracle is imported outside the folders that may."""
    found = []
    for path, tree in trees.items():
        if path.startswith(ORACLE_FOLDERS):
            continue
        for name in sorted(import_names(tree, path)):
            if name.split(".")[0] in ORACLES:
                found.append(f"{path} imports {name}")
    return found


def bad_packages(root: Path, paths: list[str]) -> list[str]:
    """What is wrong with folders that have an __init__.py."""
    found = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name != "__init__.py":
            continue
        if (root / path).read_bytes():
            found.append(f"{path} is not empty")
        others = [other for other in paths if other.rpartition("/")[0] == folder and other != path]
        if len(others) < 2:
            found.append(f"{folder}/ holds only {others}, expected two modules or more")
    return found


def long_functions(trees: dict[str, ast.Module]) -> dict[str, int]:
    """The lines of every function that has too many, methods and inner functions included."""
    found = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found[f"{path}:{node.name}"] = lines
    return found


def long_modules(root: Path, paths: list[str]) -> dict[str, int]:
    """The lines of every module that has too many, tests left out."""
    found = {}
    for path in paths:
        lines = len((root / path).read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_MODULE and not path.startswith("tests/"):
            found[path] = lines
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, ast.Module]:
    return sources(ROOT)


def test_no_import_circle(project: dict[str, ast.Module]) -> None:
    graph = import_graph(project)
    # The graph holds what it should: the main script's imports, and a neighbour of a script.
    assert graph["multitask_classifier"]
    assert "data.corpus_words" in graph["data.make_corpus"]
    assert circle(graph) == ""


def test_oracles_stay_in_tests_and_benchmarks(project: dict[str, ast.Module]) -> None:
    assert oracle_imports(project) == []


def test_packages_are_plain_folders_of_several_modules(project: dict[str, ast.Module]) -> None:
    assert bad_packages(ROOT, list(project)) == []


def test_functions_are_short(project: dict[str, ast.Module]) -> None:
    found = long_functions(project)
    unlisted = {name: lines for name, lines in found.items() if name not in LONG_FUNCTIONS}
    assert unlisted == {}
    assert found.keys() >= LONG_FUNCTIONS, "short again: take them off the list"


def test_modules_are_short(project: dict[str, ast.Module]) -> None:
    found = long_modules(ROOT, list(project))
    unlisted = {path: lines for path, lines in found.items() if path not in LONG_MODULES}
    assert unlisted == {}
    assert found.keys() >= LONG_MODULES, "short again: take them off the list"


# ---- what the documents name


def first_cells(document: str, column: int = 1) -> set[str]:
    """What stands in backticks in a column of a document's tables."""
    rows = (ROOT / document).read_text(encoding="utf-8").splitlines()
    cells = [row.split("|")[column] for row in rows if row.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_structure_names_every_module_and_nothing_else(project: dict[str, ast.Module]) -> None:
    named = {name for name in first_cells("STRUCTURE.md") if not name.endswith("/")}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    whole = ("tests/", "benchmarks/", "data/")  # a row for the folder
    own = {path for path in project if not path.startswith(whole)}
    modules = {path for path in own if not path.endswith("__init__.py")}
    assert modules - named == set()


def test_readme_names_files_that_exist() -> None:
    rows = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    techniques = [row.split("|") for row in rows if row.startswith("| `--") and row.count("|") == 5]
    files = {name for row in techniques for name in re.findall(r"`([^`]+)`", row[3])}
    assert "lora.py" in files
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_readme_lists_every_flag(section: str) -> None:
    rows = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [row for row in rows if row.startswith(f"| {section} |")]
    expected = {f"--{f.name}" for f in fields(SECTIONS[section]) if f.name != "files"}
    assert set(re.findall(r"`(--\w+)`", row)) - {"--sst_train"} == expected


# ---- each rule finds what is planted


def plant(root: Path, files: dict[str, str]) -> dict[str, ast.Module]:
    """A small project of these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return sources(root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.py": "import b", "b.py": "import os, c", "c.py": ""}, set()),
        ({"a.py": "import b", "b.py": "from a import x"}, {"a", "b"}),
        # for types alone, and inside a function
        (
            {
                "a.py": "if TYPE_CHECKING:\n    from b import B",
                "b.py": "def f():\n    import a",
            },
            {"a", "b"},
        ),
        # in a package: by its name, by the folder's, by dots, up to a top-level module and back
        (
            {
                "p/__init__.py": "",
                "p/a.py": "from p import b",
                "p/b.py": "from .c import x",
                "p/c.py": "import d",
                "d.py": "import p.a",
            },
            {"p.a", "p.b", "p.c", "d"},
        ),
        # a script and its neighbour; a package's module finds no neighbour in that way
        ({"p/a.py": "import b", "p/b.py": "import a"}, {"p.a", "p.b"}),
        ({"p/__init__.py": "", "p/json.py": "import b", "p/b.py": "from p import json"}, set()),
        ({"p/__init__.py": "", "p/json.py": "import p.b", "p/b.py": "import json, math"}, set()),
        # modules of three folders that only share a name
        ({"p/a.py": "import q.a", "q/a.py": "import r.a", "r/a.py": ""}, set()),
        ({".venv/a.py": "import b", "b.py": "import a"}, set()),
    ],
)
def test_a_planted_circle(tmp_path: Path, files: dict[str, str], expected: set[str]) -> None:
    found = circle(import_graph(plant(tmp_path, files)))
    assert set(found.split(" imports ")) - {""} == expected


def test_a_circle_reads_in_the_direction_of_its_imports(tmp_path: Path) -> None:
    files = {"a.py": "import b", "b.py": "import c", "c.py": "import a"}
    found = circle(import_graph(plant(tmp_path, files)))
    assert found in "a imports b imports c imports a imports b imports c"


def test_a_planted_oracle(tmp_path: Path) -> None:
    files = {
        "a.py": "def f():\n    from transformers.models import bert",
        "b.py": "import peft",
        "c.py": "import transformers_like",
        "benchmarks/d.py": "import peft",
        "tests/e.py": "import transformers",
    }
    found = oracle_imports(plant(tmp_path, files))
    assert found == ["a.py imports transformers.models.bert", "b.py imports peft"]


def test_planted_packages(tmp_path: Path) -> None:
    files = {
        "full/__init__.py": "from full.a import x",
        "full/a.py": "",
        "full/b.py": "",
        "lonely/__init__.py": "",
        "lonely/a.py": "",
        "good/__init__.py": "",
        "good/a.py": "",
        "good/b.py": "",
        "scripts/a.py": "",
    }
    paths = list(plant(tmp_path, files))
    assert bad_packages(tmp_path, paths) == [
        "full/__init__.py is not empty",
        "lonely/ holds only ['lonely/a.py'], expected two modules or more",
    ]


def test_planted_lengths(tmp_path: Path) -> None:
    long = "class A:\n    def f(self):\n" + "        x = 1\n" * LONGEST_FUNCTION
    short = "def g():\n" + "    x = 1\n" * (LONGEST_FUNCTION - 1)
    files = {
        "a.py": long + short,
        "b.py": "x = 1\n" * (LONGEST_MODULE + 1),
        "c.py": "x = 1\n" * LONGEST_MODULE,
        "tests/d.py": "x = 1\n" * (LONGEST_MODULE + 1),
    }
    trees = plant(tmp_path, files)
    assert long_functions(trees) == {"a.py:f": LONGEST_FUNCTION + 1}
    assert long_modules(tmp_path, list(trees)) == {"b.py": LONGEST_MODULE + 1}
