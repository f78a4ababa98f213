"""Damaged files of runs, models, caches and outputs: each is refused in one line, or makes no
difference.

A case damages one file and lets the command line, or MultitaskBERT.load, read it. A damaged run may
go on from an older checkpoint, but must then end with the undisturbed run's bytes.
"""

import copy
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from errors import UserError
from multitask_bert import MultitaskBERT
from tests.faults_bench import STEPS, Bench, Case, at_each_step, results
from tests.faults_child import Ending, command, run

RUN = "runs/x"  # in a case's folder
SAMPLE = 70  # cases of a sweep in the test suite
FLIPS = 4  # of a file, at random places

# ---- damage

Damage = Callable[[Path, random.Random], object]


def cut(path: Path, rng: random.Random) -> None:
    """Keep the first half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def flip_early(path: Path, rng: random.Random) -> None:
    """Flip one bit of the first 200 bytes: a header, as a rule."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(min(200, len(content)))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def pipe(path: Path, rng: random.Random) -> None:
    """A pipe that nobody writes into."""
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, rng: random.Random) -> None:
    """A folder of the file's name."""
    path.unlink()
    path.mkdir()


def dangle(path: Path, rng: random.Random) -> None:
    """A link to nothing."""
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: dict[str, Damage] = {
    "emptied": lambda path, rng: path.write_bytes(b""),
    "halved": cut,
    "longer": lambda path, rng: path.write_bytes(path.read_bytes() + b"\0" * 9),
    **{f"flipped bit {number}": flip for number in range(FLIPS)},
    **{f"flipped early bit {number}": flip_early for number in range(FLIPS)},
    "deleted": lambda path, rng: path.unlink(),
    "a pipe": pipe,
    "a folder": folder,
    "a dangling link": dangle,
}

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 10**9, 2**70, float("inf"), float("nan")),
    *("", "x", "\x1b[31m\n", [], ["x"], {}, {"x": 1}, [[1, 2, 3]]),
)
TEXTS = ("null", "[]", '"x"', "{}", "[" * 100_000, "\ufeff{}", '{"a": 1, "a": 2}')


def another(value: Any) -> Any:
    """A value of the same type that is legal as a rule."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return value[1:]
    return {name: another(x) for name, x in value.items()} if isinstance(value, dict) else 1


def json_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Wrong types for each field, of the first two levels, and for the whole."""

    def put(text: str) -> Damage:
        return lambda path, rng: path.write_text(text, encoding="utf-8")

    for text in TEXTS:
        yield f"is {text[:12]}", put(text)
    whole = json.loads(path.read_text(encoding="utf-8"))
    places: list[tuple[str, ...]] = [(name,) for name in whole]
    for name, value in whole.items():
        if isinstance(value, dict):
            places += [(name, inner) for inner in list(value)[:12]]
    for place in places:
        for value in ("missing", "another", *WRONG):
            changed = copy.deepcopy(whole)
            holder = changed if len(place) == 1 else changed[place[0]]
            if value == "missing":
                del holder[place[-1]]
            elif value == "another":
                holder[place[-1]] = another(holder[place[-1]])
            else:
                holder[place[-1]] = value
            yield f"{'.'.join(place)}: {json.dumps(value)}", put(json.dumps(changed))


def damages_of(path: Path) -> Iterator[tuple[str, Damage]]:
    """Every damage for a file."""
    yield from DAMAGES.items()
    if path.suffix == ".json":
        yield from json_damages(path)


def sampled(cases: list[Case], seed: int, everything: bool) -> list[Case]:
    """All cases, or as many as the test suite has time for."""
    return cases if everything else random.Random(seed).sample(cases, min(SAMPLE, len(cases)))


def verdict(ending: Ending, *codes: int) -> list[str]:
    """What is wrong with an ending, as a list."""
    return [problem] if (problem := ending.problem(*codes)) else []


# ---- run folders


def stopped_run(bench: Bench, *more: str) -> Path:
    """A case with a run that Ctrl-C stopped in its third step."""
    case = bench.folder()

    def interrupt(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def work() -> None:
        at_each_step(interrupt)
        command(*bench.argv(*more))()

    ending = run(work, case)
    assert ending.code == 130, ending.errors
    next((case / "runs").iterdir()).rename(case / RUN)
    return case


def loaded(folder: str) -> None:
    """Load a model; standard error gets what its weights and its tokenizer give."""
    try:
        model = MultitaskBERT.load(folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    weights = [x.double().sum().item() for x in model.state_dict().values()]
    texts = ["It 's a lovely film .", "Nothing (at all) 2 see: 99%!"]
    ids = [ids.tolist() for ids, _ in model.tokenizer.encode_batch([(t,) for t in texts], 64)]
    print(weights, ids, model.predict("sst", texts), model.options.to_dict(), file=sys.stderr)


def damaged_run(
    bench: Bench, source: Path, name: str, damage: Damage, seed: str, load: bool
) -> list[str]:
    """The problems of resuming (or loading) a run of which one file is damaged."""
    case = bench.folder()
    shutil.copytree(source / "runs", case / "runs")
    read = partial(loaded, RUN)
    undamaged = run(read, case).errors if load else ""
    damage(case / RUN / name, random.Random(seed))
    ending = run(read, case) if load else bench.run_counted(case, "--resume", RUN)
    problems = verdict(ending, 0, 2)
    if ending.code == 0 and load and ending.errors != undamaged:
        problems.append("loaded another model")
    if ending.code == 0 and not load and results(case) != bench.wanted:
        problems.append("resumed to other results")
    if ending.code == 0 and not load and bench.steps == STEPS:
        problems.append("began anew, though checkpoints are there")
    shutil.rmtree(case)
    return problems


def run_cases(bench: Bench, seed: int, everything: bool) -> list[Case]:
    """Every damage to every file of a stopped run, of a finished run, of its model and cache."""
    stopped, finished = stopped_run(bench), bench.folder()
    shutil.copytree(next((bench.undisturbed / "runs").iterdir()), finished / RUN)
    other = stopped_run(bench, "--seed", "12")

    def take(theirs: Path) -> Damage:
        return lambda path, rng: shutil.copyfile(theirs, path)

    cases: list[Case] = []
    for source, kind in ((stopped, "stopped"), (finished, "finished"), (stopped, "model")):
        below = source / RUN / "best" if kind == "model" else source / RUN
        for path in sorted(below.rglob("*")):
            name = str(path.relative_to(source / RUN))
            if not path.is_file() or name.endswith("lock"):
                continue
            damages = list(damages_of(path))
            if (other / RUN / name).is_file():
                damages.append(("another run's", take(other / RUN / name)))
            for words, damage in damages:
                label = f"{kind} {name} {words}"
                arguments = (bench, source, name, damage, f"{seed} {label}", kind == "model")
                cases.append((label, partial(damaged_run, *arguments)))
    return sampled(cases + file_cases(bench, seed), seed, everything)


def damaged_file(bench: Bench, name: str, damage: Damage, seed: str) -> list[str]:
    """The problems of a new run where the undisturbed run's file stands already, damaged."""
    case = bench.folder()
    (case / name).parent.mkdir()
    shutil.copyfile(bench.undisturbed / name, case / name)
    damage(case / name, random.Random(seed))
    ending = run(command(*bench.argv()), case)
    problems = verdict(ending, 0, 2)
    if ending.code == 0 and results(case) != bench.wanted:
        problems.append("other results")
    shutil.rmtree(case)
    return problems


def file_cases(bench: Bench, seed: int) -> list[Case]:
    """Damage to the cache of token ids and to what stands where the predictions go."""
    cases: list[Case] = []
    caches = sorted((bench.undisturbed / ".cache").iterdir())[:2]
    outputs = sorted(bench.undisturbed.glob("predictions/*.csv"))[:1]
    for path in [*caches, *outputs]:
        name = str(path.relative_to(bench.undisturbed))
        for words, damage in DAMAGES.items():
            label = f"{name} {words}"
            cases.append((label, partial(damaged_file, bench, name, damage, f"{seed} {label}")))
    return cases


# ---- pretrained folders


State = dict[str, torch.Tensor]


def with_first(change: Callable[[torch.Tensor], Any]) -> Callable[[State], Any]:
    """A state dict whose first value is changed."""
    return lambda state: {**state, min(state): change(state[min(state)])}


# What a pytorch_model.bin may hold, made of a state dict.
PICKLES: dict[str, Callable[[State], Any]] = {
    "plain": dict,
    "int keys": lambda state: dict(enumerate(state.values())),
    "an int key": lambda state: {**state, 1: torch.zeros(3, 3)},
    "a list": lambda state: list(state.values()),
    "one tensor": lambda state: torch.zeros(3, 3),
    "a nested dict": lambda state: {"state_dict": state},
    "an empty dict": lambda state: {},
    "a number": with_first(lambda x: 3),
    "a sparse tensor": with_first(lambda x: x.to_sparse()),
    "a meta tensor": with_first(lambda x: x.to("meta")),
    "a quantized tensor": with_first(lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
    "a complex tensor": with_first(lambda x: x.to(torch.complex64)),
    "float8": with_first(lambda x: x.to(torch.float8_e4m3fn)),
    "integers": with_first(lambda x: x.long()),
    "NaN": with_first(lambda x: x * float("nan")),
    "another shape": with_first(lambda x: torch.zeros(3, 3)),
    "no dimension": with_first(lambda x: torch.tensor(1.0)),
    "one expanded to 40 GB": with_first(lambda x: torch.zeros(1).expand(10**5, 10**5)),
}


def damaged_model(bench: Bench, damage: Callable[[Path], object]) -> list[str]:
    """The problems of training from a model's folder once it is damaged."""
    case = bench.folder()
    shutil.copytree(bench.root / "model", case / "model")
    damage(case / "model")
    argv = [str(case / "model") if x == f"{bench.root}/model" else x for x in bench.argv()]
    problems = verdict(run(command(*argv), case), 0, 2)
    shutil.rmtree(case)
    return problems


def model_cases(bench: Bench, seed: int, everything: bool) -> list[Case]:
    """Every damage to every file of a model's folder, and pickled weights of many kinds."""
    cases: list[Case] = []

    def add(words: str, damage: Callable[[Path], object]) -> None:
        cases.append((words, lambda: damaged_model(bench, damage)))

    # The folder as save_pretrained writes it.
    def spoil(name: str, damage: Damage, label: str, model: Path) -> None:
        damage(model / name, random.Random(f"{seed} {label}"))

    for path in sorted((bench.root / "model").iterdir()):
        for words, damage in damages_of(path):
            label = f"{path.name} {words}"
            add(label, partial(spoil, path.name, damage, label))

    # Weights in a pickle, of all kinds, and the plain one damaged.
    def pickled(model: Path, kind: str) -> Path:
        content = PICKLES[kind](load_file(model / "model.safetensors"))
        (model / "model.safetensors").unlink()
        torch.save(content, model / "pytorch_model.bin")
        return model / "pytorch_model.bin"

    def save(kind: str, damage: Damage | None = None, label: str = "") -> Callable[[Path], object]:
        def both() -> None:
            path = pickled(Path("model"), kind)
            if damage:
                damage(path, random.Random(label))

        # In a child: the parent computes nothing.
        return lambda model: run(both, model.parent)

    for kind in PICKLES:
        add(f"pickle with {kind}", save(kind))
    for number in range(3):
        for words, damage in DAMAGES.items():
            label = f"{seed} {number} pickle {words}"
            add(f"pickle {words} ({number})", save("plain", damage, label))
    return sampled(cases, seed, everything)
