"""Fine-tune one BERT on sentiment (SST), paraphrase (Quora) and similarity (STS) at once, and write
the six prediction CSVs.

    python multitask_classifier.py --option finetune            # on the CPU
    python multitask_classifier.py --option finetune --use_gpu  # on CUDA
    python multitask_classifier.py --resume runs/2026-11-20-multitask

train() is the whole of training, top to bottom. `--help` lists the flags; options.py says what each
is for.
"""

import importlib.util
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from base_bert import default_pretrained
from checkpoint import replace_folder, seed_everything
from datasets import SPLITS, Split, find_files, load_split
from errors import Interrupted, UserError, run
from evaluation import evaluate, predict, write_predictions
from flags import parse
from lora import merge
from losses import EXTRAS
from multitask_bert import MultitaskBERT, build, pick_device, pick_dtype
from optimizer import OPTIMIZERS, SCHEDULES, parameter_groups
from options import Options, pick
from runs import Run, check_writable, checksums, keep_freed_memory, resumed, typed
from samplers import SAMPLERS, epoch_steps
from surgery import COMBINERS, backward
from tasks import TASKS

Data = dict[str, dict[str, Split]]  # split -> task -> examples


def load_data(options: Options, model: MultitaskBERT) -> tuple[Data, dict[str, Any]]:
    """All files of all tasks, checked and tokenised before the first step, and their facts for
    run.json.
    """
    paths, built_in = find_files(options)
    if built_in:
        line, place = "=" * 100, Path(options.data_dir).absolute()
        print(
            f"{line}\nNo real data in {place}: this run uses the BUILT-IN CORPUS.\nIts scores say nothing about SST, "
            f"Quora or STS. To fetch the course's data: python data/download.py\n{line}"
        )
    data: Data = {split: {} for split in SPLITS}
    for (task, split), path in paths.items():
        data[split][task] = load_split(path, task, split, options, model.tokenizer)
    for task in options.tasks:
        print(
            f"{task}: "
            + ", ".join(f"{len(data[split][task])} {split}" for split in SPLITS)
            + " examples"
        )
    return data, {"built_in_corpus": built_in, "data": checksums(paths)}


def output_path(options: Options, task: str, split: str) -> Path:
    """Where the predictions of a task and split go."""
    try:
        return Path(
            options.file(f"{task}_{split}_out")
            or options.predictions.format(task=task, split=split)
        )
    except (LookupError, ValueError, AttributeError):
        raise UserError(
            f"--predictions {options.predictions}: only {{task}} and {{split}} may stand in braces"
        ) from None


def check_outputs(*runs: Options) -> None:
    """UserError where predictions of these runs can't be written, or would overwrite one
    another.
    """
    paths = [
        output_path(one, task, split)
        for one in runs
        for task in one.tasks
        for split in ("dev", "test")
    ]
    if len(set(paths)) < len(paths):
        raise UserError(
            "two prediction files would have one name: put {task} and {split} into --predictions"
        )
    for path in paths:
        if os.path.isdir(path):
            raise UserError(f"{path}: a folder; predictions need a file name")
        check_writable(path.parent)


def prepared(options: Options) -> Options:
    """The options checked, or those of the run to be resumed; the model named, the output folders
    there and writable.
    """
    options = resumed(options) if options.resume else options.check()
    if options.model == "auto":
        options = replace(options, model=default_pretrained())
    check_outputs(options)
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    return options


def train(options: Options) -> dict[str, Any]:
    """Train, evaluate after every epoch, keep the best model, write its predictions; returns what
    run.json records.
    """
    options = prepared(options)
    device = pick_device(options.use_gpu)
    seed_everything(options.seed)
    keep_freed_memory()
    model = build(options).to(device)
    model.compute_dtype = pick_dtype(options.precision, device)
    data, facts = load_data(options, model)
    facts["dtype"] = str(model.compute_dtype)
    training, sizes = data["train"], {task: len(split) for task, split in data["train"].items()}

    parameters = [p for p in model.parameters() if p.requires_grad]
    shared = [p for p in model.bert.parameters() if p.requires_grad]
    optimizer = pick(OPTIMIZERS, options.optimizer, "--optimizer")(
        parameter_groups(model, options.weight_decay), form=options.optimizer_form
    )
    draw = pick(SAMPLERS, options.sampler, "--sampler")(sizes, options)
    combine = pick(COMBINERS, options.combiner, "--combiner")
    extras = [extra for make in EXTRAS.values() if (extra := make(options))]
    epoch = options.steps_per_epoch or epoch_steps(draw, sizes, options.accumulation)
    total = epoch * options.epochs
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, round(options.warmup * total))
    peak = options.learning_rate(model.bert.config.hidden_size)

    log = Run(options, device, facts)
    log.restore(model, optimizer, training)
    model.train()
    with log:
        for step in log.steps(total):
            if log.should_stop():
                break
            lr = peak * schedule(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            tokens, seen = 0, []
            for micro in range(step * options.accumulation, (step + 1) * options.accumulation):
                batches = {task: training[task].take(count) for task, count in draw(micro).items()}
                labels = {
                    task: batch.labels.to(device, non_blocking=True)
                    for task, batch in batches.items()
                }
                logits = model.logits(batches)  # one encoder call for all tasks
                losses = {task: TASKS[task].loss(logits[task], labels[task]) for task in batches}
                for extra in extras:
                    losses.update(
                        {t: losses[t] + more for t, more in extra(model, batches, logits).items()}
                    )
                backward(
                    {task: loss / options.accumulation for task, loss in losses.items()},
                    shared,
                    combine,
                )
                seen.append({task: loss.detach() for task, loss in losses.items()})
                tokens += sum(len(ids) for batch in batches.values() for ids, _ in batch.sequences)
            norm = torch.nn.utils.clip_grad_norm_(parameters, options.clip or float("inf"))
            optimizer.step()
            optimizer.zero_grad()
            log.log(step, seen, norm, lr, tokens)
            if (step + 1) % epoch == 0:
                log.judge((step + 1) // epoch, evaluate(model, data["dev"]), model)
            if (step + 1) % epoch == 0 or (step + 1) % options.save_every == 0:
                log.save(model, optimizer, training)
        if log.interrupted:
            log.save(model, optimizer, training)
    if log.interrupted and log.step < total:
        again = shlex.join([typed(sys.executable), typed(__file__), "--resume", str(log.folder)])
        raise Interrupted(f"stopped after step {log.step} of {total}; go on with: {again}")
    return finish(log, options, data)


def finish(log: Run, options: Options, data: Data) -> dict[str, Any]:
    """Load the best model, write its prediction files, say where everything is."""
    model = MultitaskBERT.load(log.folder, options.use_gpu)
    if options.lora_merge and model.options.lora:
        merge(model)
        model.bert.requires_grad_(True)  # whole again, and saved whole
        model.options = replace(model.options, lora=False, lora_merge=False)
        replace_folder(log.folder / "best", model.save)
    outputs = []
    for split in ("dev", "test"):
        for task, part in data[split].items():
            outputs.append(str(output_path(options, task, split)))
            write_predictions(
                outputs[-1], task, [e.id for e in part.examples], predict(model, part)
            )
    scores = "  ".join(
        f"{TASKS[t].title} {TASKS[t].metric_name} {s:.3f}" for t, s in log.best["scores"].items()
    )
    results = log.finish({"best": log.best, "predictions": outputs})
    print(f"best epoch {log.best['epoch']}: {scores}  overall {log.best['overall']:.3f}")
    print(
        f"model: {log.folder}/best   predictions: {', '.join(outputs)}   time: {results['seconds']:.0f} s"
    )
    return {**results, "folder": str(log.folder)}


def main(argv: list[str]) -> None:
    """The command line."""
    train(parse(argv, __doc__.split("\n\n")[0]))


if __name__ == "__main__":
    run(main)
