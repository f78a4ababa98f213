"""ablate.py: rows, records, comparisons and tables. Oracles: train(), scipy's paired bootstrap."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

import ablate
from ablation import compare, record, rows, runs, summaries, table
from ablation.record import Epoch, Line, Source, append_line, read_lines
from commandline.words import typed
from errors import UserError
from evaluation import measure
from multitask_classifier import train
from options import Options
from tasks import TASKS
from training.progress import Best

ROOT = Path(__file__).parents[1]

# ---- rows


def preset(name: str, text: str) -> str:
    """A file of flags in this folder."""
    Path(name).write_text(text)
    return name


def test_a_preset_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = preset("mine.txt", "# what I try\n--lora  # small\n--head sts=linear\n")
    row = rows.read_row(path)
    assert (row.name, row.what) == ("mine", "what I try")
    assert row.flags == {"lora": True, "head": "sts=linear"}
    assert typed(row.flags) == ["--lora", "--head mlp sts=linear"]
    assert rows.read_row("lora-qv") == rows.read_row(str(ROOT / "presets" / "lora-qv.txt"))
    assert rows.read_row("lora-qv").flags == {"lora": True, "lora_targets": "qv"}


@pytest.mark.parametrize(
    "word, text, message",
    [
        (
            "nowhere",
            None,
            "--rows nowhere: no .*nowhere.txt; expected names of presets, or paths",
        ),
        ("Mean_pooling", None, "end in .txt; did you mean mean-pooling"),
        ("x.txt", "--lora\n", "x.txt:1: expected a comment that says what the row is"),
        ("x.txt", "# a\n--lroa\n", "^x.txt: --lroa: no such flag; did you mean --lora?"),
        ("x.txt", "# a\n--seed 3\n", "^x.txt: --seed: ablate.py sets it for each run; drop it"),
        ("x y.txt", "# a\n", "letters, digits, dot, dash and underscore only; rename it"),
        ("lora.txt", "# a\n", "presets/ has a row of this name already; rename the file"),
    ],
)
def test_what_is_no_preset(word, text, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if text:
        preset(word, text)
    with pytest.raises(UserError, match=message):
        rows.read_row(word)


def test_every_preset_of_the_project_is_a_row() -> None:
    """Each has options of its own."""
    found = rows.all_rows()
    options = [rows.options_of_row(row, {"epochs": 2}, seed=1) for row in found]
    assert len(set(options)) == len(found) > 20
    assert [row.name for row in found if row.flags == {}] == ["default"]


def test_the_course_s_name_is_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the table could not be written."""
    monkeypatch.chdir(tmp_path)
    row = rows.read_row(preset("x.txt", "# a\n--fine-tune-mode last-linear-layer\n"))
    assert row.flags == {"option": "pretrain"}
    assert rows.flags_for_runs(["--fine-tune-mode=full-model"]) == {"option": "finetune"}


def test_a_budget_typed_for_all_wins_and_is_cut_to_a_row_s_tasks() -> None:
    """And the row is called by what is left of its flags."""
    row = rows.Row("one", "", {"tasks": ("sst",), "epochs": 9, "files": {"sst_train": "/x/own"}})
    files = {"para_train": "p", "sst_dev": "d"}
    shared = {"epochs": 2, "samples_per_epoch": "70 para=8 sst=5", "files": files}
    shared["pooling"] = "sts=mean"
    options = rows.options_of_row(row, shared, seed=3)
    assert (options.epochs, options.seed, options.samples_per_epoch) == (2, 3, "70 sst=5")
    assert dict(options.files) == {"sst_train": "/x/own", "sst_dev": "d"}
    assert options.pooling == "cls"
    kept = rows.recorded_flags(row, shared)
    assert kept == {"tasks": ["sst"], "files": {"sst_train": "own"}}
    assert typed(kept) == ["--tasks sst", "--sst_train own"]


@pytest.mark.parametrize(
    "own, shared, message",
    [
        ({"epochs": 25}, {}, "^a sets --epochs, so it can't be compared: give --epochs for all"),
        ({"rmsnorm": "all"}, {"rmsnorm": "off"}, "^a sets --rmsnorm itself: don't type it for all"),
        ({"files": {"sst_dev": "x"}}, {}, "^a names a --sst_dev file of its own, so it can't be"),
    ],
)
def test_what_can_t_be_compared_is_refused(own, shared, message) -> None:
    with pytest.raises(UserError, match=message):
        rows.options_of_row(rows.Row("a", "", own), shared, seed=1)


def test_no_folder_of_this_machine_is_recorded() -> None:
    assert rows.plain({"model": "/home/me/bert", "init": "/x/run"}) == {
        "model": "bert",
        "init": "run",
    }
    assert rows.plain({"model": "me/bert", "data_dir": "/x"}) == {"model": "me/bert"}


def test_a_baseline_gets_what_is_something_to_it() -> None:
    shared = {"epochs": 2, "samples_per_epoch": "para=8", "limit": 30, "use_gpu": True}
    options = rows.options_of_row(rows.read_row("random"), shared, seed=3)
    assert options == Options(option="random", limit=30, seed=3)


def test_a_row_that_can_t_work_is_named() -> None:
    with pytest.raises(UserError, match="^both: --lora trains the encoder, --option pretrain"):
        rows.options_of_row(rows.Row("both", "", {"lora": True}), {"option": "pretrain"}, seed=1)


# ---- the record

SOURCES = {"sst_train": Source("a" * 64, 7), "sst_dev": Source("b" * 64, 5)}


def a_line(row: str = "default", seed: int = 1, scores: dict | None = None, **others) -> Line:
    """A line as a run of SST and STS leaves it."""
    scores = scores or {"sst": 0.5, "sts": 0.25}
    overall = sum(TASKS[task].counts(score) for task, score in scores.items()) / len(scores)
    epochs = [
        Epoch(1, scores, overall - 0.1, {"sst": 2.0, "sts": 0.5}, {}),
        Epoch(2, scores, overall, {"sst": 1.0, "sts": 0.25}, {"sst": 1.5}),
    ]
    options = record.plain(Options(seed=seed, tasks=tuple(scores)).to_dict())
    plain = {"commit": "c", "python": "3", "versions": {}, "device": "d", "kernels": "k"}
    given = {
        "what": f"the {row}",
        "flags": {},
        "shared": {"epochs": 2},
        "best": Best(2, 10, overall, scores),
        "steps": 10,
        "seconds": 60.0,
        "peak_memory_mib": 100,
        "parameters": {"all": 9, "trained": 9},
        "data": SOURCES,
        "built_in_corpus": False,
        "dtype": "torch.float32",
    }
    return Line(row=row, seed=seed, options=options, epochs=epochs, **{**plain, **given, **others})


def test_a_record_comes_back(tmp_path: Path) -> None:
    lines = [a_line(), a_line("lora", 2, flags={"lora": True})]
    for line in lines:
        append_line(tmp_path, line)
    assert read_lines(tmp_path) == lines
    assert read_lines(tmp_path / "nowhere") == []


def test_a_torn_line_is_replaced(tmp_path: Path) -> None:
    """A kill in the middle of writing costs that line, and no other."""
    append_line(tmp_path, a_line())
    path = tmp_path / record.NAME
    with open(path, "ab") as file:
        file.write(path.read_bytes()[:100])
    assert read_lines(tmp_path) == [a_line()]
    append_line(tmp_path, a_line(seed=2))
    assert read_lines(tmp_path) == [a_line(), a_line(seed=2)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    append_line(tmp_path, a_line())
    with open(tmp_path / record.NAME, "a") as file:
        file.write('{"row": 3}\n')
    with pytest.raises(UserError, match=r"runs.jsonl:2: .*row is 3, expected a text"):
        read_lines(tmp_path)


def append_many(folder: Path, row: str) -> None:
    for seed in range(40):
        append_line(folder, a_line(row, seed))


def test_two_at_once_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append_many, args=(tmp_path, row)) for row in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = {(line.row, line.seed) for line in read_lines(tmp_path)}
    assert found == {(row, seed) for row in "ab" for seed in range(40)}


def test_a_line_that_only_lacks_its_end_is_kept(tmp_path: Path) -> None:
    """As an editor may leave it."""
    append_line(tmp_path, a_line())
    path = tmp_path / record.NAME
    path.write_bytes(path.read_bytes().rstrip())
    assert read_lines(tmp_path) == [a_line()]
    append_line(tmp_path, a_line(seed=2))
    assert read_lines(tmp_path) == [a_line(), a_line(seed=2)]


def test_a_run_that_stands_twice_is_named(tmp_path: Path) -> None:
    """As after joining two records."""
    append_line(tmp_path, a_line())
    path = tmp_path / record.NAME
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UserError, match="runs.jsonl:2: default with seed 1 stands in line 1 too"):
        read_lines(tmp_path)


def test_what_is_recorded_is_not_run_again() -> None:
    lines = [a_line()]
    options = Options(seed=1, tasks=("sst", "sts"))
    assert record.is_recorded(lines, "default", options, {"sst_train": "a" * 64})
    assert record.is_recorded(lines, "default", replace(options, runs_dir="x", data_dir="y"), {})
    assert not record.is_recorded(lines, "default", replace(options, seed=2), {})
    assert not record.is_recorded(lines, "lora", options, {})

    # An option that came later had its default then.
    del lines[0].options["clip"]
    assert record.is_recorded(lines, "default", options, {})


@pytest.mark.parametrize("seed", [1, 2])
def test_a_row_whose_preset_changed_is_refused(seed) -> None:
    """With another seed too: its runs would be taken together."""
    options = Options(seed=seed, tasks=("sst", "sts"), clip=0.5)
    message = (
        "^the record has default with --clip 1.0, not 0.5: give the row another name, or delete"
    )
    with pytest.raises(UserError, match=message):
        record.is_recorded([a_line()], "default", options, {})
    options = replace(options, clip=1.0)
    with pytest.raises(UserError, match="has default with another sst_train file: "):
        record.is_recorded([a_line()], "default", options, {"sst_train": "c" * 64})


def terms_with(**changed) -> record.Terms:
    """The terms of a_line(), changed."""
    sums = {name: source.sha256 for name, source in SOURCES.items()}
    return replace(record.Terms({"epochs": 2}, "auto", "", sums), **changed)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"shared": {"epochs": 3}}, "with --epochs 2 for all rows, this command has 3: they"),
        ({"shared": {}}, "with --epochs 2 for all rows, not this command: they"),
        ({"shared": {"epochs": 2, "lora": True}}, "without --lora for all rows, this command has"),
        ({"model": "bert-base-uncased"}, "of --model auto, not bert-base-uncased: they"),
        ({"weights": "e" * 64}, "of another encoder's weights: they"),
        ({"sums": {"sst_dev": "c" * 64}}, "on another sst_dev file: they can't share a table"),
    ],
)
def test_data_encoders_and_budgets_do_not_mix(changed, message, tmp_path: Path) -> None:
    """Not before a run, and not where another command began the table meanwhile."""
    line = a_line(base_weights="d" * 64)
    record.check_joins(tmp_path, [line], terms_with())
    with pytest.raises(UserError, match=message):
        record.check_joins(tmp_path, [line], terms_with(**changed))


def test_a_line_of_other_terms_is_not_appended(tmp_path: Path) -> None:
    append_line(tmp_path, a_line())
    with pytest.raises(UserError, match="with --epochs 2 for all rows, this command has 3"):
        append_line(tmp_path, a_line("lora", shared={"epochs": 3}))
    assert read_lines(tmp_path) == [a_line()]


def test_places_and_other_tasks_data_do_mix(tmp_path: Path) -> None:
    sums = {"sst_dev": "b" * 64, "para_dev": "c" * 64}
    now = record.terms({"epochs": 2, "data_dir": "x"}, {}, a_line().options, "", sums)
    record.check_joins(tmp_path, [a_line()], now)


def test_a_row_may_bring_a_training_file_and_an_encoder_of_its_own(tmp_path: Path) -> None:
    flags = {"files": {"sst_train": "more.csv"}, "model": "bert-large"}
    options = {**a_line().options, "model": "bert-large"}
    sums = {"sst_train": "c" * 64, "sst_dev": "b" * 64}
    now = record.terms({"epochs": 2}, flags, options, "f" * 64, sums)
    assert now == record.Terms({"epochs": 2}, "", "", {"sst_dev": "b" * 64})
    record.check_joins(tmp_path, [a_line(base_weights="d" * 64)], now)


# ---- comparisons


def made_up(folder: Path, count: int = 400) -> tuple[list[Line], dict[str, compare.Gold]]:
    """Runs of two rows with two seeds, whose predictions of both tasks are partly right."""
    draws = np.random.default_rng(3)
    gold = {"sst": draws.integers(0, 5, count), "sts": draws.uniform(0, 5, count)}
    labels = {task: compare.Gold(values, "b" * 64) for task, values in gold.items()}
    lines = []
    for row, noise in (("default", 1.0), ("better", 0.6)):
        for seed in (1, 2):
            moved = gold["sst"] + draws.normal(0, noise, count)
            predictions = {
                "sst": np.clip(np.rint(moved), 0, 4).tolist(),
                "sts": (gold["sts"] + draws.normal(0, noise, count)).tolist(),
            }
            scores = {
                task: measure(TASKS[task], np.array(guesses), gold[task])["score"]
                for task, guesses in predictions.items()
            }
            data = {"sst_dev": Source("b" * 64, count), "sts_dev": Source("b" * 64, count)}
            lines.append(a_line(row, seed, scores, data=data))
            runs.keep_predictions(folder, lines[-1], predictions)
    return lines, labels


def test_the_interval_is_scipy_s(tmp_path: Path) -> None:
    """Of the difference of both tasks; 1,000 samples each, so only nearly equal."""
    lines, labels = made_up(tmp_path)
    (found,) = compare.compare(tmp_path, lines, labels, "default")
    assert (found.row, found.base, found.seeds) == ("better", "default", [1, 2])
    for task in ("sst", "sts"):
        guesses = [np.array(runs.predictions_of(tmp_path, line)[task]) for line in lines]

        def difference(a1, a2, b1, b2, gold, task=task) -> float:
            metric = TASKS[task].metric
            ours = metric(b1, gold) + metric(b2, gold)
            return (ours - metric(a1, gold) - metric(a2, gold)) / 2

        data = (*guesses, labels[task].labels.astype(float))
        interval = bootstrap(
            data,
            difference,
            paired=True,
            vectorized=False,
            n_resamples=1000,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        assert found.difference[task] == pytest.approx(difference(*data), abs=1e-6)
        width = interval.high - interval.low
        assert found.low[task] == pytest.approx(interval.low, abs=width / 8)
        assert found.high[task] == pytest.approx(interval.high, abs=width / 8)

    # Together: half of SST's difference, and a quarter of STS's, which counts as (r + 1) / 2.
    together = found.difference["sst"] / 2 + found.difference["sts"] / 4
    assert found.difference["overall"] == pytest.approx(together, abs=1e-5)
    assert found.low["overall"] < together < found.high["overall"]


def test_a_row_beside_itself_differs_by_nothing(tmp_path: Path) -> None:
    lines, labels = made_up(tmp_path)
    same = [replace(line, row="same") for line in lines[:2]]
    for line, twin in zip(lines[:2], same, strict=True):
        runs.keep_predictions(tmp_path, twin, runs.predictions_of(tmp_path, line))
    (found,) = compare.compare(tmp_path, [*lines[:2], *same], labels, "default")
    assert found.difference == found.low == found.high == {"sst": 0, "sts": 0, "overall": 0}


def test_only_shared_seeds_and_tasks_are_compared(tmp_path: Path) -> None:
    lines, labels = made_up(tmp_path)
    better = lines[3]
    scores = {"sst": better.best.scores["sst"]}
    one = replace(better, row="one", best=replace(better.best, scores=scores))
    runs.keep_predictions(tmp_path, one, {"sst": runs.predictions_of(tmp_path, better)["sst"]})
    (found,) = compare.compare(tmp_path, [*lines[:2], one], labels, "default")
    assert found.seeds == [2] and set(found.difference) == {"sst"}
    assert compare.compare(tmp_path, [lines[0], one], labels, "default") == []


def test_runs_without_predictions_are_passed_over(tmp_path: Path) -> None:
    lines, labels = made_up(tmp_path)
    runs.predictions_file(tmp_path, lines[3]).unlink()
    (found,) = compare.compare(tmp_path, lines, labels, "default")
    assert found.seeds == [1]


def test_tasks_of_one_size_have_draws_of_their_own() -> None:
    """Else their differences would move together, and the overall interval be too wide."""
    labels = np.arange(200) % 2
    guesses = [0] * 200
    one, other = (compare.resample(task, guesses, labels) for task in ("sst", "para"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
    assert np.array_equal(one, compare.resample("sst", guesses, labels))


def test_old_comparisons_are_left_out(tmp_path: Path) -> None:
    """Those with another base row, and those from before a further seed."""
    lines, labels = made_up(tmp_path)
    compare.write_comparisons(tmp_path, compare.compare(tmp_path, lines, labels, "default"))
    assert set(compare.read_comparisons(tmp_path, lines, "default")) == {"better"}
    assert compare.read_comparisons(tmp_path, lines, "better") == {}
    assert compare.read_comparisons(tmp_path, lines[:3], "default") == {}


def test_other_labels_are_refused(tmp_path: Path) -> None:
    lines, labels = made_up(tmp_path)
    labels["sts"].sha256 = "c" * 64
    with pytest.raises(UserError, match="scored on another sts dev file"):
        compare.compare(tmp_path, lines, labels, "default")


# ---- tables


@pytest.mark.parametrize(
    "number, text",
    [(0.8124, ".812"), (-0.0041, "-.004"), (0.9999, "1.000"), (1.25, "1.250"), (0.0, ".000")],
)
def test_numbers_are_short(number, text) -> None:
    assert table.short(number) == text


def test_a_table(tmp_path: Path) -> None:
    """By hand: means, deviations, what changes between epochs, and the order of rows."""
    for line in (
        a_line("default", 2, {"sst": 0.4, "sts": 0.6}),
        a_line("default", 1, {"sst": 0.5, "sts": 0.6}),
        a_line("lora", 1, {"sst": 0.7, "sts": 0.6}, flags={"lora": True}),
        a_line("single", 1, {"sst": 0.9}, flags={"tasks": ["sst"]}),
    ):
        append_line(tmp_path, line)
    found = compare.Comparison(
        "lora", "default", [1], {"overall": 0.1}, {"overall": -0.02}, {"overall": 0.2}
    )
    compare.write_comparisons(tmp_path, [found])
    default, lora, single = summaries.summaries_of(tmp_path, "default")
    assert [row.name for row in (default, lora, single)] == ["default", "lora", "single"]
    assert default.seeds == [1, 2] and default.scores == {"sst": [0.5, 0.4], "sts": [0.6, 0.6]}
    assert default.change == pytest.approx([0.1, 0.1]) and default.loss == [1.25, 1.25]
    assert lora.comparison == found

    lines = table.readme_table(tmp_path, "default").splitlines()
    assert lines[0] == (
        "| flags | seeds | SST accuracy | STS Pearson | overall | minus the base row |"
    )
    assert lines[2:] == [
        "| default flags | 2 | .450 ± .071 | .600 ± .000 | .625 ± .035 | – |",
        "| `--lora` | 1 | .700 | .600 | .750 | +.100 [-.020, +.200] |",
        "| `--tasks sst` | 1 | .900 | – | – | – |",
    ]


# ---- the command


@pytest.fixture
def words(options: Options) -> list[str]:
    """The flags of a miniature: a tiny model, three steps an epoch."""
    flags = f"--model {options.model} --data_dir {options.data_dir} --batch_size 13"
    return ["--out", "results/mine", *flags.split(), "--precision", "fp32", "--epochs", "2"]


def begin(words: list[str], **settings) -> subprocess.Popen:
    """ablate.py in a process group of its own."""
    command = [sys.executable, str(ROOT / "ablate.py"), *words]
    text = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, start_new_session=True, **text, **settings)


def waited(happened: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until something has happened, and not for ever."""
    end = time.monotonic() + 120
    while not happened():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore:.*all (predictions|labels) are")
def test_a_miniature(options: Options, words: list[str], capsys: pytest.CaptureFixture) -> None:
    """Two rows: killed in the middle of the first, the command goes on and repeats nothing."""
    rest = ["--rows", "default", "lora", "--steps_per_epoch", "60", "--save_every", "5"]
    words = [*words, *rest[:-2]]
    process = begin(words)
    unfinished = Path("results/mine/unfinished/default-1")
    waited(lambda: list(unfinished.glob("*/last/manifest.json")), process)
    (lock,) = unfinished.glob("*/lock")
    os.kill(process.pid, signal.SIGKILL)
    os.kill(int(lock.read_text().split()[1]), signal.SIGKILL)  # "process 12 on host"
    process.communicate()
    assert not Path("results/mine/runs.jsonl").exists()

    process = begin(words)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "resuming results/mine/unfinished/default-1/" in printed
    assert not unfinished.exists()

    # The scores are those of the main job, undisturbed.
    default, lora = read_lines(Path("results/mine"))
    assert (default.row, lora.row, default.steps) == ("default", "lora", 120)
    plain = replace(options, steps_per_epoch=60, epochs=2, seed=1, lr=None, test=False)
    facts = train(plain)
    assert asdict(default.best) == facts["best"] and len(default.epochs) == 2
    assert default.parameters == facts["parameters"] and default.data["sst_dev"].examples == 12
    assert lora.parameters and lora.parameters["trained"] < lora.parameters["all"]
    page = Path("results/mine/table.md").read_text()
    assert page.count("\n| ") == 4 and "`--lora`" in page
    assert len(Path("results/mine/table.csv").read_text().splitlines()) == 3

    # Again: nothing is left to do, and the tables are the same.
    capsys.readouterr()
    ablate.main(words)
    assert capsys.readouterr().out.count("in the record") == 2
    assert Path("results/mine/table.md").read_text() == page


def test_a_signal_stops_the_main_job_too(options: Options, words: list[str]) -> None:
    """It saves, and the command says that it goes on."""
    words = [*words, "--rows", "default", "--steps_per_epoch", "4000"]
    process = begin(words)
    unfinished = Path("results/mine/unfinished/default-1")
    waited(lambda: list(unfinished.glob("*/log.jsonl")), process)
    time.sleep(0.3)
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped; the same command goes on" in printed
    assert list(unfinished.glob("*/last/manifest.json"))


def test_a_signal_to_all_stops_it_once(options: Options, words: list[str]) -> None:
    """As Ctrl-C in a terminal does: the main job saves, although it is young."""
    words = [*words, "--rows", "default", "--steps_per_epoch", "4000"]
    process = begin(words)
    waited(lambda: Path("results/mine/unfinished/default-1/options.json").exists(), process)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, printed
    assert "stopped; the same command goes on" in printed and "Traceback" not in printed
    assert not Path("results/mine/runs.jsonl").exists()


def test_a_run_that_was_begun_with_other_flags_is_not_gone_on_with(options: Options) -> None:
    place = Path("place")
    own = replace(options, runs_dir=str(place), epochs=2, log_every=1)
    (place / "run").mkdir(parents=True)
    (place / "run" / "options.json").write_text(own.to_json())
    assert runs.begun(place, replace(options, epochs=2)) == place / "run"
    assert runs.begun(place, replace(options, epochs=3)) is None
    assert not (place / "run").exists()


def test_a_row_of_fewer_tasks_joins_a_table(options: Options, words: list[str]) -> None:
    """The others are still compared."""
    words = [*words, "--steps_per_epoch", "1"]
    ablate.main([*words, "--rows", "default", "random"])
    ablate.main([*words, "--rows", "single-sst"])
    found = compare.read_comparisons(
        Path("results/mine"), read_lines(Path("results/mine")), "default"
    )
    assert {row: set(one.difference) for row, one in found.items()} == {
        "random": {"sst", "para", "sts", "overall"},
        "single-sst": {"sst"},
    }


def test_a_run_of_another_process_is_left_to_it(
    options: Options, words: list[str], capsys: pytest.CaptureFixture
) -> None:
    words = [*words, "--rows", "default", "--steps_per_epoch", "1"]
    with runs.claimed(Path("results/mine/unfinished/default-1")) as claim:
        assert claim is not None
        ablate.main(words)
    assert "default, seed 1: another process is running it" in capsys.readouterr().out


def test_a_row_that_fails_does_not_end_the_others(
    options: Options, words: list[str], capfd: pytest.CaptureFixture
) -> None:
    """Here one diverges."""
    preset("fast.txt", "# a rate beyond all\n--lr 900 --weight_decay 1000\n")
    words = [*words, "--rows", "random", "fast.txt", "default", "--steps_per_epoch", "3"]
    with pytest.raises(SystemExit) as stop:
        ablate.main(words)
    assert stop.value.code == 1
    assert "failed, and not in the table: fast, seed 1; the errors" in capfd.readouterr().err
    random, default = read_lines(Path("results/mine"))
    assert (random.row, random.steps, random.parameters) == ("random", 0, {"all": 0, "trained": 0})
    assert (default.row, default.steps) == ("default", 6)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--seed", "3"], "--seed: ablate.py sets it for each run; drop it"),
        (["--seeds", "one"], "--seeds one: expected a whole number"),
        (["--rows", "nowhere"], "--rows nowhere: no "),
        (["--rows", "lora,default"], "^--rows lora,default: .*; blanks separate values, not comm"),
        (["--seeds", "1,2"], "^--seeds 1,2: expected a whole number; blanks separate values, not"),
        (["--row", "lora"], "^--row: no such flag; did you mean --rows?"),
        (["--bases", "lora"], "^--bases: no such flag; did you mean --base?"),
        (["--table"], "^--table: no such flag; did you mean --tables?"),
        (["--readme=yes"], "^--readme: takes no value$"),
        (["--lora", "--rows", "last-linear-layer"], "^last-linear-layer: --lora trains the"),
        (["--base", "nope"], "^--base nope: no such row; expected one of "),
    ],
)
def test_the_command_line(more, message, words: list[str]) -> None:
    with pytest.raises(UserError, match=message):
        ablate.main([*words, *more])


def test_two_rows_of_one_name(options: Options, words: list[str]) -> None:
    Path("mine").mkdir()
    preset("try.txt", "# mine\n--lora --lora_rank 3\n")
    preset("mine/try.txt", "# mine too\n--lora --lora_rank 4\n")
    with pytest.raises(UserError, match="--rows: two of them are called try; rename a file"):
        ablate.main([*words, "--rows", "try.txt", "mine/try.txt"])


def test_a_table_needs_a_place() -> None:
    with pytest.raises(UserError, match="--out: expected the table's folder"):
        ablate.main(["--rows", "default"])
