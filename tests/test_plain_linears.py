"""Every linear of the encoder is a plain nn.Linear, so torch's tools and others' find and change
all of them: quantisation, and LoRA by parametrisation as minLoRA does it.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.nn.utils import parametrize

from bert import BertModel
from multitask_bert import MultitaskBERT
from tests.multitask import batch, logits, make, texts
from tests.test_swiglu import batch as sentences

LINEARS = 37  # six layers of query, key, value and three dense ones, and the pooler


@pytest.fixture
def model(embedded: Path) -> BertModel:
    return BertModel.from_pretrained(embedded)


def outputs(model: nn.Module, folder: Path) -> Tensor:
    """The pooler's outputs in the padded face, [B, H]: they depend on all 37 linears."""
    ids, mask = sentences(folder)
    with torch.no_grad():
        return model(ids, mask)["pooler_output"]


def linears(model: nn.Module) -> list[nn.Linear]:
    """As such tools look for them: by exact type."""
    return [module for module in model.modules() if type(module) is nn.Linear]


def test_all_linears_are_plain(model: BertModel):
    assert len(linears(model)) == LINEARS
    assert sum(isinstance(module, nn.Linear) for module in model.modules()) == LINEARS
    # No weight matrix is anywhere else, but for the three embeddings.
    matrices = [p for p in model.parameters() if p.ndim > 1]
    assert len(matrices) == LINEARS + 3


def test_a_multitask_models_linears_are_plain(tiny: Path):
    for change in ({}, {"swiglu": "all"}, {"lora": True}):
        model = make(tiny, **change)
        every = [module for module in model.modules() if isinstance(module, nn.Linear)]
        assert len(every) == len(linears(model)) >= 13


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation_reaches_all(model: BertModel, embedded: Path):
    """Oracle: transformers' model, quantised in the same way."""
    transformers = pytest.importorskip("transformers")
    before = outputs(model, embedded)
    small = quantize_dynamic(model, {nn.Linear})
    kind = torch.ao.nn.quantized.dynamic.Linear
    assert sum(type(module) is kind for module in small.modules()) == LINEARS
    assert not linears(small)
    after = outputs(small, embedded)
    theirs = quantize_dynamic(transformers.BertModel.from_pretrained(embedded), {nn.Linear}).eval()
    similar = torch.cosine_similarity(after, outputs(theirs, embedded))
    assert similar.min() > 0.9999
    assert torch.cosine_similarity(after, before).min() > 0.95 and not torch.equal(after, before)


class Update(nn.Module):
    """W + B A, minLoRA's parametrisation; B starts at zero. The buffer is its dropout's."""

    def __init__(self, weight: Tensor, rank: int = 4):
        super().__init__()
        self.A = nn.Parameter(torch.randn(rank, weight.shape[1]) / rank)
        self.B = nn.Parameter(torch.zeros(weight.shape[0], rank))
        self.register_buffer("mask", torch.ones(1, weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.B @ (self.A * self.mask)


def add_updates(model: nn.Module) -> list[Update]:
    """Updates of all plain linears, as minLoRA registers them; everything else is frozen."""
    model.requires_grad_(False)
    updates = []
    for linear in linears(model):
        updates.append(Update(linear.weight))
        parametrize.register_parametrization(linear, "weight", updates[-1])
    return updates


def test_parametrised_updates_in_the_padded_face(model: BertModel, embedded: Path):
    plain = outputs(model, embedded)
    updates = add_updates(model)
    assert len(updates) == LINEARS
    assert torch.equal(outputs(model, embedded), plain)  # B is zero

    # Each of them counts on its own, and gradients reach them all.
    for update in updates:
        with torch.no_grad():
            update.B.fill_(0.03)
        assert not torch.equal(outputs(model, embedded), plain)
        with torch.no_grad():
            update.B.zero_()
    model(*sentences(embedded))["pooler_output"].square().sum().backward()
    assert all(update.B.grad.any() for update in updates)

    # Folded in, they give the same.
    with torch.no_grad():
        for update in updates:
            update.B.normal_(std=0.02)
    changed = outputs(model, embedded)
    assert (changed - plain).abs().max() > 0.01
    for linear in parametrised(model):
        parametrize.remove_parametrizations(linear, "weight")
    assert len(linears(model)) == LINEARS
    torch.testing.assert_close(outputs(model, embedded), changed, atol=1e-6, rtol=0)


def parametrised(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if parametrize.is_parametrized(module)]


def sentiment(model: MultitaskBERT) -> Tensor:
    return logits(model, "sst", texts("sst"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parametrised_updates_in_training(tiny: Path, dtype: torch.dtype):
    """In bf16 the encoder's weights are cast copies: an update must be in those too."""
    model = make(tiny)
    model.compute_dtype = dtype
    plain = sentiment(model)
    updates = add_updates(model.bert)
    model.pipelines.requires_grad_(False)
    assert len(updates) == 13
    assert torch.equal(sentiment(model), plain)

    # A step's gradients: those of fp32 masters, close to what fp32 products give.
    forward = model(model.pack({"sst": batch(model, "sst", texts("sst"))}))
    forward.logits["sst"].square().mean().backward()
    *used, pooler = updates  # fine-tuning does not use the pooler
    assert pooler.B.grad is None
    assert all(update.B.grad.any() and update.B.grad.dtype == torch.float32 for update in used)

    # The same update folded into the weights gives the same logits.
    with torch.no_grad():
        for update in updates:
            update.B.normal_(std=0.1)
    changed = sentiment(model)
    assert (changed - plain).abs().max() > 0.1
    for linear in parametrised(model):
        parametrize.remove_parametrizations(linear, "weight")
    near = 1e-5 if dtype == torch.float32 else 0.1 * changed.std().item()
    torch.testing.assert_close(sentiment(model), changed, atol=near, rtol=0)
