"""A technique is its own file and two lines: without them the default run works, with them it runs.

In a copy of the project the file is deleted, and from one other file the import and the entry of a
table; or a new file is written, and its import and entry into the file that holds the table.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# The deleted file, the file that names it, its import and its entry there.
TECHNIQUES = {
    "lora.py": ("adapters/kinds.py", "import lora", '    "lora": lora.ADAPTER,'),
    "rmsnorm.py": ("bert.py", "from rmsnorm import RMSNorm", '    "rmsnorm": RMSNorm,'),
    "swiglu.py": ("bert.py", "from swiglu import SWIGLU", '    "swiglu": SWIGLU,'),
}


def python_files(folder: Path) -> dict[str, str]:
    """All modules of the project in `folder`, tests left out: name -> text. Hidden folders and
    virtual environments are not the project's.
    """
    paths = list(folder.glob("*.py"))
    for below in folder.iterdir():
        own = below.is_dir() and not below.name.startswith(".") and below.name != "tests"
        if own and not (below / "pyvenv.cfg").exists():
            paths += below.rglob("*.py")
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(paths)
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's modules and the built-in corpus, in a folder of their own."""
    folder = tmp_path / "copy"
    for name, text in python_files(PROJECT).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(PROJECT / "data" / "builtin", folder / "data" / "builtin")
    return folder


def run(
    folder: Path, tiny: Path, small_data: Path, *more: str
) -> "subprocess.CompletedProcess[str]":
    """The default run, of one step, in the folder and on its modules only."""
    command = [sys.executable, "multitask_classifier.py", "--model", str(tiny)]
    command += ["--data_dir", str(small_data), "--steps_per_epoch", "1", "--epochs", "1", *more]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def without_line(path: Path, line: str) -> None:
    """Delete the one line that reads so."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines.count(line) == 1, f"{path.name}: expected once: {line}"
    lines.remove(line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def imports(text: str) -> set[str]:
    """The modules that a file imports anywhere in it, by their first names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_only_one_module_names_it(technique: str):
    module, (owner, _, _) = technique.removesuffix(".py"), TECHNIQUES[technique]
    naming = {name for name, text in python_files(PROJECT).items() if module in imports(text)}
    assert naming == {owner}


@pytest.mark.slow
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_without_a_technique_the_default_run_works(
    technique: str, copy: Path, tiny: Path, small_data: Path
):
    owner, imported, entry = TECHNIQUES[technique]
    before = python_files(copy)
    (copy / technique).unlink()

    # Without the edit nothing works.
    broken = run(copy, tiny, small_data)
    assert broken.returncode == 1
    assert f"No module named '{technique.removesuffix('.py')}'" in broken.stderr

    # With it the run goes through, and writes all its predictions.
    without_line(copy / owner, imported)
    without_line(copy / owner, entry)
    done = run(copy, tiny, small_data)
    assert done.returncode == 0, done.stderr
    assert "best epoch 1" in done.stdout
    assert len(list((copy / "predictions").glob("*.csv"))) == 6

    # Nothing else was edited: the file is gone, and two lines.
    after = python_files(copy)
    assert set(before) - set(after) == {technique} and set(after) <= set(before)
    changed = [name for name in after if after[name] != before[name]]
    assert changed == [owner]
    gone = before[owner].splitlines()
    gone.remove(imported)
    gone.remove(entry)
    assert after[owner].splitlines() == gone


# A new technique for each table: its file, its text, the table's file, the import, a line of the
# table, and the entry that follows it.
BASE_HEAD = (
    "from heads.base import HeadConfig\nfrom heads.mlp import MLPHead\n\nPlanted = MLPHead\n"
)
POOLING = """from forward import Encoded
from heads.base import Pooling


class Planted(Pooling):
    def forward(self, encoded: Encoded):
        return encoded.tokens()[0].amax(1)
"""
SAMPLER = """from training.draws import Draw, step_size


def planted(sizes, options) -> Draw:
    return lambda step, progress: {"sts": step_size(options)}
"""
SCHEDULE = """from training.warmup import Schedule, warmed_up


def planted(total_steps, warmup_steps) -> Schedule:
    return warmed_up(lambda step: 0.5, total_steps, warmup_steps)
"""
COMBINER = """from training.gradients import Combiner, Gradients


class Planted(Combiner):
    def combine(self, gradients: Gradients):
        return gradients.values.mean(0)


def planted(options):
    return Planted()
"""
HOOK = """from training.hook import Hook


class Planted(Hook):
    def after_step(self, step):
        print("planted hook", step)


def planted(model, options):
    return Planted()
"""
OPTIMIZER = """from optimizer import AdamW


def planted(groups, options):
    return AdamW(groups, eps=1e-3)
"""
ADAPTER = """from adapters.wrap import Adapter

ADAPTER = Adapter("planted", lambda model, options: print("planted adapter"), rate_factor=3.0)
"""
ADAPTER_OPTION = """    planted: str = declare("off", "planted", choices=("off", "on"))
    planted_size: int = declare(3, "planted", least=1, most=9, needs="planted", needs_value=("on",))
"""
PIPELINE = "heads/pipeline.py"
PLANTED = [
    (
        "heads/new_head.py",
        BASE_HEAD,
        PIPELINE,
        "from heads.new_head import Planted as Head",
        '    "mlp": MLPHead,',
        '    "planted": Head,',
    ),
    (
        "heads/new_pooling.py",
        POOLING,
        PIPELINE,
        "from heads.new_pooling import Planted as Pool",
        '    "cls": ClsPooling,',
        '    "planted": Pool,',
    ),
    (
        "training/new_sampler.py",
        SAMPLER,
        "training/samplers.py",
        "from training.new_sampler import planted",
        '    "mixed": mixed,',
        '    "planted": planted,',
    ),
    (
        "training/new_schedule.py",
        SCHEDULE,
        "training/schedules.py",
        "from training.new_schedule import planted",
        '    "linear": linear,',
        '    "planted": planted,',
    ),
    (
        "training/new_combiner.py",
        COMBINER,
        "training/surgery.py",
        "from training.new_combiner import planted",
        '    "sum": plain_sum,',
        '    "planted": planted,',
    ),
    (
        "training/new_optimizer.py",
        OPTIMIZER,
        "training/optimizers.py",
        "from training.new_optimizer import planted",
        '    "adamw": adamw,',
        '    "planted": planted,',
    ),
    (
        "training/new_hook.py",
        HOOK,
        "training/hooks.py",
        "from training.new_hook import planted",
        "    # name: maker",
        '    "planted": planted,',
    ),
    NEW_ADAPTER := (
        "adapters/new.py",
        ADAPTER,
        "adapters/kinds.py",
        "from adapters import new",
        '    "lora": lora.ADAPTER,',
        '    "planted": new.ADAPTER,',
    ),
]


def plant(copy: Path, file: str, text: str, table: str, line: str, anchor: str, entry: str) -> None:
    """Write a technique's file, its import and its entry."""
    (copy / file).write_text(text, encoding="utf-8")
    held = (copy / table).read_text(encoding="utf-8")
    assert held.count(anchor) == 1, f"{table}: expected once: {anchor}"
    held = held.replace(anchor, f"{anchor}\n{entry}")
    first = held.index("\nfrom ")
    (copy / table).write_text(held[:first] + f"\n{line}" + held[first:], encoding="utf-8")


def plant_option(copy: Path) -> None:
    """Declare the new adapter's options, before those of LoRA."""
    held = (copy / "choices/adapter.py").read_text(encoding="utf-8")
    before, lora, after = held.partition("    lora: bool")
    (copy / "choices/adapter.py").write_text(
        before + ADAPTER_OPTION + lora + after, encoding="utf-8"
    )


def test_a_new_technique_is_a_file_and_two_lines(copy: Path, tiny: Path, small_data: Path) -> None:
    for technique in PLANTED:
        plant(copy, *technique)
    plant_option(copy)
    flags = ["--head", "mlp", "sst=planted", "--pooling", "planted", "sts=mean"]
    flags += ["--planted", "on", "--planted_size", "4"]
    for name in ("sampler", "schedule", "combiner", "optimizer"):
        flags += [f"--{name}", "planted"]
    done = run(copy, tiny, small_data, *flags)
    assert done.returncode == 0, done.stderr
    assert "planted hook 0" in done.stdout and "planted adapter" in done.stdout


CHECK_ADAPTER = """
from dataclasses import replace
from multitask_bert import build
from options import Options
from training.rates import peak_rate

on = Options(planted="on")
afresh = {"swiglu": "encoder", "swiglu_start": "random"}
for options in (replace(on, option="pretrain"), replace(on, **afresh)):
    try:
        options.check()
    except Exception as error:
        print(error)
try:
    build(replace(on, lora=True).check())
except Exception as error:
    print(error)
print(peak_rate(on, 768) / peak_rate(Options(), 768))
"""


def test_a_new_adapter_joins_the_checks(copy: Path) -> None:
    """Those of options, of two adapters at once and of the learning rate, without an edit there."""
    plant(copy, *NEW_ADAPTER)
    plant_option(copy)
    command = [sys.executable, "-c", CHECK_ADAPTER]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "--planted trains the encoder, --option pretrain freezes it: drop one",
        "--swiglu_start random starts layers afresh, which --planted keeps frozen: drop one",
        "--lora and --planted are two adapters, one is allowed: drop one",
        "3.0",
    ]
