"""The command line: spellings, aliases, hints, help, files of flags, replayed runs."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import classifier
import flags
from choices.chosen import SECTIONS
from choices.data import FILE_KINDS
from choices.run import WITHOUT_NETWORK
from commandline.parser import COURSE_MODES, TABLES, file_flags
from commandline.words import ALIASES, HINTS
from declare import Names, PerTask, kind_of, rules_of
from declare import shown as shown_value
from errors import UserError
from flags import overview, parse
from options import Options
from tasks import TASKS

ROOT = Path(__file__).parents[1]
FIELDS = {f.name: f for f in fields(Options)}
TYPED = [name for name in FIELDS if name != "files"]  # options that are one flag each


def typed(line: str) -> Options:
    """The options of a command line."""
    return parse(shlex.split(line), "test")


def refusal(line: str) -> str:
    """What is said of a command line."""
    with pytest.raises(UserError) as caught:
        typed(line)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shown(line: str, capsys: pytest.CaptureFixture) -> str:
    """What a command line with --help prints."""
    with pytest.raises(SystemExit) as end:
        parse(shlex.split(line), "What it does.")
    assert end.value.code == 0
    return capsys.readouterr().out


# Flags and options


def test_no_flags_are_the_defaults():
    assert typed("") == Options()


def another(name: str) -> tuple[str, Any]:
    """A legal value that is not the default, as it is typed and as it should arrive."""
    kind, rules = kind_of(FIELDS[name]), rules_of(FIELDS[name])
    if kind is bool:
        return "", True
    if kind is int:
        return "7", 7
    if kind is float:
        return "0.25", 0.25
    if kind == Names and rules.choices:
        return " ".join(reversed(rules.choices)), tuple(reversed(rules.choices))
    if kind == Names:
        return "sts sst", ("sts", "sst")
    if kind is PerTask:
        word = list(TABLES.get(name, rules.choices or "7"))[-1]
        if rules.number is not None:
            word = "0.25" if rules.number is float else str(min(7, rules.most))
        return f"sts={word}", f"{FIELDS[name].default} sts={word}"
    choices = rules.choices or tuple(TABLES.get(name, ()))
    value = choices[-1] if choices else "some/where"
    return value, value


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("dash", ["_", "-"])
def test_each_flag_sets_its_option(name, dash):
    words, value = another(name)
    given = flags.read_flags([f"--{name.replace('_', dash)}", *words.split()], "")
    arrived = getattr(Options(**given), name)
    assert (
        set(given) == {name}
        and arrived == value
        and arrived == getattr(Options(**{name: value}), name)
    )


@pytest.mark.parametrize("name", file_flags())
def test_each_file_has_a_flag(name):
    assert typed(f"--{name} 'a b.csv'") == Options(files={name: "a b.csv"})


def test_the_files_are_those_of_all_tasks():
    assert len(file_flags()) == len(TASKS) * len(FILE_KINDS)
    assert {"sst_train", "sts_test_out", "cfimdb_dev"} <= set(file_flags())


def test_booleans_are_turned_off():
    assert typed("--lora --no-lora") == typed("--no_lora") == Options()
    assert typed("--tensorboard --no_tensorboard").tensorboard is False
    assert typed("--no-use_gpu --no_use-gpu") == Options()


def test_values_behind_an_equals_sign():
    assert typed("--batch-size=7 --sampling_exponent=-1e-3").sampling_exponent == -1e-3


def test_smoke_stands_for_plain_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke = Options(limit=32, epochs=1, steps_per_epoch=3, name="smoke")
    assert typed("--smoke") == smoke
    assert typed("--epochs 2 --smoke --limit 5 --lora") == replace(
        smoke, epochs=2, limit=5, lora=True
    )
    # A run's own options would leave nothing of it.
    (tmp_path / "options.json").write_text(Options(lora=True, name="big").to_json())
    for words in ("@options.json --smoke", "--smoke @options.json"):
        assert typed(f"{words} --limit 5") == replace(smoke, limit=5, lora=True)
    assert refusal("--smoke=3").startswith("--smoke=3: takes no value; it stands for --limit")


@pytest.mark.parametrize("word", ["1_0", "1_0.5", "\u0663", "0x10", ""])
def test_numbers_are_plain(word):
    for flag, kind in (("epochs", "a whole number"), ("lr", "a number")):
        assert refusal(f"--{flag}='{word}'") == f"--{flag} {word}: expected {kind}"


def test_rmsnorm_and_swiglu_alone_mean_all():
    assert typed("--rmsnorm --swiglu") == Options(rmsnorm="all", swiglu="all")
    assert typed("--swiglu --epochs 2") == Options(swiglu="all", epochs=2)


@pytest.mark.parametrize("place", ["off", "heads", "encoder", "all"])
def test_rmsnorm_and_swiglu_somewhere(place):
    assert typed(f"--rmsnorm {place} --swiglu {place}") == Options(rmsnorm=place, swiglu=place)


def test_values_by_task():
    options = typed("--head mlp sts=linear --pooling sts=mean")
    assert options == Options(head="mlp sts=linear", pooling="cls sts=mean")


# Tables


def test_defaults_are_in_their_tables():
    for name, table in TABLES.items():
        default = FIELDS[name].default
        values = default.values() if isinstance(default, PerTask) else default
        assert set([values] if isinstance(values, str) else values) <= set(table), name


def test_no_choice_is_written_twice():
    assert not [name for name in TABLES if rules_of(FIELDS[name]).choices]


@pytest.mark.parametrize("name", TABLES)
def test_a_newcomer_in_a_table_is_a_choice(name, monkeypatch, capsys):
    monkeypatch.setitem(TABLES[name], "newcomer", TASKS["sst"])
    given = flags.read_flags([f"--{name}", "newcomer"], "")
    assert given[name] in ("newcomer", ("newcomer",))
    (section,) = [s for s in SECTIONS if name in {f.name for f in fields(SECTIONS[s])}]
    assert "newcomer" in shown(f"--help {section}", capsys)


def test_course_modes_are_options():
    trained = set(rules_of(FIELDS["option"]).choices) - {"test", *WITHOUT_NETWORK}
    assert set(COURSE_MODES.values()) == trained


# Other spellings


@pytest.mark.parametrize(
    "line, same",
    [
        ("--use_amp", "--precision auto"),
        ("--no_use_amp", "--precision fp32"),
        ("--scheduler cosine", "--schedule cosine"),
        ("--task_scheduler round_robin", "--sampler round_robin"),
        ("--model_name some/where", "--model some/where"),
        ("--dora", "--lora --lora_type dora"),
    ],
)
@pytest.mark.parametrize("dash", ["_", "-"])
def test_aliases(line, same, dash):
    alias, *value = line.split()
    spelled = "--" + alias[2:].replace("_", dash)
    assert typed(" ".join([spelled, *value])) == typed("=".join([spelled, *value])) == typed(same)


def test_an_alias_is_no_flag_or_hint():
    assert not set(ALIASES) & {*FIELDS, *file_flags(), *HINTS}


@pytest.mark.parametrize(
    "mode, option", [("last-linear-layer", "pretrain"), ("full-model", "finetune")]
)
def test_fine_tune_mode(mode, option):
    assert typed(f"--fine-tune-mode {mode}") == typed(f"--fine_tune_mode {mode}")
    assert typed(f"--fine-tune-mode {mode} --option {option}").option == option


def test_fine_tune_mode_against_option():
    message = refusal("--fine-tune-mode full-model --option pretrain")
    assert message == "--fine-tune-mode full-model means --option finetune, not pretrain: drop one"


# Hints


@pytest.mark.parametrize(
    "line, message",
    [
        ("--learning_rate 1e-3", "--learning_rate: no such flag; did you mean --lr?"),
        ("--num-epochs 3", "--num_epochs: no such flag; did you mean --epochs?"),
        ("--bs=8", "--bs: no such flag; did you mean --batch_size?"),
        ("-r 8", "-r: no such flag; did you mean --lora_rank?"),
        ("--batch_sise 3", "--batch_sise: no such flag; did you mean --batch_size?"),
        ("--sst_trian x", "--sst_trian: no such flag; did you mean --sst_train?"),
        ("--no-lorra", "--no-lorra: no such flag; did you mean --lora?"),
        ("--xyzzy", "--xyzzy: no such flag; --help lists the flags"),
        ("--files x", "--files: no such flag; "),
        ("--epo 3", "--epo: no such flag; did you mean --epochs?"),
        ("stray", "stray: no flag, and no flag's value; --help lists the flags"),
    ],
)
def test_unknown_flags(line, message):
    assert refusal(line).startswith(message)


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_names_a_flag_and_is_none(name):
    assert HINTS[name] in TYPED and name not in FIELDS
    assert refusal(f"--{name} 1") == f"--{name}: no such flag; did you mean --{HINTS[name]}?"


# What the parser refuses


@pytest.mark.parametrize(
    "line, message",
    [
        ("--epochs two", "--epochs two: expected a whole number"),
        ("--epochs 1_0", "--epochs 1_0: expected a whole number"),
        ("--epochs \u0663", "--epochs \u0663: expected a whole number"),
        ("--lr fast", "--lr fast: expected a number"),
        ("--head nonesuch", "--head nonesuch: expected one of mlp, linear"),
        (
            "--head mlp sts=nonesuch",
            "--head sts=nonesuch: expected one of mlp, linear",
        ),
        ("--head sts=mlp=linear", "--head sts=mlp=linear: expected one of mlp, linear"),
        ("--head mlp linear", '--head "mlp linear": expected a name, TASK=NAME or both'),
        ("--sampler nonesuch", "--sampler nonesuch: expected one of mixed, round_robin"),
        ("--rmsnorm everywhere", "--rmsnorm everywhere: expected one of off, heads, encoder, all"),
        ("--tasks sst cola", "--tasks cola: expected one of sst, para, sts, cfimdb"),
        ("--tasks", "--tasks: expected a value"),
        (
            "--fine-tune-mode all",
            "--fine-tune-mode all: expected one of last-linear-layer",
        ),
        ("--lora=yes", "--lora: takes no value; --no-lora turns it off"),
        ("--batch_size 0", "--batch_size 0: expected 1 to 65536"),
        ("--lora_rank 4", "--lora_rank 4 needs --lora"),
        ("--model ''", "--model '': expected a text; is a variable of the shell unset?"),
        ("--name=", "--name '': expected a text; is a variable of the shell unset?"),
        ("--resume ''", ".: no options.json in it; expected a run folder"),
        ("--sst_train ''", "--sst_train '': expected a text; is a variable of the shell unset?"),
        ("--tasks ''", "--tasks : expected one of sst"),
        ("--model -x", "--model: expected a value; one that begins with - is typed --model=VALUE"),
        ("--data_dir \0", "--data_dir \\x00: a NUL character, which no name can have"),
        ("--sts_dev \udcff", "--sts_dev \\udcff: not UTF-8; rename the file or folder"),
        ("\0", "\\x00: no flag, and no flag's value"),
        ("--\udcff", "--\\udcff: no such flag"),
        ("--epochs " + "9" * 9999, "--epochs 99"),
        ("''", ": no flag, and no flag's value"),
        ("-", "-: no such flag"),
    ],
    ids=lambda x: shown_value(x),
)
def test_what_is_refused(line, message):
    assert refusal(line).startswith(message)


@pytest.mark.parametrize(
    "line, message",
    [
        ("--tasks quora", "--tasks quora: {}; did you mean para?"),
        ("--tasks SST", "--tasks SST: {}; did you mean sst?"),
        ("--tasks sst,sts", "--tasks sst,sts: {}; blanks separate values, not commas"),
        ("--smok", "--smok: no such flag; did you mean --smoke?"),
        ("--use_gpu false", "--use_gpu: takes no value; --no-use_gpu turns it off"),
        ("false --use_gpu", "false: no flag, and no flag's value; --help lists the flags"),
        ("--lr", "--lr: expected a value"),
        ("--lr --lora", "--lr: expected a value"),
    ],
)
def test_what_is_advised(line, message):
    assert refusal(line) == message.format(f"expected one of {', '.join(TASKS)}")


# Help


def test_the_overview_has_every_flag_once(capsys):
    words = re.findall(r"^  --(\w+)", shown("--help", capsys), re.M)
    assert sorted(words) == sorted([*TYPED, "TASK_KIND"])


def test_the_overview_shows_defaults(capsys):
    text = shown("-h", capsys)
    assert re.search(r"^  --batch_size .* \[96\]$", text, re.M)
    assert re.search(r"^  --lora .* \[off\]$", text, re.M)


def test_the_overview_begins_with_the_description():
    assert overview("What it\ndoes, in " + "many words " * 20).startswith("What it does, in many")


def test_the_overview_names_aliases_and_sections():
    lines = overview("").splitlines()
    aliases = " ".join(f"--{alias}" for alias in ALIASES)
    assert f" also taken: {aliases} " in " ".join(" ".join(lines).split())
    assert [line for line in lines if all(section in line for section in SECTIONS)]


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_the_help_is_80_columns_wide(section, capsys):
    text = shown(f"--help {section}", capsys)
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_s_help_is_whole(section, capsys):
    text = shown(f"--help {section}", capsys)
    words = " ".join(text.split())
    names = re.findall(r"^  --(\w+)", text, re.M)
    own = [f for f in fields(SECTIONS[section]) if f.name != "files"]
    assert {f.name for f in own} == set(names) - set(file_flags()) - {"fine_tune_mode"}
    assert not [f.name for f in own if rules_of(f).help not in words]


def test_a_section_s_help_says_ranges_needs_and_choices(capsys):
    assert "1 to 4096; needs --lora [8]" in shown("--help adapter", capsys)
    assert "needs --sampler mixed [0.5]" in " ".join(shown("--help=sampling", capsys).split())
    assert "names: cls, mean, max, pooler, attention, cls_layers, layer_mix [cls]" in " ".join(
        shown("--help head", capsys).split()
    )
    assert "--precision {auto,fp32,bf16,fp16}" in shown("--help run", capsys)


def test_all_files_are_in_the_data_section(capsys):
    names = re.findall(r"^  --(\w+)", shown("--help data", capsys), re.M)
    assert set(file_flags()) < set(names)


def test_help_behind_and_before_other_flags(capsys):
    whole = shown("--help", capsys)
    assert shown("--lora --help", capsys) == shown("--help --nonesuch", capsys) == whole
    assert shown("--help --lora", capsys) == shown("--help lora", capsys) != whole


@pytest.mark.parametrize("name", TYPED)
def test_the_help_of_one_option(name, capsys):
    """By any spelling, unless a section has its name."""
    if name in SECTIONS:
        return
    text = shown(f"--help {name.replace('_', '-')}", capsys)
    names = set(re.findall(r"^  --(\w+)", text, re.M))
    assert names == {name, "fine_tune_mode"} if name == "option" else names == {name}
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("typed_name", "flag"),
    [("scheduler", "schedule"), ("wd", "weight_decay"), ("sts_dev", "cfimdb_test_out")],
)
def test_the_help_of_an_option_by_another_name(typed_name, flag, capsys):
    assert f"  --{flag} " in shown(f"--help {typed_name}", capsys)


def test_the_help_of_what_is_not_there():
    near = "--help optimiser: no such section or option; did you mean --help optimizer?"
    assert refusal("--help optimiser") == near
    assert refusal("--help xyz").startswith("--help xyz: no such section or option; sections: mod")


def test_a_default_that_depends_on_the_model_is_shown(capsys):
    assert "  --lr                      learning rate [5e-5 for bert-base]\n" in shown("-h", capsys)


@pytest.mark.parametrize(
    ("name", "bracket"),
    [
        ("model", "auto: bert-base, else MiniLM"),
        ("steps_per_epoch", "until a task is through"),
        ("limit", "all"),
        ("patience", "never"),
        ("precision", "auto: bf16 if supported"),
    ],
)
def test_a_default_that_says_nothing_by_itself_is_shown_in_words(name, bracket, capsys):
    assert re.search(rf"^  --{name} .* \[{bracket}\]$", shown("--help", capsys), re.M)
    text = " ".join(shown(f"--help {name}", capsys).split())
    assert f"[{bracket}]" in text


def test_no_default_is_shown_as_a_zero_or_as_auto(capsys):
    assert not re.findall(r"\[(?:0|auto)\]", shown("--help", capsys))


def test_a_script_shows_its_own_defaults(capsys):
    for topic in ("", "batch_size"):
        with pytest.raises(SystemExit):
            classifier.main(["--help", *topic.split()])
        text = capsys.readouterr().out
        assert "[96, of cfimdb 8]" in " ".join(text.split())
        assert max(len(line) for line in text.splitlines()) <= 80


def test_what_classifier_says_of_its_defaults_is_so():
    runs = [classifier.options_for(task, Options(), {}) for task in classifier.SETTINGS]
    for name in ("batch_size", "max_length"):
        sst, cfimdb = (getattr(run, name) for run in runs)
        assert classifier.DEFAULTS[name] == f"{sst}, of cfimdb {cfimdb}"
    shown_path = classifier.DEFAULTS["predictions"].replace("OPTION", "finetune")
    assert {run.predictions for run in runs} == {shown_path}


def test_the_help_waits_for_torch_alone():
    """Not for scikit-learn and SciPy, which took half as long to import again."""
    code = "import sys, classifier, multitask_classifier; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    modules = set(done.stdout.split())
    assert {"torch", "flags", "evaluation", "course.evaluation"} <= modules
    assert not {"sklearn", "scipy", "pandas", "matplotlib", "huggingface_hub"} & modules


# Files of flags


def test_a_file_of_flags(tmp_path):
    text = "# LoRA, small\n--lora --lora-rank 4  # r\n\n--tasks sst sts\n--scheduler cosine\n"
    (tmp_path / "some.txt").write_text(text + '--sst_dev "a b.csv"\n', encoding="utf-8")
    expected = Options(
        lora=True,
        lora_rank=4,
        tasks=("sst", "sts"),
        schedule="cosine",
        files={"sst_dev": "a b.csv"},
    )
    assert typed(f"@{tmp_path}/some.txt") == expected


def test_a_later_flag_wins_over_a_file_s(tmp_path):
    (tmp_path / "some.txt").write_text("--epochs 4 --seed 1", encoding="utf-8")
    assert typed(f"--seed 2 @{tmp_path}/some.txt --epochs 5") == Options(seed=1, epochs=5)


def test_a_file_of_flags_in_another(tmp_path):
    (tmp_path / "inner").write_text("--epochs 4", encoding="utf-8")
    (tmp_path / "outer").write_text(f"--seed 1 @{tmp_path}/inner", encoding="utf-8")
    assert typed(f"@{tmp_path}/outer") == Options(seed=1, epochs=4)


READS = "@ reads flags from a file; "


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff\xfe\x00", READS + r"flags:1: not UTF-8 \(byte 0xff\); save the file as UTF-8"),
        (b"--seed 1\n--name \0", READS + r"flags:2: a NUL character, expected text; .*"),
        (b"--name 'a", r"@flags: can't be read as flags \(No closing quotation\)"),
        (b"@flags", "@flags: the file reads itself"),
        (b"--lora @./other/../flags", "@./other/../flags: the file reads itself"),
        (b"@other/link", "@other/link: the file reads itself"),
        (b"@other/hard", "@other/hard: the file reads itself"),
        (b"@other/back", "@flags: the file reads itself"),
        (b"--seed " + b"1" * 2**20, READS + r"flags: over 1 MiB; not such a file\?"),
        (b"@other/empty\n" * 10_000, "@other/empty: over 10000 words; no command line is .*"),
        (b"@twice.0", "--lora: over 10000 words; no command line is that long"),
    ],
    ids=lambda x: shown_value(x),
)
def test_a_bad_file_of_flags(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags").write_bytes(content)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/link").symlink_to(tmp_path / "flags")
    os.link(tmp_path / "flags", tmp_path / "other/hard")
    (tmp_path / "other/back").write_text("@flags")
    (tmp_path / "other/empty").write_text("")
    # Each names the next one twice: 2 to the 40th words.
    for n in range(40):
        (tmp_path / f"twice.{n}").write_text(f"@twice.{n + 1} " * 2)
    (tmp_path / "twice.40").write_text("--lora")
    assert re.fullmatch(message, refusal("@flags"))


def test_a_long_chain_of_files_of_flags(tmp_path, monkeypatch):
    """Longer than Python's stack is deep."""
    monkeypatch.chdir(tmp_path)
    for n in range(1500):
        (tmp_path / f"{n}").write_text(f"@{n + 1}")
    (tmp_path / "1500").write_text("--seed 3")
    assert typed("@0") == Options(seed=3)


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere.txt", "nowhere.txt: No such file or directory; check the path"),
        ("nowhere.json", "nowhere.json: No such file or directory; check the path"),
        ("", ".: a folder, expected a file"),
        (".", ".: a folder, expected a file"),
        ("/dev/zero", "/dev/zero: a pipe or a device, .*"),
        ("pipe", "pipe: a pipe or a device, .*"),
        ("pipe.json", "pipe.json: a pipe or a device, .*"),
        ("a\0b", r"a\\x00b: no path; .*"),
        ("\ud800", r"\\ud800: no path; .*"),
        ("x" * 300, "x* ... x*: File name too long; check the path"),
    ],
    ids=lambda x: shown_value(x),
)
def test_no_file_of_flags(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError) as caught:
        parse([f"@{name}"], "")
    assert re.fullmatch(READS + message, str(caught.value))


# Replaying a run

RUN = Options(
    model="-odd name",
    lora=True,
    lora_rank=3,
    lr=1e-7,
    sampling_exponent=-1e-3,
    rmsnorm="heads",
    tasks=("sts", "sst"),
    head="mlp sts=linear",
    files={"sst_train": "a b.csv", "cfimdb_dev_out": "c.csv"},
    name="-x",
    resume="runs/before",
)


def test_a_run_is_replayed(tmp_path):
    (tmp_path / "options.json").write_text(RUN.to_json(), encoding="utf-8")
    assert typed(f"@{tmp_path}/options.json") == replace(RUN, resume=None)


def test_later_flags_win_over_a_replayed_run(tmp_path):
    (tmp_path / "options.json").write_text(RUN.to_json(), encoding="utf-8")
    options = typed(f"--seed 5 @{tmp_path}/options.json --no-lora --lora_rank 8 --sst_train d")
    files = {"sst_train": "d", "cfimdb_dev_out": "c.csv"}
    assert options == replace(RUN, lora=False, lora_rank=8, files=files, resume=None)


def test_what_a_replayed_run_does_not_say_is_left_alone(tmp_path):
    (tmp_path / "some.json").write_text('{"seed": 3}', encoding="utf-8")
    assert typed(f"--epochs 5 @{tmp_path}/some.json") == Options(seed=3, epochs=5)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"epochs": "three"}, ": --epochs 'three': expected a whole number"),
        ({"epoch": 3}, " holds unknown options: epoch"),
        ([], ": expected an object of options and their values"),
        ({"tasks": ["sst", "--lora"]}, "--tasks --lora: expected one of sst, para, sts, cfimdb"),
        ({"tags": ["sst", "--lora"]}, "--tags --lora: expected a value"),
        ({"head": "mlp --pooling=mean"}, "--head --pooling=mean: expected one of mlp, linear"),
        ({"tasks": ["@flags"]}, "--tasks @flags: expected one of sst, para, sts, cfimdb"),
        ({"files": {"seed": "5"}}, "files: seed is unknown; expected one of sst, para, .*"),
    ],
)
def test_a_damaged_run_is_refused(value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.json").write_text(json.dumps(value), encoding="utf-8")
    assert re.fullmatch(rf"(@options\.json)?{message}", refusal("@options.json"))


def test_a_run_with_a_file_of_an_unknown_task(tmp_path):
    (tmp_path / "options.json").write_text('{"files": {"cola_train": "a"}}', encoding="utf-8")
    assert refusal(f"@{tmp_path}/options.json").startswith("files: cola_train is unknown")


# Anything at all

NAMES = [*FIELDS, *file_flags(), *HINTS, *ALIASES]
PIECES = [
    *["", "-", "--", "=", "a=b=c", "@", "@.", "@/dev/zero", "@pipe", "@nowhere", "-h", "--help=x"],
    *["\0", "\udcff", "\ud800", "\x1b[2J", "\n", "%s", "%(prog)s", "{", "{task:>999999999}", "é"],
    *["0", "-1", "3", "nan", "inf", "1e309", "9" * 400, "9" * 5000, "x" * 300, "null", "[" * 2000],
    *["sst", "sts=linear", "mlp", "mean", "all", "auto", "fp8", "a/b", "..", "1,2", "true", '"'],
]


def any_words(draw: random.Random) -> list[str]:
    """A command line of flags, values and rubbish."""
    words = []
    for _ in range(draw.randrange(1, 6)):
        flag = draw.choice(["--", "--no-", "-", ""]) + draw.choice(NAMES)
        value = draw.choice(PIECES)
        words.append(draw.choice([flag, value, f"{flag}={value}"]))
    return words


def any_json(draw: random.Random) -> str:
    """A run's options with values exchanged, or the text damaged."""
    values = RUN.to_dict()
    for _ in range(draw.randrange(3)):
        other = draw.choice([draw.choice(PIECES), None, True, 3, -0.5, float("nan"), [3], {"a": 1}])
        values[draw.choice(list(values))] = other
    text = json.dumps(values)
    place = draw.randrange(len(text))
    damaged = [text[:place], text[:place] + draw.choice(PIECES) + text[place + 1 :]]
    return draw.choice([text, text, *damaged])


@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_options_help_or_one_line(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    draw = random.Random(seed)
    endings = Counter()
    for _ in range(150):
        (tmp_path / "some.json").write_bytes(any_json(draw).encode("utf-8", "surrogatepass"))
        for words in (any_words(draw), ["@some.json"], [*any_words(draw), "@some.json"]):
            try:
                parse(words, "test").to_json().encode()
                endings["options"] += 1
            except UserError as error:
                assert len(str(error)) <= 300 and str(error).isprintable()
                endings["error"] += 1
            except SystemExit as end:
                assert end.code == 0
                endings["help"] += 1
    # Help is what few words ask for: once in a hundred, or not at all.
    assert endings["options"] > 10 and endings["error"] > 100, endings
