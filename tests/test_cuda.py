"""What must hold on CUDA too. Skipped where there is none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bert import BertModel
from multitask_classifier import train
from options import Options
from packing import Tokens, pack
from tests.multitask import BASE, batch, make, texts, unlabelled
from tests.test_train import losses

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_encoder_gives_the_cpu_s_states(tiny: Path) -> None:
    model = BertModel.from_pretrained(tiny)
    sequences = [
        Tokens(torch.arange(5, 5 + n).numpy(), torch.zeros(n, dtype=torch.long).numpy())
        for n in (7, 13, 70)
    ]
    packed = pack({"sst": unlabelled("sst", sequences, each=1)})
    here = model.encode_packed(packed)
    there = model.cuda().encode_packed(packed.to(torch.device("cuda")))
    for a, b in zip(here, there, strict=True):
        for start, length in zip(packed.starts, packed.lengths, strict=True):
            torch.testing.assert_close(
                a[start : start + length], b[start : start + length].cpu(), atol=1e-4, rtol=0
            )


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_logits_are_the_cpu_s(tiny: Path, pooling: str) -> None:
    model = make(tiny, pooling=pooling)
    batches = {task: batch(model, task, texts(task)) for task in BASE.tasks}
    with torch.no_grad():
        here = model.logits(batches)
        there = model.cuda().logits(batches)
    for task in BASE.tasks:
        torch.testing.assert_close(there[task].cpu(), here[task], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "change", [{}, {"lora": True, "rmsnorm": "all", "swiglu": "all"}, {"pair_encoding": "bi"}]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_runs_and_resumes(options: Options, change: dict, precision: str) -> None:
    folder = train(replace(options, use_gpu=True, precision=precision, **change))["folder"]
    assert len(losses(folder)) == 3
    train(replace(Options(), resume=folder, use_gpu=True))
