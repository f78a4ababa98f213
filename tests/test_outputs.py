"""Where predictions go, what they never replace, and runs that write to one place."""

import fcntl
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import training.outputs
from datasets import Split
from errors import UserError
from evaluation import Seen
from examples import read_examples
from multitask_classifier import MultitaskBERT, main, train
from options import Options
from storage.files import write_text
from training.checkpoint import best_sum
from training.manifest import write_manifest
from training.outputs import check_outputs, copy_outputs, outputs_of


@pytest.fixture
def own_data(options: Options) -> Options:
    """With the data and the weights in folders of the test's own, `data` and `base`."""
    shutil.copytree(options.data_dir, "mine")
    shutil.copytree(options.model, "base")
    return replace(options, data_dir="mine", model="base")


def contents(folder: str) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# ---- outputs that are inputs, or one another


def link() -> None:
    Path("link.csv").symlink_to("mine/sts-dev.csv")


def hard_link() -> None:
    os.link("mine/sts-dev.csv", "hard.csv")


def folder_link() -> None:
    Path("elsewhere").symlink_to("mine")


def gone() -> None:
    folder_link()
    Path("mine/ids-cfimdb-dev.csv").unlink()


def nothing() -> None:
    pass


INPUTS: list[tuple[Callable[[], None], dict[str, str], str]] = [
    # of the run itself, under any name
    (nothing, {"sst_dev": "mine.csv", "sst_dev_out": "mine.csv"}, "mine.csv"),
    (nothing, {"sst_dev": "mine.csv", "sts_test_out": "{here}/mine.csv"}, "mine.csv"),
    (nothing, {"sst_dev": "{here}/mine.csv", "sst_dev_out": "mine/../mine.csv"}, "mine.csv"),
    (nothing, {"para_test_out": "mine/sts-dev.csv"}, "mine/sts-dev.csv"),
    (link, {"sst_dev_out": "link.csv"}, "mine/sts-dev.csv"),
    (hard_link, {"sst_dev_out": "hard.csv"}, "mine/sts-dev.csv"),
    (folder_link, {"sst_dev_out": "elsewhere/sts-dev.csv"}, "mine/sts-dev.csv"),
    # another task's, there or not, and the weights' folder's
    (nothing, {"sst_dev_out": "mine/ids-cfimdb-train.csv"}, "mine/ids-cfimdb-train.csv"),
    (gone, {"sst_dev_out": "elsewhere/ids-cfimdb-dev.csv"}, "mine/ids-cfimdb-dev.csv"),
    (nothing, {"sst_dev_out": "base/model.safetensors"}, "base/model.safetensors"),
    (nothing, {"sst_dev_out": "base/special_tokens_map.json"}, "base/special_tokens_map.json"),
]


@pytest.mark.parametrize(("prepare", "files", "same"), INPUTS)
def test_an_input_is_never_replaced(
    own_data: Options,
    prepare: Callable[[], None],
    files: dict[str, str],
    same: str,
    tmp_path: Path,
) -> None:
    shutil.copy("mine/ids-sst-dev.csv", "mine.csv")
    prepare()
    before = contents("mine"), contents("base"), Path("mine.csv").read_bytes()
    given = {name: path.format(here=tmp_path) for name, path in files.items()}
    output = next(path for name, path in given.items() if name.endswith("_out"))
    with pytest.raises(UserError) as caught:
        train(replace(own_data, files=given))
    message = str(caught.value)
    assert message.startswith(f"{output}: predictions would replace ") and same in message
    assert before == (contents("mine"), contents("base"), Path("mine.csv").read_bytes())
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("change", "both"),
    [
        ({"predictions": "{split}.csv"}, "dev.csv and dev.csv"),
        ({"files": {"sst_dev_out": "a.csv", "sts_test_out": "b/../a.csv"}}, "a.csv and b/../a.csv"),
        ({"files": {"sst_dev_out": "x/a.csv", "sts_dev_out": "y/a.csv"}}, "x/a.csv and y/a.csv"),
        ({"files": {"sst_dev_out": "there", "sts_dev_out": "alias"}}, "there and alias"),
    ],
)
def test_two_outputs_that_are_one_file(options: Options, change: dict, both: str) -> None:
    Path("x").mkdir()
    Path("y").symlink_to("x")
    Path("there").touch()
    os.link("there", "alias")
    with pytest.raises(UserError, match=f"^{re.escape(both)}: two prediction files would be one"):
        check_outputs(replace(options, **change))


def test_the_outputs_of_one_run_are_not_the_inputs_of_the_next(own_data: Options) -> None:
    first = replace(own_data, tasks=("sst",), files={"sst_dev_out": "film.csv"})
    files = {"cfimdb_train": "mine/ids-cfimdb-train.csv", "cfimdb_dev": "film.csv"}
    second = replace(own_data, tasks=("cfimdb",), files=files)
    shutil.copy("mine/ids-cfimdb-dev.csv", "film.csv")
    check_outputs(second)
    with pytest.raises(UserError, match=r"^film.csv: predictions would replace film.csv, which"):
        check_outputs(second, first)


def test_only_prediction_files_are_replaced(options: Options) -> None:
    """As @opts.txt, or whatever else the user has under that name."""
    one = replace(options, files={"sst_dev_out": "opts.txt"})
    for text in ("--epochs 3", "id\tsentence\n1\ta\n", "thesis"):
        Path("opts.txt").write_text(text)
        with pytest.raises(UserError, match="^opts.txt: is there, but is no prediction file"):
            check_outputs(one)
        assert Path("opts.txt").read_text() == text
    for text in ("", "id \t Predicted_Sentiment \n1 , 2 \n"):
        Path("opts.txt").write_text(text)
        check_outputs(one)


@pytest.mark.parametrize("path", ["best/model.safetensors", "options.json", "last/x", "new.csv"])
@pytest.mark.parametrize("resume", [None, "runs/one", "runs/two"])
def test_the_folder_of_any_run_is_left_alone(
    options: Options, path: str, resume: str | None
) -> None:
    """Of the one resumed, and of others."""
    run = Path("runs/one")
    run.mkdir(parents=True)
    (run / "run.json").touch()
    given = {"sst_dev_out": f"runs/one/../one/{path}"}
    with pytest.raises(UserError, match="lies in runs/one, the folder of a run or a model"):
        check_outputs(replace(options, resume=resume, files=given))
    check_outputs(replace(options, resume=resume, files={"sst_dev_out": f"runs/other/{path}"}))


def test_the_folder_of_a_copied_model_is_left_alone(options: Options) -> None:
    Path("kept").mkdir()
    Path("kept/manifest.json").touch()
    Path("alias").symlink_to("kept")
    given = {"sst_dev_out": "alias/model.safetensors"}
    with pytest.raises(UserError, match="lies in kept, the folder of a run or a model"):
        check_outputs(replace(options, files=given))


# ---- outputs that can't be written


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/null", "/dev/null: a device or a pipe, which is never replaced"),
        ("pipe", "pipe: a device or a pipe"),
        ("locked.csv", "locked.csv: read-only"),
        ("folder", "folder: a folder, expected a file"),
        ("x" * 300, r"can't be written \(File name too long\)"),
        ("x" * 300 + "/out.csv", r"can't be written \(File name too long\)"),
        ("a\0b", "a NUL character, which no name can have"),
        ("a\ud800b", "not UTF-8; rename the file"),
        ("loop", r"loop: can't be written \(Too many levels"),
        ("locked.csv/out.csv", r"out.csv: can't be written \(Not a directory\)"),
        ("predictions", "predictions: a folder, expected a file"),  # that the other five make
    ],
)
def test_what_is_no_file_to_be_written_is_refused_at_the_start(
    options: Options, path: str, message: str
) -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("locked.csv").touch(mode=0o444)
    with pytest.raises(UserError, match=message):
        train(replace(options, files={"sst_dev_out": path}))
    assert not Path("runs").exists()


# ---- predictions of dev


@pytest.mark.parametrize("merge", [False, True])
def test_dev_is_predicted_once_an_epoch(
    options: Options, merge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end test alone is, and dev's files are what the best model predicts."""
    if merge:
        options = replace(options, lora=True, lora_merge=True)
    sizes: list[int] = []
    predict = training.outputs.predict

    def counted(model: MultitaskBERT, split: Split, seen: Seen) -> object:
        sizes.append(len(split))
        return predict(model, split, seen)

    monkeypatch.setattr(training.outputs, "predict", counted)
    shorter = Path("sts-test.csv")
    text = Path(options.data_dir, "sts-test-student.csv").read_text()
    shorter.write_text("".join(text.splitlines(keepends=True)[:6]))
    folder = Path(train(replace(options, epochs=2, files={"sts_test": str(shorter)}))["folder"])
    assert sizes == [12, 12, 5]  # test's

    model = MultitaskBERT.load(folder)
    for task in model.tasks.values():
        name = f"{task.name}-dev-output.csv"
        own = (folder / "predictions" / name).read_bytes()
        assert own == (folder / "best" / name).read_bytes()
        assert own == Path("predictions", name).read_bytes()
        examples = read_examples(Path(options.data_dir, task.files.format("dev")), task, "dev")
        predicted = model.predict(task.name, [example.texts for example in examples])
        rows = [line.split(" , ") for line in own.decode().split("\n")[1:-1]]
        assert [row[0] for row in rows] == [example.id for example in examples]
        assert [float(row[1]) for row in rows] == pytest.approx(predicted, abs=1e-5)


def test_dev_is_predicted_where_the_best_model_came_without_its_predictions(
    options: Options,
) -> None:
    folder = Path(train(options)["folder"])
    before = contents(str(folder / "predictions"))
    for path in (folder / "best").glob("*.csv"):
        path.unlink()
    shutil.rmtree(folder / "predictions")
    write_manifest(folder / "best")
    progress = folder / "last" / "progress.json"
    values = json.loads(progress.read_text())
    values["best_manifest"] = best_sum(folder / "best")
    progress.write_text(json.dumps(values))
    write_manifest(folder / "last")
    main(["--resume", str(folder)])
    assert contents(str(folder / "predictions")) == before


# ---- two runs and one place


def test_a_set_of_copies_is_of_one_run(options: Options) -> None:
    outputs = outputs_of(options)
    for run in ("a", "b"):
        for output in outputs:
            write_text(Path(run, output.name), run)
    for _ in range(10):
        runs = [threading.Thread(target=copy_outputs, args=(Path(r), outputs)) for r in ("a", "b")]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert len({output.copy.read_text() for output in outputs}) == 1


def test_test_predictions_of_another_run_are_named(
    options: Options, capsys: pytest.CaptureFixture
) -> None:
    """Zipped with dev's of this one, they would be taken for its own."""
    options = replace(options, steps_per_epoch=1, tasks=("sst",))
    for test, said in ((False, False), (True, False), (False, True)):
        train(replace(options, test=test))
        printed = capsys.readouterr().out
        line = "  another run's stay beside them: sst-test-output.csv\n"
        assert (line in printed) == said

    # So are those of a task that this run has not learned.
    train(replace(options, tasks=("sts",)))
    line = "  another run's stay beside them: sst-dev-output.csv and 1 more\n"
    assert line in capsys.readouterr().out


def test_a_finished_run_that_is_resumed_leaves_newer_predictions(
    options: Options, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(train(options)["folder"])
    first = contents("predictions")
    own = folder / "predictions"
    assert first == contents(str(own))
    for path in Path("predictions").iterdir():
        path.write_text("of a newer run")
    (own / "sst-dev-output.csv").unlink()
    capsys.readouterr()
    main(["--resume", str(folder)])
    assert set(contents("predictions").values()) == {b"of a newer run"}
    assert contents(str(own)) == first
    assert f"cp {own}/* predictions/\n" in capsys.readouterr().out


def test_predictions_that_can_not_be_copied_are_in_the_run_and_copied_on_resuming(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk got full, or a folder took the file's place, in the hours of training."""
    load = training.outputs.predict

    def spoil(*given: object) -> object:
        Path("mine.csv").mkdir(exist_ok=True)
        return load(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training.outputs, "predict", spoil)
        with pytest.raises(UserError, match=r"^mine.csv: a folder.*the predictions are in (\S+)$"):
            train(replace(options, files={"sst_dev_out": "mine.csv"}))
    (folder,) = Path("runs").iterdir()
    assert len(contents(str(folder / "predictions"))) == 6
    Path("mine.csv").rmdir()
    main(["--resume", str(folder)])
    assert Path("mine.csv").read_text().startswith("id \t Predicted_Sentiment")


def test_what_killed_runs_left_is_cleared(options: Options) -> None:
    folder = Path(train(options)["folder"])
    places = [Path("predictions"), folder, folder / "predictions"]
    for place in places:
        (place / ".minbert-dead.new").write_text("half")
    with open("predictions/.minbert-alive.new", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        check_outputs(options)
        main(["--resume", str(folder)])
    left = [path.name for place in places for path in place.glob(".*")]
    assert left == [".minbert-alive.new"]
