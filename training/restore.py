"""What a resumed run starts from, and how a run is extended.

    --resume RUN               goes on from last/, bit for bit
    --resume RUN --epochs N    extends the run, finished or not, to N epochs

What an extended run starts from depends on what last/ still holds. While a run has not finished it
holds everything, and afterwards with --keep_last: the next step then finds weights, the optimizer's
moments, random states, the readers' positions, and what extras, combiners and hooks remember, as
the last one left them.

A run that finished without --keep_last has only random states and positions in last/. Then the
weights are best/'s; optimizer, extras, combiners and hooks begin as in a new run, and the learning
rate warms up once more, over --warmup of the steps to come.

In both cases the learning rate is that of a run of N epochs at this step, and --patience counts
from zero again.

An extension writes the new options first, and a checkpoint next. Killed between the two, the run
has the checkpoint from before, and its progress.json says that it was shorter: so the next --resume
extends it again, from the same weights. After that checkpoint it is resumed like any run.
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

    # What it began from is read again, so a folder must still be there. It may also be on the hub:
    # there an encoder (--model) is called NAME or USER/NAME, a saved model (--init) USER/NAME only.
    source = own.init or own.model
    may_be_on_hub = is_hub_id(source) and (own.init is None or "/" in source)
    if not os.path.isdir(source) and not may_be_on_hub:
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


def check_best(stand: Stand, merge_flag: str) -> None:
    """Find out now, not at the end of the run, whether best/ is the checkpoint's best model.

    Where it is not, but not needed either, the run forgets it: the best of the epochs to come takes
    its place. UserError where it is needed, or damaged. `merge_flag`: as for check_start().
    """
    best, progress = stand.folder / "best", stand.progress
    recover(best)  # from a kill while it was replaced

    # It is needed where no step is to come, and where the next step starts from it.
    needed = not stand.goes_on or not stand.whole
    if not progress.best and not needed:
        return

    # Compare it with the checkpoint. At a run's end adapters are folded into it, after the last
    # checkpoint: then it is another model than the checkpoint knows, and that is right.
    may_be_merged = stand.over and merge_flag != ""
    expected = progress.best_manifest if progress.best else ""
    reason, damaged = fault_of_best(best, expected, may_be_merged)
    if not reason:
        progress.best_manifest = best_sum(best)
        return

    # Something is wrong with it. Without steps that replace it the run can't be completed.
    if needed:
        raise UserError(f"{reason}; the training is over, so nothing replaces it; begin a new run")

    # What is damaged is for the user to look at before it is lost; another model may just go.
    coming = "the best of the epochs still to come takes its place"
    if damaged:
        raise UserError(f"{reason}; delete {best} and resume: {coming}")
    print(f"{reason}; {coming}")
    progress.best, progress.stale = {}, 0


def check_start(stand: Stand, merge_flag: str) -> None:
    """UserError where a run can't go on from what it has; see check_best() too.

    `merge_flag`: the flag by which adapters are merged at the run's end; "" where none are.
    """
    check_best(stand, merge_flag)
    if stand.goes_on and not stand.whole and merge_flag:
        raise UserError(
            f"--resume {stand.folder}: {merge_flag} folded its adapters into best/, and last/ was "
            "not kept (--keep_last), so it can't be extended; begin a new run"
        )


# ---- from there on


def changed_record(
    folder: Path, options: Options, facts: dict[str, Any], now: dict[str, Any]
) -> dict[str, Any]:
    """Put new --epochs and --keep_last into a run's options.json; returns what run.json holds then.

    run.json has the checksum of options.json, by which read_facts() finds an edited one, so both
    files change. `facts`: what run.json held before. `now`: what a new run would put there.
    """
    # Often nothing is new. Then options.json stands as it is, and its checksum is taken anew: where
    # a kill came between the two writes below, run.json has the one of options never written.
    own = Options.of_run(folder)
    wanted = replace(own, epochs=options.epochs, keep_last=options.keep_last, tags=options.tags)
    if wanted == own:
        return {**facts, "options": sha256_of(folder / "options.json")}

    # A run that gets longer is not finished: its results go. `now` has none, so its names stay.
    kept = dict(facts)
    if wanted.epochs > own.epochs:
        kept = {name: facts[name] for name in facts if name in now}
    kept["commands"] = [*facts["commands"], now["commands"][-1]]

    # Between the two writes the folder has the new run.json and the old options.json. A kill there
    # does no harm: run.json has the checksums of both options.
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
    # Where no step is to come nothing is needed; the best model is loaded at the end.
    last, progress = stand.folder / "last", stand.progress
    if not stand.goes_on:
        return progress

    # The readers go on where they were.
    for task, drawn in progress.drawn.items():
        training[task].drawn = drawn

    # All pieces as they were; or best/'s weights, with everything else as in a new run.
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

    # Steps are told as epochs: all epochs of a run have the same number of them.
    if stand.longer:
        was = options.epochs * progress.total // total
        print(f"extending {stand.folder} from {was} to {options.epochs} epochs")
        progress.total, progress.stale = total, 0

    # A run that was extended, or starts from best/, writes that down before its first step: with
    # this checkpoint it can be resumed like any other.
    if stand.longer or not stand.whole:
        print(source)
        save_last(stand.folder, pieces, progress.to_dict())
    return progress
