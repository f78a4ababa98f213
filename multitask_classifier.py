"""Fine-tune one BERT on sentiment (SST), paraphrase (Quora) and similarity (STS) at once.

    python multitask_classifier.py --option finetune            # on the CPU
    python multitask_classifier.py --option finetune --use_gpu  # on CUDA
    python multitask_classifier.py --resume runs/2026-11-20-multitask

Writes the six prediction CSVs. `--help` lists the flags; options.py says what each is for. train()
is the loop, training/step.py an optimizer step.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import CACHE, Data, load_task
from errors import UserError, run_main
from evaluation import evaluate
from flags import options_of, read_flags
from multitask_bert import MultitaskBERT, build
from options import Options, pick
from predict import predict_with, request_of
from storage.files import clear_unfinished
from streams import lasting_streams
from text.data_files import find_files, say_where, splits_of
from training.best import merge_best
from training.checkpoint import seed_everything
from training.console import as_time
from training.draws import Draw, epoch_steps, one_cycle_a_step
from training.environment import (
    display_path,
    keep_freed_memory,
    pick_device,
    pick_dtype,
    say_idle_gpu,
)
from training.hooks import evaluation_weights, make_hooks
from training.lock import locks_released
from training.optimizers import set_rates
from training.outputs import check_outputs, has_finished, write_outputs
from training.repeatable import settle_arithmetic
from training.restore import resumed
from training.run import Run
from training.samplers import SAMPLERS
from training.schedules import SCHEDULES
from training.signals import resumable
from training.space import check_space
from training.start import model_for, started
from training.step import Learner, make_learner, update
from training.warmup import Schedule, steps_of_warmup

# ---- the loop


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
    model.compute_dtype = pick_dtype(options.precision, device)
    data, facts = load_data(options, model)
    facts["dtype"] = str(model.compute_dtype)
    training = data["train"]
    learner = make_learner(options, model, training)
    hooks = make_hooks(model, options)
    plan = make_plan(options, learner)

    # All that a checkpoint holds, under the names of its files.
    pieces = {**learner.pieces(), **hooks}
    check_space(options, pieces)
    run = Run(options, device, facts, pieces, data, plan.total, plan.epoch)
    schedule = run.warmed_up(plan.schedule)
    model.train()
    with run:
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
                    run.keep_best(epoch, evaluate(model, data["dev"], seen), model)
            if rest == 0 or (step + 1) % options.save_every == 0:
                run.save()
        if run.interrupted:
            run.save()
    if run.interrupted and run.progress.step < plan.total:
        raise run.ended_early()
    with resumable(run.folder):
        return finish(run, options, data)


# ---- before and after


@dataclass
class Plan:
    """How many steps there are, what each draws and how fast it learns."""

    draw: Draw
    schedule: Schedule
    epoch: int  # steps
    total: int  # steps


def make_plan(options: Options, learner: Learner) -> Plan:
    """The sampler and the schedule that the options ask for."""
    sizes = {task: len(split) for task, split in learner.training.items()}
    draw = pick(SAMPLERS, options.sampler, "--sampler")(sizes, options)
    if learner.combiner:
        draw = one_cycle_a_step(draw, sizes)
    epoch = options.steps_per_epoch or epoch_steps(draw, sizes)
    total = epoch * options.epochs
    warmup = steps_of_warmup(options.warmup, total)
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, warmup)
    return Plan(draw, schedule, epoch, total)


def load_data(options: Options, model: MultitaskBERT) -> tuple[Data, dict[str, Any]]:
    """All files of all tasks, checked and tokenised, and their facts for run.json."""
    clear_unfinished(CACHE)
    paths, built_in = find_files(options)
    say_where(options, built_in)
    splits = splits_of(options)
    data: Data = {split: {} for split in splits}
    read: dict[str, dict[str, Any]] = {}  # of each file, for run.json
    for name in options.tasks:
        own = {split: paths[name, split] for split in splits}
        for split, part in load_task(own, model.tasks[name], options, model.tokenizer).items():
            data[split][name] = part
            read[f"{name}_{split}"] = {"path": display_path(own[split]), **part.facts()}
        counts = ", ".join(f"{len(data[split][name])} {split}" for split in splits)
        print(f"{name}: {counts} examples")
    return data, {"built_in_corpus": built_in, "data": read, "init": model.started_from}


def prepared(options: Options, whole: bool = False) -> Options:
    """The options checked, or those of the run to be resumed.

    The model is named, and the output folders are there and writable. `whole`: of a resumed run all
    options are given, not only those that are to change.
    """
    options = resumed(options, whole) if options.resume else options.check()
    if not options.resume:
        options = replace(options, model=model_for(options))
    # A run that had finished before writes into its own folder only.
    if not (options.resume and has_finished(Path(options.resume), options.epochs)):
        check_outputs(options)
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    return options


def finish(run: Run, options: Options, data: Data) -> dict[str, Any]:
    """Load the best model, write the prediction files, say where everything is."""
    best = run.progress.best
    model = MultitaskBERT.load(run.folder, options.use_gpu)
    if model.merge_wanted:
        merge_best(run.folder / "best", model, run.facts, best)
    predictions = write_outputs(run.folder, options, model, data, run.console)
    results = run.finish({"best": best, "predictions": str(predictions)})
    print(f"best epoch {best['epoch']}: overall {best['overall']:.3f}")
    scores = [
        f"{model.tasks[name].title} {model.tasks[name].metric_name} {score:.3f}"
        for name, score in best["scores"].items()
    ]
    print("  ".join(scores))
    print(f"model: {run.folder}/best   time: {as_time(results['seconds'])}")
    return {**results, "folder": str(run.folder)}


def main(argv: list[str]) -> None:
    """The command line."""
    flags = read_flags(argv, __doc__.split("\n\n")[0])
    if flags.get("option") == "test":
        predict_with(*request_of(flags))
    else:
        train(options_of(flags), whole=True)


if __name__ == "__main__":
    run_main(main)
