"""Random combinations of options, drawn from their declarations, each trained, saved and resumed.

    python -m tests.combinations --count 200 --seed 1    so many combinations
    python -m tests.combinations --seed 1 --case 17      one, with its traceback

A case follows from its seed and number alone. Each option is at its default in 7 of 10 cases, so
that several are changed at once; a new option joins by its declaration. Where check() or build()
refuses a combination, its message must name the flags that meet there; one of them is dropped then,
until the rest is legal. What is legal

- reads the same from the command line;
- trains a few steps on a tiny model;
- is loaded as it was saved: the predictions are those of the run;
- ends with the same weights, bit for bit, where it is stopped after a step and resumed.

A combination that breaks one of these is printed as a command line.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import multitask_classifier
from adapters.kinds import merge_flag
from commandline.parser import TABLES
from declare import Names, PerTask, Rules, kind_of, rules_of
from errors import Interrupted, UserError
from evaluation import Evaluation, evaluate
from flags import parse
from multitask_bert import MultitaskBERT, build
from multitask_classifier import train
from options import Options
from storage.tensor_files import read_tensors
from tests.faults_bench import write_data, write_model
from tests.faults_child import innermost, scratch
from training.inputs import load_data
from training.run import Run

CHANGED = 0.3  # of the cases an option is changed in
MEETS_NEED = 0.9  # of the cases in which an option comes with the one that it needs

FIELDS: dict[str, "Field[Any]"] = {f.name: f for f in fields(Options)}

# What is never drawn: where things are, what is watched, and devices.
LEFT_OUT = {
    *("model", "resume", "data_dir", "files", "predictions", "runs_dir", "name", "tags"),
    *("use_gpu", "save_every", "keep_last", "log_every", "tensorboard", "train_scores", "test"),
    "word_tags_model",  # comes with word_tags
}

# Values of options whose declaration does not say which are legal, or whose legal ones would take
# long, diverge, or train nothing. "saved" is the folder of a saved model.
SAMPLES: dict[str, Sequence[Any]] = {
    "init": ("saved",),
    "option": ("pretrain",),
    "tasks": (("sst",), ("sts",), ("sst", "para"), ("sts", "sst"), ("sst", "para", "sts")),
    "lora_rank": (3, 16, 17),  # the encoder is 16 wide
    "lora_layers": ("0", "1,0", "first4", "last4", "7"),
    "pooling_layers": ("0", "0,1 sst=1", "first4", "7"),
    "lr": (1e-4, 2e-3),
    "epochs": (2,),
    "steps_per_epoch": (0, 2),
    "batch_size": (7, 3),
    "accumulation": (2, 3),
    "limit": (9,),
    "max_length": (3, 9, 70),
}


class Finding(Exception):
    """Something is wrong with a combination."""


@dataclass(frozen=True)
class Place:
    """What all cases start from: folders, the last of which may be missing."""

    model: Path
    data: Path
    saved: Path
    pipeline: Path | None = None  # of spaCy; None: no tags are drawn


def prepare(folder: Path) -> Place:
    """Write what all cases start from into a folder."""
    place = Place(folder / "model", folder / "data", folder / "saved", spacy_pipeline(folder))
    with contextlib.redirect_stdout(io.StringIO()):
        write_model(place.model)
        write_data(place.data)
        place.saved.mkdir()
        build(Options(model=str(place.model))).save(place.saved)
    return place


def spacy_pipeline(folder: Path) -> Path | None:
    """A pipeline that tags one word, where spaCy is there."""
    try:
        import spacy
    except ImportError:
        return None
    english = spacy.blank("en")
    rules = english.add_pipe("attribute_ruler")
    rules.add(patterns=[[{"LOWER": {"IN": ["the", "a", "is"]}}]], attrs={"POS": "DET"})
    english.to_disk(folder / "pipeline")
    return folder / "pipeline"


# ---- drawing


def numbers(kind: type, default: Any, rules: Rules) -> list[Any]:
    """Some legal numbers of an option, none of them its default; whole ones where `kind` is int."""
    low = max(rules.least, rules.above)
    around = [0, 0.25, 0.5, 1, 2, 3]
    if math.isfinite(low):
        around += [low, low + 1]
    if isinstance(default, int | float):
        around += [default / 2, default * 2]
    found = {kind(number) for number in around if kind is float or number == int(number)}
    return sorted(number for number in found if rules.holds(number) and number != default)


def words_of(f: "Field[Any]") -> list[str]:
    """The words that a value by task may consist of; none where nothing says which."""
    rules = rules_of(f)
    words = [*TABLES.get(f.name, ()), *rules.choices]
    if rules.number is not None:
        words += [str(number) for number in numbers(rules.number, None, rules)]
    if rules.several and len(words) > 1:
        words += [",".join(words[:2]), ",".join(reversed(words))]
    return words


def is_drawable(f: "Field[Any]") -> bool:
    """Whether an option's declaration, or SAMPLES, says which values are legal."""
    kind = kind_of(f)
    if f.name in SAMPLES or kind is bool:
        return True
    if kind in (int, float):
        return bool(numbers(kind, f.default, rules_of(f)))
    if kind is str or kind in (PerTask, Names):
        return bool(words_of(f))
    return False


def draw_value(f: "Field[Any]", rng: random.Random, tasks: Names) -> Any:
    """A legal value of an option; most of them are none of its default."""
    kind = kind_of(f)
    if f.name in SAMPLES:
        return rng.choice(SAMPLES[f.name])
    if kind is bool:
        return not f.default
    if kind in (int, float):
        return rng.choice(numbers(kind, f.default, rules_of(f)))
    words = words_of(f)
    if kind == Names:
        return tuple(rng.sample(words, rng.randint(1, len(words))))
    if kind is str:
        return rng.choice([word for word in words if word != f.default] or words)
    # By task: a word for all, and often another one for some task.
    some = rng.sample(tasks, rng.randint(0, len(tasks)))
    return " ".join([rng.choice(words), *(f"{task}={rng.choice(words)}" for task in some)])


def draw(rng: random.Random, place: Place) -> dict[str, Any]:
    """A combination: the options that are changed, and their values. It may be an illegal one."""
    tasks = Options.tasks
    if rng.random() < CHANGED:
        tasks = draw_value(FIELDS["tasks"], rng, tasks)
    given: dict[str, Any] = {"tasks": tasks}
    for name, f in FIELDS.items():
        if name not in LEFT_OUT and name != "tasks" and rng.random() < CHANGED:
            given[name] = draw_value(f, rng, tasks)

    # Most options come with what they need; a few do not, and must be refused.
    for name in list(given):
        rules = rules_of(FIELDS[name])
        if rules.needs and rng.random() < MEETS_NEED:
            add_needed(given, rules, rng, tasks)
    return completed(given, place)


def add_needed(given: dict[str, Any], rules: Rules, rng: random.Random, tasks: Names) -> None:
    """Turn on what an option needs, and what that needs itself."""
    needed = FIELDS[rules.needs]
    if rules.needs_value:
        given[needed.name] = rng.choice(rules.needs_value)
    elif needed.name not in given:
        given[needed.name] = draw_value(needed, rng, tasks)
    if rules_of(needed).needs:
        add_needed(given, rules_of(needed), rng, tasks)


def completed(given: dict[str, Any], place: Place) -> dict[str, Any]:
    """The combination with the folders that it takes."""
    if "init" in given:
        given["init"] = str(place.saved)
    if "word_tags" in given and place.pipeline is None:
        del given["word_tags"]
    elif "word_tags" in given:
        given["word_tags_model"] = str(place.pipeline)
    return given


# ---- what a combination must do


def as_options(given: Mapping[str, Any], place: Place) -> Options:
    """A combination on the tiny model: three steps, unless it says otherwise."""
    base: dict[str, Any] = {
        "model": "auto" if "init" in given else str(place.model),
        "data_dir": str(place.data),
        "epochs": 1,
        "steps_per_epoch": 3,
        "batch_size": 13,
        "precision": "fp32",
        "lr": 1e-3,
        "test": False,
        "keep_last": True,
        "log_every": 1,
        "save_every": 2,
    }
    return Options(**{**base, **given})


def words_typed(options: Options) -> list[str]:
    """The flags of options that are off their defaults."""
    typed = []
    for name, f in FIELDS.items():
        value = getattr(options, name)
        if value == f.default:
            continue
        if isinstance(value, bool):
            typed.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, PerTask):
            typed += [f"--{name}", *value.split()]
        elif isinstance(value, tuple):
            typed += [f"--{name}", *value]
        else:
            typed.append(f"--{name}={value}")
    return typed


def concerned(message: str, given: Mapping[str, Any]) -> list[str]:
    """The options of a combination that a refusal names.

    Finding where it does not say what meets: two flags, or one and what was expected of it.
    """
    named = {word.replace("-", "_") for word in re.findall(r"--(?:no-)?([a-z][\w-]*)", message)}
    known = named & set(FIELDS)
    changed = sorted(known & set(given))
    if not changed or "\n" in message:
        raise Finding(f"the refusal names no flag that was given: {message}")
    if len(known) < 2 and "expected" not in message:
        raise Finding(f"the refusal names one flag, and not what it needs: {message}")
    return changed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what a run says."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def first_run(options: Options) -> tuple[Path, list[Evaluation]]:
    """Train; the run's folder and its evaluations of dev. A UserError after a step is a Finding."""
    seen: list[Evaluation] = []
    steps: list[int] = []
    log = Run.log

    def recorded(*arguments: Any) -> Evaluation:
        seen.append(evaluate(*arguments))
        return seen[-1]

    def counted(self: Run, step: int, *rest: Any) -> None:
        steps.append(step)
        log(self, step, *rest)

    with (
        patch.object(multitask_classifier, "evaluate", recorded),
        patch.object(Run, "log", counted),
        quiet(),
    ):
        try:
            return Path(train(options)["folder"]), seen
        except UserError as error:
            if steps:
                raise Finding(f"refused after {len(steps)} steps: {error}") from error
            raise


def check_loaded(options: Options, folder: Path, seen: list[Evaluation]) -> None:
    """Finding where the best model that was saved predicts dev otherwise than the run did."""
    best = json.loads((folder / "run.json").read_text(encoding="utf-8"))["best"]["epoch"]
    with quiet():
        model = MultitaskBERT.load(folder)
        data, _ = load_data(replace(options, model=str(folder)), model)
        again = evaluate(model, data["dev"])

    # Merged weights are rounded otherwise.
    atol = 0.0
    if merge_flag(options):
        atol = 1e-4 if model.compute_dtype == torch.float32 else 0.1
    then = seen[best - 1]
    for name, was in {**then.predictions, **then.probabilities}.items():
        now = {**again.predictions, **again.probabilities}[name]
        if not np.allclose(now, was, rtol=0, atol=atol):
            far = np.abs(np.asarray(now) - np.asarray(was)).max()
            raise Finding(f"{name}: predictions of the loaded model differ by up to {far:.2g}")


def stopped(options: Options, steps: int) -> Path:
    """The folder of a run that Ctrl-C stopped after so many steps."""
    log = Run.log

    def interrupt(self: Run, step: int, *rest: Any) -> None:
        log(self, step, *rest)
        if step + 1 == steps:
            os.kill(os.getpid(), signal.SIGINT)

    with patch.object(Run, "log", interrupt), quiet():
        try:
            train(options)
        except Interrupted as stop:
            return Path(str(stop).split("--resume ")[1])
    raise Finding(f"it did not stop after step {steps}")


def check_resumed(options: Options, folder: Path, rng: random.Random) -> None:
    """Finding where a run that is stopped and resumed ends with other weights than a whole one."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    total = max(json.loads(line)["step"] for line in lines)
    if total < 2:  # nowhere to stop it
        return
    steps = rng.randint(1, min(2, total - 1))
    other = stopped(options, steps)
    with quiet():
        train(Options(resume=str(other)))
    whole = {path.name: read_tensors(path) for path in (folder / "last").glob("*.safetensors")}
    for file, tensors in whole.items():
        gone_on = read_tensors(other / "last" / file)
        wrong = [name for name in tensors if not same_bits(tensors[name], gone_on.get(name))]
        if wrong or set(tensors) != set(gone_on):
            raise Finding(f"resumed after step {steps} of {total}, {file} differs: {wrong[:3]}")


def same_bits(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Whether two tensors are equal bit for bit."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.numpy().tobytes() == other.numpy().tobytes()


# ---- cases


@dataclass
class Case:
    """A case: its combination, and what was refused on the way to a legal one."""

    given: dict[str, Any]
    refusals: list[str]
    options: Options | None = None

    def command(self) -> str:
        """What one would type."""
        typed = words_typed(self.options) if self.options else [str(self.given)]
        return shlex.join(["python", "multitask_classifier.py", *typed])


def run_case(case: Case, place: Place, rng: random.Random) -> None:
    """Do all that a combination must do, in the current folder; Finding where it does not."""
    while True:
        try:
            case.options = as_options(case.given, place).check()
            if parse(words_typed(case.options), "") != case.options:
                raise Finding("its command line gives other options")
            folder, seen = first_run(case.options)
            break
        except UserError as error:
            # One of the flags that meet is dropped.
            case.refusals.append(str(error))
            del case.given[rng.choice(concerned(str(error), case.given))]
    check_loaded(case.options, folder, seen)
    check_resumed(case.options, folder, rng)


def new_case(seed: int, number: int, place: Place) -> tuple[Case, random.Random]:
    """The case of a seed and a number, and what is random in it."""
    rng = random.Random(f"{seed} {number}")
    return Case(draw(rng, place), []), rng


def sweep(folder: Path, seed: int, count: int) -> int:
    """Run so many cases, print what is wrong; how many cases that was."""
    place = prepare(folder)
    bad = 0
    refusals: dict[str, int] = {}
    began = time.monotonic()
    for number in range(count):
        case, rng = new_case(seed, number, place)
        work = folder / "case"
        work.mkdir()
        os.chdir(work)
        try:
            run_case(case, place, rng)
        except Exception:
            bad += 1
            text = traceback.format_exc()
            problem = innermost(text) if "Finding" not in text else text.strip().splitlines()[-1]
            print(f"--seed {seed} --case {number}: {problem}\n    {case.command()}", flush=True)
        for message in case.refusals:
            kind = re.sub(r"[0-9.]+|/\S+", "_", message)[:60]
            refusals[kind] = refusals.get(kind, 0) + 1
        os.chdir(folder)
        shutil.rmtree(work)
    seconds = (time.monotonic() - began) / max(1, count)
    total = sum(refusals.values())
    print(f"seed {seed}: {count} combinations, {bad} bad, {seconds:.1f} s each")
    print(f"{total} refusals of {len(refusals)} kinds on the way")
    return bad


def main() -> None:
    """The command line; exit status 1 where a case went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--case", type=int, help="only this one, with its traceback")
    asked = parser.parse_args()

    # Cases stop themselves, even where this runs behind a `&`, which ignores Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = scratch()
    try:
        if asked.case is None:
            sys.exit(int(bool(sweep(folder, asked.seed, asked.count))))
        place = prepare(folder)
        os.chdir(folder)
        case, rng = new_case(asked.seed, asked.case, place)
        try:
            run_case(case, place, rng)
        finally:
            print(*case.refusals, case.command(), sep="\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
