"""Experts. Oracles: plain models, one of each expert's layers, mixed one sequence at a time; numpy
for the loss.
"""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import export
from evaluation import use_of_experts
from experts import sequence_of_tokens, some_of
from forward import Forward
from losses.balance import balance, load_balance
from losses.extras import make_extras
from multitask_bert import MultitaskBERT, build
from multitask_classifier import train
from options import Options
from packing import pack
from tests.multitask import batch, close, logits, make, texts
from tests.test_seams import survives

TASKS = ("sst", "para", "sts")
pytestmark = pytest.mark.usefixtures("one_tokenizer")


def with_opinions(model: MultitaskBERT) -> MultitaskBERT:
    """A model whose gate tells sequences from one another, as that of a random BERT hardly does."""
    mixture = model.mixture
    torch.manual_seed(1)
    with torch.no_grad():
        for p in mixture.gate_layers.parameters():
            p += 0.1 * torch.randn_like(p)
        packed = model.pack({task: batch(model, task, texts(task, 7)) for task in TASKS})
        embeddings = model.embed(packed)
        states = mixture.run(mixture.gate_layers, packed, embeddings, torch.float32, packed.starts)
        weight = torch.randn_like(mixture.gate.weight)
        weight /= (states[-1] @ weight.T).std(0)[:, None]
        mixture.gate.weight.copy_(weight)
        mixture.gate.bias.copy_(-(states[-1] @ weight.T).mean(0))
    return model


def moved(model: MultitaskBERT) -> MultitaskBERT:
    """A model whose experts differ too."""
    torch.manual_seed(2)
    for p in model.mixture.others.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return with_opinions(model)


@torch.no_grad()
def forward_of(model: MultitaskBERT, size: int = 7) -> Forward:
    """All tasks in one call."""
    return model.forward_of({task: batch(model, task, texts(task, size)) for task in TASKS})


def forwards_alone(model: MultitaskBERT, plain: MultitaskBERT) -> list[Forward]:
    """What the plain model gives with each expert's layers, and with the gate's."""
    plain.pipelines.load_state_dict(model.pipelines.state_dict())
    found = []
    for layers in [*model.mixture.stacks, model.mixture.gate_layers]:
        plain.bert.bert_layers = layers
        found.append(forward_of(plain))
    return found


def sequences(forward: Forward, layer: int) -> list[Tensor]:
    """The states of each sequence in a layer, [T, H]; of the last one maybe [CLS] alone."""
    states = forward.states[layer]
    starts, lengths = forward.packed.starts.tolist(), forward.packed.lengths.tolist()
    if len(states) == len(starts):
        return list(states.split(1))
    pairs = zip(starts, lengths, strict=True)
    return [states[start : start + length] for start, length in pairs]


# ---- what is mixed


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_equal_experts_are_one_expert(tiny: Path, pooling: str) -> None:
    """At first, whatever the gate says: its weights sum to 1."""
    plain, model = make(tiny, pooling=pooling), make(tiny, pooling=pooling, experts=3)
    model.pipelines.load_state_dict(plain.pipelines.state_dict())
    found, expected = forward_of(with_opinions(model)), forward_of(plain)
    for task in TASKS:
        close(found.logits[task], expected.logits[task])
    assert found.gates.shape == (21, 3) and found.gates.std(0).min() > 0.01
    close(found.gates.sum(1), torch.ones(21))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("gate", ["softmax", "top1"])
def test_the_mixture(tiny: Path, gate: str, pooling: str) -> None:
    """sum_i g_i E_i(x), or the best expert's alone times its g."""
    plain = make(tiny, pooling=pooling)
    model = moved(make(tiny, pooling=pooling, experts=3, experts_gate=gate))
    *experts, gate_model = forwards_alone(model, plain)
    found = forward_of(model)

    firsts = [x[0] for x in sequences(gate_model, -1)]
    linear = model.mixture.gate
    weights = torch.stack([(linear.weight @ x + linear.bias).softmax(0) for x in firsts])
    close(found.gates, weights.detach())
    best = weights.argmax(1).tolist()
    assert set(best) == {0, 1, 2}  # or the test would show less than it says
    for layer in range(3):
        of_experts = [sequences(expert, layer) for expert in experts]
        for s, states in enumerate(sequences(found, layer)):
            used = range(3) if gate == "softmax" else [best[s]]
            expected = sum(weights[s, i].item() * of_experts[i][s] for i in used)
            close(states, expected)


@pytest.mark.parametrize("gate", ["softmax", "top1"])
def test_neighbours_and_padding(tiny: Path, gate: str) -> None:
    model = moved(make(tiny, experts=2, experts_gate=gate))
    some = texts("para", 7)
    alone = torch.cat([logits(model, "para", [one]) for one in some])
    close(logits(model, "para", some), alone)
    close(forward_of(model).logits["para"], alone)
    model.row_multiple = 8
    close(forward_of(model).logits["para"], alone)


def test_top1_runs_the_chosen_expert_alone(tiny: Path) -> None:
    model = moved(make(tiny, experts=3, experts_gate="top1"))
    seen: list[int] = []
    for number, layers in enumerate(model.mixture.stacks):
        layers[0].register_forward_hook(lambda *_, number=number: seen.append(number))

    # One expert gets all sequences, as the gate's bias says; through its weight the gate learns.
    with torch.no_grad():
        model.mixture.gate.weight.mul_(0.01)
        model.mixture.gate.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    forward = model.forward_of({"sst": batch(model, "sst", texts("sst", 5))})
    forward.logits["sst"].square().sum().backward()
    assert seen == [1]
    for number, layers in enumerate(model.mixture.stacks):
        weight = layers[0].out_dense.weight
        assert (weight.grad is not None) == (number == 1)
    assert model.mixture.gate.weight.grad.any()
    assert model.mixture.gate_layers[0].out_dense.weight.grad.any()
    assert model.bert.word_embedding.weight.grad.any()


def test_embeddings_that_are_handed_in_reach_all(tiny: Path) -> None:
    """As noise on them does: the gradient of each stack's output reaches them."""
    model = moved(make(tiny, experts=2))
    packed = model.pack({"sst": batch(model, "sst", texts("sst", 3))})
    with torch.no_grad():
        own = model.embed(packed)
        assert torch.equal(model(packed, own).logits["sst"], model(packed).logits["sst"])
        noisy = model(packed, own + 0.1 * torch.randn_like(own))
        assert not torch.equal(noisy.gates, model(packed).gates)
        assert not torch.equal(noisy.logits["sst"], model(packed).logits["sst"])


def test_some_of_the_sequences(tiny: Path) -> None:
    """They keep their order, tasks and lengths, and say where they stood."""
    model = make(tiny)
    packed = pack({task: batch(model, task, texts(task, 5)) for task in TASKS}, row_multiple=4)
    chosen = torch.tensor([0, 3, 11, 12])
    some = some_of(packed, chosen)
    assert some.tasks == {"sst": slice(0, 2), "sts": slice(2, 4)}
    assert torch.equal(some.lengths, packed.lengths[chosen])
    for number, start, length in zip(
        chosen.tolist(), some.starts.tolist(), some.lengths.tolist(), strict=True
    ):
        stood = packed.starts[number] + torch.arange(length)
        assert torch.equal(some.input_ids[start : start + length], stood)

    # And each token's sequence: all S at what fills the rows up.
    numbers = sequence_of_tokens(packed)
    for s, (start, length) in enumerate(
        zip(packed.starts.tolist(), packed.lengths.tolist(), strict=True)
    ):
        assert (numbers[start : start + length] == s).all()
    assert (numbers == 15).sum() == len(numbers) - packed.lengths.sum()


def test_bf16(tiny: Path) -> None:
    for gate in ("softmax", "top1"):
        model = moved(make(tiny, experts=2, experts_gate=gate))
        exact = logits(model, "sst", texts("sst", 3))
        model.compute_dtype = torch.bfloat16
        rounded = logits(model, "sst", texts("sst", 3))
        assert not torch.equal(rounded, exact)
        torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.3)


# ---- the loss for an even use, and what is told of it


def test_the_balance_loss() -> None:
    """N sum_i f_i P_i; gradients only through P."""
    rng = np.random.default_rng(0)
    gates = rng.dirichlet([0.5] * 5, 13)
    f = np.bincount(gates.argmax(1), minlength=5) / 13
    expected = 5 * (f * gates.mean(0)).sum()
    given = torch.tensor(gates, requires_grad=True)
    found = load_balance(given)
    assert found.item() == pytest.approx(expected, abs=1e-12)
    found.backward()
    assert given.grad.numpy() == pytest.approx(np.tile(5 * f / 13, (13, 1)))
    even = torch.full((6, 3), 1 / 3, dtype=torch.float64)
    even += 0.01 * torch.eye(3).repeat(2, 1).double()
    assert load_balance(even / even.sum(1, keepdim=True)).item() == pytest.approx(1)
    one_hot = torch.zeros(4, 3)
    one_hot[:, 1] = 1
    assert load_balance(one_hot).item() == 3


def test_the_term(tiny: Path) -> None:
    model = moved(make(tiny, experts=2, experts_balance=0.5))
    forward = forward_of(model)
    term = make_extras(model, model.options)["experts_balance"](model, forward, {})
    expected = 0.5 * load_balance(forward.gates)
    assert term == {"experts_balance": pytest.approx(expected.item())}
    for change in ({}, {"experts": 2, "experts_balance": 0.0}):
        assert balance(model, Options(**change)) is None


def test_the_use_of_experts() -> None:
    gates = [torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([[0.125, 0.875]])]
    found = use_of_experts(gates)
    assert found == {
        "experts": pytest.approx([1.125 / 3, 1.875 / 3]),
        "experts_led": pytest.approx([1 / 3, 2 / 3]),
    }
    assert use_of_experts([]) == {}


# ---- runs


def test_a_run_is_resumed_saved_and_exported(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """With top1, where in some steps an expert may get nothing."""
    options = replace(options, experts=2, experts_gate="top1", experts_balance=0.1)
    state = survives(options, monkeypatch)
    printed = capsys.readouterr().out
    assert "experts: 2 and a gate, each of 2 layers, 0.02M parameters" in printed
    assert "\n      experts  Quora: 0." in printed
    names = [f"model:{x}.1.out_dense.weight" for x in ("bert.bert_layers", "mixture.others.0")]
    assert not torch.equal(state[names[0]], state[names[1]])

    # The log has the term, and at each evaluation what each expert had of a task.
    run = next(Path("runs").glob("*-newcomer"))
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()
    ]
    assert 0.09 < lines[0]["loss_experts_balance"] < 0.21
    used = lines[-1]["dev"]["sts"]
    assert sum(used["experts"]) == pytest.approx(1) == sum(used["experts_led"])

    # Exported it is no BERT to others: the first expert stands for the encoder.
    export.export(run, Path("whole"))
    assert json.loads(Path("whole/config.json").read_text())["model_type"] == "minbert"
    before, after = MultitaskBERT.load(run), MultitaskBERT.load("whole")
    held = load_file("whole/model.safetensors")
    first = after.bert.bert_layers[1].out_dense.weight
    assert torch.equal(held["encoder.layer.1.output.dense.weight"], first)
    assert torch.equal(logits(after, "sts", texts("sts")), logits(before, "sts", texts("sts")))


def test_experts_of_a_run_s_encoder(options: Options) -> None:
    """With --init they start as the encoder that it learned."""
    first = train(replace(options, name="first", steps_per_epoch=1))["folder"]
    model = build(replace(options, model=first, init=first, experts=2))
    learned = MultitaskBERT.load(first).bert.bert_layers[1].out_dense.weight
    for layers in [*model.mixture.stacks, model.mixture.gate_layers]:
        assert torch.equal(layers[1].out_dense.weight, learned)


def test_a_copied_model_runs_its_own_encoder(tiny: Path) -> None:
    model = moved(make(tiny, experts=2))
    other = copy.deepcopy(model)
    assert other.mixture.encoder[0] is other.bert and other.bert is not model.bert
    close(logits(other, "sst", texts("sst", 3)), logits(model, "sst", texts("sst", 3)))
