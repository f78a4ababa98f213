"""The benchmarks run, on the main job's examples. Oracles: Split.draw(), optimizer.AdamW, batches
of one example.
"""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import ablate  # noqa: E402
from ablation.readme import speed_table  # noqa: E402
from ablation.record import append_line, read_lines  # noqa: E402
from ablation.runs import predictions_of  # noqa: E402
from base_bert import BertConfig  # noqa: E402
from benchmarks import (  # noqa: E402
    common,
    course_loop,
    figure,
    plain_bert,
    predict_speed,
    race,
    reference,
    row_speed,
    train_speed,
)
from bert import BertModel  # noqa: E402
from datasets import Split  # noqa: E402
from declare import PerTask  # noqa: E402
from errors import UserError  # noqa: E402
from examples import read_examples  # noqa: E402
from optimizer import AdamW  # noqa: E402
from options import Options  # noqa: E402
from tasks import TASKS  # noqa: E402
from text.data_files import BUILT_IN, find_files  # noqa: E402
from tokenizer import BertTokenizer  # noqa: E402
from training.plan import make_plan  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture
def options(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The built-in corpus and a tiny model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Options(
        model=str(tiny),
        data_dir=str(BUILT_IN),
        batch_size=13,
        steps_per_epoch=2,
        epochs=1,
        precision="fp32",
        lr=1e-3,
        warmup=0.0,
    )


@pytest.fixture
def training(options: Options) -> dict[str, Split]:
    """The training examples."""
    return common.load(options, BertTokenizer.from_pretrained(options.model), ("train",))[0][
        "train"
    ]


def test_steps_hold_what_the_main_job_takes(options: Options, training: dict[str, Split]):
    """Their indices and what the splits draw agree, over several steps, and the splits are left as
    they were.
    """
    options = replace(options, samples_per_epoch=PerTask("all para=9"))
    draw = make_plan(options, training, joint=False).draw
    steps = common.draw_steps(options, training, 3)
    assert all(split.drawn == 0 for split in training.values())
    for number, step in enumerate(steps):
        counts = draw(number, 0.0)
        assert step == {task: training[task].draw(count) for task, count in counts.items()}
        assert all(len(step[task]) == count for task, count in counts.items())


def test_length_grouping_keeps_examples_and_steps(options: Options, training: dict[str, Split]):
    """The same examples in steps of the same sizes, with less padding."""
    steps = common.draw_steps(options, training, 7)
    grouped = common.by_similar_length(steps, training, 1)

    def cells(some: list[common.Step]) -> int:
        return sum(
            len(i) * max(map(training[t].length, i)) for step in some for t, i in step.items()
        )

    for task in training:
        assert Counter(i for s in steps for i in s[task]) == Counter(
            i for s in grouped for i in s[task]
        )
        assert [len(s[task]) for s in steps] == [len(s[task]) for s in grouped]
    assert (
        common.real_tokens(steps, training)
        == common.real_tokens(grouped, training)
        < cells(grouped)
        < cells(steps)
    )


@pytest.mark.parametrize("name", train_speed.SIDES)
def test_every_side_learns(name: str, options: Options, training: dict[str, Split]):
    """The same few examples again and again lower the loss."""
    steps = common.draw_steps(options, training, 2)
    torch.manual_seed(0)
    side = train_speed.SIDES[name](options, training, 100)
    losses = [float(sum(side(steps))) for _ in range(6)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", train_speed.SIDES)
def test_every_side_follows_the_schedule(
    name: str, options: Options, training: dict[str, Split], monkeypatch
):
    """At a learning rate of zero no side learns."""
    monkeypatch.setitem(train_speed.SCHEDULES, "linear", lambda *_: lambda *_: 0.0)
    steps = common.draw_steps(options, training, 2)
    side = train_speed.SIDES[name](
        replace(options, hidden_dropout_prob=0.0, attention_dropout_prob=0.0), training, 100
    )
    torch.testing.assert_close(sum(side(steps)), sum(side(steps)))


def test_the_learning_rate_warms_up_and_falls(options: Options):
    """By hand: two of four steps of warm-up, then down a line; it stays at the last rate."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "peak_lr": 0.8}], lr=7.0)
    set_rate = train_speed.learning_rates(replace(options, warmup=0.5), 4)
    rates = []
    for _ in range(5):
        set_rate(optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.4, 0.4])


@pytest.mark.filterwarnings("ignore:.*all predictions are")
@pytest.mark.parametrize(
    "precision, expected",
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_transformers_computes_in_our_precision(
    precision, expected, options: Options, training, monkeypatch
):
    """In both speed benchmarks and in the reference: in fp32 it would be slower than it has to
    be.
    """
    joint, seen = plain_bert.PlainBERT.joint, []

    def spy(model, *rest):
        linear = model.bert.encoder.layer[0].intermediate.dense
        hook = linear.register_forward_hook(lambda module, x, out: seen.append(out.dtype))
        logits = joint(model, *rest)
        hook.remove()
        return logits

    monkeypatch.setattr(plain_bert.PlainBERT, "joint", spy)
    asked, steps = replace(options, precision=precision), common.draw_steps(options, training, 1)
    jobs = {
        name: partial(make(asked, training, 2), steps) for name, make in train_speed.SIDES.items()
    }
    few = {task: predict_speed.some(split, 3, 1) for task, split in training.items()}
    jobs |= {
        f"{name}, prediction": partial(make(asked), few)
        for name, make in predict_speed.SIDES.items()
    }
    jobs["reference"] = partial(reference.train, asked, "mse", {})
    for name, job in jobs.items():
        seen.clear()
        job()
        assert set(seen) == (set() if name.startswith(("ours", "course")) else {expected}), name


def test_the_encoders_agree(options: Options, training: dict[str, Split]):
    """Ours, the course loop's and transformers' give the same outputs, and the check notices where
    not.
    """
    assert 0 < train_speed.agreement(options, training) < 1e-4
    model = train_speed.build(options)
    with pytest.raises(RuntimeError, match="wrong: last hidden states differ"):
        common.check_agreement(
            model, {"wrong": lambda x: torch.ones(*x["input_ids"].shape, 32)}, training["sst"]
        )


def test_the_loop_optimizer_is_adamw():
    """Against ours in the course's form."""
    torch.manual_seed(0)
    mine, theirs = (torch.nn.Linear(13, 7) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    pair = [
        (mine, course_loop.LoopAdamW(mine.parameters(), 1e-2, 0.1)),
        (theirs, AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)),
    ]
    for _ in range(4):
        x = torch.randn(5, 13)
        for model, optimizer in pair:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(mine.weight, theirs.weight)


def test_predictions_come_in_file_order(options: Options, training: dict[str, Split]):
    """Sorted (transformers) and batched (course) predictions equal those of one example at a
    time.
    """
    split = predict_speed.some(training["sts"], 9, 1)
    plain = plain_bert.PlainBERT(options, "sdpa")
    together = plain_bert.predict_logits(plain, split, torch.float32)
    with torch.no_grad():
        alone = torch.cat([plain("sts", split.batch([i])) for i in range(9)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    tokenizer = BertTokenizer.from_pretrained(options.model)
    weights = BertModel.from_pretrained(options.model).state_dict()
    course = course_loop.CourseMultitask(
        BertConfig.from_pretrained(options.model), weights, options.tasks
    )
    four, one = (
        course_loop.predict_logits(course, "sts", split.examples, tokenizer, size)
        for size in (4, 1)
    )
    torch.testing.assert_close(four, one, atol=1e-5, rtol=1e-5)


OURS_ALONE = [
    "--option pretrain",
    "--lora",
    "--rmsnorm",
    "--swiglu encoder",
    "--head linear",
    "--pooling mean",
    "--pair_encoding bi",
    "--optimizer_form torch",
    "--patience 2",
    "--tensorboard",
]
EVERYWHERE = (
    "--seed 2 --epochs 2 --batch_size 7 --lr 0.1 --precision bf16 --hidden_dropout_prob 0.2 "
    "--attention_dropout_prob 0.2 --tasks sst sts --sst_dev mine.csv"
)
SAMPLED = (
    EVERYWHERE + " --sampling_exponent 1 --schedule cosine --warmup 0.2 --weight_decay 0.1 --clip 2"
)


@pytest.mark.parametrize(
    "benchmark, followed, ignored",
    [
        (train_speed, SAMPLED, ["--accumulation 4", "--steps_per_epoch 2", "--max_length 64"]),
        (
            predict_speed,
            EVERYWHERE,
            ["--accumulation 4", "--sampler round_robin", "--clip 2", "--max_length 64"],
        ),
        (
            reference,
            SAMPLED + " --accumulation 4 --steps_per_epoch 2 --max_length 64 --limit 9 --no-test "
            "--samples_per_epoch sts=9",
            [],
        ),
    ],
)
def test_what_a_side_ignores_is_refused(
    benchmark, followed: str, ignored: list[str], options: Options, monkeypatch
):
    """Before the data is read; and what every side follows is taken."""
    here = ["--model", options.model, "--data_dir", options.data_dir]
    for module in (common, reference):
        monkeypatch.setattr(module, "load", lambda *_: 1 / 0)
    for flags in [*OURS_ALONE, *ignored]:
        with pytest.raises(UserError, match=f"follows {flags.split()[0]}: leave it out"):
            benchmark.main([*here, *flags.split()])
    with pytest.raises(UserError, match="follows --combiner"):  # it has but one value yet
        common.check_followed(replace(options, combiner="other"), "steps_per_epoch", "warmup")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        benchmark.main([*here, *followed.split()])


@pytest.mark.parametrize(
    "benchmark, amount", [(train_speed, "--steps"), (predict_speed, "--examples")]
)
def test_an_impossible_race_is_refused(benchmark, amount: str, options: Options, monkeypatch):
    """Before the data is read."""
    monkeypatch.setattr(common, "load", lambda *_: 1 / 0)
    for flag, value in ("--rounds", "0"), ("--course_rounds", "0"), (amount, "-3"):
        with pytest.raises(UserError, match=f"{flag} {value}: expected at least"):
            benchmark.main(["--model", options.model, "--data_dir", options.data_dir, flag, value])


@pytest.mark.parametrize("benchmark", [train_speed, predict_speed])
def test_a_record_that_cannot_be_written_is_noticed_first(
    benchmark, options: Options, tmp_path: Path, monkeypatch
):
    """Before the first step."""
    monkeypatch.setattr(common, "load", lambda *_, **__: 1 / 0)
    (tmp_path / "file").touch()
    for record, why in ("file/record.json", "can't be written"), (".", "a folder"):
        with pytest.raises(UserError, match=why):
            benchmark.main(
                ["--model", options.model, "--data_dir", options.data_dir, "--record", record]
            )


def test_rows_race_in_heats() -> None:
    """Each with the base row, which a heat's ratios need, and every other row once."""
    rows = dict.fromkeys("abcdef", Options())
    assert row_speed.heats(rows, "c", 3) == [["c", "a", "b"], ["c", "d", "e"], ["c", "f"]]
    assert row_speed.heats({"c": Options()}, "c", 3) == [["c"]]


def test_a_table_s_rows_are_timed(options: Options, tmp_path: Path, capsys) -> None:
    """Three rows two at a time: a speed of each, which the table shows."""
    table = tmp_path / "table"
    (line, *_) = [x for x in read_lines(ROOT / "results" / "three-epochs") if x.row == "lora"]
    flags: dict[str, dict] = {"default": {}, "lora": {"lora": True}, "linear": {"head": "linear"}}
    for row, own in flags.items():
        of_row = replace(options, **own).to_dict()
        append_line(table, replace(line, row=row, flags=own, options=of_row))
    here = ["--out", str(table), "--model", options.model, "--data_dir", options.data_dir]
    row_speed.main([*here, "--rounds", "1", "--steps", "2", "--at_once", "2"])
    held = json.loads((table / "speed.json").read_text())
    assert set(held["step_time"]) == set(held["seconds"]) == set(flags)
    assert held["step_time"]["default"] == 1.0
    assert all(0.1 < times < 10 for times in held["step_time"].values())
    assert capsys.readouterr().out.count("preparing default") == 2
    ablate.main(["--out", str(table), "--tables"])
    assert f"| {held['step_time']['lora']:.2f} |" in (table / "table.md").read_text()

    for flag, value in ("--rounds", "0"), ("--steps", "0"), ("--at_once", "1"):
        with pytest.raises(UserError, match=f"{flag} {value}: expected at least"):
            row_speed.main([*here, flag, value])
    with pytest.raises(UserError, match="no row none in its record"):
        row_speed.main([*here, "--base", "none"])


def test_some_examples_keep_their_sequences(training: dict[str, Split]):
    """As many as asked for, in file order, drawn by the seed; 0 and more than there are: all."""
    whole = training["para"]
    place = {id(example): i for i, example in enumerate(whole.examples)}
    part = predict_speed.some(whole, 20, 1)
    chosen = [place[id(example)] for example in part.examples]
    assert chosen == sorted(set(chosen)) and len(chosen) == 20 and chosen != list(range(20))
    for number, i in enumerate(chosen):
        (own,), (original,) = part.sequences(number), whole.sequences(i)
        assert own.ids.tolist() == original.ids.tolist()
    assert predict_speed.some(whole, 20, 2).examples != part.examples
    assert all(predict_speed.some(whole, count, 1) is whole for count in (0, len(whole), 10**6))


@pytest.mark.parametrize("sts_loss", ["mse", "bce"])
def test_reference_scores_what_its_loss_means(
    sts_loss: str, training: dict[str, Split], monkeypatch
):
    """Perfect outputs score 1: trained with mse the labels themselves, with bce the logits of a
    fifth of them.
    """
    labels = torch.tensor([[float(e.label)] for e in training["sts"].examples])
    monkeypatch.setattr(
        reference,
        "predict_logits",
        lambda *_: labels if sts_loss == "mse" else torch.logit(labels / 5),
    )
    dev = {"sts": training["sts"]}
    scores, predictions = reference.evaluate(None, dev, torch.float32, sts_loss)  # type: ignore[arg-type]
    assert scores == pytest.approx({"sts": 1.0}, abs=1e-6)
    assert predictions["sts"] == pytest.approx(labels.squeeze(1).tolist(), abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*all predictions are")
@pytest.mark.parametrize("sts_loss", ["mse", "bce"])
def test_the_reference_draws_what_the_main_job_does(sts_loss: str, options: Options):
    """As many examples, in as many steps; both losses, scores of both epochs."""
    options = replace(options, epochs=2, steps_per_epoch=0, samples_per_epoch=PerTask("9"))
    options = replace(options, limit=40)
    learner = reference.make_learner(options, sts_loss)
    plan = make_plan(options, learner.data["train"], joint=False)
    result = reference.run_steps(learner)
    assert result.steps == plan.total < 8
    for task, split in learner.data["train"].items():
        assert split.drawn == sum(plan.draw(step, 0.0).get(task, 0) for step in range(plan.total))
    assert [epoch.epoch for epoch in result.epochs] == [1, 2]
    for epoch in result.epochs:
        assert set(epoch.scores) == set(epoch.training_loss) == set(options.tasks)
        assert np.isfinite(list(epoch.training_loss.values())).all()


@pytest.mark.filterwarnings("ignore:.*all predictions are")
def test_the_reference_joins_a_table(options: Options, tmp_path: Path, monkeypatch):
    """As a row of its own, once, with the predictions that rows are compared by."""
    table = tmp_path / "table"
    data = ["--model", options.model, "--data_dir", options.data_dir, "--precision", "fp32"]
    flags = ["--out", str(table), *data, "--epochs", "1", "--steps_per_epoch", "1", "--limit", "40"]
    reference.main([*flags, "--seed", "3"])
    (line,) = read_lines(table)
    assert (line.row, line.seed, line.flags, line.steps) == ("transformers", 3, None, 1)
    assert "seed" not in line.shared and line.shared["epochs"] == 1
    paths, _ = find_files(options)
    for task, predictions in predictions_of(table, line).items():
        dev = read_examples(paths[task, "dev"], TASKS[task], "dev")[:40]
        labels = np.array([example.label for example in dev])
        score = TASKS[task].metric(np.array(predictions), labels)
        assert score == pytest.approx(line.best.scores[task], abs=1e-3)

    # Once it is there nothing trains; and what can't be compared is refused before.
    monkeypatch.setattr(reference, "train", lambda *_: 1 / 0)
    reference.main([*flags, "--seed", "3"])
    with pytest.raises(
        UserError, match="holds runs without --lr for all rows, this command has it"
    ):
        reference.main([*flags, "--seed", "4", "--lr", "0.1"])
    with pytest.raises(UserError, match="holds runs on another .* file"):
        reference.main([*flags, "--sst_dev", f"{options.data_dir}/ids-sst-train.csv"])
    with pytest.raises(UserError, match="can't be written"):
        (tmp_path / "file").touch()
        reference.main([*data, "--out", str(tmp_path / "file" / "table")])


def test_the_reference_accumulates(options: Options):
    """A step in three parts moves the weights as one in a single part does."""
    options = replace(options, hidden_dropout_prob=0.0, attention_dropout_prob=0.0)
    states = []
    for accumulation in 1, 3:
        learner = reference.make_learner(replace(options, accumulation=accumulation), "mse")
        drawn = {t: split.draw(4) for t, split in learner.data["train"].items()}
        reference.update(learner, drawn)
        states.append(learner.model.state_dict())
    torch.testing.assert_close(states[0], states[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "benchmark, amount", [(train_speed, "--steps"), (predict_speed, "--examples")]
)
def test_a_race_is_recorded(benchmark, amount: str, options: Options, tmp_path: Path):
    """Two sides, each in a process of its own, one round: a record with times, peak memory and a
    table.
    """
    record = tmp_path / "speed.json"
    benchmark.main(
        [
            "--model",
            options.model,
            "--data_dir",
            options.data_dir,
            "--record",
            str(record),
            amount,
            "2",
            "--sides",
            "course",
            "--rounds",
            "1",
            "--course_rounds",
            "1",
        ]
    )
    sides = json.loads(record.read_text())["sides"]
    assert list(sides) == ["ours", "course"] and sides["ours"]["ours_faster"] == 1.0
    ours, course = (sides[name]["seconds"][0] for name in ("ours", "course"))
    assert sides["course"]["ours_faster"] == pytest.approx(
        course / ours, rel=0.3
    )  # seconds are rounded, and few
    assert all(side["peak_mib"] > 50 for side in sides.values())
    table = speed_table(sides)
    assert table.splitlines()[-1].startswith("| course-style loop, fp32 |")


def test_every_side_runs_its_rounds(monkeypatch):
    """In turns, the course's loop as often as --course_rounds says; and all workers are ended."""
    orders = []

    class Idle:
        def __init__(self, script: str, side: str, argv: list[str]):
            self.side = side

        def tell(self, order: str, word: str) -> float:
            orders.append((order, self.side))
            return 1.0

    monkeypatch.setattr(race, "Worker", Idle)
    mine = race.own_parser(train_speed.SIDES, ["course", "sdpa"]).parse_args(
        ["--rounds", "3", "--course_rounds", "2"]
    )
    seconds, peaks = race.race("", [], mine)
    assert {name: len(times) for name, times in seconds.items()} == {
        "ours": 3,
        "course": 2,
        "sdpa": 3,
    }
    turns = ["ours", "course", "sdpa", "ours", "course", "sdpa", "ours", "sdpa"]
    assert (
        orders == [*(("go", name) for name in turns), *(("end", name) for name in peaks)]
        and len(peaks) == 3
    )


def test_a_dead_worker_is_an_error(tmp_path: Path):
    """A side that fails ends the race with its name."""
    (tmp_path / "side.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(RuntimeError, match="sdpa: the worker ended"):
        race.Worker(str(tmp_path / "side.py"), "sdpa", [])


def test_readme_shows_the_main_job_as_it_was_recorded():
    """The lines of its console, beside the log."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    log = ROOT / "benchmarks" / "records" / "main_job.log.jsonl"
    evaluations = [x for x in map(json.loads, log.read_text().splitlines()) if "epoch" in x]
    shown = [line.split()[:-1] for line in readme if line.endswith("  best")]
    for row, x in zip(shown, evaluations, strict=True):
        dev = [f"{x[f'dev_{name}']:.3f}" for name in ("sst", "para", "sts", "overall")]
        assert row[:-1] == [str(x["epoch"]), str(x["step"]), *dev]
        assert abs(float(row[-1]) - x["seconds"]) <= 0.6


# ---- the README's figure


def test_the_figure_is_of_the_records_that_stand_here() -> None:
    """Otherwise: python benchmarks/figure.py."""
    figures = list(figure.FIGURES.glob("*.svg"))
    assert {path.name for path in figures} == {f"overview-{theme}.svg" for theme in figure.THEMES}
    for path in figures:
        assert f"records {figure.sum_of_records()}" in path.read_text()
        assert f"benchmarks/figures/{path.name}" in (ROOT / "README.md").read_text()


def test_the_figure_is_drawn_from_the_records(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    figure.draw("light", path)
    assert figure.sum_of_records() in path.read_text()
