"""Hidden layers inside attention heads: head by head, the identity at first, saved and exported."""

from pathlib import Path

import pytest
import torch
from torch import nn

import export
from adapters.attention_inner import InnerLayers, counts
from multitask_bert import MultitaskBERT
from tests.multitask import BASE, batch, close, logits, make, texts


def shaken(model: MultitaskBERT) -> MultitaskBERT:
    """With inner layers that do something."""
    for module in model.modules():
        if isinstance(module, InnerLayers):
            for p in module.parameters():
                nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize("shape", [(13,), (3, 5)])
def test_head_by_head(shape: tuple[int, ...]):
    """o + W_2 GELU(W_1 o + b_1) + b_2 of each head alone, in fp64."""
    torch.manual_seed(0)
    inner = InnerLayers(3, 4, 7)
    for p in inner.parameters():
        nn.init.normal_(p)
    x = torch.randn(*shape, 12)
    found = inner(x)
    for head in range(3):
        o = x[..., 4 * head : 4 * head + 4].double()
        hidden = o @ inner.up[head].double() + inner.up_bias[7 * head : 7 * head + 7].double()
        hidden = nn.functional.gelu(hidden)
        own = inner.down_bias[4 * head : 4 * head + 4].double()
        expected = o + hidden @ inner.down[head].double() + own
        part = found[..., 4 * head : 4 * head + 4].double()
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-5)


def test_bf16_stays_bf16():
    inner = InnerLayers(3, 4, 7)
    assert inner(torch.randn(5, 12).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_at_first_it_is_the_pretrained_encoder(tiny: Path, pooling: str):
    plain, model = make(tiny, pooling=pooling), make(tiny, pooling=pooling, attention_inner_width=7)
    model.load_state_dict(plain.state_dict(), strict=False)
    for task in BASE.tasks:
        some = texts(task)
        assert torch.equal(logits(model, task, some), logits(plain, task, some))
        changed = logits(shaken(model), task, some)
        assert (changed - logits(plain, task, some)).abs().max() > 1e-3
        for p in (m for m in model.modules() if isinstance(m, InnerLayers)):
            nn.init.zeros_(p.down)
            nn.init.zeros_(p.down_bias)


def test_all_of_it_trains_and_nothing_sees_its_neighbours(tiny: Path):
    model = shaken(make(tiny, attention_inner_width=7))
    assert all(p.requires_grad for p in model.parameters()) and model.whole
    assert counts(model).startswith("hidden layers in attention heads: 8, 0.00M")
    some = texts("sts")
    together = logits(model, "sts", some)
    close(logits(model, "sts", some[4:5]), together[4:5])
    model.train()
    model.logits({"sts": batch(model, "sts", some)})["sts"].sum().backward()
    own = [m for m in model.modules() if isinstance(m, InnerLayers)]
    assert len(own) == 2
    assert all(p.grad is not None and p.grad.any() for m in own for p in m.parameters())


@pytest.mark.parametrize("lora", [False, True])
def test_saved_loaded_and_exported(tiny: Path, tmp_path: Path, lora: bool, capsys):
    """Beside a LoRA too, which alone is merged."""
    model = shaken(make(tiny, attention_inner_width=7, lora=lora))
    if lora:
        for name, p in model.named_parameters():
            if name.endswith("lora_B"):
                nn.init.normal_(p, std=0.1)
    some = texts("para")
    before = logits(model, "para", some)
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    assert torch.equal(logits(MultitaskBERT.load(tmp_path / "saved"), "para", some), before)
    export.main([str(tmp_path / "saved"), str(tmp_path / "out")])
    assert "--attention_inner_width can't be merged: kept beside" in capsys.readouterr().out
    exported = MultitaskBERT.load(tmp_path / "out")
    assert not exported.options.lora and exported.options.attention_inner_width == 7
    close(logits(exported, "para", some), before)
