"""What a resumed run starts from, and how a run is extended.

    --resume RUN               goes on from last/, bit for bit
    --resume RUN --epochs N    extends the run, finished or not, to N epochs

An extended run has the schedule of N epochs from the step on where it goes on. Where last/ is
whole, as of a run that has not finished or of one with --keep_last, that step begins with all that
the run had: weights, the optimizer's moments, random states, the readers' positions, and what
extras, combiners and hooks remember.

A finished run has kept best/ and the positions only. Then it starts from best/'s weights, with a
new optimizer and with extras, combiners and hooks as new ones are; the readers go on where they
were, and the rate, that of the schedule of N epochs, warms up anew over --warmup of the steps to
come. --patience begins to count anew either way.

The extension's first act is a checkpoint, so from there on it is resumed like any run. Before it,
the longer options are written, and progress.json knows how long the run was: whoever resumes it
then extends it again, from the same best/.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from datasets import Split
from errors import UserError
from multitask_bert import MultitaskBERT
from options import Options
from pretrained import is_hub_id
from storage.files import sha256_of, write_text
from storage.json_files import write_json
from training.checkpoint import (
    best_is,
    best_sum,
    fault_of_best,
    has_pieces,
    load_last,
    recover,
    save_last,
    whole_last,
)
from training.identity import read_facts
from training.progress import Progress, read_progress
from training.warmup import steps_of_warmup


def resumed(options: Options, whole: bool) -> Options:
    """The options of the run to be resumed; the caller chooses what may change.

    `whole`: all options are the run's own or were chosen, as on the command line. Otherwise one
    that has its default was not chosen.
    """
    given = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if whole or option.name in ("resume", "use_gpu") or value != option.default:
            given[option.name] = value
    folder = Path(options.resume or "")
    own = Options.of_run(folder).of_same_run(given)
    read_facts(folder)  # refuses edited options before anything is built from them

    # What it began from is read again: a folder, or a name of the hub, which for --init has a "/".
    source = own.init or own.model
    on_hub = is_hub_id(source) and ("/" in source or not own.init)
    if not os.path.isdir(source) and not on_hub:
        raise UserError(f"{folder} began from {source}, which is not there; put it back")
    return own


# ---- where a run stands


@dataclass
class Stand:
    """Where a run stood when its last checkpoint was written, and what is to come."""

    folder: Path
    progress: Progress
    over: bool  # whether it had come to its end, with as many steps as it had then
    longer: bool  # whether it is to have more steps now
    whole: bool  # whether last/ has the tensors of the run's pieces

    @property
    def goes_on(self) -> bool:
        """Whether there are steps to come."""
        return self.longer or not self.over


def stand_of(folder: Path, facts: dict[str, Any], options: Options, total: int) -> Stand | None:
    """Where a run stands; None where nothing of it was saved yet.

    `facts`: what its run.json holds. `total`: all its steps from now on. UserError where its
    checkpoint is lost.
    """

    def read(path: Path) -> Progress:
        return read_progress(path, facts["run"], total, options.tasks)

    held = whole_last(folder, read)
    if held is None:
        if "best" in facts:
            raise UserError(
                f"{folder / 'last'}: missing, though the run has finished; {best_is(folder)}"
            )
        return None
    over = held.is_over(options.patience)
    return Stand(folder, held, over, held.total < total, has_pieces(folder / "last"))


def check_best(stand: Stand, merge_wanted: bool) -> None:
    """See to it that best/ is whole, now rather than at the end of the run.

    Where it is missing, or newer than the checkpoint, the best of the epochs to come takes its
    place. UserError where it is damaged, or it can't be done without.
    """
    best, progress = stand.folder / "best", stand.progress
    recover(best)
    needed = not (stand.goes_on and stand.whole)
    if not (progress.best or needed):
        return

    # What is wrong with it, if anything; a finished run's may have been merged since.
    merged = stand.over and merge_wanted
    expected = progress.best_manifest if progress.best else ""
    reason, damaged = fault_of_best(best, expected, merged)
    if not reason:
        progress.best_manifest = best_sum(best)
        return

    # What becomes of the run then.
    if needed:
        raise UserError(f"{reason}; the training is over, so nothing replaces it; begin a new run")
    coming = "the best of the epochs still to come takes its place"
    if damaged:
        raise UserError(f"{reason}; delete {best} and resume: {coming}")
    print(f"{reason}; {coming}")
    progress.best, progress.stale = {}, 0


def check_start(stand: Stand, merge_wanted: bool) -> None:
    """UserError where a run can't go on from what it has; see check_best too."""
    check_best(stand, merge_wanted)
    if stand.goes_on and not stand.whole and merge_wanted:
        raise UserError(
            f"--resume {stand.folder}: --lora_merge folded its adapters into best/, and last/ was "
            "not kept (--keep_last), so it can't be extended; begin a new run"
        )


# ---- from there on


def changed_record(
    folder: Path, options: Options, facts: dict[str, Any], now: dict[str, Any]
) -> dict[str, Any]:
    """Write down that a run gets longer, or keeps other things; what run.json holds then.

    Whoever resumes it next finds it in options.json. `facts`: what run.json held before. `now`:
    what a run that begins now would record.
    """
    own = Options.of_run(folder)
    wanted = replace(own, epochs=options.epochs, keep_last=options.keep_last, tags=options.tags)
    if wanted == own:
        # These, also where a kill came between the two writes below.
        return {**facts, "options": sha256_of(folder / "options.json")}

    # Without its results a longer run counts as unfinished.
    kept = dict(facts)
    if wanted.epochs > own.epochs:
        kept = {name: facts[name] for name in facts if name in now}
    kept["commands"] = [*facts["commands"], now["commands"][-1]]

    # Up to the second write the old options stand there, so both are known from the first on.
    text = wanted.to_json() + "\n"
    kept["options_before"] = sha256_of(folder / "options.json")
    kept["options"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    write_json(folder / "run.json", kept)
    write_text(folder / "options.json", text)
    return kept


def load(
    stand: Stand,
    options: Options,
    total: int,
    pieces: Mapping[str, Any],
    training: Mapping[str, Split],
) -> Progress:
    """Put everything back as the last checkpoint, or best/, has it; the progress to go on from.

    `pieces`, `training` and `total` are those of the run (training/run.py).
    """
    last, progress = stand.folder / "last", stand.progress
    if not stand.goes_on:
        return progress
    for task, drawn in progress.drawn.items():
        training[task].drawn = drawn

    # Which weights.
    if stand.whole:
        load_last(last, pieces)
        source = f"goes on from last/ as it was; the rates are those of {options.epochs} epochs"
    else:
        model = MultitaskBERT.load(stand.folder)
        pieces["model"].load_state_dict(model.state_dict())
        load_last(last, {})  # the random states
        progress.warmed_from = progress.step
        steps = steps_of_warmup(options.warmup, total - progress.step)
        epoch = progress.best["epoch"]
        source = f"starts from best/ (epoch {epoch}): a new optimizer; steps of warm-up: {steps}"

    # From the first checkpoint of an extension on, it is a run like any other.
    if stand.longer:
        was = options.epochs * progress.total // total
        print(f"extending {stand.folder} from {was} to {options.epochs} epochs")
        progress.total, progress.stale = total, 0
    if stand.longer or not stand.whole:
        print(source)
        save_last(stand.folder, pieces, progress.to_dict())
    return progress
