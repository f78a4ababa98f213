"""The quality to be reached: transformers' BertModel with plain linear heads, on the main job's
batches.

    python benchmarks/reference.py --out results/TABLE --data_dir DATA --epochs 3 --seed 1

Takes the main job's flags, for a table of ablate.py's those that hold for all of its rows, and its
own; with --out its run becomes a row of that table. The same pretrained folder, examples, batches,
number of updates and epochs as `multitask_classifier.py` with the same seed. Dropout and one linear
a task on [CLS], no pooler; pairs as one sequence with token types. torch.optim.AdamW with torch's
eps of 1e-8, weight decay not on norms and biases, linear warm-up and decay, clipping. The step's
loss is the sum of the tasks' mean losses: cross-entropy, binary cross-entropy, and for STS the
squared error of the raw output on the label 0 to 5 (or, --sts_loss bce, this project's own).
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from ablation.record import Epoch, Line, Source, append_line, check_joins, read_lines, terms
from ablation.rows import plain
from ablation.runs import keep_predictions
from benchmarks.common import arguments, check_followed, facts, load, own_parser
from benchmarks.plain_bert import PlainBERT, autocast, predict_logits, task_loss
from commandline.words import expand
from datasets import Split
from errors import run_main
from evaluation import measure
from flags import read_flags
from optimizer import parameter_groups
from options import Options
from storage.files import sha256_of
from tasks import overall
from text.data_files import find_files
from tokenizer import BertTokenizer
from training.checkpoint import seed_everything
from training.draws import micro_batches
from training.environment import check_writable, peak_memory, pick_device, pick_dtype
from training.optimizers import set_rates
from training.plan import make_plan
from training.progress import Best
from training.rates import peak_rate
from training.scaling import Scaler, make_scaler
from training.start import model_for

ENCODED_TOGETHER = 16
# The row of a table, and what it is, by --sts_loss.
ROWS = {
    "mse": ("transformers", "transformers' BertModel, linear heads, STS as a regression"),
    "bce": ("transformers-bce", "transformers' BertModel, linear heads"),
}
FOLLOWED = (
    "steps_per_epoch",
    "samples_per_epoch",
    "accumulation",
    "sampler",
    "sampling_exponent",
    "schedule",
    "warmup",
    "weight_decay",
    "clip",
    "max_length",
    "limit",
    "train_fraction",
    "test",
)


def evaluate(
    model: PlainBERT, dev: dict[str, Split], dtype: torch.dtype, sts_loss: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """{task: dev score} and {task: predictions in file order}."""
    scores, predicted = {}, {}
    for task, split in dev.items():
        logits = predict_logits(model, split, dtype)
        # Trained by squared error, the output is the similarity itself.
        raw = sts_loss == "mse" and not split.task.labels.whole
        predictions = logits.squeeze(1) if raw else split.task.predict(logits)
        labels = np.array([example.label for example in split.examples])
        scores[task] = measure(split.task, predictions.numpy(), labels)["score"]
        whole = split.task.labels.whole
        predicted[task] = [int(x) if whole else round(x, 4) for x in predictions.tolist()]
    return scores, predicted


@dataclass
class Learner:
    """What a step works on."""

    options: Options
    model: PlainBERT
    optimizer: torch.optim.Optimizer
    data: dict[str, dict[str, Split]]  # split -> task -> examples
    built_in: bool  # whether they are the built-in corpus
    sts_loss: str
    device: torch.device
    dtype: torch.dtype
    scaler: Scaler


@dataclass
class Result:
    """What a run gave."""

    best: Best
    epochs: list[Epoch]
    predictions: dict[str, list[float]]  # task -> of its dev set, by the best epoch's model
    steps: int


def update(learner: Learner, drawn: dict[str, list[int]]) -> dict[str, Tensor]:
    """One optimizer step on the examples {task: indices}; each task's mean loss."""
    options, model = learner.options, learner.model
    means = {task: torch.zeros((), device=learner.device) for task in drawn}

    # The same parts of the same draw as in multitask_classifier.update().
    for part in micro_batches(drawn, options.accumulation):
        batches = {
            task: learner.data["train"][task].batch(indices) for task, indices in part.items()
        }
        with autocast(learner.device, learner.dtype):
            logits = model.joint(batches, ENCODED_TOGETHER)

        # Each task's mean over its examples of the whole step.
        loss = torch.zeros((), device=learner.device)
        for task, batch in batches.items():
            labels = batch.labels.to(learner.device)
            share = len(part[task]) / len(drawn[task])
            of_task = task_loss(task, logits[task], labels, learner.sts_loss) * share
            loss = loss + of_task
            means[task] += of_task.detach()
        learner.scaler.scale(loss).backward()
    learner.scaler.unscale_(learner.optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip or float("inf"))
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.optimizer.zero_grad()
    return means


def make_learner(options: Options, sts_loss: str) -> Learner:
    """The data, a fresh model and its optimizer."""
    tokenizer = BertTokenizer.from_pretrained(options.model)
    data, built_in = load(options, tokenizer, ("train", "dev"))
    device = pick_device(options.use_gpu)
    dtype = pick_dtype(options.precision, device)
    seed_everything(options.seed)
    model = PlainBERT(options, "eager").to(device).train()
    peak = peak_rate(options, model.bert.config.hidden_size)
    optimizer = torch.optim.AdamW(parameter_groups(model, options.weight_decay, peak))
    scaler = make_scaler(device, dtype)
    return Learner(options, model, optimizer, data, built_in, sts_loss, device, dtype, scaler)


def run_steps(learner: Learner) -> Result:
    """All steps of a run, at the main job's rates, with an evaluation after each epoch."""
    training = learner.data["train"]
    plan = make_plan(learner.options, training, joint=False)
    print(f"{plan.total} steps, {learner.dtype}, STS {learner.sts_loss}", flush=True)

    began = time.monotonic()
    result = Result(Best(0, 0, -1.0, {}), [], {}, plan.total)
    history: list[tuple[int, float]] = []  # (step, overall dev score)
    losses: dict[str, list[Tensor]] = {}  # of this epoch's steps
    for step in range(1, plan.total + 1):
        set_rates(learner.optimizer, plan.schedule(step - 1, history))
        counts = plan.draw(step - 1, (step - 1) / plan.total)
        drawn = {task: training[task].draw(count) for task, count in counts.items()}
        for task, loss in update(learner, drawn).items():
            losses.setdefault(task, []).append(loss)
        if step % 100 == 0:
            print(f"step {step}/{plan.total}  {time.monotonic() - began:.0f} s", flush=True)
        if step % plan.epoch == 0:
            means = {task: float(torch.stack(some).mean()) for task, some in losses.items()}
            losses = {}
            close_epoch(learner, result, step, step // plan.epoch, means)
            history.append((step, result.epochs[-1].overall))
    return result


def close_epoch(
    learner: Learner, result: Result, step: int, number: int, losses: dict[str, float]
) -> None:
    """Add to the result what an epoch gave."""
    model, dev = learner.model, learner.data["dev"]
    scores, predictions = evaluate(model, dev, learner.dtype, learner.sts_loss)
    model.train()
    together = overall(scores)
    result.epochs.append(Epoch(number, scores, together, losses, {}))
    said = "  ".join(f"{task} {score:.4f}" for task, score in scores.items())
    print(f"epoch {number}  {said}  overall {together:.4f}", flush=True)
    if together > result.best.overall:
        result.best = Best(number, step, together, scores)
        result.predictions = predictions


def line_of(learner: Learner, result: Result, shared: dict[str, Any], seconds: float) -> Line:
    """The line of a run in a table's record."""
    options = learner.options
    row, what = ROWS[learner.sts_loss]
    data = {}
    for split, by_task in learner.data.items():
        for task, examples in by_task.items():
            data[f"{task}_{split}"] = Source(examples.sha256, len(examples))
    parameters = sum(weights.numel() for weights in learner.model.parameters())
    found = facts(options, learner.built_in)
    return Line(
        row=row,
        what=what,
        flags=None,
        shared=plain(shared),
        seed=options.seed,
        options=plain(options.to_dict()),
        best=result.best,
        epochs=result.epochs,
        steps=result.steps,
        seconds=round(seconds, 1),
        peak_memory_mib=round(peak_memory(learner.device)),
        parameters={"all": parameters, "trained": parameters},
        data=data,
        built_in_corpus=learner.built_in,
        commit=found["commit"],
        python=found["python"],
        versions=found["versions"],
        device=found["device"],
        kernels=found["kernels"],
        dtype=str(learner.dtype),
    )


def train(
    options: Options, sts_loss: str, shared: dict[str, Any]
) -> tuple[Line, dict[str, list[float]]]:
    """Train and evaluate; the line for a table, and the dev predictions.

    Options that it does not follow must be at their defaults. `shared`: those typed.
    """
    check_followed(options, *FOLLOWED)
    learner = make_learner(options, sts_loss)
    began = time.monotonic()  # as the main job counts
    result = run_steps(learner)
    return line_of(learner, result, shared, time.monotonic() - began), result.predictions


def main(argv: list[str]) -> None:
    """The command line."""
    own = own_parser()
    own.add_argument("--out", type=Path, help="the table that gets the run, results/NAME")
    own.add_argument("--sts_loss", choices=ROWS, default="mse", help="on STS [mse]")
    mine, options = arguments(argv, own, __doc__.split("\n\n")[0])
    check_followed(options, *FOLLOWED)
    options = replace(options, model=model_for(options), test=False)
    shared = read_flags(own.parse_known_args(expand(argv))[1], "")
    shared.pop("seed", None)

    # That the run can join the table shows before it runs.
    row = ROWS[mine.sts_loss][0]
    if mine.out:
        check_writable(mine.out)
        lines = read_lines(mine.out)
        paths, _ = find_files(options)
        sums = {f"{task}_{split}": sha256_of(path) for (task, split), path in paths.items()}
        check_joins(mine.out, lines, terms(shared, None, plain(options.to_dict()), "", sums))
        if (row, options.seed) in [(line.row, line.seed) for line in lines]:
            print(f"{row}, seed {options.seed}: in the record")
            return

    line, predictions = train(options, mine.sts_loss, shared)
    if mine.out:
        keep_predictions(mine.out, line, predictions)
        append_line(mine.out, line)


if __name__ == "__main__":
    run_main(main)
