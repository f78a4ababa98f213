"""Baselines as runs: what they predict, what they leave, and what can't be done with them."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import classifier
import export
import multitask_classifier
import predict
import prepare_submit
import report
from choices.run import WITHOUT_NETWORK
from declare import Names, PerTask, rules_of
from errors import UserError
from examples import Example, read_examples
from options import OF_BASELINES, Options
from tasks import LEADERBOARD, TASKS
from text.data_files import BUILT_IN
from training.bag_of_words import BagOfWords, PairCounts, learn
from training.baselines import BASELINES, baseline, random
from training.manifest import check_manifest


@pytest.fixture
def options(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A baseline on 40 examples a task, in an empty folder; no model is installed."""

    def absent(*_: object) -> None:
        raise UserError("no model is installed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrained.find_embedded", absent)
    return Options(option="random", data_dir=str(small_data))


def blank(count: int) -> list[Example]:
    return [Example(str(i), ("a",), None) for i in range(count)]


# ---- random


@pytest.mark.parametrize("task", ["sst", "para", "cfimdb"])
def test_classes_are_drawn_uniformly(task: str) -> None:
    """Each as often as the binomial distribution allows: within five standard deviations."""
    count, classes = 10_000, int(TASKS[task].labels.high) + 1
    drawn, _ = random(TASKS[task], [], Options())(blank(count))
    share = 1 / classes
    allowed = 5 * np.sqrt(count * share * (1 - share))
    assert set(drawn) == set(range(classes))
    for label in range(classes):
        assert abs((drawn == label).sum() - count * share) < allowed

    # So whatever the labels are, the expected accuracy is .2 or .5.
    labels = np.array(
        [e.label for e in read_examples(BUILT_IN / name_of(task), TASKS[task], "dev")]
    )
    scores = [
        (random(TASKS[task], [], Options(seed=s))(blank(len(labels)))[0] == labels).mean()
        for s in range(20)
    ]
    assert abs(np.mean(scores) - share) < 5 * np.sqrt(share * (1 - share) / (20 * len(labels)))


def name_of(task: str) -> str:
    return TASKS[task].files.format("dev")


def test_similarities_are_drawn_uniformly() -> None:
    """With the uniform distribution's mean and variance; they correlate with nothing."""
    count = 10_000
    drawn, probabilities = random(TASKS["sts"], [], Options())(blank(count))
    assert probabilities is None and 0 <= drawn.min() < 0.01 and 4.99 < drawn.max() <= 5
    assert drawn.mean() == pytest.approx(2.5, abs=5 * 5 / np.sqrt(12 * count))
    assert drawn.var() == pytest.approx(25 / 12, rel=0.05)
    assert abs(TASKS["sts"].metric(drawn, np.arange(count))) < 5 / np.sqrt(count)


def test_another_seed_and_another_task_draw_otherwise() -> None:
    def drawn(task: str, seed: int) -> list[int]:
        return random(TASKS[task], [], Options(seed=seed))(blank(50))[0].tolist()

    assert drawn("para", 1) == drawn("para", 1)
    assert drawn("para", 1) != drawn("para", 2) and drawn("para", 1) != drawn("cfimdb", 1)


# ---- bag of words


def test_it_learns_what_words_tell() -> None:
    """Labels that follow from one word, or from how many words two sentences share."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    texts = [(" ".join(rng.choice(words, 12)),) for _ in range(200)]
    labels = np.array([4.0 if "w3" in text.split() else 1.0 for (text,) in texts])
    learned = learn(TASKS["sst"], texts[:150], labels[:150], rng.permutation(150))
    predictions, probabilities = learned.predict(texts[150:])
    assert (predictions == labels[150:]).mean() > 0.95
    assert probabilities is not None and probabilities.shape == (50, 5)
    assert (probabilities.argmax(1) == predictions).all()
    assert probabilities.sum(1) == pytest.approx(1) and not probabilities[:, [0, 2, 3]].any()

    pairs = [(" ".join(words[:k]), " ".join(words[10 : 10 + k])) for k in rng.integers(11, 20, 200)]
    shared = np.array([len(set(one.split()) & set(two.split())) / 2 for one, two in pairs])
    predictions, none = learn(TASKS["sts"], pairs, shared, rng.permutation(200)).predict(pairs)
    assert none is None and TASKS["sts"].metric(predictions, shared) > 0.99

    same = np.array([float(label > 2) for label in shared])
    _, yes = learn(TASKS["para"], pairs, same, rng.permutation(200)).predict(pairs)
    assert yes is not None and yes.shape == (200,) and ((yes > 0.5) == same).all()


class Beyond:
    """A model that predicts what no label can be."""

    def predict(self, features: object) -> np.ndarray:
        return np.array([-1.0, 7.0])


def test_predictions_are_legal_labels() -> None:
    pairs = [("a film", "a play"), ("the film", "a film")]
    features = PairCounts(1)
    features.fit(pairs)
    found, _ = BagOfWords(TASKS["sts"], features, Beyond()).predict(pairs)
    assert found.tolist() == [0.0, 5.0]


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_few_examples_of_one_label_are_enough(task: str, count: int) -> None:
    """Without a word in them, too."""
    texts = [("?!",) * len(TASKS[task].columns)] * count
    learned = learn(TASKS[task], texts, np.ones(count), np.arange(count))
    predictions, _ = learned.predict([("new words", "!")[: len(TASKS[task].columns)]])
    assert predictions == pytest.approx([1.0])


def test_it_beats_chance(options: Options) -> None:
    """On a part of the built-in corpus."""
    options = replace(options, data_dir=str(BUILT_IN), limit=300, test=False)
    chance, words = (baseline(replace(options, option=name))["best"] for name in WITHOUT_NETWORK)
    assert words["overall"] > chance["overall"] + 0.1
    assert all(words["scores"][task] > chance["scores"][task] for task in LEADERBOARD)


# ---- the run


def test_the_options_and_the_table_name_the_same() -> None:
    assert tuple(BASELINES) == WITHOUT_NETWORK


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("option", BASELINES)
def test_what_a_run_leaves(options: Options, option: str, capsys: pytest.CaptureFixture) -> None:
    found = baseline(replace(options, option=option))
    folder, best = Path(found["folder"]), found["best"]
    assert {path.name for path in folder.iterdir()} == {
        *("options.json", "run.json", "log.jsonl", "best", "last", "predictions", "lock"),
    }
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())

    # The predictions, in the run's folder and as copies, those of dev beside no model.
    copies = contents(Path("predictions"))
    assert set(copies) == {f"{t}-{s}-output.csv" for t in LEADERBOARD for s in ("dev", "test")}
    assert contents(folder / "predictions") == copies
    expected = {name for name in copies if "-dev-" in name} | {"manifest.json"}
    if option == "bag_of_words":
        expected |= {f"{task}-dev-probabilities.csv" for task in ("sst", "para")}
    beside = contents(folder / "best")
    assert set(beside) == expected
    assert all(copies[name] == beside[name] for name in beside if name in copies)
    check_manifest(folder / "best")
    check_manifest(folder / "last")

    # In the leaderboard's format: a class, a yes or no, a number.
    for task, form in (("sst", r"[0-4]"), ("para", r"[01]\.0"), ("sts", r"[0-5]\.\d+")):
        _, *rows = copies[f"{task}-test-output.csv"].decode().splitlines()
        assert len(rows) == 12 and all(re.fullmatch(rf"\w+ , {form} ", row) for row in rows)

    # One evaluation in the log, with the scores that it returned.
    (line,) = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert (line["step"], line["epoch"], line["dev_overall"]) == (0, 0, best["overall"])
    assert {task: line[f"dev_{task}"] for task in LEADERBOARD} == best["scores"]
    facts = json.loads((folder / "run.json").read_text())
    assert {**facts, "folder": str(folder)} == found and len(facts["data"]) == 9

    # What reads runs reads it.
    row = report.read_run(folder)
    assert row.best is not None and row.best.overall == best["overall"]
    assert Options.of_run(folder) == replace(options, option=option)
    data = {task: Path(options.data_dir) / TASKS[task].files for task in LEADERBOARD}
    for path, (task, split) in prepare_submit.expected_files(folder / "predictions", "2").items():
        file = Path(str(data[task]).format("dev" if split == "dev" else "test-student"))
        ids = prepare_submit.ids_of(file, TASKS[task], split)
        prepare_submit.check_file(path, TASKS[task], file, ids)

    # Again, it is the same.
    again = Path(baseline(replace(options, option=option, name="again"))["folder"])
    assert contents(again / "best") == beside


def test_no_test_draws_the_same_for_dev(options: Options) -> None:
    plain, less = (baseline(replace(options, test=test))["best"] for test in (True, False))
    assert plain["scores"] == less["scores"]


def test_what_is_read_is_what_a_training_run_reads(
    options: Options, capsys: pytest.CaptureFixture
) -> None:
    given = {"tasks": ("sts",), "limit": 10, "train_fraction": 0.5, "test": False}
    folder = Path(baseline(replace(options, option="bag_of_words", **given))["folder"])  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "sts: 5 of 10 training examples (--train_fraction)" in printed
    assert "sts: 5 train, 10 dev examples" in printed and "not copied: --limit" in printed
    assert [path.name for path in (folder / "predictions").iterdir()] == ["sts-dev-output.csv"]
    assert not list(Path("predictions").iterdir())


def test_a_run_that_began_and_was_killed_is_no_finished_one(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.baselines.hand_out", killed)
    with pytest.raises(KeyboardInterrupt):
        baseline(options)
    (folder,) = Path("runs").iterdir()
    assert "best" not in json.loads((folder / "run.json").read_text())
    with pytest.raises(UserError, match="has not finished"):
        prepare_submit.of_run(folder)


def test_from_the_command_line(options: Options) -> None:
    multitask_classifier.main(["--option", "random", "--data_dir", options.data_dir])
    classifier.main(["--option", "random", "--data_dir", options.data_dir])
    names = {path.name for path in Path("predictions").iterdir()}
    assert {"sst-dev-output.csv", "random-cfimdb-test-out.csv"} <= names and len(names) == 6 + 4


# ---- what can't be


def other(option: Any) -> Any:
    """A legal value of an option that is not its default."""
    rules = rules_of(option)
    if option.type is PerTask and rules.number is not None:
        return "4" if rules.number is int else "0.25"
    if rules.choices:
        name = next(name for name in rules.choices if name != option.default)
        return (name,) if option.type == Names else name
    if isinstance(option.default, bool):
        return not option.default
    if isinstance(option.default, int | float):
        return option.default / 2 if option.default in (0.1, 0.5) else option.default + 1
    return {"lr": 0.1, "pooling": "mean", "head": "linear"}.get(option.name, "some")


OF_NETWORKS = [f for f in fields(Options) if f.name not in OF_BASELINES]


@pytest.mark.parametrize("option", OF_NETWORKS, ids=lambda f: f.name)
def test_flags_of_a_network_are_refused(option: Any) -> None:
    with pytest.raises(UserError, match=f"^--{option.name} ") as caught:
        Options(option="random", **{option.name: other(option)}).check()
    expected = "is nothing to --option random, which has no network: drop one"
    if not rules_of(option).needs:
        assert str(caught.value) == f"--{option.name} {expected}"


def test_a_run_without_a_model_says_so(options: Options) -> None:
    run = baseline(options)["folder"]
    no_model = f"^{run}: a baseline's run, .* has no model; name a run that trained one$"
    with pytest.raises(UserError, match=no_model):
        predict.main([run])
    with pytest.raises(UserError, match=no_model):
        export.main([run, "exported"])
    trained = replace(options, option="finetune")
    for given in ({"model": run}, {"init": run}):
        with pytest.raises(UserError, match=no_model):
            multitask_classifier.train(replace(trained, **given))
    anew = f"^{run}: a run of --option random, which .* begin it anew: .* @{run}/options.json$"
    with pytest.raises(UserError, match=anew):
        multitask_classifier.main(["--resume", run])
    with pytest.raises(UserError, match="--option random has no network to train"):
        multitask_classifier.train(Options(resume=run))
    with pytest.raises(UserError, match="--option random has no network to train"):
        multitask_classifier.train(options)
    assert len(list(Path("runs").iterdir())) == 1


def test_a_task_that_scores_itself_has_no_baseline(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(TASKS["sst"], evaluate=lambda model, split: {"score": 1.0})
    monkeypatch.setitem(TASKS, "sst", own)
    with pytest.raises(
        UserError, match="^--option random: no baseline for sst, .* leave it out of --tasks$"
    ):
        baseline(options)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
