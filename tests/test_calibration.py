"""RMSNorm's calibrated start: least squares, and what becomes of it in saved models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from models.calibration import calibrate, fit, pack_sentences, sentences, token_places
from multitask_bert import MultitaskBERT, build
from rmsnorm import RMSNorm
from tests.multitask import BASE, close, logits, make, texts
from tests.test_start import saved, started
from tests.test_swiglu import SENTENCES
from tokenizer import BertTokenizer

CALIBRATED = {"rmsnorm": "encoder", "rmsnorm_start": "calibrated"}


@pytest.fixture(scope="module")
def moved(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder with random norms: fresh ones have no mean to lose."""
    torch.manual_seed(0)
    model = BertModel.from_pretrained(tiny)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    folder = tmp_path_factory.mktemp("moved")
    model.save_pretrained(folder)
    return folder


def test_fit_is_least_squares() -> None:
    """Oracle: numpy's lstsq, channel by channel."""
    torch.manual_seed(0)
    norm = RMSNorm(7, eps=1e-6)
    x, target = torch.randn(60, 7) + 0.5, torch.randn(60, 7)
    target += 2 * x
    with torch.no_grad():
        fit(norm, x, target)
        n = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    for c in range(7):
        columns = np.stack([n[:, c].numpy(), np.ones(60)], 1)
        (gain, bias), *_ = np.linalg.lstsq(columns, target[:, c].numpy(), rcond=None)
        assert norm.weight[c].item() == pytest.approx(gain, rel=1e-4)
        assert norm.bias[c].item() == pytest.approx(bias, rel=1e-3, abs=1e-5)


def test_a_channel_that_does_not_vary_keeps_its_gain() -> None:
    norm = RMSNorm(3)
    x = torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    with torch.no_grad():
        fit(norm, x, torch.full((3, 3), 5.0))
    assert norm.weight[0] == norm.weight[2] == 1
    torch.testing.assert_close(norm(x), torch.full((3, 3), 5.0))


def test_layer_by_layer_and_without_padding(moved: Path) -> None:
    """Each norm is the fit on its own input in the finished encoder, to what LayerNorm gave there;
    oracle: padded batches of one sentence through two encoders.
    """
    config = BertConfig.from_pretrained(moved)
    old = BertModel.from_pretrained(moved)
    new = BertModel.from_pretrained(moved, replace(config, norm="rmsnorm"))
    tokenizer = BertTokenizer.from_pretrained(moved)
    calibrate(new, pack_sentences(SENTENCES, tokenizer, 64))

    seen: dict[tuple[str, str], list[Tensor]] = {}
    for kind, model in (("old", old), ("new", new)):
        for name, norm in model.named_modules():
            if isinstance(norm, nn.LayerNorm | RMSNorm):
                norm.register_forward_hook(
                    lambda _, inputs, output, kind=kind, name=name: seen.setdefault(
                        (kind, name), []
                    ).append(output[0] if kind == "old" else inputs[0][0])
                )
        with torch.no_grad():
            for text in SENTENCES:
                ids = tokenizer(text, return_tensors="pt")["input_ids"]
                model(ids, torch.ones_like(ids))

    norms = {name: norm for name, norm in new.named_modules() if isinstance(norm, RMSNorm)}
    assert len(norms) == 5
    for name, norm in norms.items():
        fresh = RMSNorm(32, eps=norm.eps)
        with torch.no_grad():
            fit(fresh, torch.cat(seen["new", name]), torch.cat(seen["old", name]))
        torch.testing.assert_close(norm.weight, fresh.weight, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(norm.bias, fresh.bias, atol=1e-4, rtol=1e-3)


def test_it_comes_nearer_than_a_copy(embedded: Path, capsys: pytest.CaptureFixture) -> None:
    """Cosines of the embedded encoder's outputs, token by token, on sentences that were not fitted:
    measured .963 for the copied start, .998 for this one.
    """
    options = replace(BASE, model=str(embedded))
    packed = pack_sentences(SENTENCES, BertTokenizer.from_pretrained(embedded), 64)
    states = []
    for change in ({}, {"rmsnorm": "encoder"}, CALIBRATED):
        bert = build(replace(options, **change)).bert  # type: ignore[arg-type]
        with torch.no_grad():
            states.append(bert.encode_packed(packed)[-1][token_places(packed)])
    copied, calibrated = (torch.cosine_similarity(states[0], x).mean() for x in states[1:])
    assert copied < 0.98 and calibrated > 0.995
    assert "RMSNorm: 13 norms fitted to LayerNorm on" in capsys.readouterr().out


def test_the_sentences_are_always_the_same() -> None:
    found = sentences()
    assert len(found) == 20 + 2 * 40 and len(set(found)) > 80 and found == sentences()


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_saved_loaded_and_merged(
    moved: Path, tmp_path: Path, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norms are fitted once, when the model is made; a frozen encoder's are saved too."""
    torch.manual_seed(0)
    model = make(moved, **CALIBRATED, **change)
    weight = model.bert.bert_layers[1].out_layer_norm.weight
    copied = make(moved, rmsnorm="encoder", **change).bert.bert_layers[1].out_layer_norm.weight
    assert not torch.allclose(weight, copied, atol=1e-3)
    assert "bert.bert_layers.1.out_layer_norm.weight" not in model.rebuilt
    expected = logits(model, "sts", texts("sts"))

    monkeypatch.setattr("models.encoder.calibrated_start", lambda *_: pytest.fail("fitted again"))
    for name in ("run", "merged"):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
        loaded = MultitaskBERT.load(tmp_path / name)
        assert torch.equal(loaded.bert.bert_layers[1].out_layer_norm.weight, weight)
        close(logits(loaded, "sts", texts("sts")), expected)
        model.merge()


def test_no_random_number_is_drawn(moved: Path) -> None:
    """What follows, heads and shuffles, is as with the copied start."""
    after = []
    for start in ("copied", "calibrated"):
        torch.manual_seed(0)
        build(replace(BASE, model=str(moved), rmsnorm="encoder", rmsnorm_start=start))
        after.append(torch.rand(3))
    assert torch.equal(*after)


@pytest.mark.parametrize("kind", [{"option": "pretrain"}, {"lora": True}, {}])
def test_a_run_starts_from_it(
    moved: Path, tmp_path: Path, kind: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--init takes the norms over: those of a run's file, or of its whole encoder."""
    monkeypatch.chdir(tmp_path)
    old = saved(moved, "run", **CALIBRATED, **kind)
    norm = old.bert.embed_layer_norm
    now = {"rmsnorm": "encoder", **kind} if old.whole else {**CALIBRATED, **kind}
    new = started("run", **now)
    assert torch.equal(new.bert.embed_layer_norm.weight, norm.weight)
    if old.whole:
        with pytest.raises(UserError, match="calibrated: run has RMSNorm already, with gains"):
            started("run", **CALIBRATED)
