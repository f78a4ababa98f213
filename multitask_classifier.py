"""Fine-tune one BERT on sentiment (SST), paraphrase (Quora) and similarity (STS) at once.

    python multitask_classifier.py --option finetune            # on the CPU
    python multitask_classifier.py --option finetune --use_gpu  # on CUDA
    python multitask_classifier.py --resume runs/2026-11-20-multitask

Writes the six prediction CSVs. `--help` lists the flags; options.py says what each is for. update()
is an optimizer step, train() the loop around it.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datasets import Data, Split
from errors import run_main
from evaluation import Evaluation, Seen, evaluate
from flags import options_of, read_flags
from losses.extras import add_terms, make_extras
from models.counts import count_parameters, print_counts
from multitask_bert import MultitaskBERT, build
from options import Options, pick
from predict import predict_with, request_of
from streams import lasting_streams
from training.baselines import BASELINES, baseline
from training.checkpoint import seed_everything
from training.draws import micro_batches
from training.environment import (
    keep_freed_memory,
    pick_device,
    pick_dtype,
    say_idle_gpu,
    warn_of_slow,
)
from training.finish import finish
from training.gradients import Combiner, TaskGradients
from training.hooks import evaluation_weights, make_hooks
from training.inputs import load_data, prepared
from training.lock import locks_released
from training.named_state import NamedState
from training.optimizers import make_optimizer, set_rates
from training.plan import make_plan
from training.rates import peak_rate
from training.repeatable import settle_arithmetic
from training.run import Run
from training.scaling import Scaler, make_scaler
from training.signals import Signals
from training.space import check_space
from training.start import started
from training.surgery import COMBINERS

# ---- one step


@dataclass
class Learner:
    """What an optimizer step works on."""

    options: Options
    model: MultitaskBERT
    training: dict[str, Split]  # task -> its training examples
    extras: nn.ModuleDict  # further terms of the loss, by name
    optimizer: Any  # see training/optimizers.py
    combiner: Combiner | None  # of the tasks' gradients; None: their sum
    scaler: Scaler  # of the loss, for fp16

    def pieces(self) -> dict[str, Any]:
        """What of it a checkpoint holds, under the names of the files."""
        return {
            "model": self.model,
            "optimizer": NamedState(self.optimizer),
            "extras": self.extras,
            "combiner": self.combiner,
            "scaler": self.scaler,
        }


@dataclass
class Step:
    """What an optimizer step tells."""

    losses: dict[str, Tensor]  # name of a task or extra -> its mean over the step's examples
    norm: Tensor | None  # of the gradient, before clipping; None: the step was skipped
    tokens: int  # word-pieces read


def make_learner(options: Options, model: MultitaskBERT, training: dict[str, Split]) -> Learner:
    """The optimizer, extras and combiner that the options ask for, around a model."""
    extras = make_extras(model, options).to(model.device)
    lr = peak_rate(options, model.bert.config.hidden_size)
    optimizer = make_optimizer(nn.ModuleDict({"model": model, "extras": extras}), options, lr)
    combiner = pick(COMBINERS, options.combiner, "--combiner")(options)
    scaler = make_scaler(model.device, model.compute_dtype)
    return Learner(options, model, training, extras, optimizer, combiner, scaler)


def loss_terms(
    learner: Learner, part: Mapping[str, list[int]], drawn: Mapping[str, list[int]]
) -> dict[str, Tensor]:
    """One encoder call for the examples of `part`, and from it the loss of each task and extra.

    A term is a mean over the examples in `part`, times their share in the step's, `drawn`: so the
    parts of a step sum up to means over the whole step.
    """
    model = learner.model
    batches = {
        task: learner.training[task].batch(indices).to(model.device)
        for task, indices in part.items()
    }
    forward = model(model.pack(batches))
    terms = {}
    for task, batch in batches.items():
        share = len(part[task]) / len(drawn[task])
        terms[task] = model.tasks[task].loss(forward, batch) * share
    share = sum(map(len, part.values())) / sum(map(len, drawn.values()))
    for extra in learner.extras.values():
        more = extra(model, forward, batches)
        add_terms(terms, {name: term * share for name, term in more.items()}, model.tasks)
    return terms


def backward(
    learner: Learner, parts: list[dict[str, list[int]]], drawn: Mapping[str, list[int]], step: int
) -> dict[str, Tensor]:
    """Leave the gradient of the micro-batches `parts` in .grad, times the scale of the loss.

    Returns the loss of each task and extra, a mean over the step's examples.
    """
    bert, scaler = learner.model.bert, learner.scaler
    gradients = TaskGradients({name: p for name, p in bert.named_parameters() if p.requires_grad})
    losses: dict[str, Tensor] = {}

    # A combiner needs each task's gradient on its own: then each task has an encoder call of its
    # own, since K backward passes through one call cost twice as much.
    for part in parts:
        calls = [part]
        if learner.combiner:
            calls = [{task: indices} for task, indices in part.items()]
        for call in calls:
            terms = loss_terms(learner, call, drawn)
            scaler.scale(torch.stack(list(terms.values())).sum()).backward()
            if learner.combiner:
                (task,) = call
                gradients.take(task)
            for name, term in terms.items():
                losses[name] = losses.get(name, 0.0) + term.detach()
    if learner.combiner:
        scale = scaler.get_scale()
        gradients.combine(learner.combiner, step, learner.options.seed, scale)
    return losses


@contextlib.contextmanager
def for_second_derivatives(model: MultitaskBERT) -> Iterator[None]:
    """Attention written out, which has them; and fp32 instead of fp16, in which they vanish."""
    before = model.compute_dtype
    if before == torch.float16:
        model.compute_dtype = torch.float32
    try:
        with model.bert.plain_attention():
            yield
    finally:
        model.compute_dtype = before


def update(learner: Learner, drawn: dict[str, list[int]], step: int) -> Step:
    """One optimizer step on the examples {task: indices} that were drawn for it."""
    options, model, optimizer = learner.options, learner.model, learner.optimizer
    scaler = learner.scaler
    parts = micro_batches(drawn, options.accumulation)
    losses = backward(learner, parts, drawn, step)

    # The gradient as it is without the scale, and no longer than --clip.
    moving = [p for p in [*model.parameters(), *learner.extras.parameters()] if p.requires_grad]
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(moving, options.clip or float("inf"))

    # In fp16 it may overflow: then the scaler leaves the weights as they are.
    skipped = scaler.is_enabled() and not norm.isfinite()
    if skipped:
        scaler.check()

    # Optimizers with curvature (Sophia) look at a loss of their own from time to time.
    every = getattr(optimizer, "curvature_every", 0)
    if every and step % every == 0 and not skipped:
        with for_second_derivatives(model):
            terms = loss_terms(learner, parts[0], parts[0])
            optimizer.estimate_curvature(torch.stack(list(terms.values())).sum())

    # Move the weights.
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()

    tokens = sum(learner.training[task].length(i) for task, part in drawn.items() for i in part)
    return Step(losses, None if skipped else norm, tokens)


# ---- the loop


def evaluations(model: MultitaskBERT, data: Data, seen: Seen) -> dict[str, Evaluation]:
    """What is scored after an epoch: dev, and of train what --train_scores asks for."""
    found = {"dev": evaluate(model, data["dev"], seen)}
    if "of_train" in data:
        found["train"] = evaluate(model, data["of_train"], seen)
    return found


@lasting_streams()
@locks_released()
def train(options: Options, whole: bool = False) -> dict[str, Any]:
    """Train, evaluate after every epoch, keep the best model, write its predictions.

    Returns what run.json records, and the run's folder. `whole`: see prepared().
    """
    # Everything that can fail without training, fails here.
    options = prepared(options, whole)
    device = pick_device(options.use_gpu)
    say_idle_gpu(device)
    seed_everything(options.seed)
    keep_freed_memory()
    settle_arithmetic()
    model = started(build(options)).to(device)
    print_counts(model)
    model.compute_dtype = pick_dtype(options.precision, device)
    warn_of_slow(model.compute_dtype, device)
    data, facts = load_data(options, model)
    facts["dtype"] = str(model.compute_dtype)
    facts["parameters"] = count_parameters(model)
    training = data["train"]
    learner = make_learner(options, model, training)
    hooks = make_hooks(model, options)
    plan = make_plan(options, training, joint=learner.combiner is not None)

    # All that a checkpoint holds, under the names of its files.
    pieces = {**learner.pieces(), **hooks}
    check_space(options, pieces)
    with (
        Signals() as signals,
        Run(options, device, facts, pieces, data, plan.total, plan.epoch, signals) as run,
    ):
        schedule = run.warmed_up(plan.schedule)
        model.train()
        for step in run.steps():
            if run.should_stop():
                break
            progress = step / plan.total
            for hook in hooks.values():
                hook.before_step(step, progress)
            lr = set_rates(learner.optimizer, schedule(step, run.progress.history))
            counts = plan.draw(step, progress)
            drawn = {task: training[task].draw(count) for task, count in counts.items()}
            done = update(learner, drawn, step)
            for hook in hooks.values():
                hook.after_step(step)
            run.log(step, done.losses, done.norm, lr, done.tokens)

            # At the end of an epoch look at the dev sets; every now and then write a checkpoint.
            epoch, rest = divmod(step + 1, plan.epoch)
            if rest == 0:
                with evaluation_weights(hooks), run.console.predicting("dev") as seen:
                    run.keep_best(epoch, evaluations(model, data, seen), model)
            if rest == 0 or (step + 1) % options.save_every == 0:
                run.save()
        if run.interrupted:
            run.save()
    if run.interrupted and run.progress.step < plan.total:
        raise run.ended_early()
    return finish(run, options, data)


def main(argv: list[str]) -> None:
    """The command line."""
    flags = read_flags(argv, __doc__.split("\n\n")[0])
    if flags.get("option") == "test":
        predict_with(*request_of(flags))
        return
    options = options_of(flags)
    if options.option in BASELINES:
        baseline(options)
    else:
        train(options, whole=True)


if __name__ == "__main__":
    run_main(main)
