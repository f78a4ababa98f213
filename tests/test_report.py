"""report.py: runs side by side, the best first, and only what can be compared in one table."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import report
from errors import UserError
from multitask_classifier import train
from options import Options


def lines(capsys: pytest.CaptureFixture) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_runs_side_by_side(options: Options, capsys: pytest.CaptureFixture) -> None:
    options = replace(options, steps_per_epoch=2)
    plain = train(replace(options, name="plain"))
    train(replace(options, name="linear", head="linear", epochs=2))

    # One that was killed before its first checkpoint, and one on other data.
    killed = shutil.copytree(plain["folder"], plain["folder"].replace("plain", "killed"))
    shutil.rmtree(f"{killed}/last")
    facts = json.loads(Path(killed, "run.json").read_text())
    del facts["best"]
    Path(killed, "run.json").write_text(json.dumps(facts))
    shutil.copytree(options.data_dir, "other")
    with open("other/sts-dev.csv", "a") as file:
        file.write("\tnew\tA dog .\tA cat .\t1.0\n")
    train(replace(options, name="other", data_dir="other"))

    capsys.readouterr()
    report.main([])
    shown = lines(capsys)
    rows = {line.split()[0][11:]: line.split() for line in shown if line.startswith("20")}
    places = {name: next(i for i, x in enumerate(shown) if f"-{name} " in x) for name in rows}
    assert set(rows) == {"plain", "linear", "killed", "other"}
    assert rows["killed"][1:6] == ["-", "-", "-", "-", "-"]
    assert rows["linear"][-4:] == ["--epochs", "2", "--head", "linear"]
    assert rows["plain"][-2:] == ["--epochs", "1"]

    # The best first, the one without a score last; other data after an empty line.
    scored = sorted(["plain", "linear"], key=lambda name: -float(rows[name][1]))
    assert sorted(places, key=places.__getitem__)[:3] == [*scored, "killed"]
    assert "" in shown[places["killed"] : places["other"]]
    assert sum(line.startswith("dev files of ") for line in shown) == 2
    assert any(line.startswith("all with ") and "--batch_size 13" in line for line in shown)
    assert "--keep_last" not in "\n".join(shown)  # which changes no score

    # The scores are the run's own.
    results = report.read_run(next(Path("runs").glob("*-plain")))
    assert results.best and float(rows["plain"][1]) == round(results.best.overall, 3)


def test_only_what_was_scored_on_the_same_rows_is_one_table(
    options: Options, capsys: pytest.CaptureFixture
) -> None:
    """A run with --limit has other scores; the same files in another folder are the same."""
    options = replace(options, steps_per_epoch=1, tasks=("sst",), batch_size=5)
    train(replace(options, name="whole"))
    train(replace(options, name="part", limit=6))
    shutil.copytree(options.data_dir, "moved")
    train(replace(options, name="moved", data_dir="moved"))
    capsys.readouterr()
    report.main([])
    *tables, page = [part.split("\n") for part in capsys.readouterr().out.strip().split("\n\n")]
    assert page == ["page: runs/index.html"]
    names = [{row.split()[0][11:] for row in table if row.startswith("20")} for table in tables]
    assert sorted(map(sorted, names)) == [["moved", "whole"], ["part"]]
    assert ["first 6 rows" in table[0] for table in tables] == [name == {"part"} for name in names]


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("run.json", {"data": {}}, "run.json: no dev files in it; is the file damaged?"),
        ("last/progress.json", {"best": {"epoch": 1}}, "progress.json: best: no step in it"),
        ("last/progress.json", {"run": "x"}, "progress.json: of another run"),
        ("run.json", {"seconds": float("inf")}, "run.json: seconds is Infinity, expected a finite"),
        ("run.json", {"seconds": float("nan")}, "run.json: seconds is NaN, expected a finite"),
        ("run.json", {"seconds": -1}, "run.json: seconds is -1, expected 0 to"),
        ("run.json", {"parameters": {"all": "x"}}, 'run.json: parameters.all is "x", expected a w'),
        ("run.json", {"parameters": [1]}, "run.json: parameters is [1], expected an object"),
        ("run.json", {"peak_memory_mib": 10**400}, "run.json: peak_memory_mib is 1000"),
        ("run.json", {"best": 3}, "run.json: best is 3, expected an object"),
        ("run.json", {"best": {"scores": {"sst": "high"}}}, "run.json: best: no epoch in it"),
        ("run.json", {"built_in_corpus": "yes"}, "run.json: built_in_corpus is"),
        ("options.json", {"head": "@x"}, "options.json: --head @x: expected one of"),
        ("options.json", {"tasks": ["nosuch"]}, "options.json: --tasks nosuch: expected one of"),
    ],
)
def test_a_damaged_run_is_left_out(
    options: Options, file: str, values: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(train(replace(options, steps_per_epoch=1, tasks=("sst",)))["folder"])
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    capsys.readouterr()

    # In a list it hides no other run; asked for by name, it is an error.
    with pytest.raises(UserError, match="no run that can be read"):
        report.main([])
    said = capsys.readouterr().err
    assert said.startswith("left out: runs/") and message in said and said.count("\n") == 1
    with pytest.raises(UserError, match=re.escape(message)):
        report.main([str(folder)])


def test_what_is_no_run(options: Options, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="^runs: no runs in it"):
        report.main([])
    folder = Path(train(replace(options, steps_per_epoch=1))["folder"])
    Path("runs/notes").mkdir()
    capsys.readouterr()
    report.main([])
    out, err = capsys.readouterr()
    assert folder.name in out and err.startswith("left out: runs/notes: no options.json")
    with pytest.raises(UserError, match="runs/notes"):
        report.main(["runs/notes"])
    report.main(["runs"])
    assert capsys.readouterr() == (out, err)
    with pytest.raises(UserError, match="^nowhere: no such folder; expected a run's folder"):
        report.main(["nowhere"])
    with pytest.raises(UserError, match="options.json: a file; expected a run's folder"):
        report.main([str(folder / "options.json")])
    Path("mine").mkdir()
    Path("mine/table.md").touch()
    with pytest.raises(UserError, match="^mine: a table of ablate.py, no run; read mine/table.md"):
        report.main(["mine"])
    Path("results").mkdir()
    Path("mine").rename("results/mine")
    with pytest.raises(UserError, match="^results: tables of ablate.py, .* results/mine/table.md"):
        report.main(["results"])
    for words in ([""], ["--tag", ""], ["--out="]):
        with pytest.raises(UserError, match="'': expected a .*; is a variable of the shell unset"):
            report.main(words)
    with pytest.raises(UserError, match="--runs_dir: no such flag"):
        report.main(["--runs_dir", "x"])
    assert not capsys.readouterr().out


def test_the_help_is_80_columns_wide(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        report.main(["--help"])
    shown = lines(capsys)
    assert max(map(len, shown)) <= 80
    assert "pip install matplotlib" in "".join(shown)
