"""Packing: every sequence whole and once, attention inside it, rows that know their task."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from base_bert import BertConfig
from bert import BertModel, padded_rows
from packing import WIDTHS, Batch, Packed, Tokens, first_fit_decreasing, pack
from tests.multitask import unlabelled


def draw(rng: random.Random, tasks: int, longest: int) -> dict[str, Batch]:
    """Random sequences; every token id is different, so that a token in the wrong place cannot
    hide.
    """
    fresh = iter(range(1, 10**6))
    batches = {}
    for t in range(tasks):
        tokens = []
        for _ in range(rng.randint(1, 13)):
            n = rng.randint(1, longest)
            ids = np.array([next(fresh) for _ in range(n)])
            types = np.array([rng.randint(0, 1) for _ in range(n)])
            tokens.append(Tokens(ids, types))
        owners = torch.arange(len(tokens)) // 2
        batches[f"task{t}"] = Batch(f"task{t}", tokens, owners, torch.empty(0))
    return batches


def trials() -> list[dict[str, Batch]]:
    rng = random.Random(13)
    return [draw(rng, rng.randint(1, 3), rng.choice([5, 64, 65, 200, 512])) for _ in range(40)]


def owners(packed: Packed) -> torch.Tensor:
    """Which sequence each of the N tokens belongs to by `starts` and `lengths`; -1 is padding."""
    owner = torch.full_like(packed.input_ids, -1)
    for i, (start, length) in enumerate(zip(packed.starts, packed.lengths, strict=True)):
        assert (owner[start : start + length] == -1).all(), "two sequences overlap"
        owner[start : start + length] = i
    return owner


def test_every_sequence_is_laid_whole_and_once():
    for tasks in trials():
        packed, sequences = pack(tasks), [x for batch in tasks.values() for x in batch.tokens]
        assert packed.lengths.tolist() == [len(tokens) for tokens in sequences]
        for tokens, start, length in zip(sequences, packed.starts, packed.lengths, strict=True):
            where = slice(start, start + length)
            assert packed.input_ids[where].tolist() == tokens.ids.tolist()
            assert packed.token_type_ids[where].tolist() == tokens.types.tolist()
            assert packed.position_ids[where].tolist() == list(range(length))
        padding = owners(packed) == -1
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
        owner = owners(packed)
        for group in packed.groups:
            mine = owner[begin : begin + group.rows * group.width].view(group.rows, group.width)
            assert (
                group.mask.shape == (group.rows, 1, group.width, group.width)
                and group.mask.dtype == torch.bool
            )
            assert torch.equal(group.mask[:, 0], mine[:, :, None] == mine[:, None, :])
            assert group.mask.any(-1).all(), "a token that attends to nothing becomes NaN"
            begin += mine.numel()


@pytest.mark.parametrize("row_multiple", [1, 8])
def test_rows_know_their_task(row_multiple: int):
    """Group.tasks, Group.tokens_of, Packed.tasks, .owners and .longest, against the sequences."""
    for tasks in trials():
        packed, begin = pack(tasks, row_multiple), 0
        owner = owners(packed)
        task_of = [task for task, batch in tasks.items() for _ in batch.tokens]
        assert list(packed.tasks) == list(packed.longest) == list(tasks)
        for task, batch in tasks.items():
            part = packed.tasks[task]
            assert task_of[part] == [task] * len(batch.tokens)
            assert task_of.count(task) == len(batch.tokens)
            assert torch.equal(packed.owners[part], batch.owners)
            assert packed.longest[task] == packed.lengths[part].max()

        covered = torch.zeros_like(packed.input_ids)
        for group in packed.groups:
            assert group.begin == begin
            for task, rows in group.tasks.items():
                where = group.tokens_of(task)
                assert where.start == begin + rows.start * group.width
                assert where.stop - where.start == (rows.stop - rows.start) * group.width > 0
                inside = {task_of[i] for i in owner[where].unique().tolist() if i >= 0}
                assert inside == {task}
                covered[where] += 1
            begin += group.rows * group.width
        assert covered.max() == 1
        if row_multiple == 1:
            assert covered.min() == 1  # no row is nobody's
        assert (owner[covered == 0] == -1).all()


def test_row_counts_come_in_multiples():
    """Filled up with rows of padding alone, in which every place still attends to something."""
    filled = 0
    for tasks in trials():
        exact, padded = pack(tasks), pack(tasks, 8)
        assert [group.width for group in padded.groups] == [group.width for group in exact.groups]
        for few, many in zip(exact.groups, padded.groups, strict=True):
            assert many.rows % 8 == 0 and few.rows <= many.rows < few.rows + 8
            assert many.tasks == few.tasks
            assert torch.equal(many.mask[: few.rows], few.mask)
            assert many.mask.shape == (many.rows, 1, many.width, many.width)
            assert many.mask.any(-1).all()
            filled += many.rows - few.rows
        owner = owners(padded)
        assert padded.input_ids[owner == -1].sum() == 0
        sizes = {len(x) for x in (padded.input_ids, padded.position_ids, padded.token_type_ids)}
        assert sizes == {sum(group.rows * group.width for group in padded.groups)}
    assert filled > 0


@pytest.mark.parametrize("grad", [False, True])
def test_row_multiples_change_no_result(grad: bool):
    torch.manual_seed(0)
    shape = {"hidden_size": 26, "num_attention_heads": 2, "intermediate_size": 7}
    model = BertModel(BertConfig(vocab_size=10**4, num_hidden_layers=2, **shape)).eval()
    for tasks in trials()[::5]:
        exact, padded = pack(tasks), pack(tasks, 8)
        with torch.set_grad_enabled(grad):
            few, many = model.encode_packed(exact), model.encode_packed(padded)
        for a, b in zip(few, many, strict=True):
            a, b = a[owners(exact) >= 0], b[owners(padded) >= 0]
            assert torch.isfinite(b).all()
            # Rows of one width keep their order, so the real tokens come in the same order.
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_features_are_laid_where_their_tokens_are():
    """A sequence without a feature has zeros, and so has padding."""
    rng = random.Random(5)
    for tasks in trials():
        tagged = {}
        for name, batch in tasks.items():
            tokens = []
            for x in batch.tokens:
                features = {"same": x.ids * 7}
                if rng.random() < 0.5:
                    features["sometimes"] = x.ids + 13
                tokens.append(replace(x, features=features))
            tagged[name] = replace(batch, tokens=tokens)
        packed = pack(tagged, 8)
        assert torch.equal(packed.features["same"], packed.input_ids * 7)
        sequences = [x for batch in tagged.values() for x in batch.tokens]
        assert set(packed.features) == {name for x in sequences for name in x.features}
        if "sometimes" not in packed.features:
            continue
        expected = torch.zeros_like(packed.input_ids)
        for x, start in zip(sequences, packed.starts, strict=True):
            if "sometimes" in x.features:
                expected[start : start + len(x)] = torch.from_numpy(x.ids + 13)
        assert torch.equal(packed.features["sometimes"], expected)
    assert pack(trials()[0]).features == {}


def test_too_long_a_sequence_is_refused():
    long = np.ones(WIDTHS[-1] + 1, dtype=np.int64)
    with pytest.raises(ValueError, match="513 tokens does not fit a row of 512"):
        pack({"a": unlabelled("a", [Tokens(long, long)], each=1)})
    fitting = [Tokens(long[:-1], long[:-1])]
    assert pack({"a": unlabelled("a", fitting, each=1)}).groups[0].width == 512


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


def test_a_padded_batch_is_one_group():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    seen = padded_rows(mask, "sdpa", torch.float32)
    assert [(group.rows, group.width, group.begin) for group in seen.groups] == [(2, 4, 0)]
    assert seen.masks[0].tolist() == [
        [[[True, True, True, False]]],
        [[[True, False, False, False]]],
    ]
    added = padded_rows(mask, "softmax", torch.float32)
    low = torch.finfo(torch.float32).min / 2
    assert added.masks[0].tolist() == [[[[0, 0, 0, low]]], [[[0, low, low, low]]]]


def test_to_moves_every_tensor():
    tasks = trials()[0]
    name, batch = next(iter(tasks.items()))
    tokens = [replace(x, features={"tag": x.ids}) for x in batch.tokens]
    moved = pack({**tasks, name: replace(batch, tokens=tokens)}).to(torch.device("meta"))
    tensors = [x for x in vars(moved).values() if isinstance(x, torch.Tensor)]
    tensors += [group.mask for group in moved.groups] + list(moved.features.values())
    assert len(tensors) >= 8 and all(x.device.type == "meta" for x in tensors)
    assert batch.to(torch.device("meta")).labels.device.type == "meta"
