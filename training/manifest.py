"""A folder's manifest: what is read back from a checkpoint or a model is what was written.

manifest.json, in the folder itself, holds the SHA-256 of every other file, also of those in folders
below. So a flipped bit, an edited number, a file that is missing and one copied in from another
folder are all found before anything is loaded. README.md is for people, who may edit it.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from errors import UserError, listed
from storage.files import reason_of, sha256_of
from storage.json_files import read_record, write_json

NAME = "manifest.json"
CARD = "README.md"


@dataclass(frozen=True)
class Manifest:
    """What manifest.json holds."""

    files: dict[str, str]  # path in the folder -> SHA-256


def names_in(folder: Path) -> set[str]:
    """The names that a manifest vouches for; hidden files, as of a file manager, are nobody's."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{folder}: {reason_of(error)}; check the path") from None

    paths = {
        Path(where, name).relative_to(folder)
        for where, _, names in os.walk(folder, onerror=refuse)
        for name in names
    }
    shown = {path.as_posix() for path in paths if not any(x.startswith(".") for x in path.parts)}
    return shown - {NAME, CARD}


def sums_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of files in a folder, by path in it; several files are read at once."""
    ordered = sorted(names)
    with ThreadPoolExecutor() as pool:
        return dict(zip(ordered, pool.map(sha256_of, map(folder.joinpath, ordered)), strict=True))


def write_manifest(folder: Path) -> None:
    """Write a folder's manifest; its other files are all there by now."""
    write_json(folder / NAME, asdict(Manifest(sums_of(folder, names_in(folder)))))


def check_manifest(folder: Path) -> None:
    """UserError, which names the file, where a folder is not what write_manifest() saw.

    That is a file missing, changed or added, or a manifest that is missing or damaged.
    """
    # Without a manifest there is nothing to compare with.
    there = names_in(folder)
    if not (folder / NAME).exists():
        raise UserError(
            f"{folder / NAME}: not there, so the folder can't be checked; "
            "was it written by an older version?"
        )
    manifest = read_record(folder / NAME, Manifest)

    # The names first, the larger part of the work last.
    if missing := sorted(set(manifest.files) - there):
        raise UserError(f"{folder}: {listed(missing)} missing")
    if added := sorted(there - set(manifest.files)):
        raise UserError(
            f"{folder}: {listed(added)} added since it was written; take it out of there"
        )
    for name, now in sums_of(folder, manifest.files).items():
        if now != manifest.files[name]:
            raise UserError(f"{folder / name}: changed since it was written")
