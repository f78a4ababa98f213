"""Predicting with a saved model: the run's own files, files of the user's, probabilities."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import classifier
import prepare_submit
from commandline.jobs import Job
from datasets import Split
from errors import UserError
from evaluation import predict_logits
from examples import Example
from multitask_bert import MultitaskBERT, build
from multitask_classifier import main as train_main
from multitask_classifier import train
from options import Options
from predict import main, read_arguments, row_of
from tasks import TASKS
from tests.test_start import saved
from training.console import prediction_bar

TASKS_OF_RUN = ("sst", "para", "sts")


@pytest.fixture(scope="module")
def run(tiny: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder; beside it its predictions/."""
    folder = tmp_path_factory.mktemp("trained")
    options = Options(
        model=str(tiny),
        data_dir=str(small_data),
        epochs=1,
        steps_per_epoch=3,
        batch_size=13,
        precision="fp32",
        lr=1e-3,
        pooling="mean",
        head="linear",
        runs_dir=str(folder / "runs"),
        predictions=f"{folder}/predictions/{{task}}-{{split}}-output.csv",
    )

    def far_apart(options: Options) -> MultitaskBERT:
        model = build(options)
        for pipeline in model.pipelines.values():
            torch.nn.init.normal_(pipeline.head.out.weight, std=5)  # type: ignore[union-attr, arg-type]
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("multitask_classifier.build", far_apart)  # so that predictions differ
        return Path(train(options)["folder"]).absolute()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(run: Path, line: str) -> str:
    """What is said of a command line."""
    with pytest.raises(UserError) as caught:
        main([str(run), *shlex.split(line)])
    assert not Path("predictions").exists() or not list(Path("predictions").iterdir())
    return str(caught.value)


def table(path: str) -> tuple[list[str], list[str], np.ndarray]:
    """Header, ids and numbers of a table of probabilities."""
    header, *rows = list(csv.reader(Path(path).read_text().splitlines()))
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float)


def predicted(path: str) -> list[tuple[str, float]]:
    """Ids and predictions of a prediction file."""
    lines = Path(path).read_text().splitlines()[1:]
    return [(line.split(" , ")[0], float(line.split(" , ")[1])) for line in lines]


# ---- the run's own files


def test_a_run_s_predictions_again(run: Path, capsys: pytest.CaptureFixture) -> None:
    """Byte for byte those of the run, and the scores are those of its log."""
    main([str(run)])
    assert contents(Path("predictions")) == contents(run / "predictions")
    values = {task: dict(predicted(f"predictions/{task}-dev-output.csv")) for task in TASKS_OF_RUN}
    assert all(len(set(found.values())) > 1 for found in values.values())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][-1]
    printed = capsys.readouterr().out
    for task in TASKS_OF_RUN:
        title, metric = TASKS[task].title, TASKS[task].metric_name
        row = next(x for x in printed.splitlines() if x.startswith(title) and "-dev" in x)
        assert row.split()[:4] == [title, "12", "12", metric]
        assert f"{metric} {log[f'dev_{task}']:.3f}" in row
    assert f"overall on dev: {log['dev_overall']:.3f}\n" in printed
    assert "written:\n  predictions/sst-dev-output.csv\n" in printed
    inside = [line for line in printed.splitlines() if str(run) not in line]
    assert max(map(len, inside)) <= 80


@pytest.mark.parametrize("flag", ["model", "resume"])
def test_the_course_s_habit(run: Path, flag: str) -> None:
    train_main(["--option", "test", f"--{flag}", str(run), "--no-test"])
    wanted = {name: text for name, text in contents(run / "predictions").items() if "dev" in name}
    assert contents(Path("predictions")) == wanted
    assert not Path("runs").exists()


def test_where_there_are_no_test_files(run: Path, small_data: Path) -> None:
    shutil.copytree(small_data, "mine", ignore=shutil.ignore_patterns("*test*"))
    main([str(run / "best"), "--data_dir", "mine"])
    assert len(contents(Path("predictions"))) == 3
    (Path("mine") / "sts-dev.csv").unlink()
    shutil.rmtree("predictions")
    message = refusal(run, "--data_dir mine")
    assert message.startswith("missing 1 of 6 data files in mine, which holds")
    assert "sts-dev.csv; fetch them" in message


def test_rows_without_a_label_are_left_out_of_dev_as_in_training(
    run: Path, small_data: Path
) -> None:
    shutil.copytree(small_data, "mine")
    lines = Path("mine/ids-sst-dev.csv").read_text().splitlines()
    lines[1] = lines[1].rpartition("\t")[0] + "\t"
    Path("mine/ids-sst-dev.csv").write_text("\n".join(lines) + "\n")
    main([str(run), "--data_dir", "mine"])
    expected = predicted(str(run / "predictions" / "sst-dev-output.csv"))[1:]
    assert predicted("predictions/sst-dev-output.csv") == expected


def test_a_test_file_with_labels_is_scored(
    run: Path, small_data: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(small_data, "mine")
    shutil.copy("mine/ids-sst-dev.csv", "mine/ids-sst-test-student.csv")
    main([str(run), "--data_dir", "mine"])
    dev, test = (predicted(f"predictions/sst-{split}-output.csv") for split in ("dev", "test"))
    assert dev == test
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("SST ")]
    of_dev, of_test = (row.split()[1:7] for row in rows)
    assert of_dev == of_test and "accuracy" in of_test


@pytest.mark.parametrize(
    ("own", "written"),
    [
        ("predictions/finetune-{task}-{split}-out.csv", "predictions/finetune-sst-dev-out.csv"),
        ("elsewhere/{task}-{split}.csv", "predictions/sst-dev-output.csv"),
        ("predictions/../{task}-{split}.csv", "predictions/sst-dev-output.csv"),
        ("predictions/.{task}-{split}.csv", "predictions/sst-dev-output.csv"),
    ],
)
def test_a_run_of_part_1_leaves_the_leaderboard_s_files(
    tiny: Path, small_data: Path, own: str, written: str
) -> None:
    """Its own names in predictions/ are taken, but no model says what is written elsewhere."""
    change = {"tasks": ("sst",), "predictions": own, "data_dir": str(small_data)}
    saved(tiny, "run", **change)
    main(["run", "--no-test"])
    assert [str(path) for path in Path().rglob("*.csv")] == [written]


def test_without_the_test_file_that_the_run_was_given(options: Options) -> None:
    shutil.copy(Path(options.data_dir, "ids-sst-test-student.csv"), "t.csv")
    found = train(replace(options, steps_per_epoch=1, tasks=("sst",), files={"sst_test": "t.csv"}))
    shutil.rmtree("predictions")
    main([found["folder"], "--no-test"])
    assert [path.name for path in Path("predictions").iterdir()] == ["sst-dev-output.csv"]


def test_a_bar_for_each_file_or_a_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On a terminal they reach their end, and none is left; elsewhere a line says how much.

    And where a GPU is idle, a line says that.
    """
    monkeypatch.setattr("predict.say_idle_gpu", lambda device: print(f"idle beside {device}"))
    main([str(run)])
    shown = capsys.readouterr()
    assert "idle beside cpu\n" in shown.out
    assert "predicting 72 rows of 6 files\n" in shown.out and "%|" not in shown.err

    bars = []

    def keep(*given: Any) -> Any:
        bars.append(prediction_bar(*given))
        return bars[-1]

    monkeypatch.setattr("predict.has_width", lambda stream: True)
    monkeypatch.setattr("predict.prediction_bar", keep)
    main([str(run)])
    shown = capsys.readouterr()
    assert "predicting" not in shown.out and "predicting quora-dev.csv   0%|" in shown.err
    assert len(bars) == 6 and all(bar.n == bar.total > 0 for bar in bars)
    assert shown.err.endswith(" \r")


def test_the_first_rows(run: Path, capsys: pytest.CaptureFixture) -> None:
    main([str(run), "--limit", "5"])
    assert [path.name for path in Path("predictions").iterdir()] == ["limit-5"]
    for path in Path("predictions/limit-5").iterdir():
        whole = predicted(str(run / "predictions" / path.name))
        assert [name for name, _ in predicted(str(path))] == [name for name, _ in whole[:5]]
    assert "only the first 5 rows of each file (--limit)" in capsys.readouterr().out


def test_where_the_user_wants_them(run: Path) -> None:
    main([str(run), "--predictions", "out/{split}/{task}.csv", "--sst_dev_out", "mine.csv"])
    assert {str(path) for path in Path().rglob("*.csv")} == {
        "mine.csv",
        "out/dev/para.csv",
        "out/dev/sts.csv",
        *(f"out/test/{task}.csv" for task in TASKS_OF_RUN),
    }


# ---- files of the user's

OWN: list[tuple[str, str, str, list[str], str]] = [
    # task, header, rows, ids, what the table says of rows, labels and the score
    ("sst", "sentence", "Lovely .\nDull .", ["1", "2"], "2 0"),
    ("sst", "sentence\tsentiment", "Lovely .\t4\nDull .\t", ["1", "2"], "2 1 accuracy"),
    ("sst", "sentiment\tsentence\tid", "4\tLovely .\tA\n0\tDull .\tb", ["a", "b"], "2 2 accuracy"),
    ("para", "sentence1\tsentence2", "A ?\tB ?", ["1"], "1 0"),
    ("sts", "id\tsentence1\tsentence2\tsimilarity", "x\tA\tB\t2.5\ny\tA\tC\t", ["x", "y"], "2 1"),
]


@pytest.mark.parametrize(("task", "header", "rows", "ids", "said"), OWN)
def test_a_file_of_one_s_own(
    run: Path,
    task: str,
    header: str,
    rows: str,
    ids: list[str],
    said: str,
    capsys: pytest.CaptureFixture,
) -> None:
    Path("my new.csv").write_text(f"{header}\n{rows}\n")
    split = "dev" if "\t" in rows else "test"
    main([str(run), f"--{task}_{split}", "my new.csv"])
    assert [path.name for path in Path("predictions").iterdir()] == [f"my new-{task}-output.csv"]
    found = predicted(f"predictions/my new-{task}-output.csv")
    assert [name for name, _ in found] == ids

    # From Python the same sentences give the same.
    model = MultitaskBERT.load(run)
    names = header.split("\t")
    columns = [names.index(column) for column in TASKS[task].columns]
    texts = [tuple(row.split("\t")[i] for i in columns) for row in rows.splitlines()]
    assert [value for _, value in found] == pytest.approx(model.predict(task, texts), abs=1e-5)
    printed = capsys.readouterr().out
    row = next(x for x in printed.splitlines() if x.endswith("my new.csv"))
    assert " ".join(row.split()).startswith(f"{TASKS[task].title} {said}")
    numbered = "id" not in names
    assert ("has no column id: its rows are numbered from 1" in printed) == numbered


def test_several_files_of_one_s_own(run: Path) -> None:
    Path("a.csv").write_text("sentence\nLovely .\n")
    files = ["--sst_dev", "a.csv", "--sst_test", "a.csv", "--sst_test_out", "out.csv"]
    main([str(run), *files])
    assert Path("predictions/a-sst-output.csv").read_bytes() == Path("out.csv").read_bytes()


REFUSED = [
    ("--sst_dev nowhere", "--sst_dev nowhere: not there; check the path"),
    ("--sst_dev bad.csv", "bad.csv:3: sentence is empty; fill it in or delete the row"),
    ("--para_dev bad.csv", "bad.csv:1: no column sentence1, sentence2; found sentence, sentiment"),
    ("--sst_test label.csv", 'label.csv:2: sentiment is "9", expected a whole number from 0 to 4'),
    ("--sst_test twice.csv", "twice.csv:3: id a stands in line 2 already"),
    ("--cfimdb_dev good.csv", "--cfimdb_dev good.csv: that task does not run; expected files of"),
    ("--sst_dev good.csv --sst_dev_out good.csv", "good.csv: predictions would replace good.csv"),
    ("--sst_dev good.csv --sst_dev_out thesis", "thesis: is there, but is no prediction file"),
    ("--sst_dev good.csv --sst_dev_out {run}/x", "{run}/x: lies in {run}, the folder of a run"),
    ("--sst_dev good.csv --sts_dev_out x", "--sts_dev_out x: --sts_dev was not given"),
    ("--sst_dev good.csv --sst_test good.csv", "predictions/good-sst-output.csv and predictions"),
    ("--no-test --sst_test good.csv", "--no-test leaves the test files out, but one was named"),
    ("--limit -1", "--limit -1: expected 0 to 1000000000"),
    ("--data_dir nowhere", "missing 3 of 6 data files in nowhere: ids-sst-dev.csv, quora-dev.csv"),
    ("--epochs 3", "--epochs: no such flag; --help lists the flags"),
    ("--sst_train good.csv", "--sst_train: no such flag; --help lists the flags"),
    ("more", "more: no flag, and no flag's value"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_what_is_refused(run: Path, line: str, message: str) -> None:
    Path("good.csv").write_text("sentence\tsentiment\nLovely .\t4\n")
    Path("bad.csv").write_text("sentence\tsentiment\nLovely .\t4\n\t1\n")
    Path("label.csv").write_text("sentence\tsentiment\nLovely .\t9\n")
    Path("twice.csv").write_text("id\tsentence\na\tLovely .\nA\tDull .\n")
    Path("thesis").write_text("Chapter 1\n")
    before = Path("good.csv").read_bytes()
    assert refusal(run, line.format(run=run)).startswith(message.format(run=run))
    assert Path("good.csv").read_bytes() == before


@pytest.mark.parametrize("script", [main, prepare_submit.main])
def test_a_script_s_help_fits(script: Callable, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        script(["--help"])
    printed = capsys.readouterr().out
    assert "RUN" in printed and max(map(len, printed.splitlines())) <= 80


def test_no_run() -> None:
    with pytest.raises(UserError, match="no model in it; expected a run folder"):
        main(["nowhere"])
    with pytest.raises(UserError, match="the following arguments are required: RUN"):
        read_arguments([])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "--option test: expected the run to test, as in --option test --model runs/<date>-"),
        ("--model a --resume b", "--option test: expected the run to test"),
        ("--model a --epochs 3", "--option test trains nothing: --epochs would do nothing"),
        ("--model a --sst_train x", "--option test trains nothing: --sst_train would do nothing"),
    ],
)
def test_what_makes_no_sense_beside_option_test(line: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        train_main(["--option", "test", *line.split()])


def test_part_1_is_tested_run_by_run() -> None:
    with pytest.raises(UserError, match="part 1 has two models, each tested by: python predict.py"):
        classifier.main(["--option", "test"])


def test_the_table_fits() -> None:
    """The longest name of the course's, and a correlation below zero."""
    path = Path(TASKS["cfimdb"].files.format("test-student"))
    task = replace(TASKS["cfimdb"], metric_name="Pearson")
    split = Split(task, [Example("a", ("x",), 1.0)] * 9, [], [])
    results = {"score": -0.5, "spearman": -0.5}
    assert len(row_of(Job(task, "test", path, False, None), split, results)) == 80


# ---- probabilities


def test_probabilities(run: Path, capsys: pytest.CaptureFixture) -> None:
    """They sum to one, the largest is the prediction's, and their mean log is the loss."""
    main([str(run), "--probabilities"])
    assert "STS has no probabilities, only predictions" in capsys.readouterr().out
    assert len(contents(Path("predictions"))) == 6 + 4
    for split in ("dev", "test"):
        header, ids, values = table(f"predictions/sst-{split}-output-probabilities.csv")
        assert header == ["id", *(f"Probability_{i}" for i in range(5))]
        assert values.sum(1) == pytest.approx(1.0, abs=1e-12)
        found = zip(ids, values.argmax(1), strict=True)
        assert list(found) == predicted(f"predictions/sst-{split}-output.csv")
        header, ids, values = table(f"predictions/para-{split}-output-probabilities.csv")
        assert header == ["id", "Probability"]
        found = zip(ids, (values[:, 0] > 0.5).astype(float), strict=True)
        assert list(found) == predicted(f"predictions/para-{split}-output.csv")

    # Tables are replaced as prediction files are, but nothing else is.
    main([str(run), "--probabilities"])
    Path("predictions/sst-dev-output-probabilities.csv").write_text("thesis\n")
    with pytest.raises(UserError, match="is there, but is no prediction file"):
        main([str(run), "--probabilities"])


def test_the_probabilities_beside_the_best_model_are_those_that_it_gives(run: Path) -> None:
    main([str(run), "--probabilities"])
    for task in ("sst", "para"):
        beside = run / "best" / f"{task}-dev-probabilities.csv"
        written = Path(f"predictions/{task}-dev-output-probabilities.csv")
        assert beside.read_bytes() == written.read_bytes()
    assert not (run / "best" / "sts-dev-probabilities.csv").exists()


def test_probabilities_from_python(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MultitaskBERT.load(run)
    texts = ["A lovely film .", "It is dull .", "a"]
    pairs = [("A ?", "B ?"), ("A ?", "A ?")]
    kept: list[Any] = []

    def keep(*given: Any) -> Any:
        kept.append(predict_logits(*given))
        return kept[-1]

    with monkeypatch.context() as patch:
        patch.setattr("multitask_bert.predict_logits", keep)
        of_sst = model.predict("sst", texts, probabilities=True)
        of_para = model.predict("para", pairs, probabilities=True)
    labels = torch.tensor([0, 3, 4])
    by_torch = cross_entropy(kept[0].double(), labels).item()
    ours = -np.mean([np.log(of_sst[i][label]) for i, label in enumerate(labels)])
    assert ours == pytest.approx(by_torch)
    assert [np.argmax(row) for row in of_sst] == model.predict("sst", texts)
    assert of_para == pytest.approx(1 / (1 + np.exp(-kept[1][:, 0].numpy())))
    assert [float(p > 0.5) for p in of_para] == model.predict("para", pairs)
    assert model.predict("sst", [], probabilities=True) == []
    with pytest.raises(UserError, match="^sts: STS has no probabilities, only predictions"):
        model.predict("sts", pairs, probabilities=True)
