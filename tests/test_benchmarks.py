"""The benchmarks run, on the main job's examples. Oracles: Split.draw(), optimizer.AdamW, batches
of one example.
"""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from base_bert import BertConfig  # noqa: E402
from benchmarks import (  # noqa: E402
    common,
    course_loop,
    figure,
    predict_speed,
    quality,
    race,
    reference,
    train_speed,
)
from bert import BertModel  # noqa: E402
from datasets import Split  # noqa: E402
from errors import UserError  # noqa: E402
from optimizer import AdamW  # noqa: E402
from options import Options  # noqa: E402
from tasks import overall  # noqa: E402
from text.data_files import BUILT_IN  # noqa: E402
from tokenizer import BertTokenizer  # noqa: E402

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
    draw = common.sampler(options, training)
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
    joint, seen = reference.PlainBERT.joint, []

    def spy(model, *rest):
        linear = model.bert.encoder.layer[0].intermediate.dense
        hook = linear.register_forward_hook(lambda module, x, out: seen.append(out.dtype))
        logits = joint(model, *rest)
        hook.remove()
        return logits

    monkeypatch.setattr(reference.PlainBERT, "joint", spy)
    asked, steps = replace(options, precision=precision), common.draw_steps(options, training, 1)
    jobs = {
        name: partial(make(asked, training, 2), steps) for name, make in train_speed.SIDES.items()
    }
    few = {task: predict_speed.some(split, 3, 1) for task, split in training.items()}
    jobs |= {
        f"{name}, prediction": partial(make(asked), few)
        for name, make in predict_speed.SIDES.items()
    }
    jobs["reference"] = partial(reference.train, asked)
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
    plain = reference.PlainBERT(options, "sdpa")
    together = reference.predict_logits(plain, split, torch.float32)
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
        (reference, SAMPLED + " --accumulation 4 --steps_per_epoch 2 --max_length 64", []),
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


@pytest.mark.parametrize("benchmark", [quality, reference, train_speed, predict_speed])
def test_a_record_that_cannot_be_written_is_noticed_first(
    benchmark, options: Options, tmp_path: Path, monkeypatch
):
    """Before the first step."""
    for module, name in (quality, "measure"), (reference, "train"), (common, "load"):
        monkeypatch.setattr(module, name, lambda *_, **__: 1 / 0)
    (tmp_path / "file").touch()
    for record, why in ("file/record.json", "can't be written"), (".", "a folder"):
        with pytest.raises(UserError, match=why):
            benchmark.main(
                ["--model", options.model, "--data_dir", options.data_dir, "--record", record]
            )


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
    scored = reference.evaluate(None, {"sts": training["sts"]}, torch.float32, sts_loss)  # type: ignore[arg-type]
    assert (scored["scores"]["sts"], scored["overall"]) == pytest.approx((1.0, 1.0), abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*all predictions are")
@pytest.mark.parametrize("sts_loss", ["mse", "bce"])
def test_reference_trains_and_scores(sts_loss: str, options: Options, training: dict[str, Split]):
    """Both losses, scores of both epochs, and as many examples as the sampler draws."""
    record = reference.train(replace(options, epochs=2), "eager", sts_loss, every_epoch=True)
    assert record["steps"] == 4 and [e["epoch"] for e in record["epochs"]] == [1, 2]
    draw = common.sampler(options, training)
    assert record["examples"] == sum(sum(draw(step, 0.0).values()) for step in range(4))
    assert np.isfinite(record["loss"]) and set(record["best"]["scores"]) == set(options.tasks)


def test_the_reference_accumulates(options: Options):
    """A step in three parts moves the weights as one in a single part does."""
    options = replace(options, hidden_dropout_prob=0.0, attention_dropout_prob=0.0)
    states = []
    for accumulation in 1, 3:
        learner = reference.make_learner(
            replace(options, accumulation=accumulation), "eager", "mse"
        )
        drawn = {t: split.draw(4) for t, split in learner.data["train"].items()}
        reference.update(learner, drawn)
        states.append(learner.model.state_dict())
    torch.testing.assert_close(states[0], states[1], atol=1e-4, rtol=1e-4)


def test_records_of_older_versions_mean_what_they_meant(options: Options):
    """Their options are today's defaults, or those of their set; those that they lack are at their
    defaults, and the paths that they hold count for nothing.
    """
    lines = common.read(ROOT / quality.RECORD)
    for line in lines:
        now = Options(model=line["options"]["model"], seed=line["seed"])
        now = replace(now, **quality.SETS[line["name"]])
        assert quality.measured(line["name"], now, [line])
        assert not quality.measured(line["name"], replace(now, seed=77), [line])
        with pytest.raises(UserError, match="clip 1.0, not 2.0"):
            quality.measured(line["name"], replace(now, clip=2.0), [line])
    assert len(lines) > 10 and "optimizer" not in lines[0]["options"]
    now = Options(model=lines[0]["options"]["model"], seed=lines[0]["seed"], optimizer="other")
    with pytest.raises(UserError, match="optimizer adamw, not other"):
        quality.measured(lines[0]["name"], now, lines)


@pytest.mark.filterwarnings("ignore:.*all predictions are")
def test_quality_records_once_and_tabulates(options: Options, tmp_path: Path):
    """A run is one line; the same again is skipped, other options are refused; means over seeds."""
    record = str(tmp_path / "quality.jsonl")
    flags = [
        "--record",
        record,
        "--sets",
        "lora",
        "--model",
        options.model,
        "--data_dir",
        options.data_dir,
        "--steps_per_epoch",
        "1",
        "--epochs",
        "1",
        "--batch_size",
        "7",
    ]
    for seeds in (["1"], ["1", "2"]):
        quality.main([*flags, "--seeds", *seeds])
    lines = common.read(record)
    assert [(x["name"], x["seed"]) for x in lines] == [("lora", 1), ("lora", 2)]
    epoch, best = lines[0]["epochs"][-1], lines[0]["best"]
    assert (
        epoch["scores"] == best["scores"]
        and epoch["overall"] == best["overall"] == overall(best["scores"]) > 0
    )
    assert lines[0]["options"]["lora"]
    assert [p.name for p in tmp_path.iterdir() if p.name in ("runs", "predictions")] == []
    with pytest.raises(UserError, match="with lr None, not 0.1: give another --record"):
        quality.main([*flags, "--seeds", "1", "--lr", "0.1"])
    row = quality.table([record]).splitlines()[-1]
    mean = f"{np.mean([x['best']['overall'] for x in lines]):.3f}".removeprefix("0")
    assert row.startswith("| `--lora` | 2 |") and f"| {mean} ± " in row


def record_line(options: Options, built_in: bool) -> dict:
    """A record's line of a run with these options."""
    best = {"scores": dict.fromkeys(options.tasks, 0.5), "overall": 0.5}
    return {
        "name": "default",
        "flags": {},
        "seed": 1,
        "best": best,
        "epochs": [best],
        "options": options.to_dict(),
        "built_in_corpus": built_in,
    }


def test_a_table_is_of_one_data_set(options: Options, small_data: Path, tmp_path: Path):
    """Records of runs on different data give no table together."""
    record, other = str(tmp_path / "real.jsonl"), str(tmp_path / "other.jsonl")
    common.append(record, record_line(options, False))
    others = [
        record_line(replace(options, data_dir="data"), True),
        record_line(replace(options, data_dir=str(small_data)), False),
        record_line(replace(options, files={"sst_dev": "mine.csv"}), False),
        record_line(replace(options, tasks=("sst", "sts")), False),
    ]
    for line in others:
        Path(other).unlink(missing_ok=True)
        common.append(other, line)
        assert quality.table([record, record]) and quality.table([other, other])
        refused = "the records are of different data .*: give another --record"
        with pytest.raises(UserError, match=refused):
            quality.table([record, other])


@pytest.mark.parametrize("benchmark", [quality, reference])
def test_a_record_is_of_one_data_set(
    benchmark, options: Options, small_data: Path, tmp_path: Path, monkeypatch
):
    """Runs of another set and seed on other data are refused before training."""
    monkeypatch.setattr(benchmark, "train", lambda *_: 1 / 0)
    record = str(tmp_path / "real.jsonl")
    common.append(record, record_line(options, False))
    own = ["--seeds", "2", "--sets", "lora"] if benchmark is quality else ["--seed", "2"]
    here = [*own, "--model", options.model, "--record", record, "--data_dir"]
    for folder in "data", str(small_data):
        with pytest.raises(UserError, match="holds runs on .*, not .*: give another --record"):
            benchmark.main([*here, folder])
    with pytest.raises(ZeroDivisionError):  # the same data, written in another way
        benchmark.main([*here, f"{options.data_dir}/"])


def test_a_record_of_the_built_in_corpus_gets_no_real_runs(
    options: Options, small_data: Path, tmp_path: Path
):
    """Though both are of the default folder."""
    record = str(tmp_path / "built_in.jsonl")
    options = replace(options, data_dir="data")
    common.append(record, record_line(options, True))
    common.check_joins(record, options)
    (tmp_path / "data").symlink_to(small_data)
    refused = "holds runs on .* of the built-in corpus, not .* of data: give another --record"
    with pytest.raises(UserError, match=refused):
        common.check_joins(record, options)


def test_option_sets_are_possible():
    """Every set passes Options.check()."""
    for flags in quality.SETS.values():
        replace(Options(), **flags).check()


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
    table = race.table(json.loads(record.read_text()), "", benchmark.TITLES)
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


def test_readme_holds_what_the_records_say():
    """The tables of the README are those that the committed records make."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    records = ROOT / "benchmarks" / "records"
    tables = [quality.table([str(records / "reference.jsonl"), str(records / "quality.jsonl")])]
    for name, titles in (
        ("train_speed", train_speed.TITLES),
        ("predict_speed", predict_speed.TITLES),
    ):
        tables.append(race.table(json.loads((records / f"{name}.json").read_text()), "", titles))
    rows = [
        line
        for table in tables
        for line in table.splitlines()
        if line.startswith("| ") and line[2] != "|"
    ]
    assert len(rows) > 8
    assert [row for row in rows if row not in readme] == []
    log = [json.loads(line) for line in (records / "main_job.log.jsonl").read_text().splitlines()]
    shown = [
        line.split()[:-1] for line in readme if line.endswith("  best")
    ]  # the console of the main job
    evaluations = [x for x in log if "epoch" in x]
    for row, x in zip(shown, evaluations, strict=True):
        dev = [f"{x[f'dev_{name}']:.3f}" for name in ("sst", "para", "sts", "overall")]
        assert (
            row[:-1] == [str(x["epoch"]), str(x["step"]), *dev]
            and abs(float(row[-1]) - x["seconds"]) <= 0.6
        )
    scores = [line for line in readme if re.search(r"\| \.\d{3}|MiB \|$", line)]
    assert [row for row in scores if row not in rows] == []


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
