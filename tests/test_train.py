"""train(), end to end on a tiny random BERT: what it leaves, determinism, what it refuses, and that
every option is alive. Stopping and resuming: test_run.py.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import multitask_classifier
from commandline.parser import TABLES
from errors import UserError
from flags import parse
from multitask_classifier import MultitaskBERT, main, train
from options import Options
from predict import predict_with
from storage.files import UNFINISHED, sha256_of
from tasks import LEADERBOARD
from tests.multitask import LORA_FILES, RUN_FILES

ROOT = Path(__file__).parents[1]


def weights(folder: str | Path) -> dict[str, Tensor]:
    """The weights after the last step of a run."""
    return load_file(Path(folder) / "last" / "model.safetensors")


def losses(folder: str | Path) -> list[float]:
    """The losses of a run's steps."""
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def flags(options: Options) -> list[str]:
    """The command line of some options."""
    line = []
    for name, value in asdict(options).items():
        if isinstance(value, bool):
            line += [f"--{name}" if value else f"--no-{name}"]
        elif value is not None and value != getattr(Options, name):
            line += [f"--{name}", *([str(value)] if not isinstance(value, tuple) else value)]
    return line


def test_a_run_leaves_what_the_readme_promises(
    options: Options, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(train(options)["folder"])
    for task in LEADERBOARD:
        for split, suffix in (("dev", "dev"), ("test", "test-student")):
            lines = Path(f"predictions/{task}-{split}-output.csv").read_text().splitlines()
            name = {"sst": "ids-sst", "para": "quora", "sts": "sts"}[task]
            rows = (Path(options.data_dir) / f"{name}-{suffix}.csv").read_text().splitlines()
            ids = [
                row.split("\t")[-2 - task.startswith(("para", "sts")) - (split == "dev")]
                for row in rows[1:]
            ]
            assert [line.split(" , ")[0] for line in lines[1:]] == ids
            own = folder / "predictions" / f"{task}-{split}-output.csv"
            assert own.read_text().splitlines() == lines
    assert {p.name for p in folder.iterdir()} == {
        "options.json",
        "run.json",
        "log.jsonl",
        "best",
        "last",
        "predictions",
        "lock",
    }
    facts = json.loads((folder / "run.json").read_text())
    assert (
        facts["built_in_corpus"] is False
        and len(facts["data"]) == 9
        and facts["data"]["sts_dev"]
        == {
            "path": f"{options.data_dir}/sts-dev.csv",
            "sha256": sha256_of(Path(options.data_dir) / "sts-dev.csv"),
            "examples": 12,
            "in_train": facts["data"]["sts_dev"]["in_train"],
        }
        and facts["best"]["epoch"] == 1
    )
    best = MultitaskBERT.load(folder)
    numbers = sum(p.numel() for p in best.parameters())
    assert facts["parameters"] == {"all": numbers, "trained": numbers}
    assert 100 < facts["peak_memory_mib"] < 100_000
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log] == [1, 2, 3, 3] and set(log[-1]["dev"]) == set(LEADERBOARD)
    assert list(log[-1]) == [
        *("step", "epoch", "seconds", "dev_sst", "dev_para", "dev_sts", "dev_overall"),
        *("dev_loss_sst", "dev_loss_para", "dev_loss_sts", "dev"),
    ]
    assert log[-1]["dev_loss_sst"] == log[-1]["dev"]["sst"]["loss"] > 0
    printed = capsys.readouterr().out
    assert (
        "SST accuracy  Quora accuracy  STS Pearson  overall" in printed
        and f"model: {folder}/best" in printed
    )


def test_a_run_s_options_are_replayed(options: Options) -> None:
    options = replace(options, files={"sst_dev_out": "mine/sst.csv"}, clip=0.5)
    folder = train(options)["folder"]
    assert parse([f"@{folder}/options.json"], "") == options


def test_the_built_in_corpus_is_announced(options: Options, capsys: pytest.CaptureFixture) -> None:
    result = train(replace(options, data_dir="data", tasks=("sst",)))
    assert "BUILT-IN CORPUS" in capsys.readouterr().out
    assert json.loads((Path(result["folder"]) / "run.json").read_text())["built_in_corpus"] is True


def test_a_run_of_few_examples_keeps_its_predictions(
    options: Options, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(train(replace(options, limit=5))["folder"])
    printed = capsys.readouterr().out
    assert "sst: 5 train, 5 dev, 5 test examples" in printed
    assert f"predictions kept in {folder}/predictions\n  not copied: --limit leaves" in printed
    assert not list(Path("predictions").iterdir())
    lines = (folder / "predictions" / "sst-test-output.csv").read_text().splitlines()
    assert len(lines) == 6


def test_a_run_without_test_files(options: Options) -> None:
    shutil.copytree(options.data_dir, "mine", ignore=shutil.ignore_patterns("*test*"))
    options = replace(options, data_dir="mine")
    with pytest.raises(UserError, match=r"missing 3 of 9 .* or leave them out: --no-test$"):
        train(options)
    folder = Path(train(replace(options, test=False))["folder"])
    assert {path.name for path in Path("predictions").iterdir()} == {
        f"{task}-dev-output.csv" for task in LEADERBOARD
    }
    assert len(json.loads((folder / "run.json").read_text())["data"]) == 6


def test_what_a_kill_left_in_the_cache_is_cleared(options: Options) -> None:
    Path(".cache").mkdir()
    Path(".cache", UNFINISHED.format("0123456789abcdef")).write_bytes(b"half")
    multitask_classifier.load_data(options, multitask_classifier.build(options))
    assert {path.suffix for path in Path(".cache").iterdir()} == {".safetensors"}


def test_same_options_give_the_same_weights_bit_for_bit(options: Options) -> None:
    first, second = (weights(train(options)["folder"]) for _ in range(2))
    assert same(first, second)


def test_scores_on_train_change_nothing_else(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Two epochs, so that steps follow an evaluation; oracle: predict.py on the rows themselves."""
    options = replace(options, epochs=2, tasks=("sst", "sts"), name="plain")
    plain = train(options)["folder"]
    capsys.readouterr()
    scored = train(replace(options, train_scores=True, name="scored"))["folder"]
    assert same(weights(plain), weights(scored)) and losses(plain) == losses(scored)

    # The same lines, and those of train beside them.
    lines = [(Path(folder) / "log.jsonl").read_text().splitlines() for folder in (plain, scored)]
    before, after = ([json.loads(line) for line in some][-1] for some in lines)
    names = ["train_sst", "train_sts", "train_overall", "train_loss_sst", "train_loss_sts", "train"]
    assert list(after) == [*before, *names]
    assert {name: after[name] for name in before if name.startswith("dev")} == {
        name: value for name, value in before.items() if name.startswith("dev")
    }
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.startswith("     of train  ")]
    assert len(rows) == 2 and all(len(row) <= 80 for row in rows)
    assert rows[-1].split()[2:] == [f"{after[name]:.3f}" for name in names[:3]]

    # Of each task the first 12 rows of train, as dev has 12; by the best model here too.
    best = json.loads((Path(scored) / "run.json").read_text())["best"]["epoch"]
    (line,) = [line for line in map(json.loads, lines[1]) if line.get("epoch") == best]
    rows = (Path(options.data_dir) / "ids-sst-train.csv").read_text().splitlines()[:13]
    Path("rows.csv").write_text("\n".join(rows) + "\n")
    found = predict_with(scored, {"files": {"sst_dev": "rows.csv"}})["sst_dev"]
    assert found["count"] == 12 == line["train"]["sts"]["count"]
    assert line["train"]["sst"] == {**found, "loss": line["train_loss_sst"]}


def test_lora_is_saved_small_and_merges(options: Options) -> None:
    plain = Path(train(replace(options, lora=True))["folder"])
    assert {p.name for p in (plain / "best").iterdir()} == LORA_FILES | RUN_FILES
    merged = Path(train(replace(options, lora=True, lora_merge=True, name="merged"))["folder"])
    assert {p.name for p in (merged / "best").iterdir()} >= {"model.safetensors"} | RUN_FILES
    texts = [("A lovely film .",), ("It is not good , sadly .",)]
    a, b = MultitaskBERT.load(plain), MultitaskBERT.load(merged)
    assert not any("lora" in name for name in b.state_dict())
    batch = a.tokenizer([t[0] for t in texts], return_tensors="pt", padding=True)
    inputs = batch["input_ids"], batch["attention_mask"]
    torch.testing.assert_close(
        a.predict_sentiment(*inputs), b.predict_sentiment(*inputs), atol=1e-5, rtol=0
    )


BY_COSINE = {"pair_encoding": "bi", "pair_features": "u,v sts=cosine", "sts_loss": "mse"}
# Every option's other values, and what must be on for them to matter. A new option must be named
# here or in DEAD.
ALIVE: dict[str, list[dict]] = {
    "option": [{"option": "pretrain"}],
    "tasks": [{"tasks": ("sst", "para")}],
    "pair_encoding": [{"pair_encoding": "bi"}],
    "cross_attention": [{"pair_encoding": "bi", "cross_attention": True}],
    "attention_layers": [{"attention_layers": "1"}, {"attention_layers": "0 sts=2"}],
    "attention_heads": [{"attention_layers": "1", "attention_heads": "8"}],
    "attention_inner_width": [{"attention_inner_width": 13}],
    "lstm_layers": [{"lstm_layers": "0 sst=1"}, {"lstm_layers": 2}],
    "lstm_hidden": [{"lstm_layers": 1, "lstm_hidden": 7}],
    "cnn_layers": [{"cnn_layers": "0 sts=1"}, {"cnn_layers": 2}],
    "cnn_width": [{"cnn_layers": 1, "cnn_width": 13}],
    "cnn_kernel": [{"cnn_layers": 1, "cnn_kernel": "3"}],
    "pooling_layers": [{"pooling": "cls_layers", "pooling_layers": "0"}],
    "head_layers": [{"head_layers": 2}],
    "head_width": [{"head_width": "7"}],
    "head_norm": [{"head_norm": False}],
    "head_dropout": [{"head_dropout": "same sst=0.5"}],
    "freeze_heads": [{"freeze_heads": True}],
    "rmsnorm": [{"rmsnorm": place} for place in ("heads", "encoder", "all")],
    "rmsnorm_start": [{"rmsnorm": "encoder", "rmsnorm_start": "calibrated", "model": "other"}],
    "kv_heads": [{"kv_heads": heads} for heads in (1, 2)],
    "attention": [{"attention": "sdpa"}],
    "swiglu": [{"swiglu": place} for place in ("heads", "encoder", "all")],
    "pair_features": [
        {"pair_encoding": "bi", "pair_features": "u,v sts=sum"},
        BY_COSINE,
    ],
    "cosine_map": [{"cosine_map": "times5", **BY_COSINE}],
    "pair_projection": [{"pair_encoding": "bi", "pair_projection": "para=linear"}],
    "shared_pair_layer": [{"shared_pair_layer": True}],
    "swap_pairs": [{"swap_pairs": True}],
    "swiglu_start": [{"swiglu": "encoder", "swiglu_start": "random"}],
    "lora": [{"lora": True}],
    "lora_rank": [{"lora": True, "lora_rank": 3}],
    "lora_alpha": [{"lora": True, "lora_alpha": 7.0}],
    "lora_dropout": [
        {"lora": True, "lora_dropout": 0.5},
        {"lora": True, "lora_type": "dora", "lora_dropout": 0.5},
    ],
    "lora_type": [{"lora": True, "lora_type": "dora"}],
    "lora_scale": [{"lora": True, "lora_scale": "sqrt_rank"}],
    "lora_init": [{"lora": True, "lora_init": "gaussian"}],
    "lora_targets": [{"lora": True, "lora_targets": t} for t in ("qk", "qv", "qkv")],
    "lora_layers": [{"lora": True, "lora_layers": "1"}],
    "ia3": [{"ia3": True}],
    "bitfit": [{"bitfit": "all"}, {"bitfit": "query_mlp"}],
    "diff_pruning": [{"diff_pruning": kind} for kind in ("structured", "unstructured")],
    "diff_pruning_target": [{"diff_pruning": "structured", "diff_pruning_target": 0.3}],
    "diff_pruning_penalty": [{"diff_pruning": "structured", "diff_pruning_penalty": 1.0}],
    "diff_pruning_fix": [{"diff_pruning": "structured", "diff_pruning_fix": 0.2}],
    "adapter": [{"adapter": "houlsby"}, {"adapter": "pfeiffer"}],
    "adapter_size": [{"adapter": "pfeiffer", "adapter_size": 3}],
    "prefix_tuning": [{"prefix_tuning": True}],
    "prefix_tuning_length": [{"prefix_tuning": True, "prefix_tuning_length": 3}],
    "prefix_tuning_width": [{"prefix_tuning": True, "prefix_tuning_width": 7}],
    "p_tuning": [{"p_tuning": "v1"}, {"p_tuning": "v2"}],
    "p_tuning_length": [{"p_tuning": "v1", "p_tuning_length": 3}],
    "pals": [{"pals": True}],
    "pals_size": [{"pals": True, "pals_size": 24}],
    "pals_heads": [{"pals": True, "pals_heads": 4}],
    "pals_train": [{"pals": True, "pals_train": "alone"}],
    "task_layers": [{"task_layers": 1}, {"task_layers": 2}],
    "experts": [{"experts": 2}],
    "experts_gate": [{"experts": 2, "experts_gate": "top1"}],
    "experts_balance": [{"experts": 2, "experts_balance": 0.5}],
    "epochs": [{"epochs": 2}],
    "steps_per_epoch": [{"steps_per_epoch": 2}],
    "samples_per_epoch": [{"samples_per_epoch": "all para=7"}],
    "batch_size": [{"batch_size": 7}],
    "accumulation": [{"accumulation": 2}],
    "sampling_exponent": [{"sampling_exponent": 0.0, "files": {"para_train": "unequal.csv"}}],
    "lr": [{"lr": 2e-3}],
    "warmup": [{"warmup": 0.6}],
    "weight_decay": [{"weight_decay": 0.1}],
    "optimizer_form": [{"optimizer_form": "torch"}],
    "clip": [{"clip": 0.1}],
    "hidden_dropout_prob": [{"hidden_dropout_prob": 0.3}],
    "attention_dropout_prob": [{"attention_dropout_prob": 0.3}],
    "max_length": [{"max_length": 8}],
    "truncation": [{"max_length": 8, "truncation": rule} for rule in ("tail", "head_tail")],
    "segment_length": [{"pair_encoding": "bi", "segment_length": "7"}],
    "max_segments": [{"pair_encoding": "bi", "segment_length": "7", "max_segments": 1}],
    "seed": [{"seed": 7}],
    "precision": [{"precision": "bf16"}],
    "model": [{"model": "other"}],
    "limit": [{"limit": 11}],
    "train_fraction": [{"train_fraction": 0.3}],
    "init": [{"init": "saved", "model": "saved"}],
    "drop_leaks": [{"drop_leaks": True, "files": {"sst_train": "leaky.csv"}}],
    "files": [
        {"files": {"sst_train": "unequal-sst.csv"}},
        {"files": {"para_train": "unequal.csv"}},
        {"files": {"sts_train": "unequal-sts.csv"}},
    ],
}
# Every name in a table that a flag chooses from, so that a new line there must be alive.
for option, table in TABLES.items():
    if option != "tasks":
        default = str(getattr(Options, option))
        ALIVE[option] = [{option: name} for name in table if name != default]

# Nothing about training: files, names, when to look; each has a test of its own or is a path.
DEAD = {
    "patience",
    "symmetric",
    "lora_merge",
    "ia3_merge",
    "diff_pruning_merge",
    "gradient_checkpointing",
    "use_gpu",
    "data_dir",
    "test",
    "predictions",
    "name",
    "tags",
    "runs_dir",
    "resume",
    "save_every",
    "keep_last",
    "log_every",
    "train_scores",
    "tensorboard",
}


# Alive too, where a package is that not all have: test_tag_embeddings.py.
ELSEWHERE = {"word_tags", "word_tags_model"}


def test_every_option_is_accounted_for() -> None:
    named = [*ALIVE, *DEAD, *ELSEWHERE]
    assert sorted(named) == sorted(f.name for f in fields(Options))


@pytest.fixture(scope="module")
def baselines() -> dict:
    return {}


@pytest.mark.parametrize("name", ALIVE)
def test_option_is_alive(
    options: Options, name: str, baselines: dict, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multitask_classifier, "finish", lambda run, *_: {"folder": str(run.folder)})
    for stem, out in (("quora", "unequal"), ("ids-sst", "unequal-sst"), ("sts", "unequal-sts")):
        lines = (Path(options.data_dir) / f"{stem}-train.csv").read_text().splitlines(keepends=True)
        Path(f"{out}.csv").write_text("".join(lines[:14]))
    own, dev = (Path(options.data_dir) / f"ids-sst-{x}.csv" for x in ("train", "dev"))
    Path("leaky.csv").write_text(own.read_text() + dev.read_text().partition("\n")[2])
    other = multitask_classifier.build(options).bert
    torch.nn.init.normal_(other.pooler_dense.weight)
    torch.nn.init.normal_(other.embed_layer_norm.weight)
    other.save_pretrained("other")
    Path("saved").mkdir()
    multitask_classifier.build(replace(options, model="other")).save(Path("saved"))
    for variant in ALIVE[name]:
        fixed = {
            k: v for k, v in variant.items() if k != name
        }  # what must be on for the option to matter
        key = str(fixed)
        if key not in baselines:
            folder = train(replace(options, **fixed))["folder"]
            baselines[key] = (weights(folder), losses(folder))
        folder = train(replace(options, **variant))["folder"]
        assert not same(baselines[key][0], weights(folder)) and baselines[key][1] != losses(
            folder
        ), variant


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"files": {"sst_train": "absent.csv"}},
            "--sst_train absent.csv: not there; check the path",
        ),
        ({"model": "absent/model/folder"}, "absent/model/folder: no such folder, and not a hub id"),
        ({"use_gpu": True}, "--use_gpu: .*torch .*; without the flag the CPU trains"),
        ({"files": {"sst_dev_out": "/proc/nowhere/out.csv"}}, "/proc/nowhere: can't be written"),
        ({"runs_dir": "/proc/nowhere"}, "/proc/nowhere: can't be written"),
        ({"pooling": "median"}, "--pooling median: expected one of cls, mean"),
        ({"rmsnorm": True}, "--rmsnorm True: expected one of off, heads, encoder, all"),
        ({"predictions": "{task.x}-{split}.csv"}, "only {task} and {split} may stand in braces"),
    ],
)
def test_what_can_not_work_is_one_line_before_the_first_step(
    options: Options, change: dict, message: str
) -> None:
    if change.get("use_gpu") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match=message.replace("(", "\\(")) as error:
        train(replace(options, **change))
    assert "\n" not in str(error.value) and not list(Path().glob("runs/*/last"))


def test_the_command_line_ends_with_one_line_and_a_code(options: Options) -> None:
    command = [sys.executable, str(ROOT / "multitask_classifier.py"), "--batch_size", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --batch_size 0: expected 1 to 65536\n")


def test_main_takes_the_course_flags(options: Options) -> None:
    main(
        [*flags(options), "--fine-tune-mode", "last-linear-layer", "--sst_dev_out", "mine/sst.csv"]
    )
    assert Path("mine/sst.csv").read_text().startswith("id \t Predicted_Sentiment \n")


def test_tensorboard_gets_the_log(options: Options) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    folder = Path(train(replace(options, tensorboard=True))["folder"])
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(
        [r["loss"] for r in log if "loss" in r]
    )
    assert events.Scalars("dev_overall")[0].step == 3
    assert events.Scalars("dev_loss_sts")[0].value == pytest.approx(log[-1]["dev_loss_sts"])


def diverging(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """Have runs learn at a rate that no flag may give."""
    monkeypatch.setattr(multitask_classifier, "peak_rate", lambda *_: rate)


def test_a_loss_that_is_not_finite_stops_the_run(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging(monkeypatch, 1e38)
    with pytest.raises(UserError, match="(loss_sst|norm) is (nan|inf); lower --lr"):
        train(replace(options, clip=0, steps_per_epoch=6))


@pytest.mark.parametrize(("tasks", "rate"), [(("sst", "para", "sts"), 1e38), (("sts",), 1e20)])
def test_a_model_that_diverged_in_the_last_step_is_neither_best_nor_predicts(
    options: Options, tasks: tuple[str, ...], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses before the step are finite: only the dev outputs tell."""
    diverging(monkeypatch, rate)
    clip = 0.0 if len(tasks) > 1 else 1.0
    with pytest.raises(UserError, match="outputs are not finite"):
        train(replace(options, tasks=tasks, clip=clip, steps_per_epoch=1, warmup=0.0))
    assert not list(Path().glob("runs/*/best")) and not list(Path().glob("predictions/*"))


def test_a_task_s_loss_is_the_mean_over_the_steps_that_it_was_in(options: Options) -> None:
    """Oracle: the same run logged step by step."""
    options = replace(options, sampler="round_robin", steps_per_epoch=6)
    folders = [Path(train(replace(options, log_every=n))["folder"]) for n in (1, 3)]
    single, three = (
        [json.loads(x) for x in (f / "log.jsonl").read_text().splitlines()] for f in folders
    )
    for task, step in (("sst", 0), ("para", 1), ("sts", 2)):
        assert three[0][f"loss_{task}"] == pytest.approx(single[step][f"loss_{task}"])
        assert sum(f"loss_{task}" in line for line in single) == 2
    assert three[0]["loss"] == pytest.approx(sum(line["loss"] for line in single[:3]) / 3)
