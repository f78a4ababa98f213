"""The folder of a saved model: where it is, which files it has, and the model it builds on.

MultitaskBERT writes and reads such folders:

    options.json                 the options
    heads.safetensors            what is ours: the heads, what adapters add that others know not,
                                 and weights of a frozen encoder that its base does not give
    model.safetensors            the encoder under Hugging Face's names, config.json and the
                                 tokenizer's files, as transformers reads them; where
                                 sentence-transformers knows the pooling, its files
                                 (sentence_bert.py)
    adapter_model.safetensors    or an adapter with adapter_config.json, as PEFT reads them
    base.json                    beside a frozen encoder, which is not saved: which one it was
    manifest.json                checksums
    README.md                    the model card (training/model_card.py); of a run
    sst-dev-output.csv           and so on: what it predicts of dev; of a run
    sst-dev-probabilities.csv    and so on: how sure it is of that; of a run

A frozen encoder with adapters that PEFT does not know has neither of the two in the middle.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from adapters.wrap import fits
from declare import rules_of
from errors import UserError
from options import Options
from pretrained import find_best, has_one_of, hub_id, hub_snapshot, is_hub_id
from storage.files import read_text, write_text
from storage.json_files import read_record, write_json
from storage.tensor_files import read_tensors, write_tensors
from training.manifest import NAME as MANIFEST
from training.manifest import Manifest

HEADS = "heads.safetensors"
ENCODER = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
BASE = "base.json"
BEFORE = ("model.safetensors", "adapter.safetensors")  # held the heads too, up to November 2026
NEEDED = [f.name for f in fields(Options) if rules_of(f).folder]  # options that name folders
HUB_SUFFIXES = (".json", ".safetensors", ".txt", ".csv")  # what is fetched, no pickles and no code

# For each file of tensors: a tensor's name in the model -> its name in the file.
Places = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Base:
    """The pretrained model that a saved adapter belongs to: what base.json holds."""

    model: str  # a hub id, a folder or the embedded model
    weights: str  # SHA-256 of the encoder's tensors, as they were read
    tokenizer: str  # fingerprint


# ---- where it is


def find_saved(name: str | Path) -> Path:
    """Where a saved model is: in a run folder its best one, or the folder itself, or the hub's.

    UserError where there is none.
    """
    if os.path.isdir(name):
        folder = find_best(Path(name))
    elif "/" in str(name) and is_hub_id(str(name)):
        folder = fetch_saved(str(name))
    else:
        folder = Path(name)
    if not os.path.exists(folder / "options.json") or not any(folder.glob("*.safetensors")):
        gone = "" if os.path.exists(folder) else "no such folder, "
        raise UserError(
            f"{folder}: {gone}no model in it; expected a run folder with best/, such as "
            "runs/<date>-<name>, a saved model's, or USER/NAME of the hub; an encoder alone is for "
            "--model"
        )
    if not os.path.exists(folder / HEADS):
        was = "as older versions saved it" if has_one_of(folder, BEFORE) else "not whole"
        raise UserError(
            f"{folder}: no {HEADS} in it, so it is {was}; train again, or load it with the "
            "commit that its run.json names"
        )
    return folder


def fetch_saved(name: str) -> Path:
    """The folder of the hub's USER/NAME, downloaded; UserError where it is no model of ours."""
    advice = "or give a run folder, such as runs/<date>-<name>"
    folder = hub_snapshot(name, ["options.json", MANIFEST], advice)
    if not os.path.exists(folder / "options.json") or not os.path.exists(folder / MANIFEST):
        raise UserError(
            f"{name}: not a model that minBERT saved, it has no options.json and {MANIFEST}; "
            f"to train from it: --model {name}"
        )
    files = read_record(folder / MANIFEST, Manifest).files
    return hub_snapshot(name, [path for path in files if path.endswith(HUB_SUFFIXES)], advice)


# ---- its files


def write_state(folder: Path, state: Mapping[str, Tensor], places: Places) -> None:
    """Write tensors, each into its file."""
    for file, names in places.items():
        write_tensors(folder / file, {theirs: state[own] for own, theirs in names.items()})


def read_state(folder: Path, own: Mapping[str, Tensor], places: Places) -> dict[str, Tensor]:
    """What write_state() wrote, under the model's names; UserError where it does not fit `own`."""
    state: dict[str, Tensor] = {}
    for file, names in places.items():
        held = read_tensors(folder / file)
        fits(held, {theirs: own[name] for name, theirs in names.items()}, str(folder / file))
        state.update({name: held[theirs] for name, theirs in names.items()})
    return state


def write_adapter_config(folder: Path, config: Mapping[str, Any], model: str) -> None:
    """Write PEFT's adapter_config.json; the base is named so that transformers finds it."""
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": hub_id(model), **config})


def write_options(folder: Path, options: Options) -> None:
    """Write options.json; folders that the model needs are named as they are seen from there."""
    # For an adapter, which is loaded from anywhere.
    moved: dict[str, Any] = {}
    for name in NEEDED:
        place = getattr(options, name)
        if os.path.isdir(place) and not os.path.isabs(place):
            moved[name] = os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
    write_text(folder / "options.json", replace(options, **moved).to_json() + "\n")


def read_options(folder: Path) -> Options:
    """The options of a saved model, checked."""
    path = folder / "options.json"
    options = Options.from_json(read_text(path), str(path))
    moved: dict[str, Any] = {}
    for name in NEEDED:
        place = folder / getattr(options, name)
        if os.path.isdir(place):
            moved[name] = str(place.resolve())
    return replace(options, **moved)


def write_base(folder: Path, base: Base) -> None:
    """Write base.json."""
    write_json(folder / BASE, asdict(base))


def check_base(folder: Path, found: Base) -> None:
    """UserError where the pretrained model found now is not the one that a saved adapter is for."""
    then = read_record(folder / BASE, Base)
    for what, was, now in (
        ("weights", then.weights, found.weights),
        ("token ids", then.tokenizer, found.tokenizer),
    ):
        if was != now:
            raise UserError(
                f"{found.model}: not what {folder} was trained on ({Path(then.model).name}): its "
                f"{what} have the checksum {now[:8]}, expected {was[:8]}; put that model back"
            )
