"""Part 1, end to end on a tiny random BERT."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import classifier
from errors import UserError
from options import Options
from tests.test_train import flags

MODES = [(["--option", "pretrain"], "pretrain"), (["--fine-tune-mode", "full-model"], "full-model")]


@pytest.mark.parametrize(("mode", "name"), MODES)
def test_writes_the_course_files(options: Options, mode: list[str], name: str) -> None:
    classifier.main([*flags(options), *mode])
    for task, rows in (("sst", 12), ("cfimdb", 12)):
        for split in ("dev", "test"):
            lines = Path(f"predictions/{name}-{task}-{split}-out.csv").read_text().splitlines()
            assert lines[0] == "id \t Predicted_Sentiment " and len(lines) == rows + 1
    assert len(list(Path("runs").glob("*-classifier"))) == 2


def test_flags_that_are_given_win_though_they_equal_a_default(options: Options) -> None:
    Path("flags.txt").write_text("--fine-tune-mode last-linear-layer\n")
    classifier.main(
        [
            *flags(options),
            "@flags.txt",
            "--batch-size",
            "96",
            "--max_length",
            "256",
            "--name",
            "multitask",
        ]
    )
    (folder,) = Path("runs").glob("*-cfimdb-multitask")
    held = json.loads((folder / "options.json").read_text())
    assert (held["batch_size"], held["max_length"]) == (96, 256)
    assert Path("predictions/last-linear-layer-cfimdb-test-out.csv").exists()


def test_a_smoke_run(options: Options) -> None:
    short = {"epochs": 3, "steps_per_epoch": 0, "batch_size": 96}  # the defaults
    classifier.main([*flags(replace(options, **short)), "--smoke", "--limit", "6"])  # type: ignore[arg-type]
    for folder in (next(Path("runs").glob(f"*-{task}-smoke")) for task in ("sst", "cfimdb")):
        held = json.loads((folder / "options.json").read_text())
        assert (held["limit"], held["epochs"], held["steps_per_epoch"]) == (6, 1, 3)
        assert len(list((folder / "predictions").iterdir())) == 2


def test_what_stops_the_second_run_stops_the_first(options: Options, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dev.csv: two prediction files would be one"):
        classifier.main([*flags(options), "--predictions", "out/{split}.csv"])
    shutil.copytree(options.data_dir, "only-sst", ignore=shutil.ignore_patterns("*cfimdb*"))
    with pytest.raises(UserError, match="missing 3 of 3 data files in only-sst, which holds ids"):
        classifier.main([*flags(replace(options, data_dir="only-sst"))])
    assert not Path("runs").exists() and not list(Path("out").iterdir())


def test_files_go_to_their_task_s_run(options: Options) -> None:
    for task, split in (("sst", "dev"), ("cfimdb", "test_out")):
        given = replace(options, files={"sst_dev": "a.csv", "cfimdb_test_out": "b.csv"})
        files = classifier.options_for(task, given, {}).files
        assert [name for name, _ in files] == [f"{task}_{split}"]
    with pytest.raises(UserError, match="^files: sts_dev is unknown; expected one of sst, cfimdb"):
        classifier.main([*flags(options), "--sts_dev", "a.csv"])


def test_a_name_that_gets_too_long_by_the_task_s(options: Options) -> None:
    with pytest.raises(UserError, match=r"^--name sst-aaa.*: at most 200 bytes, or the run folder"):
        classifier.main([*flags(options), "--name", "a" * 200])
    assert not Path("runs").exists()
