"""Samplers: how many examples of each task a step holds."""

from dataclasses import replace
from fractions import Fraction

import pytest

from options import Options
from training.draws import Draw, epoch_steps, grouped, micro_batches, one_cycle_a_step
from training.plan import make_plan
from training.samplers import SAMPLERS, mixed, round_robin

SIZES = {"sst": 8544, "para": 141506, "sts": 6041}


def totals(draw: Draw, steps: int) -> dict[str, int]:
    out = dict.fromkeys(SIZES, 0)
    for step in range(steps):
        for task, n in draw(step, 0.0).items():
            out[task] += n
    return out


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch_size", [3, 13, 64])
def test_mixed_shares_hold_at_every_step(exponent, batch_size):
    draw = mixed(SIZES, Options(batch_size=batch_size, sampling_exponent=exponent))
    weights = {task: size**exponent for task, size in SIZES.items()}
    seen = dict.fromkeys(SIZES, 0)
    for step in range(3000):
        counts = draw(step, 0.0)
        assert abs(sum(counts.values()) - batch_size) < len(SIZES) and all(
            n > 0 for n in counts.values()
        )
        for task in SIZES:
            seen[task] += counts.get(task, 0)
            share = (step + 1) * batch_size * weights[task] / sum(weights.values())
            assert share - 1 < seen[task] <= share + 1e-3
    if exponent == 0:  # three equal shares
        assert set(seen.values()) == {3000 * batch_size // 3}


def test_exponents():
    equal, root, size = (
        totals(mixed(SIZES, Options(sampling_exponent=a)), 1000) for a in (0, 0.5, 1)
    )
    assert root["para"] / root["sts"] == pytest.approx(
        (SIZES["para"] / SIZES["sts"]) ** 0.5, rel=1e-3
    )
    assert size["para"] / size["sts"] == pytest.approx(SIZES["para"] / SIZES["sts"], rel=1e-3)
    assert equal["para"] == equal["sts"] == equal["sst"]


def test_a_small_task_sits_out_steps_but_not_for_ever():
    draw = mixed({"sst": 10, "sts": 990}, Options(batch_size=4, sampling_exponent=1.0))
    counts = [draw(step, 0.0).get("sst", 0) for step in range(1000)]
    assert sum(counts) == 40 and set(counts) == {0, 1}
    assert "sst" not in draw(0, 0.0)


def test_equal_shares_are_exact_after_very_many_steps():
    """3 * (1 / 3) and the like must not lose an example to rounding."""
    draw = mixed(dict.fromkeys(SIZES, 7), Options(batch_size=7, sampling_exponent=1.0))
    third = Fraction(7, 3)
    for step in (0, 1, 2, 10**6, 10**6 + 1, 10**6 + 2):
        assert set(draw(step, 0.0).values()) == {int((step + 1) * third) - int(step * third)}


def test_round_robin():
    draw = round_robin(SIZES, Options(batch_size=13))
    assert [draw(step, 0.0) for step in range(4)] == [
        {"sst": 13},
        {"para": 13},
        {"sts": 13},
        {"sst": 13},
    ]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_function_of_the_step_alone(name):
    first, second = (SAMPLERS[name](SIZES, Options()) for _ in range(2))
    forward = [first(step, 0.0) for step in range(100)]
    assert (
        [second(step, 0.0) for step in reversed(range(100))]
        == forward[::-1]
        == [first(step, 0.0) for step in range(100)][::-1]
    )
    assert all(set(counts) <= set(SIZES) for counts in forward)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_epoch_ends_when_the_first_task_is_through(name, accumulation):
    sizes = {"sst": 137, "para": 900, "sts": 61}
    options = Options(batch_size=13, sampling_exponent=0.5, accumulation=accumulation)
    draw = SAMPLERS[name](sizes, options)
    steps = epoch_steps(draw, sizes)

    def through(steps: int) -> bool:
        return any(seen >= sizes[task] for task, seen in totals(draw, steps).items())

    assert through(steps) and not through(steps - 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_holds_the_examples_of_all_its_passes(name):
    """batch_size * accumulation of them, as a batch of that size does."""
    draw = SAMPLERS[name](SIZES, Options(batch_size=13, accumulation=3))
    other = SAMPLERS[name](SIZES, Options(batch_size=39))
    for step in range(100):
        assert draw(step, 0.0) == other(step, 0.0)


def test_epochs_by_hand():
    equal = Options(batch_size=9, sampling_exponent=0.0)  # 3 of each task
    fourfold = Options(batch_size=9, sampling_exponent=0.0, accumulation=4)
    sizes = {"sst": 100, "para": 31, "sts": 300}
    assert epoch_steps(mixed(sizes, equal), sizes) == 11
    assert epoch_steps(mixed(sizes, fourfold), sizes) == 3
    assert epoch_steps(round_robin(sizes, equal), sizes) == 11  # para: steps 1, 4, 7, 10
    assert epoch_steps(mixed({"sst": 5}, Options(batch_size=5)), {"sst": 5}) == 1


# ---- draws together


def test_grouped_draws_are_those_of_the_steps_in_it():
    draw = mixed(SIZES, Options(batch_size=13))
    together = grouped(draw, 5)
    for step in range(20):
        expected = dict.fromkeys(SIZES, 0)
        for number in range(5 * step, 5 * step + 5):
            for task, count in draw(number, 0.0).items():
                expected[task] += count
        assert together(step, 0.0) == expected


def test_a_combiner_gets_a_cycle_of_all_tasks_in_one_step():
    options = Options(batch_size=13, accumulation=2, sampler="round_robin")
    draw = one_cycle_a_step(round_robin(SIZES, options), SIZES)
    for step in range(5):
        assert draw(step, 0.0) == {"sst": 26, "para": 26, "sts": 26}
    assert epoch_steps(draw, SIZES) == 233  # of 26 examples each; sts has 6041


def test_what_holds_several_tasks_or_all_there_are_stays_as_it_is():
    several = mixed(SIZES, Options(batch_size=13))
    assert one_cycle_a_step(several, SIZES) is several
    single = {"sts": 100}
    only = round_robin(single, Options())
    assert one_cycle_a_step(only, single) is only


# ---- micro-batches


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_micro_batches_hold_every_index_once_in_order(count):
    drawn = {"sst": list(range(100, 113)), "para": [5, 3, 5, 1], "sts": [9]}
    parts = micro_batches(drawn, count)
    for task, indices in drawn.items():
        pieces = [part.get(task, []) for part in parts]
        assert sum(pieces, []) == indices
        # Equal but for one, and none of them listed empty.
        sizes = [len(piece) for piece in pieces]
        sizes += [0] * (count - len(parts))
        assert max(sizes) - min(sizes) <= 1
        assert all(part[task] for part in parts if task in part)
    assert len(parts) <= count and all(parts)


def test_one_micro_batch_is_the_step():
    drawn = {"sst": [3, 1, 2], "sts": [7]}
    assert micro_batches(drawn, 1) == [drawn]


def test_a_task_counts_as_large_as_its_samples():
    """Of 1,000 pairs 60 an epoch, beside 30 sentences: shares and epochs as if there were 60."""
    options = Options(samples_per_epoch="all para=60", batch_size=9, sampling_exponent=1.0)
    few = {"sst": [None] * 30, "para": [None] * 1000}
    plan = make_plan(options, few, joint=False)
    assert (plan.epoch, plan.total) == (10, 30)
    assert [plan.draw(step, 0.0) for step in range(2)] == [{"sst": 3, "para": 6}] * 2
    few["para"] = [None] * 60
    more = replace(options, samples_per_epoch="all para=8000")
    assert make_plan(more, few, joint=False).epoch == 10
