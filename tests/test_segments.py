"""Attention over segments: the formula, padding, refusals, and whole runs on long texts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datasets import split_of_texts
from errors import UserError
from heads.segments import SegmentAttention
from models.sentence_bert import pooling_mode
from multitask_bert import MultitaskBERT, build
from options import Options
from tests.multitask import close, make, padded, texts
from tests.test_seams import survives

CUT = {"pair_encoding": "bi", "segment_length": "7", "max_length": 13}


@torch.no_grad()
def logits(model: MultitaskBERT, name: str, some: list[tuple[str, ...]]) -> Tensor:
    split = split_of_texts(model.tasks[name], some, model.options, model.tokenizer)
    return model.logits({name: split.batch(list(range(len(some))))})[name]


def test_the_formula():
    """Equations 8 to 10 of Yang et al., text by text, in fp64."""
    torch.manual_seed(0)
    join = SegmentAttention(13)
    torch.nn.init.normal_(join.context.weight)
    pooled = torch.randn(7, 13)
    owners = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    sides = torch.tensor([0, 0, 0, 1, 0, 1, 1])
    found, whose = join(pooled, owners, sides)
    assert whose.tolist() == [0, 0, 1, 1] and found.shape == (4, 13)
    weight, bias = join.dense.weight.double(), join.dense.bias.double()
    for row, places in zip(found, ([0, 1, 2], [3], [4], [5, 6]), strict=True):
        x = pooled[places].double()
        u = torch.tanh(x @ weight.T + bias)
        a = torch.exp(u @ join.context.weight[0].double())
        torch.testing.assert_close(row.double(), (a / a.sum()) @ x, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in join.parameters())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("task", ["sst", "sts"])
def test_other_texts_change_nothing(tiny: Path, task: str, pooling: str):
    """Nor how many segments they have, nor the order."""
    model = make(tiny, pooling=pooling, attention_layers=1, **CUT)
    for pipeline in model.pipelines.values():
        torch.nn.init.normal_(pipeline.segments.context.weight)
    some = texts(task, longest=40)
    together = logits(model, task, some)
    close(logits(model, task, some[::-1]), together.flip(0))
    for place in (0, 5, 12):
        close(logits(model, task, [some[place]]), together[place : place + 1])
    # All segments count: without the last words it is another text.
    place = max(range(len(some)), key=lambda i: len(some[i][-1]))
    cut = (*some[place][:-1], some[place][-1].rsplit(" ", 13)[0])
    assert (logits(model, task, [cut]) - together[place]).abs().max() > 1e-4


def test_the_course_s_faces_cut_too(tiny: Path):
    model = make(tiny, **CUT)
    some = texts("sst", longest=40)
    ids, mask = padded(model.tokenizer, [text for (text,) in some], width=3)
    with torch.no_grad():
        close(model.predict_sentiment(ids, mask), logits(model, "sst", some))
        pairs = texts("para", longest=40)
        sides = [padded(model.tokenizer, [pair[i] for pair in pairs]) for i in (0, 1)]
        found = model.predict_paraphrase(*sides[0], *sides[1])
    close(found, logits(model, "para", pairs).squeeze(1))


def test_a_text_of_one_segment_is_read_as_ever(tiny: Path):
    """The weights of one are 1: the pooled vector is that of the sequence."""
    model, plain = make(tiny, **CUT), make(tiny, pair_encoding="bi")
    some = [("a fine film",), ("dull",)]
    plain.load_state_dict(model.state_dict(), strict=False)
    close(logits(model, "sst", some), logits(plain, "sst", some))


def test_what_can_not_be_cut(tiny: Path):
    options = Options(model=str(tiny), segment_length=34)
    with pytest.raises(UserError, match="^--segment_length cuts texts .* use --pair_encoding bi"):
        build(options)
    build(replace(options, segment_length="whole sst=34"))
    both = replace(options, pair_encoding="bi", cross_attention=True)
    with pytest.raises(UserError, match="^--cross_attention joins two .* of para: drop one, or"):
        build(both)
    build(replace(both, segment_length="whole sst=34"))


def test_sentence_transformers_is_told_nothing(tiny: Path):
    model = make(tiny, pair_encoding="bi", segment_length="34 sst=whole")
    assert pooling_mode(model.pipelines["sts"]) is None
    assert pooling_mode(model.pipelines["sst"]) is not None


def test_a_run(options: Options, monkeypatch: pytest.MonkeyPatch):
    """Trains, resumes, saves, loads and predicts, with the adapter and the layers beside it."""
    options = replace(
        options,
        accumulation=2,
        attention_layers="0 sst=2",
        attention_inner_width=13,
        max_segments=3,
        truncation="head sts=tail",
        **CUT,
    )
    state = survives(options, monkeypatch)
    assert "model:pipelines.sts.segments.context.weight" in state
    assert "model:pipelines.sst.token_layers.attention_layers.layers.1.dense.weight" in state
    assert state["model:bert.bert_layers.1.self_attention.in_heads.down"].any()
