"""Which files a run reads, when the built-in corpus stands in, and what is said of what is seen."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from errors import UserError
from options import Options
from tasks import TASKS
from text import data_files
from text.data_files import (
    BUILT_IN,
    SPLITS,
    STEMS,
    data_in,
    download_command,
    find_files,
    say_where,
)


def touch(
    folder: Path, *tasks: str, splits: tuple[str, ...] = tuple(SPLITS)
) -> dict[tuple[str, str], Path]:
    paths = {(t, s): folder / TASKS[t].files.format(SPLITS[s]) for t in tasks for s in splits}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return paths


def test_none_there_means_the_built_in_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths, built_in = find_files(Options())
    assert (
        built_in
        and len(paths) == 9
        and all(path.parent == BUILT_IN and path.exists() for path in paths.values())
    )
    assert list(paths)[:3] == [("sst", "train"), ("sst", "dev"), ("sst", "test")]
    assert paths["sts", "test"].name == "sts-test-student.csv"
    assert find_files(Options(data_dir="./data/"))[1]


def test_any_real_file_there_means_no_built_in_corpus(tmp_path, monkeypatch):
    """Of a task that is not asked for too: it would be false that no real data is there."""
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "cfimdb", splits=("dev",))
    with pytest.raises(
        UserError,
        match=r"missing 9 of 9 data files in data, which holds ids-cfimdb-dev\.csv: ids-sst-train",
    ):
        find_files(Options())


def test_all_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = touch(tmp_path / "data", "sst", "para", "sts")
    for options in (Options(data_dir=str(tmp_path / "data")), Options()):
        paths, built_in = find_files(options)
        assert not built_in and {k: path.resolve() for k, path in paths.items()} == expected
    assert set(find_files(Options(tasks=("sts",)))[0]) == {("sts", split) for split in SPLITS}


def test_some_missing_is_an_error_that_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "sst", "para")
    touch(tmp_path / "data", "sts", splits=("train",))
    with pytest.raises(UserError) as caught:
        find_files(Options())
    assert str(caught.value) == (
        "missing 2 of 9 data files in data: sts-dev.csv, sts-test-student.csv; "
        f"fetch them: python {data_files.ROOT}/data/download.py --out data"
    )


def test_an_own_folder_is_never_replaced_by_the_built_in_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match="missing 9 of 9 data files in elsewhere: ids.* and 4 more; fetch .*--out elsewhere$",
    ):
        find_files(Options(data_dir="elsewhere"))


@pytest.mark.parametrize(
    "given, flags",
    [
        (["sst_train"], "--tasks sst --sst_dev FILE --no-test"),
        (["sst_train", "sst_dev"], "--tasks sst --no-test"),
        (["sst_train", "sst_dev", "sst_test"], "--tasks sst"),
        (["sst_dev", "sts_dev"], "--tasks sst sts --sst_train FILE --sts_train FILE --no-test"),
    ],
)
def test_tasks_whose_files_were_given(given, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").touch()
    with pytest.raises(UserError) as caught:
        find_files(Options(files=dict.fromkeys(given, "mine.csv")))
    assert str(caught.value).endswith(f" --out data, or do without: {flags}")


def test_single_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.csv"
    with pytest.raises(UserError, match=r"^--sst_dev .*/mine\.csv: not there; check the path$"):
        find_files(Options(files={"sst_dev": str(own)}))
    own.touch()
    with pytest.raises(
        UserError, match="missing 8 of 9 data files"
    ) as caught:  # not quietly the built-in ones beside it
        find_files(Options(files={"sst_dev": str(own)}))
    assert "mine.csv" not in str(caught.value)
    touch(tmp_path / "data", "sst", "para", "sts")
    assert find_files(Options(files={"sst_dev": str(own)}))[0]["sst", "dev"] == own
    (tmp_path / "data" / "ids-sst-dev.csv").unlink()
    assert find_files(Options(files={"sst_dev": str(own)}))[1] is False
    only = {f"sst_{split}": str(own) for split in SPLITS}
    assert set(find_files(Options(tasks=("sst",), files=only))[0].values()) == {own}


def test_a_file_of_no_task():
    with pytest.raises(UserError, match="^files: sts_trian is unknown; expected one of sst, para"):
        find_files(Options(files={"sts_trian": "mine.csv"}))


def test_files_of_a_task_that_does_not_run():
    """Whoever names one expects it to be read or written."""
    for name in ("sts_train", "cfimdb_dev_out"):
        with pytest.raises(
            UserError, match=f"^--{name} x.csv: that task does not run; .* sst para$"
        ):
            find_files(Options(tasks=("sst", "para"), files={name: "x.csv"}))


def test_test_files_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "sst", "para", "sts", splits=("train", "dev"))
    touch(tmp_path / "data", "sst", splits=("test",))
    with pytest.raises(UserError) as caught:
        find_files(Options())
    assert str(caught.value).startswith("missing 2 of 9 data files in data: quora-test-student.csv")
    assert str(caught.value).endswith(" --out data, or leave them out: --no-test")
    assert len(find_files(Options(test=False))[0]) == 6
    # What predict.py asks for.
    found, _ = find_files(Options(), ("dev", "test"), optional=("test",))
    assert set(found) == {("sst", "dev"), ("sst", "test"), ("para", "dev"), ("sts", "dev")}
    (tmp_path / "data" / "sts-dev.csv").unlink()
    with pytest.raises(
        UserError, match="^missing 1 of 9 data files in data: sts-dev.csv; .* data$"
    ):
        find_files(Options(), tuple(SPLITS), optional=("test",))
    with pytest.raises(UserError, match="^missing 3 of 9 .*: quora-test.* --out data$"):
        find_files(Options())


def test_data_beside_the_scripts(tmp_path, monkeypatch, capsys):
    """It is read where one stands in a folder without data/, and nobody named another."""
    beside, here = tmp_path / "project" / "data", tmp_path / "here"
    beside.mkdir(parents=True)
    here.mkdir()
    monkeypatch.setattr(data_files, "BESIDE", beside)
    monkeypatch.chdir(here)
    assert find_files(Options())[1]  # none there either
    expected = touch(beside, "sst", "para", "sts")
    paths, built_in = find_files(Options())
    assert (paths, built_in) == (expected, False)
    say_where(Options(), built_in)
    assert capsys.readouterr().out == (
        f"no data/ here, so the data is that beside the scripts:\n  {beside}\n"
    )
    # Some missing there are not quietly the built-in ones.
    expected["sst", "dev"].unlink()
    assert refusal(Options()).startswith(f"missing 1 of 9 data files in {beside}: ids-sst-dev.csv")
    with pytest.raises(UserError, match="missing 9 of 9 data files in mine"):
        find_files(Options(data_dir="mine"))
    (here / "data").mkdir()
    assert find_files(Options())[1]


def test_a_task_whose_files_begin_with_the_split(monkeypatch):
    """As "{}.csv": an empty beginning is none, or every file would look like data."""
    assert "" not in STEMS and not data_files.looks_like_data("download.py")
    task = replace(TASKS["sst"], files="{}.csv")
    assert data_files.stems_of([task, TASKS["sts"]]) == ("sts-",)


# ---- what stands in the usual folder


def refusal(options: Options) -> str:
    with pytest.raises(UserError) as caught:
        find_files(options)
    message = str(caught.value)
    assert message.isprintable() and len(message) <= 300
    return message


@pytest.mark.parametrize(
    "name",
    [
        "IDS-SST-TRAIN.CSV",
        "ids-sst-train.tsv",
        "quora-train.csv.gz",
        "Sts-dev",
        "mine.csv",
        "MINE.TXT",
        "x\n.csv",
        "data.zip",
        "data/ids-sst-train.csv",
    ],
)
def test_what_looks_like_data_is_never_passed_over(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / name).parent.mkdir(parents=True)
    (tmp_path / "data" / name).touch()
    shown = name.replace("\n", "\\n")
    message = refusal(Options())
    assert message.startswith(f"missing 9 of 9 data files in data, which holds {shown}: ids-sst-t")
    assert "; fetch them: python" in message and message.endswith("/download.py --out data")
    # The same of a folder that was asked for.
    assert f"/data, which holds {shown}: ids-sst-tr" in refusal(
        Options(data_dir=f"{tmp_path}/data")
    )


@pytest.mark.parametrize(
    "name", ["builtin", "download.py", "checksums.json", "quora-train.csv.part", "._sts-dev.csv"]
)
def test_what_is_no_data(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).touch()
    assert find_files(Options())[1]


def test_our_own_folder_holds_no_data_but_what_was_fetched():
    own = {path.name for path in (data_files.ROOT / "data").iterdir()}
    fetched = {task.files.format(suffix) for task in TASKS.values() for suffix in SPLITS.values()}
    assert set(data_in(data_files.ROOT / "data")) <= fetched
    assert {"builtin", "download.py"} <= own
    assert STEMS[:3] == ("ids-sst-", "quora-", "sts-")


def test_links_to_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ids-sst-train.csv").symlink_to("gone.csv")
    assert ": ids-sst-train.csv (a broken link to gone.csv), ids-sst-dev" in refusal(Options())
    (tmp_path / "data" / "ids-sst-train.csv").unlink()
    (tmp_path / "data").rmdir()
    (tmp_path / "data").symlink_to("gone")
    message = "data: a broken link to gone; expected a folder with the tasks' files"
    assert refusal(Options()) == message


def test_the_usual_folder_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").touch()
    assert refusal(Options()) == "data: Not a directory; expected a folder with the tasks' files"


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", denied)
        expected = "data: Permission denied; expected a folder with the tasks' files"
        assert refusal(Options()) == expected
    # One that shows its names, but not its files.
    touch(tmp_path / "data", "sst", "para", "sts")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)
        assert " ids-sst-train.csv (Permission denied), " in refusal(Options())
    assert not find_files(Options())[1]


def test_what_is_no_regular_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "sst")
    os.mkfifo("pipe")
    for split in SPLITS:
        message = refusal(Options(tasks=("sst",), files={f"sst_{split}": "pipe"}))
        assert message.startswith("pipe: a pipe or a device, expected a regular file")
    reader, writer = os.pipe()
    os.close(writer)
    message = refusal(Options(tasks=("sst",), files={"sst_dev": f"/dev/fd/{reader}"}))
    assert message.startswith(f"/dev/fd/{reader}: a pipe or a device")
    os.close(reader)


# ---- what is said of a path that was typed


@pytest.mark.parametrize("typed", ["my-trian.csv", "My-Train.csv", "my-train.tsv"])
def test_a_typo_in_a_path(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name in ("my-train.csv", "quite-another.csv"):
        (tmp_path / "here" / name).touch()
    options = Options(files={"sst_train": f"here/{typed}"})
    assert refusal(options) == (
        f"--sst_train here/{typed}: not there; did you mean here/my-train.csv?"
    )


@pytest.mark.parametrize(
    "typed,reason",
    [
        ("absent.csv", "not there"),
        ("nowhere/absent.csv", "not there"),
        ("link.csv", "a broken link to gone.csv"),
        ("a\0b", "it has a character that no path can have"),
        ("x" * 300, "File name too long"),
        ("file/below.csv", "Not a directory"),
    ],
)
def test_a_path_that_can_not_be_had(tmp_path, monkeypatch, typed, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link.csv").symlink_to("gone.csv")
    message = refusal(Options(files={"sst_train": typed}))
    assert message.startswith("--sst_train ")
    assert re.search(f": {reason}; (check the path|did you mean link.csv.)$", message)


def test_the_command_that_fetches(tmp_path, monkeypatch):
    script = data_files.ROOT / "data" / "download.py"
    monkeypatch.chdir(data_files.ROOT)
    assert download_command(Path("data")) == "python data/download.py"
    assert download_command(Path("my data")) == "python data/download.py --out 'my data'"
    monkeypatch.chdir(tmp_path)
    assert download_command(Path("data")) == f"python {script} --out data"


def test_neither_data_nor_the_built_in_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in what prepare_submit.py zips."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_files, "BUILT_IN", tmp_path / "builtin")
    with pytest.raises(UserError, match="no built-in corpus beside the scripts; .*make_corpus.py"):
        find_files(Options())
