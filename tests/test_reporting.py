"""The pages that report.py writes: what they show, what they leave out, and that all of it stays in
them.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

import classifier
import multitask_classifier
import report
from errors import UserError
from examples import Example
from options import Options
from reporting import curves, dev, mistakes, pictures, style
from reporting.runs import SORTS, read_run, runs_of, sorted_rows
from tasks import TASKS
from tests.test_train import flags
from text.prediction_files import write_predictions, write_probabilities

ROOT = Path(__file__).parents[1]
NASTY = '<script>alert(1)</script> & "a $x$ <i>'
PICTURES = {"loss", "score", "confusion", "labels", "lengths"}


class Page(HTMLParser):
    """A page's elements, its texts, and the columns of its tables."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def addresses(self) -> list[str]:
        """Whatever a browser could load, or follow of itself."""
        found = re.findall(r"url\(\s*([^)]*)\)", self.source)
        found += re.findall(r"@import[^;]*", self.source)
        names = ("src", "srcset", "href", "xlink:href", "poster", "data", "action", "background")
        for tag, values in self.elements:
            found += [values[name] for name in names if name in values and tag != "a"]
        return found


def rows_of(page: Page, count: int, after: str) -> list[list[str]]:
    """The cells of a table of numbers, `count` a row, behind the text of its last head."""
    cells = page.texts[page.texts.index(after) + 1 :]
    width = page.texts.index(after) - page.texts.index("class") + 1
    return [cells[i * width : (i + 1) * width] for i in range(count)]


@pytest.fixture(scope="module")
def finished(tiny: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of three tasks and its data, whose dev texts are nasty."""
    place = tmp_path_factory.mktemp("finished")
    shutil.copytree(small_data, place / "data")
    with (place / "data" / "ids-sst-dev.csv").open("a") as file:
        file.write(f'\tnasty\t"{NASTY.replace(chr(34), chr(34) * 2)}"\t4\n')
    options = Options(
        **{"model": str(tiny), "data_dir": "data", "epochs": 2, "steps_per_epoch": 3},
        **{"batch_size": 13, "log_every": 1, "precision": "fp32", "tags": ("first-try",)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder = Path(multitask_classifier.train(options)["folder"])
    shutil.rmtree(place / "predictions")
    return place / folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, in a current folder of its own."""
    shutil.copytree(finished.parents[1], tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return Path("runs") / finished.name


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty, which saves most of the time."""

    def draw(name: str, title: str, *_: object, caption: str = "") -> style.Picture:
        return style.Picture(name, title, caption, '<svg viewBox="0 0 1 1"></svg>', b"")

    monkeypatch.setattr(pictures, "draw", draw)


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Importing it fails, and nobody finds it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    yield


def invented(run: Path, task: str) -> dev.Dev:
    """The dev set of a task with predictions and probabilities made up, some of them wrong."""
    examples = dev.read_gold(read_run(run), task, TASKS[task])
    random = np.random.default_rng(0)
    ids = [example.id for example in examples]
    best = run / "best"
    if task == "sts":
        write_predictions(best / "sts-dev-output.csv", task, ids, random.uniform(0, 5, len(ids)))
        return dev.read_dev(read_run(run), task)
    classes = TASKS[task].outputs if task == "sst" else 2
    found = random.dirichlet(np.ones(classes), len(ids))
    found[-1] = [0.96, *np.full(classes - 1, 0.04 / (classes - 1))]  # the last one: 0, and sure
    write_predictions(best / f"{task}-dev-output.csv", task, ids, found.argmax(1))
    held = found if classes > 2 else found[:, 1]
    write_probabilities(best / f"{task}-dev-probabilities.csv", ids, held)
    return dev.read_dev(read_run(run), task)


def with_sst_alone(run: Path) -> None:
    """Make the run one of SST, with invented predictions, so that there is less to draw."""
    invented(run, "sst")
    (run / "options.json").write_text(replace(Options.of_run(run), tasks=("sst",)).to_json())
    shutil.rmtree(run / "last")
    facts = json.loads((run / "run.json").read_text())
    facts["best"]["scores"] = {"sst": 0.5}
    (run / "run.json").write_text(json.dumps(facts))


# ---- one run


def test_the_page_of_a_run(run: Path, capsys: pytest.CaptureFixture) -> None:
    for task in ("sst", "para", "sts"):
        invented(run, task)
    report.main([str(run)])
    out = capsys.readouterr().out
    assert f"page: {run}/report/index.html" in out and "dev files of data (SHA-256" in out

    # The pictures, in the page and as files.
    files = {path.stem for path in (run / "report").glob("*.png")}
    expected = {f"{task}-{name}" for task in ("sst", "para") for name in PICTURES}
    assert files == expected | {f"sts-{name}" for name in (*PICTURES - {"confusion"}, "scatter")}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (run / "report").glob("*.png"))
    page = Page(run / "report" / "index.html")
    assert page.count("svg") == len(files) and page.count("script") == 0
    assert all(map(pictures.FILES.fullmatch, [f"{name}.png" for name in files]))

    # Each says what its marks are.
    assert page.count("figcaption") == len(files)
    assert page.texts.count(pictures.CONFUSION) == 2 and page.texts.count(pictures.SCATTER) == 1

    # What the run is.
    held, facts = read_run(run), json.loads((run / "run.json").read_text())
    for text in (*facts["commands"], facts["device"], facts["commit"], "first-try", "13"):
        assert text in page.source
    assert f"{held.best.overall:.3f}" in page.texts and "--batch_size 13" in page.texts
    assert "ids-sst-dev.csv" in page.texts and facts["data"]["sst_dev"]["sha256"][:12] in page.texts


def test_nothing_of_a_page_is_loaded_from_elsewhere(run: Path) -> None:
    with_sst_alone(run)
    for places in ([], [str(run)] * 2, [str(run)]):
        page = Page(report.report(places))
        assert all(address.startswith("#") for address in page.addresses()), page.addresses()
        assert "http:" not in page.source and "https:" not in page.source
        policy = page.elements[3][1]
        assert policy["http-equiv"] == "Content-Security-Policy"
        assert policy["content"].startswith("default-src 'none'; ")
        for script in re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert policy["content"].endswith(f"; script-src 'sha256-{digest}'")
        ids = [values["id"] for _, values in page.elements if "id" in values]
        assert len(set(ids)) == len(ids)
    assert page.addresses()  # clip paths and marks, so that what is looked for is there


def test_texts_are_no_html(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sst_alone(run)
    renamed = run.rename(run.with_name("2026-01-01-<img src=x>$x$"))
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "dev_pictures", lambda *_: [])
        page = Page(report.report([str(renamed)]))
    assert NASTY in page.texts and "script" not in dict(page.elements)
    listed = Page(report.report([]))
    assert renamed.name in listed.texts and listed.count("script") == 1
    compared = Page(report.report([str(renamed)] * 2))
    assert not {"img", "i"} & {*dict(page.elements), *dict(listed.elements)}
    assert f"1 {renamed.name}" in compared.texts and "img" not in dict(compared.elements)


def test_a_folder_s_name_may_be_anything(run: Path, unpainted: None) -> None:
    name = os.fsdecode(b'2026-01-01-\xff "#?')
    try:
        strange = run.rename(run.with_name(name))
    except OSError:
        pytest.skip("no such name here")
    for places in ([str(strange)], [str(strange)] * 2, []):
        page = Page(report.report(places))
        assert '2026-01-01-\\udcff "#?' in page.texts
    (head,) = [values["href"] for tag, values in page.elements if tag == "a"]
    assert head == "2026-01-01-%FF%20%22%23%3F/report/index.html"


@pytest.mark.parametrize("task", ["sst", "para"])
def test_precision_and_recall_are_scikit_learn_s(run: Path, unpainted: None, task: str) -> None:
    found = invented(run, task)
    classes = range(found.classes)
    expected = confusion_matrix(found.labels, found.predictions, labels=classes)
    assert np.array_equal(mistakes.confusion(found), expected)
    scores = precision_recall_fscore_support(
        found.labels, found.predictions, labels=classes, zero_division=np.nan
    )
    page = Page(report.report([str(run)]))
    page.texts = page.texts[page.texts.index(TASKS[task].title) :]
    page.texts = page.texts[page.texts.index("class") :]
    for label, row in enumerate(rows_of(page, found.classes, "recall")):
        shown = ["-" if np.isnan(x) else f"{x:.3f}" for x in (scores[0][label], scores[1][label])]
        counts = (expected[label].sum(), expected[:, label].sum(), expected[label, label])
        assert row == [str(label), *map(str, counts), *shown]


def test_the_most_confident_mistakes(run: Path, unpainted: None) -> None:
    found = invented(run, "sst")
    worst = mistakes.worst(found)
    assert worst[0].example.id == "nasty" and worst[0].size == 0.96 and worst[0].prediction == 0
    wrong = [i for i, label in enumerate(found.labels) if found.predictions[i] != label]
    sizes = sorted((found.probabilities[i].max() for i in wrong), reverse=True)
    assert [mistake.size for mistake in worst] == sizes[:20] and 1 < len(wrong) < 13
    assert mistakes.worst(found, 2) == worst[:2]

    # Of two classes the file has the second one's.
    found = invented(run, "para")
    sizes = [mistake.size for mistake in mistakes.worst(found)]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) >= 0.5
    # Of a number, how far off it is.
    found = invented(run, "sts")
    farthest = int(np.abs(found.predictions - found.labels).argmax())
    assert mistakes.worst(found)[0].example == found.examples[farthest]
    page = Page(report.report([str(run)]))
    assert "label 4, predicted 0 with probability 0.960; id\xa0nasty" in page.texts
    assert "SST: the 20" not in page.source and "STS: the 12 largest mistakes on dev" in page.texts


def test_without_probabilities_a_line_says_so(run: Path, unpainted: None) -> None:
    for path in run.glob("best/*-probabilities.csv"):
        path.unlink()
    page = Page(report.report([str(run)]))
    lines = [text for text in page.texts if "not known how sure" in text]
    assert lines and lines[0].startswith("no sst-dev-probabilities.csv") and len(lines) == 2
    assert not any("most confident mistakes" in text for text in page.texts)
    assert any("largest mistakes" in text for text in page.texts)


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_dev_file_that_is_not_as_it_was(run: Path, unpainted: None, what: str) -> None:
    path = Path("data/ids-sst-dev.csv")
    if what == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text() + "\tmore\tA film .\t1\n")
    page = Page(report.report([str(run)]))
    said = "changed since the run" if what == "changed" else "not there any more"
    (line,) = [text for text in page.texts if text.startswith(f"{path}: ")]
    assert line == f"{path}: {said}, so what needs its texts or labels is left out"
    files = {file.stem for file in (run / "report").glob("*.png")}
    assert {"sst-loss", "sst-score", "para-confusion"} <= files and "sst-confusion" not in files


def test_data_that_moved_is_found_by_its_contents(run: Path) -> None:
    shutil.move("data", "elsewhere")
    options = Options.of_run(run)
    text = replace(options, data_dir="elsewhere").to_json()
    (run / "options.json").write_text(text)
    assert len(dev.read_dev(read_run(run), "sst").examples) == 13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "12 rows, expected 13 as in the dev file"),
        (lambda lines: [*lines[:3], "other , 1", *lines[4:]], ":4: expected id "),
        (lambda lines: [*lines[:3], lines[3].replace(",", ", 1,"), *lines[4:]], ":4: expected id "),
        (
            lambda lines: [*lines[:3], lines[3].split(",")[0] + ", 7", *lines[4:]],
            ":4: expected a w",
        ),
        (lambda lines: ["\0"], "a NUL character"),
    ],
)
def test_damaged_predictions_are_left_out(run: Path, unpainted: None, change, message: str) -> None:
    path = run / "best" / "sst-dev-output.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    page = Page(report.report([str(run)]))
    (line,) = [text for text in page.texts if text.startswith(str(path))]
    assert message in line
    files = {file.stem for file in (run / "report").glob("*.png")}
    assert "sst-labels" in files and "sst-confusion" not in files and "para-confusion" in files


def test_what_the_log_has_is_drawn(run: Path) -> None:
    """Dev loss and training score too, where they are; damaged lines are left out."""
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "epoch" in line:
            line.update(
                dev_loss_sst=1.5, train_sst=0.5, dev_loss_para=float("nan"), train_para=True
            )
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
    with pytest.warns(UserWarning, match="1 damaged lines"):
        found = curves.read_log(run)
    assert [x for x, _ in found.points("loss_sst")] == [1, 2, 3, 4, 5, 6]
    assert found.points("train_sst", "epoch") == [(1, 0.5), (2, 0.5)]
    assert found.points("dev_loss_sst") == [(3, 1.5), (6, 1.5)]
    assert not found.points("dev_loss_para") and not found.points("train_para")
    drawn = pictures.learning_curves(found, "sst", dev.Dev(TASKS["sst"]))
    assert [picture.title for picture in drawn] == ["SST: loss", "SST: accuracy"]
    for picture in drawn:
        assert ">training</text>" in picture.svg and ">dev</text>" in picture.svg


def test_numbers_that_can_not_be_drawn_are_left_out(run: Path) -> None:
    """One of 400 digits is too large for a float."""
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0]["loss_sst"], lines[1]["loss_sst"], lines[2]["dev_loss_sst"] = 10**400, 1e300, "x"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = curves.read_log(run)
    assert 1 not in dict(found.points("loss_sst")) and 3 in dict(found.points("loss_sst"))
    assert pictures.learning_curves(found, "sst", dev.Dev(TASKS["sst"]))


def test_long_curves_are_thinned() -> None:
    points = [(float(x), float(x % 2)) for x in range(1001)]
    few = curves.thinned(points)
    assert len(few) == 167 and few[0] == (2.5, 0.5) and few[-1] == (998.0, 0.4)
    assert curves.thinned(points[:200]) == points[:200]


# ---- other runs


def test_a_run_that_has_not_come_far(run: Path, unpainted: None) -> None:
    """Before its first evaluation, and before its first line."""
    shutil.rmtree(run / "last")
    shutil.rmtree(run / "best")
    facts = json.loads((run / "run.json").read_text())
    facts.pop("best")
    (run / "run.json").write_text(json.dumps(facts))
    page = Page(report.report([str(run)]))
    assert "no evaluation yet, so there are no scores" in page.texts
    assert sum("no dev predictions yet" in text for text in page.texts) == 3
    assert (run / "report" / "sst-lengths.png").exists()
    (run / "log.jsonl").unlink()
    page = Page(report.report([str(run), str(run)]))
    assert page.count("svg") == 0 and page.texts.count("nothing logged yet") == 4


def test_a_run_that_was_never_trained(run: Path) -> None:
    """As a baseline writes it: its results are in run.json only."""
    best = read_run(run).best
    shutil.rmtree(run / "last")
    assert read_run(run).best == best
    facts = json.loads((run / "run.json").read_text())
    facts["best"]["scores"].pop("sst")
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="run.json: best has not the scores of this run's tasks"):
        read_run(run)


def test_part_1_and_a_task_alone(options: Options, unpainted: None) -> None:
    classifier.main([*flags(options), "--option", "pretrain"])
    for task in ("sst", "cfimdb"):
        (run,) = Path("runs").glob(f"*-{task}-classifier")
        page = Page(report.report([str(run)]))
        assert TASKS[task].title in page.texts
        assert (run / "report" / f"{task}-confusion.png").exists()
    # Both are of other tasks: each has a table of its own, and pictures too.
    page = Page(report.report(list(map(str, Path("runs").glob("*-classifier")))))
    assert page.count("table") == 2 and len(list(page_folder().glob("[12]-*-score.png"))) == 2


def page_folder() -> Path:
    (folder,) = Path("runs").glob("report-*")
    return folder


# ---- several


def test_runs_side_by_side_have_one_picture_each_dev_set(run: Path, unpainted: None) -> None:
    other = shutil.copytree(run, run.with_name("2026-01-02-other"))
    elsewhere = shutil.copytree(run, run.with_name("2026-01-03-elsewhere"))
    facts = json.loads((elsewhere / "run.json").read_text())
    facts["data"]["sst_dev"]["sha256"] = "0" * 64
    (elsewhere / "run.json").write_text(json.dumps(facts))

    page = report.report([str(run), str(other)])
    assert page == Path.cwd() / "runs" / f"report-{run.name}+{other.name}" / "index.html"
    names = {f"{task}-{name}" for task in ("sst", "para", "sts") for name in ("score", "loss")}
    assert {path.stem for path in page.parent.glob("*.png")} >= {"overall", *names}

    page = report.report([str(run), str(other), str(elsewhere)], out="there")
    apart = Page(page)
    assert page == Path("there/index.html") and apart.count("table") == 2
    for group in (1, 2):
        found = {path.stem for path in Path("there").glob(f"{group}-*.png")}
        assert found >= {f"{group}-{name}" for name in names}
    assert "different dev files" in apart.source

    # What stands beside the runs is none of them, whoever names it.
    report.main([])
    assert runs_of(Path("runs")) == sorted([run, other, elsewhere])
    assert len(Page(report.report(list(map(str, Path("runs").glob("*"))))).texts) > 20
    with pytest.raises(UserError, match="runs/index.html: a file"):
        report.report(["runs/index.html"])


def test_many_runs_have_a_short_folder_and_lines_apart(run: Path) -> None:
    names = [f"2026-01-01-{'x' * 30}{number}" for number in range(10)]
    shutil.rmtree(run / "best")  # which is large
    copies = [str(shutil.copytree(run, run.with_name(name))) for name in names]
    page = report.report(copies)
    for name in names:
        assert sum(text.endswith(name[-5:]) for text in Page(page).texts) >= 7
    assert re.fullmatch(r"report-10-runs-[0-9a-f]{8}", page.parent.name)
    assert "stroke-dasharray" in page.read_text()
    assert any("..." in text for text in Page(page).texts)


def test_pictures_of_an_earlier_page_go(run: Path, unpainted: None) -> None:
    """But no file that the report did not write."""
    folder = run / "report"
    report.report([str(run)])
    for name in ("mine.png", "sst-mine.png", "sst-loss.svg"):
        (folder / name).touch()
    there = set(folder.iterdir())
    Path("data/ids-sst-dev.csv").unlink()
    report.report([str(run)])
    gone = {path.name for path in there - set(folder.iterdir())}
    assert gone == {f"sst-{name}.png" for name in ("confusion", "labels", "lengths")}

    # Where no page of ours was, nothing was ours.
    (folder / "index.html").unlink()
    (folder / "sst-labels.png").touch()
    report.report([str(run)])
    assert (folder / "sst-labels.png").exists()


def test_only_our_own_page_is_replaced(run: Path) -> None:
    report.report([])
    Path("runs/index.html").write_text("<h1>mine</h1>")
    with pytest.raises(UserError, match="is there, but is no page of report.py"):
        report.report([])
    assert Path("runs/index.html").read_text() == "<h1>mine</h1>"


def test_without_matplotlib(run: Path, no_matplotlib: None, capsys: pytest.CaptureFixture) -> None:
    report.main([])
    page = Page(Path("runs/index.html"))
    assert run.name in page.texts and page.count("button") == 11
    for places in ([str(run)], [str(run), str(run)]):
        with pytest.raises(UserError, match=r"needs a package: pip install matplotlib$"):
            report.main(places)
        assert run.name in capsys.readouterr().out


# ---- the list


def test_the_list_is_sorted_and_picked_from(
    run: Path, unpainted: None, capsys: pytest.CaptureFixture
) -> None:
    other = shutil.copytree(run, run.with_name("2025-01-01-a"))
    path = other / "last" / "progress.json"
    held = json.loads(path.read_text())
    held["seconds"] += 1000
    held["best"]["overall"] = 0.01
    held["best"]["scores"].update(sst=1.0, para=0.0)
    path.write_text(json.dumps(held))
    text = replace(Options.of_run(other), tags=("b.2", "c")).to_json()
    (other / "options.json").write_text(text)

    rows = [read_run(other), read_run(run)]
    first = {by: sorted_rows(rows, by)[0].folder for by in (*SORTS, "sst", "para", "sts")}
    assert first == {
        **{"overall": run, "date": run, "time": run, "name": other},
        **{"sst": other, "para": run, "sts": other},
    }
    for by in ("overall", "sst"):
        report.main(["--sort", by])
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("20")]
        assert lines[0].startswith(first[by].name)
        assert {line.split("  [")[1] for line in lines} == {"first-try]", "b.2 c]"}
        page = Page(Path("runs/index.html"))
        order = [page.texts.index(row.name) for row in sorted_rows(rows, by)]
        (head,) = [values for tag, values in page.elements if "aria-sort" in values]
        assert order == sorted(order) and head["aria-sort"] == "descending"
        assert "b.2" in page.texts

    # Those with a tag have a page of their own, which no one takes for a run.
    whole = Path("runs/index.html").read_bytes()
    report.main(["--tag", "b.2"])
    page = Page(Path("runs/index-b.2.html"))
    assert page.texts[0] == "runs with the tag b.2"
    assert run.name not in page.texts and other.name in page.texts
    assert Path("runs/index.html").read_bytes() == whole
    report.report(list(map(str, Path("runs").glob("*"))), out="there")
    with pytest.raises(UserError, match="no run with the tag b; the .* are: b.2, c, first-try$"):
        report.main(["--tag", "b"])

    # Only what these runs have is offered, and a task's title is told its name.
    names = "overall, date, time, name, sst, para, sts"
    for word, hint in ("size", ""), ("cfimdb", ""), ("Quora", "; did you mean para?"):
        with pytest.raises(UserError) as refusal:
            report.main(["--sort", word])
        assert str(refusal.value).startswith(f"--sort {word}: expected one of {names}{hint}")

    # A run's own page is led to once it is there, a name that needs it quoted.
    strange = run.rename(run.with_name("2026-01-01-a b#c"))
    report.report([str(strange)])
    links = [v["href"] for tag, v in Page(report.report([])).elements if tag == "a"]
    assert links == ["2026-01-01-a%20b%23c/report/index.html"]


def test_tags_may_be_given_anew(run: Path, tiny: Path) -> None:
    best = (run / "best" / "manifest.json").read_bytes()
    for tags in (("second", "try-2"), ()):
        before = Options.of_run(run)
        command = ["--resume", str(run), "--tags", *tags]
        multitask_classifier.main(command)
        assert Options.of_run(run) == replace(before, tags=tags)
    assert (run / "best" / "manifest.json").read_bytes() == best


# ---- looks


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", style.THEMES)
def test_all_is_legible_in_both_themes(theme: str) -> None:
    """WCAG's contrast: 4.5 for text, 3 for what is drawn."""
    colours = style.THEMES[theme]
    ground = luminance(colours["paper"])

    def contrast(colour: str) -> float:
        light, dark = sorted([luminance(colour), ground], reverse=True)
        return (light + 0.05) / (dark + 0.05)

    assert min(contrast(colours["ink"]), contrast(colours["quiet"])) > 4.5
    assert min(map(contrast, style.COLOURS)) > 3


def test_a_picture_in_a_theme_and_in_a_page() -> None:
    picture = style.draw("a", "A & B", lambda axes: axes.plot([0, 1], color=style.FIRST))
    dark = style.svg_file(picture, "dark")
    assert dark.startswith("<?xml") and style.THEMES["light"]["ink"] not in dark
    inline = style.svg_inline(picture)
    assert not {*re.findall("#[0-9a-f]{6}", inline)} - {style.FIRST} and "var(--ink)" in inline
    assert 'aria-label="A &amp; B"' in inline and 'id="a-axes_1"' in inline
    again = style.draw("a", "A & B", lambda axes: axes.plot([0, 1], color=style.FIRST))
    assert again == picture


def test_many_points_are_an_image(run: Path) -> None:
    from reporting.pictures import scatter

    found = invented(run, "sts")
    found.examples = [Example(str(i), ("a", "b"), 2.5) for i in range(3000)]
    found.predictions = np.linspace(0, 5, 3000)
    svg = scatter("sts", found).svg
    assert "data:image/png;base64," in svg and svg.count("<use") < 100
