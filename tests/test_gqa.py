"""Grouped-query attention against its formula, and a converted encoder against the paper's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attention import BertSelfAttention, padded_rows
from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from gqa import pool_heads
from models.encoder import encoder_config
from multitask_bert import MultitaskBERT
from tests.multitask import BASE, batch, close, logits, make, texts

CONFIG = BertConfig(hidden_size=42, num_attention_heads=6, attention_probs_dropout_prob=0.0)
DIVISORS = (1, 2, 3, 6)


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
@pytest.mark.parametrize("heads", DIVISORS)
def test_formula(heads: int, kernel: str) -> None:
    """Head by head in float64: query head h reads key and value head h // (A / heads)."""
    torch.manual_seed(0)
    layer = BertSelfAttention(replace(CONFIG, num_key_value_heads=heads)).double()
    x = torch.randn(3, 13, 42, dtype=torch.float64)
    mask = torch.arange(13) < torch.tensor([13, 7, 1])[:, None]
    q, k, v = layer.query(x), layer.key(x), layer.value(x)
    parts = []
    for head in range(6):
        own = slice(7 * head, 7 * head + 7)
        group = head // (6 // heads)
        shared = slice(7 * group, 7 * group + 7)
        scores = q[..., own] @ k[..., shared].transpose(1, 2) / 7**0.5
        scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
        parts.append(scores.softmax(-1) @ v[..., shared])
    out = layer(x, padded_rows(mask, kernel, torch.float64))
    torch.testing.assert_close(out, torch.cat(parts, -1))
    assert k.shape[-1] == v.shape[-1] == 7 * heads


@pytest.mark.parametrize("heads", DIVISORS)
def test_pooled_heads_are_means(heads: int) -> None:
    """Section 2.1, written out."""
    torch.manual_seed(0)
    state = {"key.weight": torch.randn(42, 42), "key.bias": torch.randn(42)}
    before = dict(state)
    pool_heads(state, "key", heads, 7)
    for head in range(heads):
        members = range(head * 6 // heads, (head + 1) * 6 // heads)
        for name, x in state.items():
            mean = torch.stack([before[name][7 * m : 7 * m + 7] for m in members]).mean(0)
            torch.testing.assert_close(x[7 * head : 7 * head + 7], mean)
    assert (heads == 6) == torch.equal(before["key.weight"], state["key.weight"])


@pytest.mark.parametrize("heads", DIVISORS)
def test_heads_that_are_equal_lose_nothing(heads: int, tmp_path: Path) -> None:
    """Where the heads of a group share keys and values already, the encoder computes the same."""
    torch.manual_seed(0)
    config = replace(CONFIG, vocab_size=101, num_hidden_layers=2, intermediate_size=13)
    model = BertModel(config)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
        for layer in model.bert_layers:
            for linear in (layer.self_attention.key, layer.self_attention.value):
                for p in (linear.weight, linear.bias):
                    first = p.unflatten(0, (heads, -1, 7))[:, :1]
                    p.copy_(first.expand(-1, 6 // heads, *first.shape[2:]).flatten(0, 2))
    model.save_pretrained(tmp_path)
    shared = BertModel.from_pretrained(tmp_path, replace(config, num_key_value_heads=heads))
    ids = torch.arange(1, 27).view(2, 13)
    mask = torch.ones_like(ids)
    close(shared(ids, mask)["last_hidden_state"], model.eval()(ids, mask)["last_hidden_state"])

    # Saved as it is now, and converted further from there.
    shared.save_pretrained(tmp_path / "shared")
    read = BertModel.from_pretrained(tmp_path / "shared")
    assert read.config.num_key_value_heads == heads and read.config.is_bert == (heads == 6)
    assert torch.equal(read(ids, mask)["pooler_output"], shared(ids, mask)["pooler_output"])
    one = replace(read.config, num_key_value_heads=1)
    again = BertModel.from_pretrained(tmp_path / "shared", one).bert_layers[0]
    at_once = BertModel.from_pretrained(tmp_path, one).bert_layers[0]
    close(again.self_attention.key.weight, at_once.self_attention.key.weight)


def test_neighbours_do_not_change_a_result(tiny: Path) -> None:
    model = make(tiny, kv_heads=2)
    some = texts("sts")
    together = logits(model, "sts", some)
    for i, text in enumerate(some):
        close(logits(model, "sts", [text])[0], together[i])
    with torch.no_grad():
        mixed = model.logits({t: batch(model, t, texts(t)) for t in ("sst", "sts")})["sts"]
    close(mixed, together)


@pytest.mark.parametrize("change", [{}, {"lora": True}, {"option": "pretrain"}])
def test_saved_loaded_and_merged(tiny: Path, tmp_path: Path, change: dict) -> None:
    model = make(tiny, kv_heads=2, **change)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name not in model.rebuilt:
                p += 0.1 * torch.randn_like(p)
    expected = logits(model, "sts", texts("sts"))
    assert not torch.allclose(expected, logits(make(tiny, **change), "sts", texts("sts")))
    for name in ("run", "merged"):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
        loaded = MultitaskBERT.load(tmp_path / name)
        assert loaded.bert.config.num_key_value_heads == 2
        close(logits(loaded, "sts", texts("sts")), expected)
        model.merge()


def test_groups_that_are_not_equal_are_refused(tiny: Path) -> None:
    for heads in (3, 8):
        with pytest.raises(UserError, match=rf"--kv_heads {heads}: .* has 4 heads, .* 1, 2, 4$"):
            encoder_config(replace(BASE, model=str(tiny), kv_heads=heads))
    with pytest.raises(UserError, match="num_attention_heads 6 is not a multiple of .* 4$"):
        replace(CONFIG, num_key_value_heads=4)
