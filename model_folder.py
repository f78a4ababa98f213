"""The folder of a saved model: where it is, its options, and the pretrained model it builds on.

MultitaskBERT writes and reads such folders:

    options.json          the options
    model.safetensors     all weights, with the encoder's config.json and the tokenizer's files;
    adapter.safetensors   or what has trained beside a frozen encoder, with base.json, which says
                          what the pretrained model was
    manifest.json         checksums
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from errors import UserError
from options import Options
from storage.files import read_text, write_text
from storage.json_files import read_record, write_json


@dataclass(frozen=True)
class Base:
    """The pretrained model that a saved adapter belongs to: what base.json holds."""

    model: str  # a hub id, a folder or the embedded model
    weights: str  # SHA-256 of the encoder's tensors, as they were read
    tokenizer: str  # fingerprint


def find_saved(folder: Path) -> Path:
    """Where in a run folder the best model is; the folder itself where save() wrote it."""
    # best.old: for an instant, while best is replaced
    places = [folder / "best", folder / "best.old", folder]
    found = next(path for path in places if os.path.exists(path) or path == folder)
    if not os.path.exists(found / "options.json") or not any(found.glob("*.safetensors")):
        raise UserError(
            f"{found}: no model in it; expected a run folder with best/, such as runs/<date>-<name>"
        )
    return found


def write_options(folder: Path, options: Options) -> None:
    """Write options.json; a model's folder is named as it is seen from there."""
    if os.path.isdir(options.model) and not os.path.isabs(options.model):
        # For an adapter, which is loaded from anywhere.
        path = os.path.relpath(os.path.realpath(options.model), os.path.realpath(folder))
        options = replace(options, model=path)
    write_text(folder / "options.json", options.to_json() + "\n")


def read_options(folder: Path) -> Options:
    """The options of a saved model, checked."""
    path = folder / "options.json"
    options = Options.from_json(read_text(path), str(path))
    if os.path.isdir(folder / options.model):
        options = replace(options, model=str((folder / options.model).resolve()))
    return options


def write_base(folder: Path, base: Base) -> None:
    """Write base.json."""
    write_json(folder / "base.json", asdict(base))


def check_base(folder: Path, found: Base) -> None:
    """UserError where the pretrained model found now is not the one that a saved adapter is for."""
    then = read_record(folder / "base.json", Base)
    for what, was, now in (
        ("weights", then.weights, found.weights),
        ("token ids", then.tokenizer, found.tokenizer),
    ):
        if was != now:
            raise UserError(
                f"{found.model}: not what {folder} was trained on ({Path(then.model).name}): its "
                f"{what} have the checksum {now[:8]}, expected {was[:8]}; put that model back"
            )
