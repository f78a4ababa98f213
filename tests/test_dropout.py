"""Dropout: its rate, its scale, where its randomness comes from."""

import math

import pytest
import torch

from dropout import Dropout, byte_mask, dropout

N = 1_000_003  # not a multiple of the eight bytes of a draw


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_rate_and_scale(p: float):
    torch.manual_seed(0)
    out = dropout(torch.ones(N), p, training=True)
    real = round(256 * p) / 256  # what the docstring states
    sigma = math.sqrt(real * (1 - real) / N)
    assert abs((out == 0).double().mean().item() - real) < 3 * sigma
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / (1 - real)).item()}
    assert abs(out.double().mean().item() - 1) < 3 * sigma / (1 - real)


def test_neighbours_are_independent():
    torch.manual_seed(0)
    kept = (byte_mask(torch.empty(N), 0.5) > 0).double() - 0.5
    for lag in (1, 7, 8, 64):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 3 * 0.25 / math.sqrt(N - lag)


def test_seeded_by_torch():
    x = torch.ones(13, 7)
    torch.manual_seed(5)
    first = dropout(x, 0.5, True)
    second = dropout(x, 0.5, True)
    state = torch.get_rng_state()
    third = dropout(x, 0.5, True)
    torch.manual_seed(5)
    assert torch.equal(first, dropout(x, 0.5, True))
    assert not torch.equal(first, second)
    torch.set_rng_state(state)  # torch's state is all that a checkpoint needs
    assert torch.equal(third, dropout(x, 0.5, True))


def test_gradient_is_the_mask():
    x = torch.randn(13, 7, requires_grad=True)
    torch.manual_seed(1)
    dropout(x, 0.3, True).sum().backward()
    torch.manual_seed(1)
    assert torch.equal(x.grad, byte_mask(x, 0.3))


def test_off_in_eval_and_at_zero():
    x = torch.randn(13, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert not torch.equal(Dropout(0.5)(x), x)


def test_extreme_rates():
    x = torch.ones(13, 7)
    assert not dropout(x, 1.0, True).any()
    torch.manual_seed(0)
    rare = dropout(torch.ones(N), 0.001, True)  # rounds to 0/256: torch's own takes over
    assert 0 < (rare == 0).sum() < 0.002 * N


def test_empty():
    assert dropout(torch.ones(0, 7), 0.5, True).shape == (0, 7)


def test_bf16():
    torch.manual_seed(0)
    out = dropout(torch.ones(N, dtype=torch.bfloat16), 0.1, True)
    assert out.dtype == torch.bfloat16
    assert abs(out.double().mean().item() - 1) < 2**-8  # the scale is rounded to bf16's eight bits
