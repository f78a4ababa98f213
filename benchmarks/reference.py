"""The quality to be reached: transformers' BertModel with plain linear heads, on the main job's
batches.

    python benchmarks/reference.py --data_dir DATA --seed 1 --record REFERENCE.jsonl

Takes the main job's flags and its own, below. The same pretrained folder, examples, batches, number
of updates and epochs as `multitask_classifier.py` with the same seed. Dropout and one linear a task
on [CLS], no pooler; pairs as one sequence with token types. torch.optim.AdamW with torch's eps of
1e-8, weight decay not on norms and biases, linear warm-up and decay, clipping. The step's loss is
the sum of the tasks' mean losses: cross-entropy, binary cross-entropy, and for STS the squared
error of the raw output on the label 0 to 5 (or, --sts_loss bce, this project's own).
"""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import (
    append,
    arguments,
    check_followed,
    check_joins,
    facts,
    load,
    own_parser,
    padded,
    sampler,
)
from datasets import Split
from errors import run_main
from evaluation import measure
from optimizer import parameter_groups
from options import Options, pick
from packing import Batch
from pretrained import default_pretrained, find_pretrained
from tasks import TASKS, overall
from tokenizer import BertTokenizer
from training.checkpoint import seed_everything
from training.draws import epoch_steps, micro_batches
from training.environment import pick_device, pick_dtype
from training.optimizers import set_rates
from training.rates import peak_rate
from training.scaling import Scaler, make_scaler
from training.schedules import SCHEDULES

EVALUATION_BATCH = 64
ENCODED_TOGETHER = 16
FOLLOWED = (
    "steps_per_epoch",
    "accumulation",
    "sampler",
    "sampling_exponent",
    "schedule",
    "warmup",
    "weight_decay",
    "clip",
    "max_length",
)


class PlainBERT(nn.Module):
    """transformers' BertModel with a dropout and a linear for each task on [CLS]."""

    def __init__(self, options: Options, attention: str):
        super().__init__()
        from transformers import BertModel
        from transformers.utils import logging

        # Its remarks about unused pooler weights are known.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.bert = BertModel.from_pretrained(
            find_pretrained(options.model),
            add_pooling_layer=False,
            attn_implementation=attention,
            dtype=torch.float32,
            hidden_dropout_prob=options.hidden_dropout_prob,
            attention_probs_dropout_prob=options.attention_dropout_prob,
        )
        self.dropout = nn.Dropout(options.hidden_dropout_prob)
        self.heads = nn.ModuleDict(
            {t: nn.Linear(self.bert.config.hidden_size, TASKS[t].outputs) for t in options.tasks}
        )

    def forward(self, task: str, batch: Batch) -> Tensor:
        """Padded to the longest: logits [B, outputs], fp32."""
        return self.joint({task: batch})[task]

    def joint(self, batches: dict[str, Batch], together: int = 10**9) -> dict[str, Tensor]:
        """All tasks of a step, sorted by length and encoded `together` at a time, padded to fit."""
        # Sorted by length, so that a part has little padding.
        sequences = [tokens for batch in batches.values() for tokens in batch.tokens]
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        device = next(self.parameters()).device
        parts = [order[begin : begin + together] for begin in range(0, len(order), together)]

        # [CLS] of each sequence, put back into the order of the batches.
        states = [
            self.bert(**padded([sequences[i] for i in part], device)).last_hidden_state[:, 0]
            for part in parts
        ]
        in_order = torch.cat(states)[torch.tensor(order).argsort().to(device)]
        first = self.dropout(in_order)

        # Each task's part of it to its own head.
        pieces = first.split([len(batch.tokens) for batch in batches.values()])
        return {
            task: self.heads[task](piece).float()
            for task, piece in zip(batches, pieces, strict=True)
        }


def task_loss(task: str, logits: Tensor, labels: Tensor, sts_loss: str) -> Tensor:
    """The mean loss of a task's examples.

    Where labels are not whole numbers it is the squared error ("mse"), or the cross-entropy of the
    labels' share of the highest one ("bce").
    """
    # Several outputs are classes; one output is a number, or the logit of a share.
    scale = TASKS[task].labels
    if TASKS[task].outputs > 1:
        return F.cross_entropy(logits, labels.long())
    if sts_loss == "mse" and not scale.whole:
        return F.mse_loss(logits.squeeze(1), labels)
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels / scale.high)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to bf16 or fp16, or nothing in fp32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@torch.no_grad()
def predict_logits(model: PlainBERT, split: Split, dtype: torch.dtype) -> Tensor:
    """[examples, outputs] in file order, from batches sorted by length; the model stays in eval."""
    model.eval()
    device = next(model.parameters()).device
    # Sorted by length as in training; the inverse of that order puts the rows back.
    order = sorted(range(len(split)), key=lambda i: -split.length(i))
    rows = []
    with autocast(device, dtype):
        for begin in range(0, len(order), EVALUATION_BATCH):
            batch = split.batch(order[begin : begin + EVALUATION_BATCH])
            rows.append(model(split.task.name, batch))
    return torch.cat(rows).cpu()[torch.tensor(order).argsort()]


def evaluate(
    model: PlainBERT, dev: dict[str, Split], dtype: torch.dtype, sts_loss: str
) -> dict[str, Any]:
    """{"scores": {task: score}, "overall": score}."""
    scores = {}
    for task, split in dev.items():
        logits = predict_logits(model, split, dtype)
        # Trained by squared error, the output is the similarity itself.
        raw = sts_loss == "mse" and not split.task.labels.whole
        predictions = logits.squeeze(1) if raw else split.task.predict(logits)
        labels = np.array([example.label for example in split.examples])
        scores[task] = measure(split.task, predictions.numpy(), labels)["score"]
    return {"scores": scores, "overall": overall(scores)}


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


def update(learner: Learner, drawn: dict[str, list[int]]) -> Tensor:
    """One optimizer step on the examples {task: indices}; the sum of the tasks' mean losses."""
    options, model = learner.options, learner.model
    total = torch.zeros((), device=learner.device)

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
            loss = loss + task_loss(task, logits[task], labels, learner.sts_loss) * share
        learner.scaler.scale(loss).backward()
        total += loss.detach()
    learner.scaler.unscale_(learner.optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip or float("inf"))
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.optimizer.zero_grad()
    return total


def make_learner(options: Options, attention: str, sts_loss: str) -> Learner:
    """The data, a fresh model and its optimizer."""
    if options.model == "auto":
        options = replace(options, model=default_pretrained())
    tokenizer = BertTokenizer.from_pretrained(options.model)
    data, built_in = load(options, tokenizer, ("train", "dev"))
    device = pick_device(options.use_gpu)
    dtype = pick_dtype(options.precision, device)
    seed_everything(options.seed)
    model = PlainBERT(options, attention).to(device).train()
    peak = peak_rate(options, model.bert.config.hidden_size)
    optimizer = torch.optim.AdamW(parameter_groups(model, options.weight_decay, peak))
    scaler = make_scaler(device, dtype)
    return Learner(options, model, optimizer, data, built_in, sts_loss, device, dtype, scaler)


def run_steps(learner: Learner, every_epoch: bool) -> tuple[list[dict[str, Any]], float]:
    """All steps of a run, at the main job's rates.

    Returns the dev scores, of every epoch or the last, and the mean loss of the last epoch.
    """
    options, training = learner.options, learner.data["train"]
    sizes = {task: len(split) for task, split in training.items()}
    draw = sampler(options, training)
    epoch = options.steps_per_epoch or epoch_steps(draw, sizes)
    total = epoch * options.epochs
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, round(options.warmup * total))
    print(f"{options.model}: {total} steps, {learner.dtype}, STS {learner.sts_loss}", flush=True)

    began = time.monotonic()
    epochs: list[dict[str, Any]] = []
    losses: list[Tensor] = []  # of this epoch's steps
    for step in range(total):
        set_rates(learner.optimizer, schedule(step, [(e["step"], e["overall"]) for e in epochs]))
        counts = draw(step, step / total)
        drawn = {task: training[task].draw(count) for task, count in counts.items()}
        losses = losses if step % epoch else []
        losses.append(update(learner, drawn))
        seconds = time.monotonic() - began
        if (step + 1) % 100 == 0 or (step + 1) % epoch == 0:
            mean = float(torch.stack(losses).mean())
            print(f"step {step + 1}/{total}  loss {mean:.3f}  {seconds:.0f} s", flush=True)
        if (step + 1) % epoch == 0 and (every_epoch or step + 1 == total):
            scored = evaluate(learner.model, learner.data["dev"], learner.dtype, learner.sts_loss)
            learner.model.train()
            epochs.append({"epoch": (step + 1) // epoch, "step": step + 1, **scored})
            scores = "  ".join(f"{task} {score:.4f}" for task, score in scored["scores"].items())
            print(f"{scores}  overall {scored['overall']:.4f}", flush=True)
    return epochs, float(torch.stack(losses).mean())


def train(
    options: Options, attention: str = "eager", sts_loss: str = "mse", every_epoch: bool = False
) -> dict[str, Any]:
    """Train and evaluate; the record of the run.

    Options that it does not follow must be at their defaults.
    """
    check_followed(options, *FOLLOWED)
    began = time.monotonic()
    learner = make_learner(options, attention, sts_loss)
    epochs, loss = run_steps(learner, every_epoch)
    return {
        "name": f"transformers, linear heads, STS {sts_loss}",
        "seed": options.seed,
        "best": max(epochs, key=lambda e: e["overall"]),
        "epochs": epochs,
        "loss": loss,
        "steps": epochs[-1]["step"],
        "examples": sum(split.drawn for split in learner.data["train"].values()),
        "attention": attention,
        "seconds": round(time.monotonic() - began, 1),
        "options": learner.options.to_dict(),
        **facts(learner.options, learner.built_in),
    }


def main(argv: list[str]) -> None:
    """The command line."""
    own = own_parser()
    own.add_argument("--record", help="append the result to this file of JSON lines")
    own.add_argument("--sts_loss", choices=("mse", "bce"), default="mse", help="on STS [mse]")
    own.add_argument(
        "--attention",
        choices=("eager", "sdpa"),
        default="eager",
        help="attn_implementation [eager]",
    )
    own.add_argument(
        "--eval_every_epoch",
        action="store_true",
        help="dev scores after every epoch, not only the last",
    )
    mine, options = arguments(argv, own, __doc__.split("\n\n")[0])
    if mine.record:
        check_joins(mine.record, options)
    record = train(options, mine.attention, mine.sts_loss, mine.eval_every_epoch)
    if mine.record:
        append(mine.record, record)


if __name__ == "__main__":
    run_main(main)
