"""A tiny MultitaskBERT, random texts for it, and its results: what several test files need."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multitask_bert import MultitaskBERT, build
from options import Options
from packing import Batch, Tokens
from tasks import TASKS
from text.sequences import texts_to_encode
from tokenizer import BertTokenizer

WORDS = [
    "a",
    "the",
    "film",
    "question",
    "is",
    "not",
    "very",
    "dull",
    "fine",
    "how",
    "where",
    "do",
    "I",
    "?",
    "zyzzyva",
]
BASE = Options(tasks=("sst", "para", "sts"), precision="fp32")
ENCODINGS = ("cross", "bi")
# What is saved of a model whose encoder is frozen, and where LoRA is beside it.
FROZEN_FILES = {"options.json", "base.json", "heads.safetensors", "manifest.json"}
LORA_FILES = FROZEN_FILES | {"adapter_config.json", "adapter_model.safetensors"}
# What a run adds to its best model.
RUN_FILES = {
    "README.md",
    *(f"{task}-dev-output.csv" for task in ("sst", "para", "sts")),
    *(f"{task}-dev-probabilities.csv" for task in ("sst", "para")),
}


def make(folder: Path, **change: object) -> MultitaskBERT:
    """A tiny model whose heads are far enough from zero for a leak to show."""
    torch.manual_seed(0)
    model = build(replace(BASE, model=str(folder), **change))  # type: ignore[arg-type]
    for pipeline in model.pipelines.values():
        torch.nn.init.normal_(pipeline.head.out.weight)
    return model.eval()


def texts(task: str, size: int = 13, longest: int = 30, seed: int = 0) -> list[tuple[str, ...]]:
    """Random sentences, or pairs of them."""
    rng = np.random.default_rng(seed)
    columns = range(len(TASKS[task].columns))
    return [
        tuple(" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in columns)
        for _ in range(size)
    ]


def batch(model: MultitaskBERT, name: str, some: list[tuple[str, ...]]) -> Batch:
    """Texts as a batch without labels."""
    task, options = model.tasks[name], model.options
    encoded = model.tokenizer.encode_batch(texts_to_encode(task, some, options), options.max_length)
    owners = torch.arange(len(some)).repeat_interleave(len(encoded) // len(some))
    return Batch(name, [Tokens(ids, types) for ids, types in encoded], owners, torch.empty(0))


def unlabelled(task: str, tokens: list[Tokens], each: int) -> Batch:
    """A batch of examples of `each` sequences, one behind the other."""
    owners = torch.arange(len(tokens)) // each
    return Batch(task, tokens, owners, torch.empty(0))


@torch.no_grad()
def logits(model: MultitaskBERT, name: str, some: list[tuple[str, ...]]) -> Tensor:
    """Texts' logits: [B, outputs]."""
    return model.logits({name: batch(model, name, some)})[name]


def close(left: Tensor, right: Tensor) -> None:
    """Equal up to fp32's rounding."""
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def padded(tokenizer: BertTokenizer, sentences: list[str], width: int = 0) -> tuple[Tensor, Tensor]:
    """The course's batch: ids and mask, with extra columns of padding on the right."""
    encoding = tokenizer(sentences, return_tensors="pt", padding=True, truncation=True)
    extra = torch.zeros(len(sentences), width, dtype=torch.int64)
    ids = torch.cat([encoding["input_ids"], extra], 1)
    return ids, torch.cat([encoding["attention_mask"], extra], 1)
