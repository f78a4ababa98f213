"""What is checked of prediction files before they are zipped, and what is in the zip."""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from errors import UserError
from options import Options
from prepare_submit import MODES, PART_1, code_files, main
from tasks import LEADERBOARD, TASKS
from text.data_files import BUILT_IN, ROOT, SPLITS
from text.prediction_files import write_predictions
from text.reading import read_file

SST = "predictions/sst-dev-output.csv"
SHAPE = "{task}-{split}-output.csv"


def predict_all(folder: Path, names: str, tasks: tuple[str, ...], data: Path) -> None:
    """Prediction files that are right."""
    for task in tasks:
        for split in ("dev", "test"):
            path = data / TASKS[task].files.format(SPLITS[split])
            ids = [example.id for example in read_file(path, TASKS[task], split).examples]
            values = [1.0] * len(ids) if task == "para" else [1] * len(ids)
            write_predictions(folder / names.format(task=task, split=split), task, ids, values)


@pytest.fixture(autouse=True)
def course(tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with data/ whose ids are no one else's, and predictions/ for it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for path in small_data.iterdir():
        text = re.sub(r"\b[0-9a-f]{24,25}\b", lambda found: found[0][::-1], path.read_text())
        (Path("data") / path.name).write_text(text)
    predict_all(Path("predictions"), "{task}-{split}-output.csv", LEADERBOARD, Path("data"))


def zip_names(path: str) -> list[str]:
    """What is in a zip that is whole."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def refusal(capsys: pytest.CaptureFixture, line: str = "") -> str:
    """All that is said where nothing was zipped."""
    capsys.readouterr()
    with pytest.raises(UserError) as caught:
        main(shlex.split(line))
    assert not list(Path().glob("*.zip"))
    return capsys.readouterr().err + str(caught.value)


# ---- the zip


def test_code_and_predictions_are_zipped(capsys: pytest.CaptureFixture) -> None:
    main([])
    names = zip_names("cs224n_default_final_project_submission.zip")
    assert {
        "multitask_classifier.py",
        "bert.py",
        "heads/mlp.py",
        "README.md",
        "data/download.py",
    } <= {*names}
    assert [name for name in names if name.startswith("predictions/")] == [
        f"predictions/{task}-{split}-output.csv"
        for task in LEADERBOARD
        for split in ("dev", "test")
    ]
    endings = {Path(name).suffix for name in names if not name.startswith("predictions/")}
    assert endings == {".py", ".md", ".txt", ".sh", ".toml", ""}
    assert not [name for name in names if name.startswith(("tests", "benchmarks", ".", "runs"))]
    printed = capsys.readouterr().out
    said = "checking the predictions in predictions\n  sst-dev-output.csv: 12 predictions, of "
    assert printed.startswith(said)
    assert "6 prediction files" in printed and max(map(len, printed.splitlines())) <= 80


def test_each_file_is_told_of_its_run(capsys: pytest.CaptureFixture) -> None:
    """So that a mixture, which may be wanted, does not go unsaid."""
    for name in ("first", "second"):
        predict_all(Path(f"runs/{name}/predictions"), SHAPE, LEADERBOARD, Path("data"))
    more = "these are of more than one run; to submit one run's: prepare_submit.py RUN\n"
    for path in Path("runs/first/predictions").glob("sst-*"):
        path.write_text(path.read_text().replace(" , 1 ", " , 2 "))
    main([])
    printed = capsys.readouterr().out
    assert printed.count("of second\n") == 6 and more not in printed
    Path(SST).write_bytes(Path("runs/first", SST).read_bytes())
    Path("predictions/sts-dev-output.csv").write_text(
        Path("predictions/sts-dev-output.csv").read_text().replace(" , 1 ", " , 3 ")
    )
    main([])
    printed = capsys.readouterr().out
    assert "  sst-dev-output.csv: 12 predictions, of first\n" in printed
    assert "  sts-dev-output.csv: 12 predictions, of an unknown run\n" in printed
    assert more in printed


def test_what_is_zipped_runs(tmp_path: Path) -> None:
    main(["--name", "jdoe", "--out", "mine.zip"])
    assert {name.split("/")[0] for name in zip_names("mine.zip")} == {"jdoe"}
    with zipfile.ZipFile("mine.zip") as archive:
        archive.extractall("there")
    command = [sys.executable, "multitask_classifier.py", "--help"]
    done = subprocess.run(command, cwd="there/jdoe", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_code_is_what_is_the_project_s(tmp_path: Path) -> None:
    here = tmp_path / "project"
    code = {"a.py", "heads/__init__.py", "heads/b.py", "mine/deep/c.py", "README.md"}
    no_code = {
        *(f"{folder}/x.py" for folder in ("tests", "benchmarks", "runs", ".venv", "mine/.x")),
        *("env/pyvenv.cfg", "env/lib/x.py", "conda/conda-meta/x", "conda/x.py"),
        *("heads/__pycache__/b.pyc", "model.pt", "data/x.csv", "notes.txt"),
    }
    for name in code | no_code:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    assert {path.relative_to(here).as_posix() for path in code_files(here)} == code
    assert set(code_files(ROOT)) >= {ROOT / "predict.py", ROOT / "training" / "run.py"}


@pytest.mark.parametrize("modes", MODES)
def test_part_1(modes: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
    for mode in modes:
        names = f"{mode}-{{task}}-{{split}}-out.csv"
        predict_all(Path("predictions"), names, PART_1, Path("data"))
    main(["--part", "1"])
    names = zip_names("cs224n_default_final_project_submission.zip")
    assert sum(name.endswith("-out.csv") for name in names) == 8
    assert not any(name.endswith("-output.csv") for name in names)
    main(["--part", "all"])
    names = zip_names("cs224n_default_final_project_submission.zip")
    assert sum(name.startswith("predictions/") for name in names) == 14
    for path in [*Path("predictions").glob(f"{modes[0]}*"), Path(names[0])]:
        path.unlink(missing_ok=True)
    Path("cs224n_default_final_project_submission.zip").unlink()
    said = refusal(capsys, "--part 1")
    assert f"predictions/{modes[0]}-sst-dev-out.csv: not there; classifier.py writes it" in said
    assert said.endswith("4 of 8 prediction files are wrong; nothing was zipped")


def test_only_a_zip_is_replaced(capsys: pytest.CaptureFixture) -> None:
    Path("x.txt").write_text("thesis")
    Path("y.zip").write_text("thesis")
    with pytest.raises(UserError, match=r"^--out x.txt: expected a name that ends in .zip$"):
        main(["--out", "x.txt"])
    with pytest.raises(UserError, match=r"^y.zip: is there, but is no zip file"):
        main(["--out", "y.zip"])
    assert Path("x.txt").read_text() == Path("y.zip").read_text() == "thesis"
    with pytest.raises(UserError, match=r"^--name a/b: letters, digits"):
        main(["--name", "a/b"])
    with pytest.raises(UserError, match=r"^--names: no such flag; did you mean --name\?$"):
        main(["--names", "x"])


# ---- the prediction files


def changed(edit: str) -> None:
    """Edit SST's dev predictions: its lines are `lines`."""
    lines = Path(SST).read_text().splitlines(keepends=True)
    exec(edit, {"lines": lines})
    Path(SST).write_text("".join(lines))


FAULTS = [
    ("lines[0] = 'id , x \\n'", f'{SST}:1: "id , x ", expected "id" and "Predicted_Sentiment"'),
    ("del lines[0]", f'{SST}:1: "'),
    ("del lines[5:]", f"{SST}: 4 predictions, expected 12 as in data/ids-sst-dev.csv; the first"),
    ("lines[3] = lines[2]", f"{SST}:4: id {{ids[1]}} stands in line 3 already"),
    ("lines.append('zzz , 1 \\n')", f"{SST}:14: id zzz is not in data/ids-sst-dev.csv; predict"),
    ("lines[2:4] = lines[3:1:-1]", f"{SST}:3: id {{ids[2]}}, expected {{ids[1]}}; no row may"),
    ("del lines[4]", f"{SST}:5: id {{ids[4]}}, expected {{ids[3]}}; no row may be missing, and"),
    ("lines[1] = lines[1].replace(', 1', ', 5')", f'{SST}:2: prediction "5", expected a whole'),
    ("lines[1] = lines[1].replace(', 1', ', nan')", f'{SST}:2: prediction "nan", expected a'),
    ("lines[1] = lines[1].replace(', 1', ' 1')", "expected an id, a comma and a prediction"),
    ("lines[4] = '\\n'", f'{SST}:5: "", expected an id, a comma'),
    ("lines[1] = lines[1].replace('1', chr(0))", f"{SST}:2: a NUL character"),
]


@pytest.mark.parametrize(("edit", "message"), FAULTS)
def test_what_is_wrong_is_said(edit: str, message: str, capsys: pytest.CaptureFixture) -> None:
    ids = [line.split(" , ")[0] for line in Path(SST).read_text().splitlines()[1:]]
    changed(edit)
    said = refusal(capsys)
    assert f"error: {message.format(ids=ids)}" in said or message in said
    assert said.endswith("1 of 6 prediction files are wrong; nothing was zipped")


def test_every_file_that_is_wrong_is_named(capsys: pytest.CaptureFixture) -> None:
    Path(SST).unlink()
    Path("predictions/sts-test-output.csv").write_text("")
    said = refusal(capsys)
    assert f"error: {SST}: not there; predict.py RUN writes it\n" in said
    assert "error: predictions/sts-test-output.csv:1: " in said
    assert said.endswith("2 of 6 prediction files are wrong; nothing was zipped")


def test_predictions_of_the_built_in_corpus(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    predict_all(Path("predictions"), "{task}-{split}-output.csv", LEADERBOARD, small_data)
    said = refusal(capsys)
    assert "is not in data/ids-sst-dev.csv; it is of the built-in corpus: train and" in said
    for path in Path("data").iterdir():
        path.unlink()
    assert refusal(capsys).startswith("no course data in data: without it the ids can't be checked")
    said = refusal(capsys, f"--data_dir {tmp_path}/nowhere")
    assert said.startswith("missing 6 of 6 data files in")
    assert BUILT_IN.exists()


# ---- a run's


def make_run(facts: dict, **options: object) -> Path:
    """A run's folder, with the predictions that are right."""
    run = Path("runs/one")
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps(facts))
    (run / "options.json").write_text(Options(**options).to_json())  # type: ignore[arg-type]
    predict_all(run / "predictions", "{task}-{split}-output.csv", LEADERBOARD, Path("data"))
    return run


def test_a_run_s(capsys: pytest.CaptureFixture) -> None:
    run = make_run({"best": {}, "built_in_corpus": False})
    Path(SST).unlink()
    main([str(run)])
    assert SST in zip_names("cs224n_default_final_project_submission.zip")
    assert capsys.readouterr().out.startswith(f"checking the predictions in {run}/predictions\n")


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        ({}, {}, "runs/one: has not finished; go on with --resume runs/one"),
        ({"best": {}, "built_in_corpus": True}, {}, "runs/one: its data was the built-in corpus"),
        ({"best": {}}, {"limit": 9}, "runs/one: its predictions are incomplete, by --limit 9; for"),
        ({"best": {}}, {"test": False}, "runs/one: has no test predictions, by --no-test; for all"),
        ([], {}, "runs/one: has not finished"),
    ],
)
def test_a_run_s_that_are_none(
    facts: dict, options: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    make_run(facts, **options)
    assert refusal(capsys, "runs/one").startswith(message)


def test_no_run(capsys: pytest.CaptureFixture) -> None:
    assert refusal(capsys, "runs/none").startswith("runs/none: no run.json in it; expected a run")
    assert refusal(capsys, "runs/one --part 1").startswith("--part 1 needs the files of several")
    assert refusal(capsys, "runs/one --predictions x").startswith("--predictions x: those of runs/")
