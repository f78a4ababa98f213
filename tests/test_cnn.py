"""Convolutions on top of BERT: torch's Conv1d on each sequence alone."""

import pytest
import torch
from torch import nn

from heads.cnn import TokenCNN
from tests.multitask import close, make
from tests.test_forward import encoded, sequences


def cnn(kernel: int = 5) -> TokenCNN:
    """Its biases are large: in padding they would leak."""
    torch.manual_seed(0)
    made = TokenCNN(6, 7, kernel, layers=3)
    for convolution in made.convolutions:
        nn.init.constant_(convolution.bias, 3.0)
    return made


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_each_sequence_is_as_alone(kernel):
    """Oracle: nn.Conv1d on one text, with as many zeros at its ends as half a kernel takes."""
    module = cnn(kernel)
    states, mask = encoded(order=[2, 0, 3, 1], gap=3, fill=1e4, longest=40).tokens()
    out = module(states, mask, torch.arange(4))
    assert out.shape == (4, 40, 7) and module.size == 7
    for i, x in enumerate(sequences()):
        hidden = x.T[None]
        for convolution in module.convolutions:
            plain = nn.Conv1d(*convolution.weight.shape[1::-1], kernel, padding=kernel // 2)
            plain.load_state_dict(convolution.state_dict())
            hidden = plain(hidden).relu()
        close(out[i, : len(x)], hidden[0].T)
        assert not out[i, len(x) :].any()


def test_of_the_tasks_that_ask_for_it(tiny):
    model = make(tiny, pooling="max", cnn_layers="sst=2", cnn_width="13", cnn_kernel="3")
    assert not model.pipelines["sts"].token_layers
    pipeline = model.pipelines["sst"]
    shapes = [tuple(m.weight.shape) for m in pipeline.modules() if isinstance(m, nn.Conv1d)]
    assert shapes == [(13, 32, 3), (13, 13, 3)]
    assert pipeline.head.dense.in_features == 13
