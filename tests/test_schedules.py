"""Learning-rate schedules, number by number."""

import math

import pytest

from training.schedules import SCHEDULES, constant
from training.warmup import warmed_up_again


def test_schedules():
    for name, make in SCHEDULES.items():
        f = make(100, 10)
        assert [f(s, ()) for s in range(10)] == pytest.approx([(s + 1) / 10 for s in range(10)]), (
            name
        )
        assert f(10, ()) == 1.0 and make(100, 0)(0, ()) == 1.0 and make(10, 10)(9, ()) == 1.0, name
        values = [f(s, ()) for s in range(10, 101)]
        assert values == sorted(values, reverse=True) and all(0 <= x <= 1 for x in values), name
        with pytest.raises(ValueError, match="warm-up"):
            make(10, 11)
    assert [SCHEDULES["linear"](100, 10)(s, ()) for s in (55, 100, 200)] == [0.5, 0.0, 0.0]
    assert [SCHEDULES["cosine"](100, 10)(s, ()) for s in (55, 100, 200)] == pytest.approx(
        [0.5, 0.0, 0.0]
    )
    assert SCHEDULES["cosine"](100, 10)(40, ()) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 3))
    assert SCHEDULES["constant"](100, 10)(1000, ()) == 1.0


def test_a_second_warm_up() -> None:
    again = warmed_up_again(constant(12, 2), 6, 4)
    expected = [1 / 2, *[1.0] * 5, 1 / 4, 2 / 4, 3 / 4, 1.0, 1.0, 1.0]
    assert [again(step, ()) for step in range(12)] == expected
    never = constant(12, 2)
    assert warmed_up_again(never, 0, 4) is never
