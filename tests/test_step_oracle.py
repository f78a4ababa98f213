"""train() held to an outside oracle: a plain loop over transformers' BertModel, plain torch heads
and torch's own AdamW, clipping and LambdaLR, on the same examples, in fp32 and without dropout.

What train() means, and is held to here:

- an optimizer step is one draw of batch_size * accumulation examples: the sampler's counts are for
  the whole step, however many micro-batches it is cut into;
- a task's loss of a step is the mean over all of its examples in that step;
- the step's loss is the sum over the tasks in it; a task that is not in it keeps its head as it is;
- its gradient is clipped once, as a whole, and the learning rate of step i of n, both counted from
  0, rises to the peak in the warm-up's steps and then falls in a line that is 0 at n.

So the oracle knows no micro-batches: it takes all examples of a step at once.
"""

import csv
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from base_bert import hub_name
from datasets import Split
from multitask_bert import build
from multitask_classifier import train
from options import Options

transformers = pytest.importorskip("transformers")

STEPS = 20
WARMUP_STEPS = 4
LR = 1e-3
WEIGHT_DECAY = 1.0  # so large that a decayed bias, of about 0.01, would be more than TOLERANCE off
SMALL_CLIP = 0.1  # below the gradient's norm at every step, which the test asserts
TOLERANCE = 1e-5

# Rows of the training files. Their square roots are the tasks' shares of a mixed step; unequal, so
# that a sum of means is not a mean over all; few, so that a run passes over the data several times.
ROWS = {"sst": 36, "para": 16, "sts": 4}
ROOTS = {"sst": 6, "para": 4, "sts": 2}
STEMS = {"sst": "ids-sst", "para": "quora", "sts": "sts"}
TEXTS = {"sst": ["sentence"], "para": ["sentence1", "sentence2"], "sts": ["sentence1", "sentence2"]}
LABELS = {"sst": "sentiment", "para": "is_duplicate", "sts": "similarity"}
OUTPUTS = {"sst": 5, "para": 1, "sts": 1}

CASES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "mixed, clipped": {"clip": SMALL_CLIP},
    "mixed, steps without sts": {"batch_size": 4},
    "mixed, accumulated": {"accumulation": 3},
    "mixed, accumulated, clipped": {"accumulation": 3, "clip": SMALL_CLIP},
    "mixed, accumulated, fewer examples than micro-batches": {"accumulation": 3, "batch_size": 4},
    "round robin, clipped": {"sampler": "round_robin", "clip": SMALL_CLIP},
    "round robin, accumulated": {"sampler": "round_robin", "accumulation": 3},
    "one task": {"tasks": ("para",)},
    "one task, accumulated, clipped": {"tasks": ("sst",), "accumulation": 3, "clip": SMALL_CLIP},
}


class Oracle(nn.Module):
    """transformers' encoder and a plain head a task, starting from the same weights as ours."""

    def __init__(self, options: Options):
        super().__init__()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
        self.bert = transformers.BertModel.from_pretrained(
            options.model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        width = self.bert.config.hidden_size
        self.heads = nn.ModuleDict(
            {task: plain_head(width, OUTPUTS[task]) for task in options.tasks}
        )
        # The heads start at random: theirs are copied from what train() builds under this seed.
        torch.manual_seed(options.seed)
        initial = by_oracle_name(build(options).state_dict())
        for name, parameter in self.heads.named_parameters(prefix="heads"):
            parameter.data.copy_(initial[name])

    def loss(self, task: str, rows: list[dict[str, str]]) -> Tensor:
        """The mean over these rows of their task's loss."""
        columns = [[row[column] for row in rows] for column in TEXTS[task]]
        inputs = self.tokenizer(*columns, padding=True, return_tensors="pt")
        states = self.bert(**inputs).last_hidden_state  # [B, T, H]
        logits = self.heads[task](states[:, 0])  # of [CLS]
        labels = torch.tensor([float(row[LABELS[task]]) for row in rows])
        if task == "sst":
            return F.cross_entropy(logits, labels.long())
        if task == "sts":
            labels = labels / 5
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels)

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for torch's AdamW: biases and norms are not decayed."""
        decayed, spared = [], []
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                spared.append(parameter)
            else:
                decayed.append(parameter)
        return [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": spared, "weight_decay": 0.0},
        ]


def plain_head(width: int, outputs: int) -> nn.Sequential:
    """The mlp head in torch's own modules, without its dropouts."""
    head = nn.Sequential()
    head.add_module("dense", nn.Linear(width, width))
    head.add_module("gelu", nn.GELU())
    head.add_module("norm", nn.LayerNorm(width, eps=1e-6))
    head.add_module("out", nn.Linear(width, outputs))
    return head


def by_oracle_name(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MultitaskBERT's weights under the oracle's names, without the buffer that it has not."""
    renamed = {}
    for name, weight in state.items():
        if name.startswith("bert."):
            name = "bert." + hub_name(name.removeprefix("bert."))
        if name.startswith("pipelines."):
            _, task, part = name.split(".", 2)  # pipelines.sst.head.dense.weight
            name = f"heads.{task}.{part.removeprefix('head.')}"
        renamed[name] = weight
    del renamed["bert.position_ids"]
    return renamed


def multiplier(step: int) -> float:
    """Of the peak learning rate: a linear warm-up, then a line down to 0 at STEPS."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return (STEPS - step) / (STEPS - WARMUP_STEPS)


def expected_counts(options: Options, step: int) -> dict[str, int]:
    """How many examples of each task a step must hold, in whole numbers."""
    size = options.batch_size * options.accumulation
    if options.sampler == "round_robin":
        return {options.tasks[step % len(options.tasks)]: size}
    whole = sum(ROOTS[task] for task in options.tasks)
    counts = {}
    for task in options.tasks:
        share = size * ROOTS[task]
        count = (step + 1) * share // whole - step * share // whole
        if count > 0:
            counts[task] = count
    return counts


def write_data(small_data: Path) -> dict[str, list[dict[str, str]]]:
    """Training files of ROWS rows in the current folder; their rows, read with csv alone."""
    rows = {}
    for task, count in ROWS.items():
        lines = (small_data / f"{STEMS[task]}-train.csv").read_text().splitlines(keepends=True)
        path = Path(f"{task}.csv")
        path.write_text("".join(lines[: count + 1]))
        with path.open(newline="") as file:
            rows[task] = list(csv.DictReader(file, delimiter="\t"))
    return rows


def record_draws(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The indices that train() draws from here on, one list a task, filled as they are drawn."""
    drawn: dict[str, list[int]] = defaultdict(list)
    draw = Split.draw

    def recording(split: Split, count: int) -> list[int]:
        indices = draw(split, count)
        drawn[split.task.name].extend(indices)
        return indices

    monkeypatch.setattr(Split, "draw", recording)
    return drawn


def run_oracle(
    options: Options, rows: dict[str, list[dict[str, str]]], drawn: dict[str, list[int]]
) -> tuple[list[dict[str, float]], list[float], dict[str, Tensor]]:
    """The plain loop: the losses of every step as log.jsonl names them, the gradients' norms before
    clipping, and the final weights.
    """
    oracle = Oracle(options)
    optimizer = torch.optim.AdamW(oracle.groups(), lr=LR, betas=(0.9, 0.999), eps=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)
    left = {task: list(indices) for task, indices in drawn.items()}
    steps, norms = [], []
    for step in range(STEPS):
        # The step's examples are the next of each task, in the order in which they were drawn.
        losses = {}
        for task, count in expected_counts(options, step).items():
            indices, left[task] = left[task][:count], left[task][count:]
            losses[task] = oracle.loss(task, [rows[task][i] for i in indices])
        total = sum(losses.values(), torch.tensor(0.0))
        # The step itself.
        optimizer.zero_grad()
        total.backward()
        limit = options.clip if options.clip > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(oracle.parameters(), limit)
        optimizer.step()
        schedule.step()
        # What is compared.
        record = {f"loss_{task}": loss.item() for task, loss in losses.items()}
        steps.append({**record, "loss": total.item()})
        norms.append(norm.item())
    assert not any(left.values()), "train() drew more examples than its steps hold"
    return steps, norms, oracle.state_dict()


def logged_losses(folder: Path) -> list[dict[str, float]]:
    """The losses of every step as log.jsonl has them."""
    steps = []
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss" in record:
            steps.append({name: x for name, x in record.items() if name.startswith("loss")})
    return steps


@pytest.mark.filterwarnings("ignore:.*all predictions are")  # of so few steps
@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_train_is_the_plain_loop(
    options: Options, small_data: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    rows = write_data(small_data)
    same_for_all = {
        "steps_per_epoch": STEPS,
        "warmup": WARMUP_STEPS / STEPS,
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
        "optimizer_form": "torch",
        "clip": 0.0,
        "hidden_dropout_prob": 0.0,
        "attention_dropout_prob": 0.0,
        "files": {f"{task}_train": f"{task}.csv" for task in change.get("tasks", ROWS)},
    }
    options = replace(options, **{**same_for_all, **change})
    drawn = record_draws(monkeypatch)
    folder = Path(train(options)["folder"])
    losses, norms, weights = run_oracle(options, rows, drawn)

    # The case is what it is called: clipped at every step, or never.
    assert options.clip == 0.0 or min(norms) > options.clip

    ours = logged_losses(folder)
    assert [step.keys() for step in ours] == [step.keys() for step in losses]
    for step, (logged, expected) in enumerate(zip(ours, losses, strict=True)):
        assert logged == pytest.approx(expected, abs=TOLERANCE, rel=0), f"step {step}"

    trained = by_oracle_name(load_file(folder / "last" / "model.safetensors"))
    assert trained.keys() == weights.keys()
    too_far = {}
    for name, weight in weights.items():
        deviation = (trained[name] - weight).abs().max().item()
        if not deviation <= TOLERANCE:
            too_far[name] = deviation
    assert not too_far
