"""The layer that tasks of pairs share: one module, once in the file, added to both heads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from errors import UserError
from multitask_bert import MultitaskBERT, build
from options import Options
from tasks import check_tasks
from tests.multitask import batch, close, logits, texts
from tests.test_pairs import model_of

BI = {"pair_encoding": "bi", "pair_features": "u,v"}


def test_its_output_is_added(tiny: Path) -> None:
    """Oracle: the formula in fp64, on the pooled vectors."""
    model = model_of(tiny, **BI, head="linear", shared_pair_layer=True)
    shared = model.shared["pairs"][1]
    for name in ("para", "sts"):
        with torch.no_grad():
            forward = model.forward_of({name: batch(model, name, texts(name))})
        features = forward.pooled[name].view(-1, 2 * model.bert.config.hidden_size).double()
        out = model.pipelines[name].head.out
        expected = features @ (out.weight + shared.weight).double().T + out.bias + shared.bias
        close(forward.logits[name], expected.detach().float())
    assert not model.pipelines["sst"].beside


def test_both_tasks_train_it(tiny: Path) -> None:
    model = model_of(tiny, shared_pair_layer=True).train()
    weight = model.shared["pairs"][1].weight
    for name, changes in (("para", True), ("sts", True), ("sst", False)):
        model.zero_grad()
        model.forward_of({name: batch(model, name, texts(name))}).logits[name].sum().backward()
        assert (weight.grad is not None and bool(weight.grad.any())) == changes
    names = [name for name, p in model.named_parameters() if p is weight]
    assert names == ["shared.pairs.1.weight"]


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_it_is_saved_once(tiny: Path, tmp_path: Path, change: dict) -> None:
    model = model_of(tiny, shared_pair_layer=True, **change)
    model.save(tmp_path)
    kept = [name for name in load_file(tmp_path / "heads.safetensors") if "shared" in name]
    assert sorted(kept) == ["shared.pairs.1.bias", "shared.pairs.1.weight"]
    assert (tmp_path / "adapter_model.safetensors").exists() == ("lora" in change)
    again = MultitaskBERT.load(tmp_path)
    for name in ("para", "sts"):
        assert torch.equal(logits(again, name, texts(name)), logits(model, name, texts(name)))


def test_without_the_flag_nothing_is_made(tiny: Path) -> None:
    torch.manual_seed(0)
    plain = build(Options(model=str(tiny)))
    torch.manual_seed(0)
    state = build(Options(model=str(tiny), shared_pair_layer=True)).state_dict()
    assert not len(plain.shared)
    assert all(torch.equal(state[name], x) for name, x in plain.state_dict().items())


def test_where_there_is_nothing_to_share(tiny: Path) -> None:
    with pytest.raises(UserError, match="^--shared_pair_layer needs two tasks of pairs"):
        check_tasks(Options(tasks=("sst", "sts"), shared_pair_layer=True).check())
    unequal = {**BI, "pair_features": "u,v sts=sum"}
    with pytest.raises(UserError, match=r"features of one width \(para 64 to 1, sts 32 to 1\)"):
        build(Options(model=str(tiny), **unequal, shared_pair_layer=True).check())
