"""The BiLSTM on top of BERT: torch's LSTM on each sequence alone, for the tasks that ask for it."""

import torch
from torch import nn

from heads.bilstm import BiLSTM
from heads.poolings import MeanPooling
from options import Options
from tests.multitask import close, make
from tests.test_forward import encoded, sequences
from tests.test_heads import CONFIG


def lstm(layers: int = 2) -> BiLSTM:
    torch.manual_seed(0)
    return BiLSTM(6, 7, layers, dropout=0.5).eval()


def test_each_sequence_is_as_alone():
    """Oracle: nn.LSTM on one text, without packing; then the mean over its states."""
    module = lstm()
    given = encoded(order=[2, 0, 3, 1], gap=3, fill=1e4, longest=40)
    states, mask = given.tokens()
    out = module(states, mask, torch.arange(4))
    assert out.shape == (4, 40, 14) == (4, 40, module.size) and out.dtype == torch.float32
    for i, x in enumerate(sequences()):
        expected, _ = module.lstm(x[None])
        close(out[i, : len(x)], expected[0])
        assert not out[i, len(x) :].any()

    pooled = MeanPooling(CONFIG, Options(), "sst")(given.with_tokens(out))
    means = [module.lstm(x[None])[0][0].mean(0) for x in sequences()]
    close(pooled, torch.stack(means))


def test_gradients_reach_own_tokens_only():
    states, mask = encoded(longest=20).tokens()
    states.requires_grad_()
    lstm()(states, mask, torch.arange(4))[2].sum().backward()
    touched = states.grad.abs().sum(-1) > 0
    assert touched[2, :13].all() and touched.sum() == 13


def test_dropout_between_layers_in_training_only():
    states, mask = encoded().tokens()
    for layers, drops in ((1, False), (2, True)):
        module = lstm(layers).train()
        once, again = (module(states, mask, torch.arange(4)) for _ in range(2))
        assert torch.equal(once, again) != drops


def test_of_the_tasks_that_ask_for_it(tiny):
    """It has their width, and the head's dropout."""
    options = {"lstm_layers": "0 sts=2", "lstm_hidden": 13, "head_dropout": 0.3}
    model = make(tiny, pooling="mean", **options)
    assert not model.pipelines["sst"].token_layers
    pipeline = model.pipelines["sts"]
    (layer,) = [m for m in pipeline.modules() if isinstance(m, nn.LSTM)]
    assert (layer.num_layers, layer.hidden_size, layer.dropout) == (2, 13, 0.3)
    assert pipeline.pooling.size == 26 and pipeline.head.dense.in_features == 26
    assert pipeline.needs == "tokens"
