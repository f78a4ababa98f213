"""colab.ipynb: its form, and its cells run in miniature. Oracle: Jupyter's format, version 4."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from text.data_files import BUILT_IN

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "colab.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
COMMANDS = [line[1:] for line in "\n".join(CODE).splitlines() if line.startswith("!")]


def test_its_form() -> None:
    """Text and code in turn, nothing kept of a run; each text is a line below its title."""
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["nbformat_minor"] == 5
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    title, *cells = NOTEBOOK["cells"]
    assert title["source"][0].startswith("# ")
    for text, code in zip(cells[::2], cells[1::2], strict=True):
        assert text["cell_type"] == "markdown" and len(text["source"]) == 1
        assert code["cell_type"] == "code"
        assert code["outputs"] == [] and code["execution_count"] is None


def test_its_commands_are_there() -> None:
    scripts = [re.search(r"\S+\.(py|sh)\b", command) for command in COMMANDS]
    names = {found[0] for found in scripts if found}
    assert {"setup.sh", "multitask_classifier.py", "predict.py", "prepare_submit.py"} == names
    assert [name for name in sorted(names) if not (ROOT / name).is_file()] == []
    flags = re.findall(r"--\w+", next(line for line in COMMANDS if "setup.sh" in line))
    assert flags and all(f"    {flag})" in (ROOT / "setup.sh").read_text() for flag in flags)


class Miniature:
    """What stands around the cells: commands are called in this process, on a tiny model, and
    without a GPU; what can't be had here (a clone, an installation) is passed over.
    """

    def __init__(self, model: Path, data: Path):
        self.more = {
            "multitask_classifier.py": f"--model {model} --data_dir {data} --steps_per_epoch 2",
            "predict.py": f"--data_dir {data}",
            "prepare_submit.py": f"--data_dir {data}",
        }
        self.names: dict[str, Any] = {}

    def run(self, cell: str) -> None:
        """A cell, in parts: lines of Python together, a command alone."""
        python = ""
        for line in cell.splitlines():
            if line[:1] not in ("!", "%"):
                python += line + "\n"
                continue
            exec(python, self.names)
            python = ""
            self.command(line[1:].format_map(self.names))
        exec(python, self.names)

    def command(self, line: str) -> None:
        """A command, where it is one of our scripts; files that are shown must be there."""
        program, *words = shlex.split(line)
        if program == "cat":
            assert Path(words[0]).stat().st_size > 0
        if program == "python":
            script, *words = words
            words = [word for word in words if word != "--use_gpu"]
            # Data given by name are all that is predicted.
            if "--sst_test" not in words:
                words += shlex.split(self.more[script])
            importlib.import_module(script.removesuffix(".py")).main(words)


def test_its_cells_in_miniature(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Few rows under the course's names: built-in ones would not be submitted.
    data = tmp_path / "course"
    data.mkdir()
    for source in BUILT_IN.glob("*.csv"):
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        (data / source.name).write_text("".join(lines[:13]), encoding="utf-8")
    colab: Any = type(sys)("google.colab")
    downloads: list[str] = []
    colab.files = type("files", (), {"download": downloads.append})
    monkeypatch.setitem(sys.modules, "google", type(sys)("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.chdir(tmp_path)

    miniature = Miniature(tiny, data)
    for cell in CODE:
        miniature.run(cell)
    assert downloads == ["submission.zip"] and Path("submission.zip").stat().st_size > 0
    assert len(Path("predictions/reviews-sst-output.csv").read_text().splitlines()) == 3
    assert re.search(r"^\[[0-4], [0-4]\]\n\[\d\.\d+\]$", capsys.readouterr().out, re.M)
