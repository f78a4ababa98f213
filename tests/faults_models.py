"""Damaged folders of pretrained models: refused in one line, or trained from.

Neither may take a gibibyte more of memory than a whole model does, or for ever.
"""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.faults_bench import Bench, Case
from tests.faults_child import command, run
from tests.faults_damage import DAMAGES, Damage, damages_of, sampled, verdict

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
