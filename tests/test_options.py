"""The options: sections, values by task, files, JSON, and what is refused."""

import json
import os
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.kinds import ADAPTERS
from choices.adapter import AdapterOptions
from choices.chosen import SECTIONS, Chosen
from choices.conflicts import CONFLICTS
from choices.head import HeadOptions
from declare import EXPECTED, Names, PerTask, Section, declare, kind_of, rules_of, shown
from errors import UserError
from lora import TARGETS
from multitask_bert import build
from options import Options, pick
from training.rates import peak_rate

FIELDS = {f.name: f for f in fields(Options)}


def refusal(**given: Any) -> str:
    """What check() says of these options."""
    with pytest.raises(UserError) as caught:
        Options(**given).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Declarations


def test_the_defaults_are_legal():
    assert Options().check() == Options()


def test_every_option_is_in_exactly_one_section():
    names = [f.name for section in SECTIONS.values() for f in fields(section)]
    assert sorted(names) == sorted(FIELDS)


def test_every_section_is_a_base_of_options():
    assert tuple(SECTIONS.values()) == Chosen.__bases__


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_has_a_help_text(name):
    assert len(rules_of(FIELDS[name]).help) > 5


@pytest.mark.parametrize("name", FIELDS)
def test_every_type_has_words_for_it(name):
    assert kind_of(FIELDS[name]) in EXPECTED


@pytest.mark.parametrize("name", FIELDS)
def test_what_an_option_needs_is_an_option_of_its_section(name):
    """So that a section can be checked alone."""
    (section,) = [s for s in SECTIONS.values() if name in {f.name for f in fields(s)}]
    assert rules_of(FIELDS[name]).needs in {"", *(f.name for f in fields(section))}


def test_the_lora_targets_are_the_table_s():
    assert set(rules_of(FIELDS["lora_targets"]).choices) == set(TARGETS)


def test_a_section_stands_alone():
    adapter = AdapterOptions(lora=True, lora_rank=3)
    adapter.check_values()
    adapter.check_needs()
    assert adapter.lora_rank == 3


def test_a_section_is_checked_alone():
    with pytest.raises(UserError, match="^--lora_rank 0: expected 1 to 4096$"):
        AdapterOptions(lora=True, lora_rank=0).check_values()
    with pytest.raises(UserError, match="^--lora_rank 3 needs --lora$"):
        AdapterOptions(lora_rank=3).check_needs()


def test_options_are_frozen_and_hashable():
    with pytest.raises(FrozenInstanceError):
        Options().seed = 1  # type: ignore[misc]
    assert len({Options(), Options(seed=1), Options(seed=1)}) == 2


# Values by task


@pytest.mark.parametrize(
    "text, sst, sts, values",
    [
        ("mean", "mean", "mean", ("mean",)),
        ("cls sts=mean", "cls", "mean", ("cls", "mean")),
        ("sts=mean cls", "cls", "mean", ("cls", "mean")),
        ("max sst=cls sts=mean", "cls", "mean", ("max", "cls", "mean")),
    ],
)
def test_per_task(text, sst, sts, values):
    names = PerTask(text)
    assert (names.of("sst"), names.of("sts"), names.values()) == (sst, sts, values)


def test_per_task_is_its_text():
    names = PerTask("cls   sts=mean")
    assert names == "cls sts=mean" and hash(names) == hash("cls sts=mean")
    assert json.dumps(names) == '"cls sts=mean"'


def test_per_task_is_copied_whole():
    """As replace, asdict and processes do."""
    options = Options(pooling="cls sts=mean")
    copies = (asdict(options)["pooling"], pickle.loads(pickle.dumps(options)).pooling)
    assert [copy.of("sts") for copy in copies] == ["mean", "mean"]


def test_other_tasks_keep_the_default():
    assert Options(pooling="sts=mean").pooling == HeadOptions(pooling="sts=mean").pooling
    assert Options(pooling="sts=mean").pooling == "cls sts=mean"
    assert Options(head="sst=linear").head.of("para") == "mlp"


@pytest.mark.parametrize("text", ["cls mean", "=mean", "sts=", "a=b=c", "cls sts=a sts=b"])
def test_a_bad_form_is_refused(text):
    with pytest.raises(UserError, match=f'^--pooling "{text}": expected .* as in "cls sts=mean"$'):
        Options(pooling=text)


def test_per_task_without_a_name_for_all():
    with pytest.raises(UserError, match="expected a name for the other tasks"):
        PerTask("sts=mean")


@pytest.mark.parametrize("name", ["pooling", "head"])
def test_a_task_that_is_not_learned(name):
    message = refusal(tasks=("sst", "para"), **{name: "some sts=other"})
    assert message == f"--{name} some sts=other: expected tasks of --tasks sst para"


@pytest.mark.parametrize(
    "value", ["0", "all para=0", "-1", "1e3", "1000000001", "9" * 5000, "some"]
)
def test_an_amount_out_of_range(value):
    word = shown(value.split("=")[-1])
    expected = "expected all, or 1 to 1000000000"
    assert refusal(samples_per_epoch=value) == f"--samples_per_epoch {word}: {expected}"


def test_amounts():
    assert Options(samples_per_epoch=8000).check().samples_per_epoch == "8000"
    assert Options(samples_per_epoch="para=8000").check().samples_per_epoch == "all para=8000"


@dataclass(frozen=True)
class ByTask(Section):
    """Values by task of every kind"""

    depth: PerTask = declare(PerTask("0"), "a whole number", number=int, least=0, most=5)
    share: PerTask = declare(
        PerTask("same"), "a share", choices=("same",), number=float, least=0, below=1
    )
    parts: PerTask = declare(PerTask("u,v"), "some", choices=("u", "v", "w"), several=True)
    kind: PerTask = declare(PerTask("a"), "one", choices=("a", "b"))
    of_depth: int = declare(1, "needs a depth", needs="depth")
    of_b: int = declare(1, "needs b", needs="kind", needs_value=("b",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": "1 sst=6"}, "--depth 6: expected 0 to 5"),
        ({"depth": "1.0"}, "--depth 1.0: expected 0 to 5"),
        ({"share": "1.0"}, "--share 1.0: expected same, or from 0 to below 1"),
        ({"share": "sts=nan"}, "--share nan: expected same, or from 0 to below 1"),
        ({"share": "1_0"}, "--share 1_0: expected same, or from 0 to below 1"),
        ({"parts": "u,x"}, "--parts u,x: expected some of u, v, w, with commas between"),
        ({"parts": "u,u"}, "--parts u,u: expected some of u, v, w, with commas between"),
        ({"kind": "c"}, "--kind c: expected one of a, b"),
        ({"of_depth": 2}, "--of_depth 2 needs --depth"),
        ({"of_b": 2}, "--of_b 2 needs --kind b"),
    ],
)
def test_a_word_by_task_that_is_not_legal(given: dict[str, Any], message: str) -> None:
    options = ByTask(**given)
    with pytest.raises(UserError) as caught:
        options.check_values()
        options.check_needs()
    assert str(caught.value) == message


def test_words_by_task_that_are_legal() -> None:
    options = ByTask(depth=3, share="same sst=.5", parts="w,u sst=v", of_depth=2)
    options.check_values()
    options.check_needs()
    assert (options.depth, options.share.of("sst"), options.parts.of("sst")) == ("3", ".5", "v")
    ByTask(kind="a sst=b", of_b=2).check_needs()


# Files


def test_files_are_given_as_a_dict():
    options = Options(files={"sts_dev_out": "b.csv", "sst_train": "a.csv"})
    assert options.files == (("sst_train", "a.csv"), ("sts_dev_out", "b.csv"))
    assert options.file("sst_train") == "a.csv" and options.file("sst_dev") is None
    assert hash(options) == hash(replace(options))


def test_files_are_an_object_in_json():
    text = Options(files={"sst_train": "a.csv"}).to_json()
    assert json.loads(text)["files"] == {"sst_train": "a.csv"}


@pytest.mark.parametrize("name", ["sst", "sst_trian", "cola_train", "sst_train_out"])
def test_unknown_files(name):
    with pytest.raises(UserError, match=f"^files: {name} is unknown; expected one of sst, sts"):
        Options(files={name: "a.csv"}).check_files(["sst", "sts"])


def test_known_files():
    Options(files={"sst_train": "a", "sts_test_out": "b"}).check_files(["sst", "sts"])


# Values

TYPES = {
    "epochs": ("3", "'3': expected a whole number"),
    "batch_size": (9.0, "9.0: expected a whole number"),
    "seed": (True, "True: expected a whole number"),
    "lr": ("1e-3", "'1e-3': expected a number"),
    "clip": (None, "None: expected a number"),
    "lora": (1, "1: expected True or False"),
    "model": (Path("x"), f"{Path('x')!r}: expected a text"),
    "resume": (3, "3: expected a text"),
    "tasks": ("sst", "'sst': expected names"),
    "head": (3, '3: expected a name, or as in "cls sts=mean"'),
    "files": (
        {"sst_train": 3},
        '((\'sst_train\', 3),): expected a dict as {"sst_train": "some.csv"}',
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_wrong_type_is_refused(name):
    value, message = TYPES[name]
    assert refusal(**{name: value}) == f"--{name} {message}"


def test_every_type_is_tried():
    assert {kind_of(FIELDS[name]) for name in TYPES} == set(EXPECTED)


def test_a_whole_number_is_a_number():
    assert Options(lr=1, clip=0, warmup=0).check().lr == 1


@pytest.mark.parametrize(
    "name",
    [f.name for f in fields(Options) if rules_of(f).choices and f.type not in (PerTask, Names)],
)
def test_a_wrong_choice_is_refused(name):
    choices = ", ".join(rules_of(FIELDS[name]).choices)
    assert refusal(**{name: "other"}) == f"--{name} other: expected one of {choices}"


@pytest.mark.parametrize("words", [("pos", "other"), ("pos", "pos"), ("",)])
def test_words_that_are_no_choices_are_refused(words):
    expected = f"--word_tags {' '.join(words)}: expected some of pos, ner, each once"
    assert refusal(word_tags=words) == expected
    assert Options(word_tags=["ner", "pos"]).check().word_tags == ("ner", "pos")


NAN, INF = float("nan"), float("inf")
RANGES: dict[str, tuple[str, list]] = {
    **{
        name: ("from 0 to below 1", [1, -0.1])
        for name in ("hidden_dropout_prob", "attention_dropout_prob", "lora_dropout", "warmup")
    },
    **{name: ("1 to 1000000000", [0, 2**31, 10**400]) for name in ("save_every", "log_every")},
    "epochs": ("1 to 10000", [0, -1, 10_001, 2**31]),
    "steps_per_epoch": ("0 to 10000000", [-1, 10_000_001, 2**31]),
    "batch_size": ("1 to 65536", [0, 65_537, 2**31]),
    "accumulation": ("1 to 4096", [0, 4097, 2**31]),
    "patience": ("0 to 1000000000", [-1, 2**31]),
    "kv_heads": ("0 to 1024", [-1, 1025, 2**31]),
    "lora_rank": ("1 to 4096", [0, 4097, 2**31]),
    "lora_alpha": ("above 0, at most 100000", [0, -1, 1e300]),
    "diff_pruning_target": ("above 0, at most 1", [0, 1.1]),
    "diff_pruning_penalty": ("0 to 1000", [-0.1, 1e300]),
    "diff_pruning_fix": ("above 0, at most 1", [0, 1.1]),
    "adapter_size": ("1 to 4096", [0, 4097, 2**31]),
    "prefix_tuning_length": ("1 to 512", [0, 513, 2**31]),
    "prefix_tuning_width": ("1 to 16384", [0, 16_385, 2**31]),
    "p_tuning_length": ("1 to 500", [0, 501, 2**31]),
    "pals_size": ("1 to 4096", [0, 4097]),
    "pals_heads": ("1 to 256", [0, 257]),
    "task_layers": ("0 to 256", [-1, 257]),
    "experts": ("0 to 16", [-1, 17]),
    "experts_balance": ("0 to 1000", [-0.1, 1e300]),
    "lr": ("above 0, at most 1000", [0, -1, 1e30]),
    "weight_decay": ("0 to 1000", [-0.1, 1e300]),
    "clip": ("0 to 1000000000", [-0.1, 1e300]),
    "max_length": ("3 to 512", [2, 513]),
    "max_segments": ("0 to 1000000000", [-1, 2**31]),
    "attention_inner_width": ("0 to 8192", [-1, 8193]),
    "sampling_exponent": ("-10 to 10", [-10.1, 11]),
    "limit": ("0 to 1000000000", [-1, 2**31]),
    "train_fraction": ("above 0, at most 1", [0, -0.1, 1.01]),
    "seed": ("0 to 4294967295", [-1, 2**32, 10**400]),
}


@pytest.mark.parametrize(
    "name, expected, value",
    [(n, words, v) for n, (words, values) in RANGES.items() for v in values],
    ids=lambda x: shown(x),
)
def test_out_of_range(name, expected, value):
    assert refusal(**{name: value}) == f"--{name} {shown(value)}: expected {expected}"


def test_a_number_too_long_for_words():
    """Python itself refuses to write one of over 4,300 digits."""
    assert refusal(epochs=10**5000) == "--epochs that long: expected 1 to 10000"


def test_every_number_is_tried():
    assert set(RANGES) == {f.name for f in fields(Options) if kind_of(f) in (int, float)}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", [f.name for f in fields(Options) if kind_of(f) is float])
def test_a_number_that_is_not_finite_is_refused(name, value):
    expected = f"a finite number, {RANGES[name][0]}"
    assert refusal(**{name: value}) == f"--{name} {value}: expected {expected}"


# Options that need another, and those that can't go together

NEEDS: dict[str, tuple[dict, str]] = {
    "rmsnorm_start": (
        {"rmsnorm": "heads", "rmsnorm_start": "calibrated"},
        "--rmsnorm_start calibrated needs --rmsnorm encoder or all",
    ),
    "swiglu_start": (
        {"swiglu": "heads", "swiglu_start": "random"},
        "--swiglu_start random needs --swiglu encoder or all",
    ),
    "attention_heads": ({"attention_heads": "2"}, "--attention_heads 2 needs --attention_layers"),
    "cross_attention": (
        {"cross_attention": True},
        "--cross_attention needs --pair_encoding bi",
    ),
    "max_segments": ({"max_segments": 2}, "--max_segments 2 needs --segment_length"),
    "lstm_hidden": ({"lstm_hidden": 7}, "--lstm_hidden 7 needs --lstm_layers"),
    "cnn_width": ({"cnn_width": 7}, "--cnn_width 7 needs --cnn_layers"),
    "cnn_kernel": ({"cnn_kernel": "3"}, "--cnn_kernel 3 needs --cnn_layers"),
    "pooling_layers": (
        {"pooling": "mean", "pooling_layers": "0"},
        "--pooling_layers 0 needs --pooling cls_layers",
    ),
    "head_layers": ({"head": "linear", "head_layers": 2}, "--head_layers 2 needs --head mlp"),
    "head_width": ({"head": "linear", "head_width": 7}, "--head_width 7 needs --head mlp"),
    "activation": ({"head": "linear", "activation": "elu"}, "--activation elu needs --head mlp"),
    "head_norm": ({"head": "linear", "head_norm": False}, "--no-head_norm needs --head mlp"),
    "word_tags_model": (
        {"word_tags_model": "pipe"},
        "--word_tags_model pipe needs --word_tags",
    ),
    "lora_rank": ({"lora_rank": 4}, "--lora_rank 4 needs --lora"),
    "lora_alpha": ({"lora_alpha": 4.0}, "--lora_alpha 4.0 needs --lora"),
    "lora_type": ({"lora_type": "dora"}, "--lora_type dora needs --lora"),
    "lora_scale": ({"lora_scale": "sqrt_rank"}, "--lora_scale sqrt_rank needs --lora"),
    "lora_init": ({"lora_init": "gaussian"}, "--lora_init gaussian needs --lora"),
    "lora_dropout": ({"lora_dropout": 0.5}, "--lora_dropout 0.5 needs --lora"),
    "lora_targets": ({"lora_targets": "qk"}, "--lora_targets qk needs --lora"),
    "lora_layers": ({"lora_layers": "1"}, "--lora_layers 1 needs --lora"),
    "lora_merge": ({"lora_merge": True}, "--lora_merge needs --lora"),
    "ia3_merge": ({"ia3_merge": True}, "--ia3_merge needs --ia3"),
    "diff_pruning_target": (
        {"diff_pruning_target": 0.1},
        "--diff_pruning_target 0.1 needs --diff_pruning",
    ),
    "diff_pruning_penalty": (
        {"diff_pruning_penalty": 0.1},
        "--diff_pruning_penalty 0.1 needs --diff_pruning",
    ),
    "diff_pruning_fix": (
        {"diff_pruning_fix": 0.1},
        "--diff_pruning_fix 0.1 needs --diff_pruning",
    ),
    "diff_pruning_merge": (
        {"diff_pruning_merge": True},
        "--diff_pruning_merge needs --diff_pruning",
    ),
    "adapter_size": ({"adapter_size": 7}, "--adapter_size 7 needs --adapter"),
    "prefix_tuning_length": (
        {"prefix_tuning_length": 7},
        "--prefix_tuning_length 7 needs --prefix_tuning",
    ),
    "prefix_tuning_width": (
        {"prefix_tuning_width": 7},
        "--prefix_tuning_width 7 needs --prefix_tuning",
    ),
    "p_tuning_length": ({"p_tuning_length": 7}, "--p_tuning_length 7 needs --p_tuning"),
    "pair_features": ({"pair_features": "sum"}, "--pair_features sum needs --pair_encoding bi"),
    "pair_projection": (
        {"pair_projection": "linear"},
        "--pair_projection linear needs --pair_encoding bi",
    ),
    "cosine_map": ({"cosine_map": "times5"}, "--cosine_map times5 needs --pair_features cosine"),
    "pals_size": ({"pals_size": 24}, "--pals_size 24 needs --pals"),
    "pals_heads": ({"pals_heads": 4}, "--pals_heads 4 needs --pals"),
    "pals_train": ({"pals_train": "alone"}, "--pals_train alone needs --pals"),
    "experts_gate": ({"experts_gate": "top1"}, "--experts_gate top1 needs --experts"),
    "experts_balance": ({"experts_balance": 0.1}, "--experts_balance 0.1 needs --experts"),
    "sampling_exponent": (
        {"sampler": "round_robin", "sampling_exponent": 1.0},
        "--sampling_exponent 1.0 needs --sampler mixed",
    ),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_needs_another_option(name):
    given, message = NEEDS[name]
    assert refusal(**given) == message


def test_every_need_is_tried():
    assert set(NEEDS) == {f.name for f in fields(Options) if rules_of(f).needs}


FROZEN = "--swiglu_start random starts layers afresh, which {} keeps frozen: drop one"
AFRESH = {"swiglu": "all", "swiglu_start": "random"}
ALONE = {"pals": True, "pals_train": "alone"}
LINEAR = "mlp sst=linear para=linear sts=linear"
COSINE = {"pair_encoding": "bi", "pair_features": "u,v sts=cosine", "sts_loss": "mse"}
FEATURES = "--pair_features u,v"
TAGS = (
    "--tags: expected words with blanks between, each of at most 40 letters, digits, dots, dashes "
    "and underscores, no dash first"
)
PAIRS: list[tuple[dict, str]] = [
    (
        {"attention_layers": 1, "pooling": "layer_mix"},
        "--pooling layer_mix is of BERT's own layers, --attention_layers 1 adds others: drop one",
    ),
    (
        {"pair_encoding": "bi", "cross_attention": True, "pooling": "pooler"},
        "--pooling pooler is of BERT's own layers, --cross_attention adds another: drop one",
    ),
    (
        {"lora": True, "option": "pretrain"},
        "--lora trains the encoder, --option pretrain freezes it: drop one",
    ),
    (
        {"attention_inner_width": 728, "option": "pretrain"},
        "--attention_inner_width trains layers in the encoder, --option pretrain freezes it: "
        "drop one",
    ),
    (
        {"segment_length": "whole sst=300"},
        "--segment_length whole sst=300 is above --max_length 256, the most that a sequence may "
        "have",
    ),
    (
        {"segment_length": "34", "truncation": "tail"},
        "--truncation tail cuts nothing where --segment_length 34 reads all: add --max_segments, "
        "or drop one",
    ),
    ({**AFRESH, "lora": True}, FROZEN.format("--lora")),
    ({**AFRESH, "option": "pretrain"}, FROZEN.format("--option pretrain")),
    (
        {"bitfit": "all", "diff_pruning": "structured"},
        "--bitfit and --diff_pruning both move the biases: drop one",
    ),
    (
        {"adapter": "houlsby", "option": "pretrain"},
        "--adapter trains the encoder, --option pretrain freezes it: drop one",
    ),
    (
        {"p_tuning": "v1", "p_tuning_length": 13, "max_length": 500},
        "--max_length 500 and --p_tuning_length 13: expected at most 512 together, the positions "
        "that BERT has",
    ),
    (
        {"pals": True, "option": "pretrain"},
        "--option pretrain trains the heads alone: use --pals_train alone, without it",
    ),
    (
        {**ALONE, "lora": True},
        "--lora trains the encoder, --pals_train alone freezes it: drop one",
    ),
    ({**AFRESH, **ALONE}, FROZEN.format("--pals_train alone")),
    (
        {"task_layers": 1, "option": "pretrain"},
        "--task_layers 1 trains copies of layers, --option pretrain freezes them: drop one",
    ),
    (
        {"experts": 2, "option": "pretrain"},
        "--experts 2 trains encoders, --option pretrain freezes them: drop one",
    ),
    (
        {"pals": True, "task_layers": 1},
        "--pals and --task_layers 1 both give each task parts of its own: drop one",
    ),
    (
        {"experts": 2, "pals": True},
        "--experts 2 takes encoders without parts for each task: drop it or --pals",
    ),
    (
        {"experts": 2, "task_layers": 3},
        "--experts 2 takes encoders without parts for each task: drop it or --task_layers 3",
    ),
    (
        {"experts": 2, "combiner": "pcgrad"},
        "--combiner pcgrad sees the gradients of one encoder: drop it or --experts 2",
    ),
    (
        {"task_layers": 1, "tasks": ("sst",)},
        "--task_layers 1 gives each task layers of its own: expected two --tasks or more",
    ),
    (
        {"experts": 1},
        "--experts 1: expected at least 2; without the flag there is one encoder",
    ),
    (
        {"pals": True, "pals_size": 13},
        "--pals_size 13 is not a multiple of --pals_heads 12",
    ),
    (
        {"option": "test"},
        "--option test trains nothing; it is for the command line: --option test --model RUN",
    ),
    (
        {"test": False, "files": {"sst_dev": "a", "sst_test_out": "b"}},
        "--no-test leaves the test files out, but one was named: drop either",
    ),
    (
        {"pair_encoding": "bi", "pair_features": "u,v sts=u,cosine"},
        f"{FEATURES} sts=u,cosine: expected cosine alone, or features without it",
    ),
    (
        {"pair_encoding": "bi", "pair_features": "u,v sts=cosine"},
        f"{FEATURES} sts=cosine: a cosine is the similarity itself; add --sts_loss mse",
    ),
    (
        {**COSINE, "head": "mlp sts=linear"},
        f"{FEATURES} sts=cosine: a cosine has no head, but --head mlp sts=linear names one for it: "
        "drop one",
    ),
    (
        {**COSINE, "shared_pair_layer": True},
        f"{FEATURES} sts=cosine: a cosine has no layer to add to; drop --shared_pair_layer",
    ),
    (
        {**COSINE, "option": "pretrain"},
        f"--option pretrain trains heads alone, and {FEATURES} sts=cosine has none for a cosine: "
        "drop one",
    ),
    (
        {**COSINE, "tasks": ("sts",), "rmsnorm": "all"},
        f"{FEATURES} sts=cosine leaves no head: use --rmsnorm encoder, --swiglu encoder",
    ),
    (
        {"head": "linear", "rmsnorm": "heads"},
        "--head linear has no norm: use --rmsnorm encoder, not heads",
    ),
    (
        {"head": LINEAR, "rmsnorm": "all"},
        f"--head {LINEAR} has no norm: use --rmsnorm encoder, not all",
    ),
    (
        {"head": "linear", "swiglu": "heads"},
        "--head linear has no activation: use --swiglu encoder, not heads",
    ),
    (
        {"head": LINEAR, "swiglu": "all"},
        f"--head {LINEAR} has no activation: use --swiglu encoder, not all",
    ),
    (
        {"freeze_heads": True, "option": "pretrain"},
        "--freeze_heads freezes the heads, --option pretrain all else: drop one",
    ),
    (
        {"head_norm": False, "rmsnorm": "all"},
        "--no-head_norm leaves the heads no norm: use --rmsnorm encoder, not all",
    ),
    (
        {"activation": "gelu sst=selu", "swiglu": "heads"},
        "--swiglu heads is the heads' activation, --activation gelu sst=selu another: drop one",
    ),
    (
        {"lstm_layers": "0 sst=1", "cnn_layers": 3},
        "--lstm_layers 0 sst=1 and --cnn_layers 3 meet in a task: drop one",
    ),
    (
        {"lstm_layers": 1, "pooling": "mean sts=pooler"},
        "--pooling mean sts=pooler is of BERT's own layers, --lstm_layers 1 adds others: drop one",
    ),
    (
        {"cnn_layers": "0 sst=2", "pooling": "layer_mix"},
        "--pooling layer_mix is of BERT's own layers, --cnn_layers 0 sst=2 adds others: drop one",
    ),
    ({"tasks": ()}, "--tasks: expected at least one task"),
    ({"tasks": ("sst", "sts", "sst")}, "--tasks names a task twice"),
    ({"batch_size": 2}, "--batch_size 2 is below the number of tasks"),
    (
        {"batch_size": 1025, "accumulation": 1024},
        "--batch_size 1025 times --accumulation 1024: expected at most 1048576 examples a step",
    ),
    (
        {"predictions": "{task:>999999999}"},
        "--predictions {task:>999999999}: only {task} and {split} may stand in braces",
    ),
    ({"name": "a/b"}, "--name a/b: letters, digits, dot, dash and underscore only"),
    (
        {"name": "é" * 101},
        f"--name {'é' * 101}: at most 200 bytes, or the run folder's name gets too long",
    ),
    *(({"tags": tags}, TAGS) for tags in (("a,b",), ("first", "a b"), ("",), ("a" * 41,), ("-a",))),
]


@pytest.mark.parametrize("given, message", PAIRS)
def test_conflicts(given, message):
    assert refusal(**given) == message


def test_every_conflict_is_tried():
    tried = [next(c for c in CONFLICTS if c.found(Options(**given))) for given, _ in PAIRS]
    assert set(tried) == set(CONFLICTS)


@pytest.mark.parametrize(
    "given",
    [
        {"max_length": 3},
        {"max_length": 512},
        {"warmup": 0.0},
        {"clip": 0.0},
        {"batch_size": 3},
        {"tasks": ("sst",), "batch_size": 1},
        {"lora": True, "lora_merge": True},
        {"segment_length": "34 sst=whole", "truncation": "tail"},
        {"segment_length": 34, "truncation": "tail", "max_segments": 2},
        {"lora": True, "pals": True},
        {"lora": True, "task_layers": 1},
        {**AFRESH, "pals": True},
        AFRESH,
        {"head": "linear", "rmsnorm": "encoder", "swiglu": "encoder"},
        {"head": "mlp sts=linear", "rmsnorm": "heads", "swiglu": "heads"},
        {"lstm_layers": "0 sst=1", "cnn_layers": "0 sts=1", "pooling": "max para=pooler"},
        {"activation": "relu", "head_norm": False, "swiglu": "encoder", "rmsnorm": "encoder"},
        {"lora": True, "rmsnorm": "all", "swiglu": "all"},
        {"lora": True, "bitfit": "all"},
        {"tasks": ("sst", "sts"), "head": "mlp sts=linear"},
        {**COSINE, "head": "linear sst=mlp", "rmsnorm": "all"},
        {**COSINE, "option": "pretrain", "pair_projection": "sts=linear"},
        {"batch_size": 1024, "accumulation": 1024},
        {"name": "a" * 200},
        {"predictions": "out/{{x}}-{task}{split}{task}.csv"},
        {"data_dir": "Jürgen\n", "files": {"sst_train": "\U0001f600.csv"}},
    ],
)
def test_allowed(given):
    assert Options(**given).check() == Options(**given)


# Texts

TEXTS = [
    "model",
    "word_tags_model",
    "lora_layers",
    "data_dir",
    "predictions",
    "name",
    "runs_dir",
    "resume",
]
BAD_TEXTS = {
    "": "'': expected a text; is a variable of the shell unset?",
    "a\0b": "a\\x00b: a NUL character, which no name can have",
    "a\udcffb": "a\\udcffb: not UTF-8; rename the file or folder",
    "\ud800": "\\ud800: not UTF-8; rename the file or folder",
}


@pytest.mark.parametrize("text", BAD_TEXTS, ids=ascii)
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_no_name_is_refused(name, text):
    needed = {"lora_layers": {"lora": True}, "word_tags_model": {"word_tags": ("pos",)}}
    assert refusal(**needed.get(name, {}), **{name: text}) == f"--{name} {BAD_TEXTS[text]}"


@pytest.mark.parametrize("text", BAD_TEXTS, ids=ascii)
def test_a_file_that_has_no_name_is_refused(text):
    assert refusal(files={"sst_train": "a", "sts_dev": text}) == f"--sts_dev {BAD_TEXTS[text]}"


def test_a_long_value_leaves_the_advice():
    assert refusal(precision="x" * 10**6).endswith("xxx: expected one of auto, fp32, bf16, fp16")
    assert refusal(tasks=["sst"], head="x " * 10**6).endswith('as in "cls sts=mean"')


TEMPLATES = "{ } {} {0} {x} {task!r} {task.x} {task[0]} {task:9} {task:{split}} {task:{x!r}}"


@pytest.mark.parametrize("template", TEMPLATES.split())
def test_a_template_of_more_than_names_is_refused(template):
    expected = f"--predictions a{template}b: only {{task}} and {{split}} may stand in braces"
    assert refusal(predictions=f"a{template}b") == expected


def test_pick():
    assert pick({"a": 1}, "a", "--flag") == 1
    with pytest.raises(UserError, match="^--flag c: expected one of a, b$"):
        pick({"a": 1, "b": 2}, "c", "--flag")


# JSON


def test_json_round_trip():
    options = Options(
        tasks=("sts", "sst"), lr=1e-7, lora=True, pooling="sts=mean", files={"sst_dev": "a b"}
    )
    again = Options.from_json(options.to_json())
    assert again == options and hash(again) == hash(options)
    assert again.pooling.of("sts") == "mean" and again.file("sst_dev") == "a b"


def test_json_of_a_version_with_fewer_options():
    assert Options.from_json('{"seed": 3}') == Options(seed=3)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"sede": 3, "lrr": 1}', "options.json holds unknown options: lrr, sede"),
        (json.dumps({f"x{n}": 0 for n in range(9)}), "options.json holds unknown options: x0, x1,"),
        ('{"seed": ', "options.json: not readable JSON (Expecting value"),
        ("[1]", "options.json: expected an object of options and their values"),
        ('{"seed": 1, "seed": 2}', "options.json: not readable JSON (seed stands twice"),
        ('{"seed": %s}' % ("9" * 5000), "options.json: not readable JSON (Exceeds the limit"),
        ("[" * 10**5, "options.json: not readable JSON (nested too deep)"),
        ('{"epochs": "three"}', "options.json: --epochs 'three': expected a whole number"),
        ('{"lora": null}', "options.json: --lora None: expected True or False"),
        ('{"warmup": 2}', "options.json: --warmup 2: expected from 0 to below 1"),
        ('{"lr": NaN}', "options.json: --lr nan: expected a finite number, above 0"),
        ('{"rmsnorm": ["all"]}', "options.json: --rmsnorm ['all']: expected one of off, heads"),
        ('{"pooling": "a b"}', 'options.json: --pooling "a b": expected a name, TASK=NAME or both'),
        ('{"tasks": [1]}', "options.json: --tasks (1,): expected names"),
        ('{"files": [["a"]]}', "options.json: --files [['a']]: expected a dict as"),
        ('{"data_dir": "a\\u0000"}', "options.json: --data_dir a\\x00: a NUL character"),
        ('{"runs_dir": "\\udc80"}', "options.json: --runs_dir \\udc80: not UTF-8"),
        # Each legal alone.
        ('{"precision": "fp8"}', "options.json: --precision fp8: expected one of auto, fp32"),
        ('{"lora_rank": 4}', "options.json: --lora_rank 4 needs --lora"),
        ('{"lora": true, "option": "pretrain"}', "options.json: --lora trains the encoder"),
        ('{"head": "mlp cfimdb=linear"}', "options.json: --head mlp cfimdb=linear: expected tasks"),
        ('{"tasks": []}', "options.json: --tasks: expected at least one task"),
        ('{"predictions": "{task:>999999999}"}', "options.json: --predictions {task:>99"),
    ],
    ids=lambda x: shown(x),
)
def test_bad_json(text, message):
    with pytest.raises(UserError) as caught:
        Options.from_json(text)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", range(850, 1000))
@pytest.mark.parametrize("name", ["tasks", "seed"])
def test_no_depth_of_nesting_is_too_much(name, depth):
    """Where it is just not too deep for the reader, it may be for what words the message."""
    with pytest.raises(UserError):
        Options.from_json(json.dumps({name: 0}).replace("0", "[" * depth + "]" * depth))


ADAPTED = {
    "plain": {},
    "pretrain": {"option": "pretrain"},
    "lora": {
        "lora": True,
        "lora_rank": 3,
        "lora_alpha": 5.0,
        "lora_dropout": 0.1,
        "lora_targets": "qk",
        "lora_layers": "0",
    },
    "merged": {"lora": True, "lora_rank": 3, "lora_merge": True, "swiglu": "encoder"},
}


@pytest.mark.parametrize("kind", ADAPTED)
def test_what_a_model_saves_is_legal(kind, options, tmp_path, capsys):
    """Merging writes other options than the run had."""
    model = build(replace(options, **ADAPTED[kind]).check())
    if kind == "merged":
        model.merge()
    model.save(tmp_path)
    assert model.load(tmp_path).options.check().lora == (kind == "lora")


@pytest.mark.parametrize("kind", ADAPTERS)
def test_no_option_of_an_adapter_stays_without_it(kind):
    changed = Options(lora=True, lora_rank=4, lora_merge=True, lora_targets="qk")
    ADAPTERS[kind].without(changed).check()


def test_options_of_a_run_that_are_no_text(tmp_path):
    (tmp_path / "options.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"options\.json:1: not UTF-8"):
        Options.of_run(tmp_path)


def test_damaged_options_of_a_run_are_named(tmp_path):
    (tmp_path / "options.json").write_text('{"epochs": "three"}', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Options.of_run(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'options.json'}: --epochs 'three': expected")


def test_a_pipe_instead_of_a_run_s_options_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "options.json")
    with pytest.raises(UserError, match=r"options\.json: a pipe or a device"):
        Options.of_run(tmp_path)


@pytest.mark.parametrize("folder", ["nowhere", "", "a\0b", "\udcff", "\ud800", "x" * 5000])
def test_no_run(folder):
    with pytest.raises(UserError, match=r"^(?!--).*: no options\.json in it; expected a run"):
        Options.of_run(Path(folder))


# Resuming


def test_the_same_run_may_change_its_device_and_its_data_may_move():
    moved = {"resume": "there", "use_gpu": True, "data_dir": "d", "files": {"sst_dev": "c"}}
    moved["keep_last"] = True
    resumed = Options(seed=3, files={"sst_train": "a", "sst_dev": "b"}).of_same_run(
        {**moved, "seed": 3}
    )
    files = {"sst_train": "a", "sst_dev": "c"}
    assert resumed == Options(seed=3, **{**moved, "files": files})


def test_the_same_run_is_recognised_however_it_is_typed():
    options = Options(pooling="sts=mean", files={"sst_train": "a", "sts_train": "b"})
    given = {"resume": "there", "pooling": "sts=mean", "files": {"sts_train": "b"}}
    assert options.of_same_run(given) == replace(options, resume="there")


def test_a_run_may_get_longer_only():
    assert Options(epochs=3).of_same_run({"resume": "there", "epochs": 6}).epochs == 6
    with pytest.raises(UserError, match="^--epochs 2: the run has 3, and --resume only adds some"):
        Options(epochs=3).of_same_run({"resume": "there", "epochs": 2})


@pytest.mark.parametrize(
    "given, message",
    [
        ({"seed": 4}, "--seed was 11711, not 4"),
        ({"epochs": 4, "seed": 4}, "--seed was 11711, not 4"),
        ({"lr": 1e-3}, "--lr was not given"),
        ({"head": "sts=linear"}, "--head was mlp, not mlp sts=linear"),
    ],
)
def test_another_run_is_refused(given, message):
    with pytest.raises(UserError, match="^--resume goes on with the run's own options; ") as caught:
        Options().of_same_run({"resume": "there", **given})
    assert str(caught.value).endswith(message)


# The learning rate


def test_a_run_s_folder_is_a_name_too():
    with pytest.raises(UserError, match="^--resume .udcff: not UTF-8"):
        Options().of_same_run({"resume": "\udcff"})


@pytest.mark.parametrize(
    "given, hidden, expected",
    [
        ({}, 1024, 2.8125e-5),  # BERT-large, whose paper tries 2e-5 to 5e-5
        ({}, 768, 5e-5),
        ({}, 384, 2e-4),
        ({}, 128, 3e-4),  # BERT-tiny: the largest that its authors try
        ({"lora": True}, 384, 2e-3),
        ({"bitfit": "all"}, 384, 2e-3),
        ({"ia3": True, "bitfit": "all"}, 768, 1e-3),
        ({"diff_pruning": "structured"}, 768, 5e-5),
        ({"option": "pretrain"}, 7, 1e-3),
        ({"option": "pretrain", "lr": 2.0}, 7, 2.0),
    ],
)
def test_learning_rate(given, hidden, expected):
    assert peak_rate(Options(**given), hidden) == pytest.approx(expected)


def test_adapters_and_their_options_belong_together():
    """What checks an option of the adapters' section relies on the record, and the other way."""
    switches = {f.name for f in fields(AdapterOptions) if not rules_of(f).needs}
    prefixes = {adapter.prefix for adapter in ADAPTERS.values()}
    # A switch without an entry would train the whole model, and say nothing.
    assert not switches - prefixes, "each needs an entry in ADAPTERS"
    assert prefixes <= set(FIELDS)
    for adapter in ADAPTERS.values():
        if adapter.rate_factor != 1:
            says = f"{adapter.rate_factor:g} times the learning rate"
            assert says in rules_of(FIELDS[adapter.prefix]).help
