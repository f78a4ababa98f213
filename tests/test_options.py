"""The flags: choices, help, spellings, files of flags, JSON, and what is refused."""

import re
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from bert import FEED_FORWARDS, NORMS
from errors import UserError
from heads import HEADS, POOLINGS
from lora import TARGETS
from multitask_bert import ADAPTERS
from optimizer import SCHEDULES
from options import CLOSED, COURSE_MODES, Options, Place, help_texts, make_parser, parse, pick
from samplers import SAMPLERS
from surgery import COMBINERS
from tasks import TASKS

HINTS = get_type_hints(Options)
TABLES = {
    "pooling": POOLINGS,
    "head": HEADS,
    "sampler": SAMPLERS,
    "combiner": COMBINERS,
    "schedule": SCHEDULES,
    "lora_targets": TARGETS,
}
FILES = {
    f"{task}_{x}"
    for task in ("sst", "para", "sts")
    for x in ("train", "dev", "test", "dev_out", "test_out")
}


def flags(line: str) -> Options:
    return parse(shlex.split(line), "test")


@pytest.mark.parametrize("field", TABLES)
def test_choices_are_the_tables_keys(field):
    assert get_args(HINTS[field]) and set(get_args(HINTS[field])) == set(TABLES[field])


def test_a_choice_is_a_table_s_or_closed():
    """What no table holds is checked by Options.check()."""
    assert {f.name for f in fields(Options) if get_origin(HINTS[f.name]) is Literal} == {
        *TABLES,
        *CLOSED,
    }


def test_the_other_names():
    assert set(COURSE_MODES.values()) == set(get_args(HINTS["option"]))
    assert {f.name for f in fields(Options)} >= {"rmsnorm", "swiglu", *ADAPTERS}
    assert (
        HINTS["rmsnorm"] == HINTS["swiglu"] == Place
        and {"rmsnorm"} < set(NORMS)
        and {"swiglu"} < set(FEED_FORWARDS)
    )
    assert set(Options().tasks) <= set(TASKS)


def test_every_default_is_a_choice():
    for f in fields(Options):
        choices = [c for c in get_args(HINTS[f.name]) if isinstance(c, str)]
        assert not choices or f.default in choices, f.name
    assert Options().check() == flags("") == Options()


def test_every_option_has_a_help_text():
    texts = help_texts()
    assert set(texts) == {f.name for f in fields(Options)}
    assert {name for name, text in texts.items() if not text} <= FILES
    shown = make_parser("what it does").format_help()  # a stray % would raise
    assert "what it does" in shown and "soft" not in shown
    for f in fields(Options):
        assert f"--{f.name}" in shown and texts[f.name] in shown


def other(field: str, kind: Any) -> tuple[list[str], Any]:
    """A legal value that is not the default, as words on the command line and as it should
    arrive.
    """
    default = getattr(Options(), field)
    if kind is bool:
        return ([], True) if not default else (["no"], False)
    if kind in (int, float, float | None):
        value = (default or 0) + 1 if kind is int else 0.25
        return [str(value)], value
    if field == "tasks":
        return ["sts", "sst"], ("sts", "sst")
    choices = [c for c in get_args(kind) if isinstance(c, str)]
    value = next((c for c in choices if c != default), default) if choices else "some/where"
    return [value], value


@pytest.mark.parametrize("field", [f.name for f in fields(Options)])
def test_each_flag_sets_its_field_in_both_spellings(field):
    words, value = other(field, HINTS[field])
    for name in {f"--{field}", f"--{field.replace('_', '-')}"}:
        parsed = vars(make_parser("").parse_args([name, *words]))
        parsed.pop("fine_tune_mode", None)
        changed = {k: v for k, v in parsed.items() if v != getattr(Options(), k) and k != "tasks"}
        assert (tuple(parsed["tasks"]) if field == "tasks" else parsed[field]) == value
        assert type(parsed[field]) in (type(value), list) and set(changed) <= {field}


def test_json_round_trip():
    for options in (
        Options(),
        flags("--tasks sts sst --lr 1e-7 --lora --lora_layers 0,2 --swiglu all --sst_dev 'a b'"),
    ):
        again = Options.from_json(options.to_json())
        assert again == options and isinstance(again.tasks, tuple) and hash(again) == hash(options)
    assert Options.from_json('{"seed": 3}') == Options(seed=3)  # from a version with fewer options


@pytest.mark.parametrize(
    "text,message",
    [
        ('{"sede": 3, "lrr": 1}', "unknown options: lrr, sede"),
        ('{"seed": ', "not readable"),
        ("[1]", "not readable"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(UserError, match=message):
        Options.from_json(text)


def test_spellings():
    assert flags("--batch-size 7 --lora --lora-rank 3") == Options(
        batch_size=7, lora=True, lora_rank=3
    )
    assert flags("--fine-tune-mode last-linear-layer").option == "pretrain"
    assert (
        flags("--fine-tune-mode full-model").option
        == flags("--option finetune").option
        == "finetune"
    )
    assert flags("--rmsnorm").rmsnorm == flags("--swiglu --epochs 2").swiglu == "heads"
    assert flags("--rmsnorm encoder").rmsnorm == "encoder" and flags("--swiglu off").swiglu == "off"
    assert (
        flags("--lora --no-lora").lora is False
        and flags("--tensorboard --no-tensorboard").tensorboard is False
    )
    assert flags("--no-use_gpu") == Options()


def test_a_file_of_flags(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(
        "# LoRA, small\n--lora --lora_rank 4  # r\n\n--tasks sst sts\n--lr 1e-3\n", encoding="utf-8"
    )
    expected = Options(lora=True, lora_rank=4, tasks=("sst", "sts"), lr=1e-3)
    assert flags(f"@{path}") == expected
    assert flags(f"@{path} --lora_rank 5") == replace(expected, lora_rank=5)  # the later one wins


def test_a_file_of_flags_that_is_no_text(tmp_path):
    (tmp_path / "flags").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a file of flags .* is not UTF-8 text"):
        flags(f"@{tmp_path / 'flags'}")


def test_learning_rate():
    assert Options().learning_rate(768) == 5e-5 and Options(lora=True).learning_rate(384) == 2e-3
    assert (
        Options(option="pretrain").learning_rate(7) == 1e-3
        and Options(option="pretrain", lr=2.0).learning_rate(7) == 2.0
    )


@pytest.mark.parametrize(
    "line,message",
    [
        ("--learning_rat 1", "unrecognized arguments: --learning_rat"),
        ("--epochs two", "argument --epochs.*'two'"),
        ("--head deep", "argument --head: invalid choice: 'deep'"),
        ("--rmsnorm everywhere", "argument --rmsnorm: invalid choice"),
        ("--tasks", "argument --tasks: expected at least one"),
        ("--fine-tune-mode all", "argument --fine-tune-mode"),
        ("@nowhere.txt", "nowhere.txt"),
        ("--lr", "argument --lr: expected one argument"),
        ("stray", "unrecognized.*stray"),
    ],
)
def test_what_the_parser_refuses(line, message):
    with pytest.raises(UserError, match=message) as caught:
        flags(line)
    assert "\n" not in str(caught.value)


VALUES = [
    *(
        (f"--{n} 0", f"--{n} 0: expected at least 1")
        for n in ("epochs", "batch_size", "accumulation", "lora_rank", "save_every", "log_every")
    ),
    *(
        (f"--{n} {x}", f"--{n} {float(x)}: expected from 0 to below 1")
        for x in ("1", "-0.1", "nan")
        for n in ("hidden_dropout_prob", "attention_dropout_prob", "lora_dropout", "warmup")
    ),
    *((f"--lr {x}", f"--lr {float(x)}: expected above 0") for x in ("0", "-1", "nan")),
    *((f"--max_length {n}", f"--max_length {n}: expected 3 to 512") for n in (2, 513)),
    *((f"--{n} -1", f"--{n} -1: expected 0 or more") for n in ("patience", "steps_per_epoch")),
    *(
        (f"--{n} {x}", f"--{n} {float(x)}: expected 0 or more")
        for n in ("clip", "weight_decay")
        for x in ("-1", "nan")
    ),
]
PAIRS = [
    (
        "--lora --option pretrain",
        "--lora trains the encoder, --option pretrain freezes it: drop one",
    ),
    ("--lora_merge", "--lora_merge needs --lora"),
    ("--swiglu_start random", "--swiglu_start random needs --swiglu encoder or all"),
    ("--swiglu --swiglu_start random", "--swiglu_start random needs --swiglu encoder or all"),
    *(
        (
            f"--swiglu all --swiglu_start random {x}",
            "--swiglu_start random starts layers afresh, which --lora and --option "
            "pretrain keep frozen: drop one",
        )
        for x in ("--lora", "--option pretrain")
    ),
    *(
        (f"--head linear --rmsnorm {x}", "--head linear has no norm: use --rmsnorm encoder")
        for x in ("heads", "all")
    ),
    *(
        (f"--head linear --swiglu {x}", "--head linear has no activation: use --swiglu encoder")
        for x in ("heads", "all")
    ),
    (
        "--lora_rank 4",
        "--lora_rank, --lora_alpha, --lora_dropout, --lora_targets, --lora_layers and --lora_merge "
        "need --lora",
    ),
    ("--sampler round_robin --sampling_exponent 1", "--sampling_exponent is of --sampler mixed"),
    *(
        (f"--sampling_exponent {x}", f"--sampling_exponent {float(x)}: expected -10 to 10")
        for x in ("11", "nan")
    ),
    *(
        (f"--lora --lora_alpha {x}", f"--lora_alpha {float(x)}: expected above 0")
        for x in ("0", "nan", "inf")
    ),
    ("--seed -1", "--seed -1: expected 0 to 4294967295"),
    ("--tasks sst sst", "--tasks names a task twice"),
    ("--batch_size 2", "--batch_size 2 is below the number of tasks"),
    ("--name a/b", "--name a/b: letters, digits, dot, dash and underscore only"),
    ("--name ''", "--name : letters, digits, dot, dash and underscore only"),
]


@pytest.mark.parametrize("line,message", VALUES + PAIRS)
def test_refused(line, message):
    with pytest.raises(UserError) as caught:
        flags(line)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "line",
    [
        "--max_length 3",
        "--max_length 512",
        "--warmup 0",
        "--clip 0",
        "--batch_size 3",
        "--tasks sst --batch_size 1",
        "--lora --lora_merge",
        "--swiglu all --swiglu_start random",
        "--head linear --rmsnorm encoder --swiglu encoder",
        "--lora --rmsnorm --swiglu",
        "--lora --rmsnorm all --swiglu all",
    ],
)
def test_allowed(line):
    assert isinstance(flags(line), Options)


def test_no_tasks():
    with pytest.raises(UserError, match="--tasks needs at least one task"):
        Options(tasks=()).check()


@pytest.mark.parametrize("name", CLOSED)
def test_a_choice_misspelt_in_python_is_refused(name):
    """As the parser does on the command line."""
    with pytest.raises(
        UserError, match=f"^--{name} True: expected one of {', '.join(get_args(HINTS[name]))}$"
    ):
        replace(Options(), **{name: True}).check()


def test_pick():
    assert pick({"a": 1}, "a", "--flag") == 1
    with pytest.raises(UserError, match="^--flag c: expected one of a, b$"):
        pick({"a": 1, "b": 2}, "c", "--flag")


def test_every_refusal_of_check_is_tested():
    """A refusal without a row above fails here."""
    source = (Path(__file__).parent.parent / "options.py").read_text(encoding="utf-8")
    refusals = (
        source.split("for refused, why in [")[1]
        .split("]:  # fmt: skip")[0]
        .count("\n            (")
    )
    kinds = {
        re.sub(r"(?<=--)(name|lora_alpha|sampling_exponent) [^ ]*:", r"\1:", message)
        for _, message in PAIRS
    }
    kinds = {re.sub(r"^--name :", "--name:", message) for message in kinds}
    assert refusals == len(kinds) + 1  # and "--tasks needs ..."
