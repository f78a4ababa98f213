"""The quality to be reached: transformers' BertModel with plain linear heads, on the main job's
batches.

    python benchmarks/reference.py --data_dir DATA --seed 1 --record
    benchmarks/records/reference.jsonl

Takes the main job's flags and its own, below. The same pretrained folder, examples, batches, number
of updates and epochs as `multitask_classifier.py` with the same seed. Dropout and one linear a task
on [CLS], no pooler; pairs as one sequence with token types. torch.optim.AdamW with torch's eps of
1e-8, weight decay not on norms and biases, linear warm-up and decay, clipping. The step's loss is
the sum of the tasks' mean losses: cross-entropy, binary cross-entropy, and for STS the squared
error of the raw output on the label 0 to 5 (or, --sts_loss bce, this project's own).
"""

import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from checkpoint import seed_everything
from samplers import epoch_steps
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
from datasets import Batch, Split
from errors import run_main
from evaluation import measure
from multitask_bert import pick_device, pick_dtype
from optimizer import SCHEDULES, parameter_groups
from options import Options, pick
from pretrained import default_pretrained, find_pretrained
from tasks import TASKS, overall
from tokenizer import BertTokenizer

EVALUATION_BATCH = 64
ENCODED_TOGETHER = 16


class PlainBERT(nn.Module):
    """transformers' BertModel with a dropout and a linear for each task on [CLS]."""

    def __init__(self, options: Options, attention: str):
        super().__init__()
        from transformers import BertModel
        from transformers.utils import logging

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
        """All tasks of a step, encoded sorted by length, `together` at a time, each padded to its
        longest.
        """
        sequences = [sequence for batch in batches.values() for sequence in batch.sequences]
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
        device = next(self.parameters()).device
        parts = [order[begin : begin + together] for begin in range(0, len(order), together)]
        states = [
            self.bert(**padded([sequences[i] for i in part], device)).last_hidden_state[:, 0]
            for part in parts
        ]
        first = self.dropout(
            torch.cat(states)[torch.tensor(order).argsort().to(device)]
        )  # in the batches' order
        pieces = first.split([len(batch.sequences) for batch in batches.values()])
        return {
            task: self.heads[task](piece).float()
            for task, piece in zip(batches, pieces, strict=True)
        }


def task_loss(task: str, logits: Tensor, labels: Tensor, sts_loss: str) -> Tensor:
    """The mean loss of a task's examples; "mse" takes the squared error where labels are not whole
    numbers.
    """
    if sts_loss == "mse" and not TASKS[task].whole:
        return F.mse_loss(logits.squeeze(1), labels)
    return TASKS[task].loss(logits, labels)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to bf16, or nothing in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


@torch.no_grad()
def predict_logits(model: PlainBERT, split: Split, dtype: torch.dtype) -> Tensor:
    """[examples, outputs] in file order, from batches sorted by length. Leaves the model in eval
    mode.
    """
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(split)), key=lambda i: -len(split.sequences[i][0]))
    rows = []
    with autocast(device, dtype):
        for begin in range(0, len(order), EVALUATION_BATCH):
            rows.append(model(split.task, split.batch(order[begin : begin + EVALUATION_BATCH])))
    return torch.cat(rows).cpu()[torch.tensor(order).argsort()]


def evaluate(
    model: PlainBERT, dev: dict[str, Split], dtype: torch.dtype, sts_loss: str
) -> dict[str, Any]:
    """{"scores": {task: score}, "overall": score}."""
    scores = {}
    for task, split in dev.items():
        logits = predict_logits(model, split, dtype)
        raw = sts_loss == "mse" and not TASKS[task].whole
        predictions = logits.squeeze(1) if raw else TASKS[task].predict(logits)
        labels = np.array([example.label for example in split.examples])
        scores[task] = measure(task, predictions.numpy(), labels)["score"]
    return {"scores": scores, "overall": overall(scores)}


def train(
    options: Options, attention: str = "eager", sts_loss: str = "mse", every_epoch: bool = False
) -> dict[str, Any]:
    """Train and evaluate; the record of the run. Options that it does not follow must be at their
    defaults.
    """
    check_followed(
        options,
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
    if options.model == "auto":
        options = replace(options, model=default_pretrained())
    device = pick_device(options.use_gpu)
    dtype = pick_dtype(options.precision, device)
    seed_everything(options.seed)
    model = PlainBERT(options, attention).to(device)
    data, built_in = load(options, BertTokenizer.from_pretrained(options.model), ("train", "dev"))
    training = data["train"]
    draw = sampler(options, training)
    epoch = options.steps_per_epoch or epoch_steps(
        draw, {t: len(s) for t, s in training.items()}, options.accumulation
    )
    total = epoch * options.epochs
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, round(options.warmup * total))
    peak = options.learning_rate(model.bert.config.hidden_size)
    optimizer = torch.optim.AdamW(parameter_groups(model, options.weight_decay), lr=peak)

    began, examples, epochs, running, losses = time.monotonic(), 0, [], 0.0, []
    print(
        f"{options.model}: {total} steps, {attention} attention, {dtype}, STS {sts_loss}",
        flush=True,
    )
    model.train()
    for step in range(total):
        for group in optimizer.param_groups:
            group["lr"] = peak * schedule(step)
        for micro in range(step * options.accumulation, (step + 1) * options.accumulation):
            batches = {task: training[task].take(count) for task, count in draw(micro).items()}
            with autocast(device, dtype):
                logits = model.joint(batches, ENCODED_TOGETHER)
            parts = [
                task_loss(t, logits[t], batch.labels.to(device), sts_loss)
                for t, batch in batches.items()
            ]
            loss = torch.stack(parts).sum() / options.accumulation
            examples += sum(len(batch.labels) for batch in batches.values())
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{total}  {time.monotonic() - began:.0f} s", flush=True)
        if (step + 1) % epoch == 0:
            running, losses = float(torch.stack(losses).sum()) / epoch, []
            line = f"epoch {(step + 1) // epoch}  step {step + 1}  loss {running:.3f}"
            if every_epoch or step + 1 == total:
                epochs.append(
                    {"epoch": (step + 1) // epoch, **evaluate(model, data["dev"], dtype, sts_loss)}
                )
                model.train()
                line += "  " + "  ".join(f"{t} {s:.4f}" for t, s in epochs[-1]["scores"].items())
                line += f"  overall {epochs[-1]['overall']:.4f}"
            print(f"{line}  {time.monotonic() - began:.0f} s", flush=True)
    return {
        "name": f"transformers, linear heads, STS {sts_loss}",
        "seed": options.seed,
        "best": max(epochs, key=lambda e: e["overall"]),
        "epochs": epochs,
        "loss": running,
        "steps": total,
        "examples": examples,
        "attention": attention,
        "seconds": round(time.monotonic() - began, 1),
        "options": asdict(options),
        **facts(options, built_in),
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
