"""Write a run's best model as a folder of its own.

Other libraries load it too.

    python export.py runs/2026-11-20-multitask my-model
    python export.py runs/2026-11-20-multitask my-model --keep_adapter

The encoder is written with its heads, also where it was frozen; adapters are
merged into it, or lie beside it where that can't be. With --keep_adapter a
frozen encoder is left out, and PEFT loads a LoRA from the folder.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import argparse
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from adapters.kinds import adapters_of
from commandline.parser import page_parser
from errors import UserError, run_main
from models.folder import find_saved
from multitask_bert import MultitaskBERT
from storage.files import reason_of, sync
from storage.json_files import read_record, record
from training.checkpoint import best_sum
from training.identity import read_facts
from training.manifest import NAME as MANIFEST
from training.model_card import write_card
from training.progress import Best, Progress


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = page_parser(__doc__)
    parser.add_argument("run", type=Path, help="a run folder, or a saved model's")
    parser.add_argument("folder", type=Path, help="what to write; new, or empty")
    parser.add_argument("--keep_adapter", action="store_true", help="do not merge adapters")
    found = parser.parse_args(argv)
    found.keep_adapter = "keep_adapter" in found
    return found


def check_free(folder: Path) -> None:
    """UserError where something stands at a folder's place already."""
    try:
        taken = os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UserError(f"{folder}: {reason_of(error)}; name another folder") from None
    if taken:
        raise UserError(f"{folder}: is there already, and not empty; name another folder")
    for parent in Path(os.path.realpath(folder)).parents:
        if (parent / MANIFEST).exists():
            raise UserError(f"{folder}: lies in a saved model, {parent}; name another folder")
        if (parent / "run.json").exists():
            raise UserError(f"{folder}: lies in a run's folder, {parent}; name another folder")


def best_of(run: Path, facts: dict[str, Any], tasks: Collection[str]) -> dict[str, Any]:
    """The evaluation in which a run's best model was found; empty where no file has it.

    `facts`: what run.json holds. UserError where the file that has it holds no scores of `tasks`.
    """
    # A run that has ended has it in run.json.
    best: dict[str, Any] = {}
    if "best" in facts:
        path = run / "run.json"
        best = facts["best"]
    # Before that the last checkpoint has it, if it is of the model in best/: that one is written
    # first, and after a kill between the two the checkpoint knows the best model before it.
    else:
        path = run / "last" / "progress.json"
        if path.exists():
            progress = read_record(path, Progress)
            if progress.best_manifest == best_sum(find_saved(run)):
                best = progress.best

    if best and set(record(Best, best, f"{path}: best").scores) != set(tasks):
        raise UserError(f"{path}: best has not the scores of {', '.join(tasks)}; damaged?")
    return best


def export(run: Path, folder: Path, keep_adapter: bool = False) -> MultitaskBERT:
    """Write the best model of a run into a new folder, whole or not at all; returns that model.

    UserError where the run has none, or the folder can't be written.
    """
    # What is to be written.
    check_free(folder)
    model = MultitaskBERT.load(run)
    if not keep_adapter:
        model.merge()
    elif not adapters_of(model.options):
        raise UserError(f"{run}: has no adapter to keep; leave out --keep_adapter")

    # Beside its place first: a kill leaves nothing that looks like a model.
    place = Path(os.path.abspath(folder))
    new = place.with_name(f".{place.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        model.save(new)

        # A card where the scores are known, which only a run's folder has.
        if (run / "run.json").exists():
            facts = read_facts(run)
            if best := best_of(run, facts, model.tasks):
                write_card(new, model.options, facts, best)

        # The contents are on the disk before the name that vouches for them.
        for path in [*new.rglob("*"), new]:
            sync(path)
        new.rename(place)
    except (OSError, SafetensorError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{folder}: can't be written ({reason})") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return model


def main(argv: list[str]) -> None:
    """Export, and say what was written and how to load it."""
    # Write it.
    given = parse(argv)
    model = export(given.run, given.folder, given.keep_adapter)

    # What it holds, and who else reads it.
    folder = given.folder
    what = "the encoder and heads" if model.whole else "the adapter and heads"
    print(f"{folder}: {what} of {', '.join(model.tasks)}")
    beside = [adapter.flag for adapter in adapters_of(model.options)]
    if beside and not given.keep_adapter:
        print(f"{' '.join(beside)} can't be merged: kept beside the encoder's weights")
    print(f'load it: MultitaskBERT.load("{folder}")')
    if (folder / "modules.json").exists():
        print(f'     or: SentenceTransformer("{folder}"), AutoModel.from_pretrained("{folder}")')
    elif (folder / "adapter_config.json").exists():
        print(f'     or: PeftModel.from_pretrained(encoder, "{folder}")')


if __name__ == "__main__":
    run_main(main)
