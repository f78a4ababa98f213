"""utils.py and config.py: what the course's scripts import from there."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import base_bert
import config
from bert import BertModel
from utils import get_extended_attention_mask

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_values(dtype):
    two = get_extended_attention_mask(MASK, dtype)
    assert two.shape == (2, 1, 1, 4) and two.dtype == dtype
    expected = torch.tensor([[0, 0, 0, -10000.0], [0, -10000.0, -10000.0, -10000.0]])
    assert torch.equal(two.view(2, 4), expected.to(dtype))
    rows = torch.tensor([[[1, 0], [1, 1]], [[0, 1], [0, 0]], [[1, 1], [1, 1]]])
    three = get_extended_attention_mask(rows, dtype)
    assert three.shape == (3, 1, 2, 2) and three.dtype == dtype
    assert torch.equal(three[:, 0] == 0, rows == 1) and three.min() == -10000.0 == three[0, 0, 0, 1]


@pytest.mark.parametrize("shape", [(4,), (2, 1, 1, 4), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected .B, T. or .B, T, T."):
        get_extended_attention_mask(torch.ones(shape), torch.float32)


def test_attention_as_the_course_writes_it(tiny: Path):
    """The handout's plain attention under this mask, with our weights, is our first layer."""
    model = BertModel.from_pretrained(tiny)
    ids = torch.tensor([[101, 7592, 2088, 102], [101, 102, 0, 0]])
    mask = (ids > 0).long()
    states = model(ids, mask, output_hidden_states=True)["hidden_states"]
    layer = model.bert_layers[0]

    def heads(linear: nn.Module) -> Tensor:
        return linear(states[0]).view(2, 4, 4, 8).transpose(1, 2)

    attention = layer.self_attention
    query, key, value = heads(attention.query), heads(attention.key), heads(attention.value)
    scores = query @ key.transpose(2, 3) / 8**0.5
    weights = (scores + get_extended_attention_mask(mask, scores.dtype)).softmax(-1)
    attended = (weights @ value).transpose(1, 2).reshape(2, 4, 32)
    hidden = layer.attention_layer_norm(states[0] + layer.attention_dense(attended))
    up = F.gelu(layer.interm_dense(hidden))
    out = layer.out_layer_norm(hidden + layer.out_dense(up))
    torch.testing.assert_close(out[mask == 1], states[1][mask == 1])


def test_config_is_base_berts():
    assert config.BertConfig is base_bert.BertConfig is config.PretrainedConfig
    assert issubclass(config.BertConfig, config.PretrainedConfig)
