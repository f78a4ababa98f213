import random

import numpy as np
import pytest
import torch

from packing import WIDTHS, Packed, first_fit_decreasing, pack, pad


def draw(
    rng: random.Random, tasks: int, longest: int
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Random sequences; every token id is different, so that a token in the wrong place cannot
    hide.
    """
    fresh = iter(range(1, 10**6))
    return {
        f"task{t}": [
            (
                np.array([next(fresh) for _ in range(n)]),
                np.array([rng.randint(0, 1) for _ in range(n)]),
            )
            for n in (rng.randint(1, longest) for _ in range(rng.randint(1, 13)))
        ]
        for t in range(tasks)
    }


def trials() -> list[dict[str, list[tuple[np.ndarray, np.ndarray]]]]:
    rng = random.Random(13)
    return [draw(rng, rng.randint(1, 3), rng.choice([5, 64, 65, 200, 512])) for _ in range(40)]


def owners(packed: Packed, tasks: dict) -> torch.Tensor:
    """Which sequence each of the N tokens belongs to by `starts` and `lengths`; -1 is padding."""
    owner = torch.full_like(packed.input_ids, -1)
    for i, (start, length) in enumerate(zip(packed.starts, packed.lengths, strict=True)):
        assert (owner[start : start + length] == -1).all(), "two sequences overlap"
        owner[start : start + length] = i
    return owner


def test_every_sequence_is_laid_whole_and_once():
    for tasks in trials():
        packed, sequences = pack(tasks), [x for items in tasks.values() for x in items]
        assert packed.lengths.tolist() == [len(ids) for ids, _ in sequences]
        for (ids, types), start, length in zip(
            sequences, packed.starts, packed.lengths, strict=True
        ):
            where = slice(start, start + length)
            assert packed.input_ids[where].tolist() == ids.tolist()
            assert packed.token_type_ids[where].tolist() == types.tolist()
            assert packed.position_ids[where].tolist() == list(range(length))
        padding = owners(packed, tasks) == -1
        assert (packed.input_ids != 0).sum() == packed.lengths.sum()
        assert packed.input_ids[padding].sum() == 0


def test_rows_hold_whole_sequences_of_the_narrowest_width():
    for tasks in trials():
        packed, begin = pack(tasks), 0
        widths = [group.width for group in packed.groups]
        assert widths == sorted(set(widths)) and set(widths) <= set(WIDTHS)
        for group in packed.groups:
            for row in range(group.rows):
                low, high = begin + row * group.width, begin + (row + 1) * group.width
                inside = (packed.starts >= low) & (packed.starts < high)
                assert inside.any(), "an empty row"
                assert (packed.starts + packed.lengths)[inside].max() <= high
                # A sequence is in a wider row only where a narrower one cannot hold it.
                narrower = max([w for w in WIDTHS if w < group.width], default=0)
                assert packed.lengths[inside].min() > narrower
            begin += group.rows * group.width
        assert (
            begin == len(packed.input_ids) == len(packed.position_ids) == len(packed.token_type_ids)
        )


def test_attention_stays_inside_a_sequence():
    for tasks in trials():
        packed, begin = pack(tasks), 0
        owner = owners(packed, tasks)
        for group in packed.groups:
            mine = owner[begin : begin + group.rows * group.width].view(group.rows, group.width)
            assert (
                group.mask.shape == (group.rows, 1, group.width, group.width)
                and group.mask.dtype == torch.bool
            )
            assert torch.equal(group.mask[:, 0], mine[:, :, None] == mine[:, None, :])
            assert group.mask.any(-1).all(), "a token that attends to nothing becomes NaN"
            begin += mine.numel()


def test_parts_are_the_rows_of_one_task():
    for tasks in trials():
        packed = pack(tasks)
        owner = owners(packed, tasks)
        task_of = [task for task, items in tasks.items() for _ in items]
        covered = torch.zeros_like(packed.input_ids)
        for task, slices in packed.parts.items():
            for part in slices:
                covered[part] += 1
                assert {task_of[i] for i in owner[part].unique().tolist() if i >= 0} == {task}
        assert (covered == 1).all()
        assert list(packed.parts) == list(tasks)


def test_too_long_a_sequence_is_refused():
    long = np.ones(WIDTHS[-1] + 1, dtype=np.int64)
    with pytest.raises(ValueError, match="513 tokens does not fit a row of 512"):
        pack({"a": [(long, long)]})
    assert pack({"a": [(long[:-1], long[:-1])]}).groups[0].width == 512


def test_first_fit_decreasing():
    assert first_fit_decreasing([2, 7, 5, 6, 3, 1], 10) == [[1, 4], [3, 0, 5], [2]]  # by hand
    assert first_fit_decreasing([], 10) == []
    rng = random.Random(7)
    for _ in range(200):
        lengths = [rng.randint(1, 13) for _ in range(rng.randint(1, 30))]
        rows = first_fit_decreasing(lengths, 13)
        assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
        sums = [sum(lengths[i] for i in row) for row in rows]
        assert max(sums) <= 13
        least = -(-sum(lengths) // 13)
        assert least <= len(rows) <= 11 / 9 * optimum_bound(lengths, 13) + 1
        # First fit: what opened a later row did not fit an earlier one, so no two rows could be
        # one.
        assert all(a + b > 13 for i, a in enumerate(sums) for b in sums[:i])


def optimum_bound(lengths: list[int], width: int) -> int:
    """At least the fewest rows possible: a second heuristic, best-fit decreasing, is a packing, so
    an upper bound.
    """
    room: list[int] = []
    for n in sorted(lengths, reverse=True):
        fits = [r for r, free in enumerate(room) if free >= n]
        if fits:
            room[min(fits, key=lambda r: room[r])] -= n
        else:
            room.append(width - n)
    return len(room)


def test_pad_is_one_group_of_the_batch():
    ids = torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0]])
    packed = pad(ids, (ids != 0).long())
    assert packed.input_ids.tolist() == [5, 6, 7, 0, 8, 0, 0, 0]
    assert packed.position_ids.tolist() == [0, 1, 2, 3] * 2
    assert packed.token_type_ids.tolist() == [0] * 8
    assert packed.starts.tolist() == [0, 4] and packed.lengths.tolist() == [3, 1]
    assert packed.groups[0].mask.tolist() == [
        [[[True, True, True, False]]],
        [[[True, False, False, False]]],
    ]


def test_to_moves_every_tensor():
    moved = pack(trials()[0]).to(torch.device("meta"))
    tensors = [x for x in vars(moved).values() if isinstance(x, torch.Tensor)] + [
        g.mask for g in moved.groups
    ]
    assert len(tensors) >= 6 and all(x.device.type == "meta" for x in tensors)
