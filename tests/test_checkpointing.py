"""Activation checkpointing against the same step without it: the same bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import multitask_classifier
from multitask_bert import MultitaskBERT
from multitask_classifier import for_second_derivatives, train
from options import Options
from tests.multitask import batch, make, texts
from tests.test_train import losses, same, weights

DROPPED = {"hidden_dropout_prob": 0.3, "attention_dropout_prob": 0.3}


def forward(model: MultitaskBERT) -> Tensor:
    """A loss of two tasks' packed rows, short and long ones."""
    found = model.logits({t: batch(model, t, texts(t, 7, longest=60)) for t in ("sst", "sts")})
    return torch.stack([x.square().mean() for x in found.values()]).sum()


def gradients(
    model: MultitaskBERT, checkpointing: bool
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The loss, all gradients, and what the random generator gives next."""
    model.train().zero_grad()
    model.bert.checkpointing = checkpointing
    torch.manual_seed(7)
    loss = forward(model)
    after = torch.rand(3)
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), grads, torch.cat([after, torch.rand(3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "change",
    [
        {},  # the last layer at [CLS] alone
        {"pooling": "mean"},
        {"lora": True, "lora_dropout": 0.3},
        {"rmsnorm": "all", "swiglu": "all", "kv_heads": 2},
        {"attention": "sdpa"},
        {"option": "pretrain"},
    ],
)
def test_gradients_are_the_same_bits(tiny: Path, change: dict, dtype: torch.dtype) -> None:
    """Dropout included, and without a trace in the random numbers that follow."""
    model = make(tiny, **DROPPED, **change)
    model.compute_dtype = dtype
    loss, grads, after = gradients(model, False)
    again, recomputed, then = gradients(model, True)
    assert torch.equal(loss, again) and torch.equal(after, then)
    assert same(grads, recomputed)
    assert any(x.any() for x in grads.values())


def test_layers_are_computed_twice_and_little_is_kept(tiny: Path) -> None:
    model = make(tiny, **DROPPED).train()
    calls = []
    model.bert.bert_layers[0].interm_dense.register_forward_hook(lambda *_: calls.append(1))
    kept = {}
    for checkpointing in (False, True):
        sizes: list[int] = []
        model.bert.checkpointing = checkpointing
        calls.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x
        ):
            loss = forward(model)
        kept[checkpointing] = sum(sizes)
        loss.backward()
        assert len(calls) == 1 + checkpointing
    assert kept[True] < kept[False] / 3

    # Nothing is computed again where no backward pass follows.
    calls.clear()
    with torch.no_grad():
        forward(model)
    assert len(calls) == 1


def test_second_derivatives(tiny: Path) -> None:
    """As optimizers with curvature take them; and two backward passes through one graph."""
    model = make(tiny, **DROPPED).train()
    weight = model.bert.bert_layers[0].self_attention.query.weight
    found = []
    for checkpointing in (False, True):
        model.bert.checkpointing = checkpointing
        torch.manual_seed(7)
        with for_second_derivatives(model):
            loss = forward(model)
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        found.append((first.detach(), second))
    assert found[0][1].any()
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.filterwarnings("ignore:.*all predictions are")
def test_a_run_ends_with_the_same_weights(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multitask_classifier, "finish", lambda run, *_: {"folder": str(run.folder)})
    plain = train(options)["folder"]
    other = train(replace(options, gradient_checkpointing=True, name="recomputed"))["folder"]
    assert same(weights(plain), weights(other)) and losses(plain) == losses(other)
