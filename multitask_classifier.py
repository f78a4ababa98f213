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

from datasets import CACHE, Split, load_task
from errors import UserError, run_main
from evaluation import evaluate
from flags import parse
from multitask_bert import MultitaskBERT, build
from options import Options, pick
from pretrained import default_pretrained
from storage.files import clear_unfinished
from streams import lasting_streams
from text.data_files import SPLITS, download_command, find_files
from training.checkpoint import replace_folder, seed_everything
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
from training.run import Run, resumed
from training.samplers import SAMPLERS
from training.schedules import SCHEDULES
from training.signals import resumable
from training.space import check_space
from training.step import Learner, make_learner, update
from training.warmup import Schedule

Data = dict[str, dict[str, Split]]  # split -> task -> examples


# ---- the loop


@lasting_streams()
@locks_released()
def train(options: Options) -> dict[str, Any]:
    """Train, evaluate after every epoch, keep the best model, write its predictions.

    Returns what run.json records, and the run's folder.
    """
    # Everything that can fail without training, fails here.
    options = prepared(options)
    device = pick_device(options.use_gpu)
    say_idle_gpu(device)
    seed_everything(options.seed)
    keep_freed_memory()
    settle_arithmetic()
    model = build(options).to(device)
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
    run = Run(options, device, facts, pieces, training, plan.total)
    model.train()
    with run:
        for step in run.steps():
            if run.should_stop():
                break
            progress = step / plan.total
            for hook in hooks.values():
                hook.before_step(step, progress)
            lr = set_rates(learner.optimizer, plan.schedule(step, run.progress.history))
            counts = plan.draw(step, progress)
            drawn = {task: training[task].draw(count) for task, count in counts.items()}
            done = update(learner, drawn, step)
            for hook in hooks.values():
                hook.after_step(step)
            run.log(step, done.losses, done.norm, lr, done.tokens)

            # At the end of an epoch look at the dev sets; every now and then write a checkpoint.
            epoch, rest = divmod(step + 1, plan.epoch)
            if rest == 0:
                with evaluation_weights(hooks):
                    run.keep_best(epoch, evaluate(model, data["dev"]), model)
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
    warmup = round(options.warmup * total)
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, warmup)
    return Plan(draw, schedule, epoch, total)


def load_data(options: Options, model: MultitaskBERT) -> tuple[Data, dict[str, Any]]:
    """All files of all tasks, checked and tokenised, and their facts for run.json."""
    clear_unfinished(CACHE)
    paths, built_in = find_files(options)
    if built_in:
        line = "=" * 80
        place = Path(options.data_dir)
        print(
            f"{line}\nNo real data in {place.absolute()}: this run uses the BUILT-IN CORPUS.\n"
            "Its scores say nothing about SST, Quora or STS.\n"
            f"To fetch the course's data: {download_command(place)}\n{line}"
        )
    data: Data = {split: {} for split in SPLITS}
    read: dict[str, dict[str, str]] = {}  # of each file, for run.json
    for name in options.tasks:
        own = {split: paths[name, split] for split in SPLITS}
        for split, part in load_task(own, model.tasks[name], options, model.tokenizer).items():
            data[split][name] = part
            read[f"{name}_{split}"] = {"path": display_path(own[split]), "sha256": part.sha256}
        counts = ", ".join(f"{len(data[split][name])} {split}" for split in SPLITS)
        print(f"{name}: {counts} examples")
    return data, {"built_in_corpus": built_in, "data": read}


def prepared(options: Options) -> Options:
    """The options checked, or those of the run to be resumed.

    The model is named, and the output folders are there and writable.
    """
    options = resumed(options) if options.resume else options.check()
    if options.model == "auto":
        options = replace(options, model=default_pretrained())
    # A run that had finished before writes into its own folder only.
    if not (options.resume and has_finished(Path(options.resume))):
        check_outputs(options)
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    return options


def finish(run: Run, options: Options, data: Data) -> dict[str, Any]:
    """Load the best model, write its prediction files, say where everything is."""
    model = MultitaskBERT.load(run.folder, options.use_gpu)
    if model.merge_wanted:
        model.merge()
        replace_folder(run.folder / "best", model.save)
    predictions = write_outputs(run.folder, options, model, data)
    best = run.progress.best
    results = run.finish({"best": best, "predictions": str(predictions)})
    scores = "  ".join(
        f"{model.tasks[name].title} {model.tasks[name].metric_name} {score:.3f}"
        for name, score in best["scores"].items()
    )
    print(f"best epoch {best['epoch']}: {scores}  overall {best['overall']:.3f}")
    print(
        f"model: {run.folder}/best   predictions: {predictions}   time: {results['seconds']:.0f} s"
    )
    return {**results, "folder": str(run.folder)}


def main(argv: list[str]) -> None:
    """The command line."""
    train(parse(argv, __doc__.split("\n\n")[0]))


if __name__ == "__main__":
    run_main(main)
