"""What a run starts from with --init: the encoder and the heads of another run.

The encoder itself is read where every pretrained one is, under --model, which is the other run's
folder; or, where only an adapter or heads were saved there, the model that these are for.
"""

import os
from dataclasses import fields
from typing import Any

from adapters.kinds import ADAPTERS, adapters_of
from adapters.wrap import Adapter, fits
from choices.conflicts import WITHOUT_ACTIVATION, WITHOUT_NORM
from choices.head import HeadOptions
from declare import PerTask
from errors import UserError
from models.folder import BASE, find_saved, read_options
from models.placing import OF_HEADS
from multitask_bert import MultitaskBERT
from options import Options
from pretrained import default_pretrained
from storage.files import sha256_of
from tasks import Task
from training.manifest import NAME as MANIFEST

# The options with values by task that say how a task's way from states to logits is made. Where one
# that is not among them makes a difference, names or shapes do not fit.
SHAPING = [f.name for f in fields(HeadOptions) if f.type is PerTask and f.name != "head_dropout"]


def model_for(options: Options) -> str:
    """What --model is for a new run: what was given, or the encoder that --init brings.

    UserError where both are given, and differ.
    """
    # Without --init: what was typed, or what is on this machine.
    run = options.init
    if run is None:
        return default_pretrained() if options.model == "auto" else options.model

    # A folder with base.json holds no encoder of its own, but says which one it is for.
    folder = find_saved(run)
    model = read_options(folder).model if os.path.exists(folder / BASE) else run
    if options.model not in ("auto", model):
        raise UserError(
            f"--init {run} brings its own encoder; leave out --model {options.model}, or take only "
            f"the encoder: --model {run}"
        )
    return model


def started(model: MultitaskBERT) -> MultitaskBERT:
    """A new model, built on the other run's encoder, with what that run has learned put into it.

    Heads of tasks that it had not start afresh, and a line says so. `model.started_from` is the
    SHA-256 of its manifest then, which tells it from others. UserError where the two do not fit.
    """
    run = model.options.init
    if run is None:
        return model

    # Everything is compared before anything is changed.
    model.started_from = sha256_of(find_saved(run) / MANIFEST)
    old = MultitaskBERT.load(run)
    shared = [name for name in model.tasks if name in old.tasks]
    check_encoders(model, old, run)
    for name in shared:
        check_pipelines(model.tasks[name], model.options, old.options, run)

    # The encoder, then the heads of the tasks that both have.
    take_encoder(model, old, run)
    for name in shared:
        state = old.pipelines[name].state_dict()
        fits(state, model.pipelines[name].state_dict(), f"--init {run}: {name}")
        model.pipelines[name].load_state_dict(state)
    if any(model.tasks[name].pair for name in shared):
        model.shared.load_state_dict(old.shared.state_dict())
    print_taken(model, run, shared)
    return model


def print_taken(model: MultitaskBERT, run: str, shared: list[str]) -> None:
    """Say what starts from the other run, and what afresh."""
    afresh = [name for name in model.tasks if name not in shared]
    taken = f"--init {run}: the encoder" + "".join(f", {name}" for name in shared)
    print(f"{taken}; afresh: {', '.join(afresh)}" if afresh else taken)


# ---- whether it fits


def refusal(run: str, what: str, then: str, now: str, flag: str) -> UserError:
    """The error for parts of different kinds."""
    return UserError(f"--init {run}: {what} is {then} there, {now} here; to make it fit: {flag}")


def check_encoders(model: MultitaskBERT, old: MultitaskBERT, run: str) -> None:
    """UserError where the encoders are not made of the same layers."""
    parts = {"norm": "rmsnorm", "feed_forward": "swiglu", "num_key_value_heads": "kv_heads"}
    for part, flag in parts.items():
        then, now = getattr(old.bert.config, part), getattr(model.bert.config, part)
        if then != now:
            place = getattr(old.options, flag)
            raise refusal(run, f"the encoder's {part}", then, now, f"--{flag} {place}")
    # Of a frozen encoder only what was fitted is saved, and only where the options say so.
    then, now = old.options.rmsnorm_start, model.options.rmsnorm_start
    if then != now and not old.whole:
        raise refusal(run, "--rmsnorm_start", then, now, f"--rmsnorm_start {then}")


def check_pipelines(task: Task, now: Options, then: Options, run: str) -> None:
    """UserError where a task's way from states to logits is another."""
    # How pairs are read comes first: the rest depends on it.
    name = task.name
    if task.pair and then.pair_encoding != now.pair_encoding:
        flag = f"--pair_encoding {then.pair_encoding}"
        raise refusal(run, f"the encoding of {name}", then.pair_encoding, now.pair_encoding, flag)

    # What has a value for each task.
    by_task = [*SHAPING]
    if task.is_bi(now):
        by_task += ["pair_features", "pair_projection"]
    for flag in by_task:
        was, value = getattr(then, flag).of(name), getattr(now, flag).of(name)
        if was != value:
            raise refusal(run, f"the {flag} of {name}", was, value, f"--{flag} {name}={was}")

    # What has one for all; outputs that were learned by another loss mean something else.
    if task.loss_option:
        was, value = getattr(then, task.loss_option), getattr(now, task.loss_option)
        if was != value:
            raise refusal(run, f"the loss of {name}", was, value, f"--{task.loss_option} {was}")
    if "cosine" in now.pair_features.of(name) and then.cosine_map != now.cosine_map:
        flag = f"--cosine_map {then.cosine_map}"
        raise refusal(run, "--cosine_map", then.cosine_map, now.cosine_map, flag)
    if task.pair and then.shared_pair_layer != now.shared_pair_layer:
        was, value = ("on" if o.shared_pair_layer else "off" for o in (then, now))
        flag = "--shared_pair_layer" if then.shared_pair_layer else "--no-shared_pair_layer"
        raise refusal(run, "the shared layer of pairs", was, value, flag)

    # Norms and activations of heads that have some.
    for flag, untouched in (("rmsnorm", WITHOUT_NORM), ("swiglu", WITHOUT_ACTIVATION)):
        was, value = getattr(then, flag), getattr(now, flag)
        if now.head.of(name) in untouched:
            continue
        if (was in ("heads", "all")) != (value in ("heads", "all")):
            raise refusal(run, f"--{flag}", was, value, f"--{flag} {was}")


# ---- the encoder


def take_encoder(model: MultitaskBERT, old: MultitaskBERT, run: str) -> None:
    """Make the encoder the other run's.

    UserError where the new run could not compute or save what the other run's adapters learned.
    """
    # Saved whole, nothing is left to do: the new model was built from the old one's encoder.
    adapters = adapters_of(old.options)
    if old.whole and not adapters:
        return

    # The same adapter in both is taken over as it is; another one is folded into the old encoder.
    same = all(is_same(adapter, old.options, model.options) for adapter in ADAPTERS.values())
    if adapters and not same:
        flags = " ".join(adapter.flag for adapter in adapters)
        if any(adapter.merge is None for adapter in adapters):
            raise UserError(
                f"--init {run}: its {flags} can't be folded into its encoder; give this run the "
                "same adapter"
            )
        # A frozen encoder is not saved but read from its base anew, which has not learned that.
        if not model.whole:
            raise UserError(
                f"--init {run}: its {flags} is not this run's, which keeps the encoder frozen; "
                f"merge it first: python export.py {run} FOLDER, then --init FOLDER"
            )
        old.merge()

    # All but the heads; adapters may have parts for tasks that only one of the two runs has.
    own = model.state_dict()
    taken = {}
    for name, x in old.state_dict().items():
        if name in own and not name.startswith(OF_HEADS):
            taken[name] = x
    model.load_state_dict(taken, strict=False)


def is_same(adapter: Adapter, then: Options, now: Options) -> bool:
    """Whether two runs ask for the same adapter, or neither does.

    Its dropout, what of the model trains beside it and whether it is merged may differ.
    """
    if adapter.wanted(then) != adapter.wanted(now):
        return False
    free = tuple(f"{adapter.prefix}_{what}" for what in ("dropout", "train", "merge"))
    names = [name for name in adapter.own_options() if name not in free]
    return all(is_same_value(getattr(then, name), getattr(now, name)) for name in names)


def is_same_value(then: Any, now: Any) -> bool:
    """Whether two values are equal, or name the same folder."""
    if then == now or not isinstance(now, str) or not os.path.isdir(now):
        return bool(then == now)
    return os.path.realpath(then) == os.path.realpath(now)
