"""Encoded: which states belong to a sequence, and what a [CLS]-only pass refuses."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from forward import Encoded

LENGTHS = [5, 1, 13, 7]
POOLER = torch.randn(6, 6, generator=torch.Generator().manual_seed(9))


def encoded(
    lengths: list[int] = LENGTHS,
    order: list[int] | None = None,
    gap: int = 0,
    longest: int = 0,
    fill: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Encoded:
    """Sequence i has the same states wherever it is laid; between the sequences are `gap` rows of
    `fill`.
    """
    texts = [
        torch.randn(n, 6, generator=torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)
    ]
    rows: list[Tensor] = [torch.full((gap, 6), fill)]
    starts = [0] * len(lengths)
    for i in order or range(len(lengths)):
        starts[i] = sum(map(len, rows))
        rows += [texts[i], torch.full((gap, 6), fill)]
    states = torch.cat(rows).to(dtype)
    return Encoded(
        [states + 100, states],  # two layers, which must not be taken for one another
        torch.tensor(starts),
        torch.tensor(lengths),
        longest or max(lengths),
        pooler=lambda first: (first @ POOLER).tanh(),
    )


def sequences(lengths: list[int] = LENGTHS) -> list[Tensor]:
    return [
        torch.randn(n, 6, generator=torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
@pytest.mark.parametrize("gap", [0, 3])
def test_first_and_tokens(order, gap):
    given = encoded(order=order, gap=gap, fill=7.0)
    texts = sequences()
    assert torch.equal(given.first(), torch.stack([x[0] for x in texts]))
    states, mask = given.tokens()
    assert states.shape == (4, 13, 6) and mask.shape == (4, 13) and mask.dtype == torch.bool
    for x, row, keep in zip(texts, states, mask, strict=True):
        assert torch.equal(row[: len(x)], x) and not row[len(x) :].any()
        assert keep.tolist() == [True] * len(x) + [False] * (13 - len(x))


def test_each_layer_can_be_asked_for():
    given = encoded(order=[2, 0, 3, 1], gap=3, fill=7.0)
    mask = given.tokens()[1]
    for name, layer in (("embeddings", 0), ("last", 1), ("last", -1)):
        offset = 100 if name == "embeddings" else 0
        torch.testing.assert_close(given.first(layer), given.first() + offset)
        states, same = given.tokens(layer)
        torch.testing.assert_close(states, (given.tokens()[0] + offset) * mask[:, :, None])
        assert torch.equal(same, mask)


def test_states_come_out_in_fp32():
    given = encoded(dtype=torch.bfloat16)
    assert given.first().dtype == given.tokens()[0].dtype == torch.float32
    only = replace(given, last_first=torch.zeros(4, 6, dtype=torch.bfloat16))
    assert only.first().dtype == torch.float32


def test_a_cls_only_pass_refuses_tokens():
    """Of the last layer; the layers below are whole, and so are theirs."""
    given = encoded(gap=2)
    only = replace(given, last_first=torch.randn(4, 6))
    assert torch.equal(only.first(), only.last_first)
    for ask in (only.tokens, lambda: only.with_tokens(torch.randn(4, 13, 6))):
        with pytest.raises(RuntimeError, match=r'computed at \[CLS\] only.*needs = "tokens"'):
            ask()
    assert torch.equal(only.first(0), given.first(0))
    assert torch.equal(only.tokens(0)[0], given.tokens(0)[0])


def test_with_tokens_takes_the_last_layers_place():
    """States of another width, whose padding comes out as zeros whatever was put there."""
    given = encoded(order=[3, 1, 0, 2], gap=1, fill=5.0)
    mask = given.tokens()[1]
    states = torch.randn(4, 13, 9)
    changed = given.with_tokens(states)
    assert torch.equal(changed.tokens()[0], states * mask[:, :, None])
    assert torch.equal(changed.tokens()[1], mask)
    assert torch.equal(changed.first(), states[:, 0])
    assert torch.equal(changed.first(0), given.first(0))
    again = changed.with_tokens(states + 1)
    assert torch.equal(again.first(), states[:, 0] + 1)
    assert torch.equal(given.first(), torch.stack([x[0] for x in sequences()]))  # left as it was


def test_the_pooler_s_output():
    """Of [CLS] in the last layer; states that came without a pooler have none."""
    given = encoded(order=[2, 0, 3, 1], gap=3, fill=7.0)
    torch.testing.assert_close(given.pooler_output(), (given.first() @ POOLER).tanh())
    assert given.with_tokens(torch.randn(4, 13, 6)).pooler is given.pooler
    with pytest.raises(RuntimeError, match="without the encoder's pooler"):
        replace(given, pooler=None).pooler_output()


def test_gradients_of_with_tokens_stay_at_tokens():
    states = torch.randn(4, 13, 6, requires_grad=True)
    given = encoded()
    given.with_tokens(states).tokens()[0].sum().backward()
    assert torch.equal(states.grad.bool().any(-1), given.tokens()[1])
