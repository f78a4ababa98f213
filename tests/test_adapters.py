"""What all adapters share: which layers they go to, what is saved of them, what is fixed at build.

How LoRA computes is in test_lora.py.
"""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapters.kinds import ADAPTERS
from adapters.layers import choose_layers
from adapters.wrap import Adaptable, Adapter, fits, rebuilt
from errors import UserError
from lora import ADAPTER, LoRALinear, adapt
from multitask_bert import MultitaskBERT
from options import Options
from tests.multitask import BASE, FROZEN_FILES, LORA_FILES, batch, logits, make, texts
from tests.test_lora import WithHead, outputs, train


def trained(model: nn.Module) -> frozenset[str]:
    return frozenset(name for name, p in model.named_parameters() if p.requires_grad)


def partial_state(model: nn.Module) -> dict[str, Tensor]:
    """As MultitaskBERT.own_state() makes it, of a model whose frozen weights are a base's."""
    known = rebuilt(model, {p: p.detach() for p in model.parameters()})
    held = model.state_dict().items()
    return {k: x for k, x in held if k not in known and not k.endswith("position_ids")}


def load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """As MultitaskBERT.load does it."""
    fits(state, partial_state(model), "some.safetensors")
    model.load_state_dict(state, strict=False)


# ---- layers


def test_choose_layers():
    assert choose_layers("all", 3, "--x_layers") == [0, 1, 2]
    for count, middle in [
        (12, [4, 5, 6, 7]),
        (6, [1, 2, 3, 4]),
        (5, [0, 1, 2, 3]),
        (4, [0, 1, 2, 3]),
    ]:
        assert choose_layers("first4", count, "--x_layers") == [0, 1, 2, 3]
        assert choose_layers("middle4", count, "--x_layers") == middle
        assert choose_layers("last4", count, "--x_layers") == list(range(count))[-4:]
    for layers in ("first4", "middle4", "last4"):
        assert choose_layers(layers, 3, "--x_layers") == [0, 1, 2]
    assert choose_layers("5,0, 2", 6, "--x_layers") == [0, 2, 5]
    assert choose_layers("11", 12, "--x_layers") == [11]
    for nonsense in ("", "none", "first5", "-1", "0,,1", "0-3", "1.0", "0 1", ",", "all,0"):
        with pytest.raises(
            UserError,
            match="^--x_layers .*: expected all, first4, middle4, last4 or numbers such as 0,2,5",
        ):
            choose_layers(nonsense, 6, "--x_layers")
    for wrong in ("6", "0,99", "1,1"):
        with pytest.raises(UserError, match="^--x_layers .*: expected different .* 0 to 5"):
            choose_layers(wrong, 6, "--x_layers")


# ---- the record


def test_an_adapters_options():
    options = Options(lora=True, lora_rank=3, lora_alpha=2.0, swiglu="heads")
    assert ADAPTER.wanted(options) and not ADAPTER.wanted(Options())
    assert ADAPTER.without(options) == Options(swiglu="heads")
    # One option may name several adapters.
    wants = {name: adapter.wanted(Options(p_tuning="v2")) for name, adapter in ADAPTERS.items()}
    assert [name for name, wanted in wants.items() if wanted] == ["p_tuning_v2"]


# ---- saving


def test_partial_state_round_trip(tmp_path: Path):
    first, second = WithHead(), WithHead()
    for model in (first, second):
        adapt(model.bert, rank=3, targets="qkv", layers="0,2")
    train(first)
    first.seen += 13
    state = partial_state(first)
    assert {k for k in state if "lora" not in k} == {"head.weight", "head.bias", "seen"}
    assert len(state) == 3 + 2 * 3 * 2
    assert not any(x.requires_grad for x in state.values())
    save_file(state, tmp_path / "adapter.safetensors")
    assert not torch.equal(outputs(first), outputs(second))
    load(second, load_file(tmp_path / "adapter.safetensors"))
    assert torch.equal(outputs(first), outputs(second)) and second.seen == 13
    train(first, 1)
    train(second, 1)
    assert torch.equal(outputs(first), outputs(second))


def test_an_adapter_that_does_not_fit():
    model = WithHead()
    adapt(model.bert, rank=3, layers="0")
    before = copy.deepcopy(model.state_dict())
    state = partial_state(model)
    query, head = "bert.bert_layers.0.self_attention.query.lora_A", "head.bias"
    for change, message in [
        (
            {k: v for k, v in state.items() if k not in (query, head)},
            f"missing: {query}, {head}; unexpected: none",
        ),
        (
            {**state, "bert.pooler_dense.bias": torch.ones(26)},
            "missing: none; unexpected: bert.pooler_dense.bias",
        ),
        ({**state, query: torch.ones(4, 26)}, rf"wrong shapes: {query} \(4, 26\) for \(3, 26\)"),
        ({k: v + 1 for k, v in state.items() if k != head}, f"missing: {head}"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            load(model, change)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


# ---- what is saved is fixed when the model is built


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_freezing_afterwards_does_not_change_what_is_saved(tiny: Path, tmp_path: Path, change):
    """Nor does thawing: gradual unfreezing and the like leave a model that loads."""
    model = make(tiny, **change)
    trains = trained(model)
    left_out = model.rebuilt
    # Whole models have all their tensors saved, others what is not the base's.
    saved = set(model.state_dict()) - left_out - {"bert.position_ids"}
    assert set(model.own_state()) == saved
    assert saved == (trains if change else {name for name, _ in model.named_parameters()})

    model.requires_grad_(False)
    assert set(model.own_state()) == saved and model.rebuilt == left_out
    model.requires_grad_(True)
    assert set(model.own_state()) == saved and model.rebuilt == left_out

    model.bert.requires_grad_(False)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in trains:
                p += 0.1 * torch.randn_like(p)
    model.save(tmp_path)
    loaded = MultitaskBERT.load(tmp_path)
    assert loaded.rebuilt == left_out
    for task in BASE.tasks:
        some = texts(task)
        assert torch.equal(logits(loaded, task, some), logits(model, task, some))


class Scaled(nn.Module):
    """A linear, frozen, with a learned scale on its outputs ((IA)^3's idea)."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.scale = nn.Parameter(torch.ones(base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale.to(x.dtype)


class Offset(nn.Module):
    """A learned summand of every token's embedding."""

    def __init__(self, size: int):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(size))

    def forward(self, packed) -> Tensor:
        return self.offset.expand(len(packed.input_ids), -1)


def adapt_scaled(model: Adaptable, options: Options) -> None:
    model.bert.requires_grad_(False)
    for layer in model.bert.bert_layers:
        layer.self_attention.value = Scaled(layer.self_attention.value)
    model.embedding_terms["offset"] = Offset(model.bert.config.hidden_size)


class WithRMSNorm(Adapter):
    """Wanted under an option that there is."""

    def wanted(self, options: Options) -> bool:
        return options.rmsnorm == "heads"


def test_load_builds_adapters_too(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """LoRA, and a newcomer that the table ADAPTERS got, as build() does it."""
    newcomer = WithRMSNorm("rmsnorm", adapt_scaled)
    monkeypatch.setitem(ADAPTERS, "scaled", newcomer)
    for change, kinds in (
        ({"lora": True}, {LoRALinear}),
        ({"rmsnorm": "heads"}, {Scaled, Offset}),
    ):
        model = make(tiny, **change)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name not in model.rebuilt:
                    p += 0.3 * torch.randn_like(p)
        folder = tmp_path / next(iter(change))
        folder.mkdir()
        model.save(folder)
        expected_files = LORA_FILES if kinds == {LoRALinear} else FROZEN_FILES
        assert {path.name for path in folder.iterdir()} == expected_files
        loaded = MultitaskBERT.load(folder)
        assert {type(m) for m in loaded.modules()} & {LoRALinear, Scaled, Offset} == kinds
        for task in BASE.tasks:
            some = texts(task)
            expected = logits(model, task, some)
            assert torch.equal(logits(loaded, task, some), expected)
            assert not torch.allclose(logits(make(tiny), task, some), expected, atol=1e-2)


def test_a_base_without_a_pooler(tiny: Path, tmp_path: Path):
    """It starts at random, so it is saved; not with PEFT's adapter, which has no use for it."""
    shutil.copytree(tiny, tmp_path / "base")
    weights = load_file(tiny / "model.safetensors")
    some = {name: x for name, x in weights.items() if not name.startswith("pooler")}
    save_file(some, tmp_path / "base" / "model.safetensors")
    for change, files in (({"lora": True}, LORA_FILES), ({"option": "pretrain"}, FROZEN_FILES)):
        model = make(tmp_path / "base", **change)
        folder = tmp_path / next(iter(change))
        folder.mkdir()
        model.save(folder)
        assert {path.name for path in folder.iterdir()} == files
        torch.manual_seed(13)
        loaded = MultitaskBERT.load(folder).state_dict()
        assert all(torch.equal(x, loaded[name]) for name, x in model.state_dict().items())


def test_embedding_terms_are_summed_into_the_embeddings(tiny: Path):
    """They get packed rows; two of them add up, and gradients reach them."""
    model = make(tiny)
    packed = model.pack({"sst": batch(model, "sst", texts("sst"))})
    plain = model.embed(packed)
    for name in ("one", "two"):
        model.embedding_terms[name] = Offset(32)
    assert torch.equal(model.embed(packed), plain)
    with torch.no_grad():
        for i, term in enumerate(model.embedding_terms.values()):
            term.offset.copy_(torch.randn(32, generator=torch.Generator().manual_seed(i)))
    both = sum(term.offset for term in model.embedding_terms.values())
    given = model.bert.embed_packed(packed, both.expand(len(plain), -1))
    torch.testing.assert_close(model.embed(packed), given)
    assert (given - plain).abs().max() > 0.1
    model(packed).logits["sst"].sum().backward()
    assert all(term.offset.grad.any() for term in model.embedding_terms.values())


@pytest.mark.parametrize("change", [{}, {"lora_rank": 3, "lora_targets": "qv"}])
def test_merging_a_model(tiny: Path, tmp_path: Path, change):
    """Merged, it computes the same, is saved whole, and its options ask for no adapter."""
    model = make(tiny, lora=True, **change)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora" in name:
                p += 0.1 * torch.randn_like(p)
    before = {task: logits(model, task, texts(task)) for task in BASE.tasks}
    model.merge()
    assert model.options == replace(BASE, model=str(tiny)) and model.whole
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    model.save(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = MultitaskBERT.load(tmp_path)
    for task in BASE.tasks:
        torch.testing.assert_close(
            logits(loaded, task, texts(task)), before[task], atol=1e-4, rtol=1e-4
        )
