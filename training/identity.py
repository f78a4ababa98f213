"""What a run depends on beside its options: recorded in run.json, compared when it is resumed.

What changes the result by more than rounding is refused: data, pretrained weights, tokenizer,
dtype, and options.json itself. What changes it by rounding is warned of: machine, versions.
"""

import hashlib
import secrets
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UserError, listed
from models.folder import Base
from storage.files import sha256_of
from storage.json_files import Count, read_json, record
from training.checkpoint import best_is


@dataclass(frozen=True)
class DataFile:
    """A file that was read."""

    path: str
    sha256: str
    examples: Count = 0
    in_train: Count = 0  # how many of them stand in train too


@dataclass(frozen=True)
class Identity:
    """What is read back from run.json, and compared."""

    run: str  # drawn at random; in progress.json too
    options: str  # SHA-256 of options.json
    data: dict[str, DataFile]  # "sst_train" and so on

    # Of the encoder before training.
    base_weights: str  # SHA-256 of its tensors
    tokenizer: str  # SHA-256 of its definition
    dtype: str  # of the encoder's products
    init: str = field(default="", kw_only=True)  # which model --init started from

    # The surroundings.
    commit: str
    python: str
    versions: dict[str, str]
    device: str  # with its threads
    kernels: str

    # The run's own, and those that extended it.
    commands: list[str]

    # Of the options before the run was extended; a kill may have left those in place.
    options_before: str = ""


def new_identity(options_text: str, base: Base) -> dict[str, str]:
    """What a new run records beside its surroundings and data."""
    return {
        "run": secrets.token_hex(8),
        "options": hashlib.sha256(options_text.encode("utf-8")).hexdigest(),
        "base_weights": base.weights,
        "tokenizer": base.tokenizer,
    }


def read_facts(folder: Path) -> dict[str, Any]:
    """What run.json holds, its Identity checked; UserError also where options.json was changed."""
    try:
        facts = read_json(folder / "run.json")
        identity = record(Identity, facts, str(folder / "run.json"), others_too=True)
    except UserError as error:
        raise UserError(f"{error}; {best_is(folder)}") from None
    if sha256_of(folder / "options.json") not in (identity.options, identity.options_before):
        raise UserError(
            f"--resume {folder}: its options.json was changed since the run began; put it back, or "
            f"begin a new run with @{folder}/options.json"
        )
    return facts


def check_same(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """UserError where a run would give other results than when it began; warnings where it might.

    `then` is what read_facts() gave, `now` what a run that begins now would record.
    """
    # The data, by content: its files may stand elsewhere.
    changed = []
    for name, file in now["data"].items():
        if file["sha256"] != then["data"].get(name, {}).get("sha256"):
            changed.append(file["path"])
    if changed:
        raise UserError(
            f"--resume {folder}: the data changed since: {listed(changed)}; "
            "put it back, or begin a new run"
        )

    # What else makes another run of it.
    for name, title in (("base_weights", "pretrained weights"), ("tokenizer", "tokenizer")):
        if now[name] != then[name]:
            raise UserError(
                f"--resume {folder}: the {title} of --model changed since the run began; "
                "put the old back, or begin a new run"
            )
    if now.get("init", "") != then.get("init", ""):
        raise UserError(
            f"--resume {folder}: the model that --init started from changed since the run began; "
            "put the old back, or begin a new run"
        )
    if now["dtype"] != then["dtype"]:
        raise UserError(
            f"--resume {folder}: began in {then['dtype']}, would go on in {now['dtype']}; "
            "resume it on hardware like the first, or begin a new run"
        )

    # Other code may do anything, or the same.
    if now["commit"] != then["commit"]:
        warnings.warn(
            f"{folder}: began at commit {then['commit']}, goes on at {now['commit']}", stacklevel=2
        )

    # What only rounds otherwise.
    pairs = {name: (then[name], now[name]) for name in ("python", "device", "kernels")}
    for name in sorted({*then["versions"], *now["versions"]}):
        pairs[name] = (then["versions"].get(name), now["versions"].get(name))
    for name, (was, value) in pairs.items():
        if was != value:
            warnings.warn(
                f"{folder}: {name} was {was}, is {value} now; "
                "the results may differ in the last digits",
                stacklevel=2,
            )
