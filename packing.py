"""Packed rows: the sequences of a step laid whole into rows of fixed widths, so that almost nothing
is padding.

Krell et al. 2021, https://arxiv.org/abs/2107.02027. Here by first-fit decreasing, positions restart
with each sequence and attention stays inside a sequence. A sequence too long for a row of 64 goes
to wider ones, so one long sentence does not widen the attention of all the others. Left out:
splitting a sequence over two rows.

Everything that works token by token (embeddings, linears, norms) sees all rows as one flat list of
N tokens; only attention looks at the groups. A padded batch [B, T] is the special case of one
group, B rows of width T.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

WIDTHS = (64, 96, 128, 256, 512)


@dataclass(frozen=True)
class Group:
    """R rows of one width W, and which tokens attend to which: mask is True where they do, [R, 1, W
    or 1, W].
    """

    rows: int
    width: int
    mask: Tensor


@dataclass(frozen=True)
class Packed:
    """All tokens of a forward pass, flat. N tokens in all, B sequences."""

    input_ids: Tensor  # [N]
    position_ids: Tensor  # [N]
    token_type_ids: Tensor  # [N]
    groups: list[Group]  # sum of rows * width = N
    starts: Tensor  # [B] where a sequence's [CLS] stands among the N
    lengths: Tensor  # [B]
    parts: dict[str, list[slice]]  # the tokens of each task (whole rows, one slice a group)

    def to(self, device: torch.device) -> "Packed":
        """The same on another device."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return replace(
            self,
            input_ids=move(self.input_ids),
            position_ids=move(self.position_ids),
            token_type_ids=move(self.token_type_ids),
            starts=move(self.starts),
            lengths=move(self.lengths),
            groups=[replace(group, mask=move(group.mask)) for group in self.groups],
        )


def pad(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Packed:
    """A padded batch [B, T] as packed tokens: B rows, each with one sequence. The mask hides
    padding from every token.
    """
    rows, width = input_ids.shape
    types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    positions = torch.arange(width, device=input_ids.device).expand(rows, width)
    return Packed(
        input_ids.flatten(),
        positions.flatten(),
        types.flatten(),
        [Group(rows, width, attention_mask.bool()[:, None, None, :])],
        torch.arange(rows, device=input_ids.device) * width,
        attention_mask.sum(1),
        {},
    )


def first_fit_decreasing(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices of `lengths` put into rows that hold at most `width` each, the longest first."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(room) if free >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def pack(tasks: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> Packed:
    """Lay {task: [(token ids, token type ids), ...]} into rows; a row holds sequences of one task
    only.

    Sequences are numbered task after task in the order given; `starts` and `lengths` follow that
    order. Raises ValueError where a sequence is longer than the widest row.
    """
    sequences = [(task, ids, types) for task, items in tasks.items() for ids, types in items]
    lengths = [len(ids) for _, ids, _ in sequences]
    if max(lengths) > WIDTHS[-1]:
        raise ValueError(
            f"a sequence of {max(lengths)} tokens does not fit a row of {WIDTHS[-1]}: truncate it first"
        )
    width_of = [next(w for w in WIDTHS if n <= w) for n in lengths]
    starts = np.zeros(len(sequences), dtype=np.int64)
    groups, sizes = [], [0]
    parts: dict[str, list[slice]] = {task: [] for task in tasks}
    for width in sorted(set(width_of)):
        placed: list[list[int]] = []
        for task in tasks:
            mine = [
                i for i, (name, *_) in enumerate(sequences) if name == task and width_of[i] == width
            ]
            rows = [
                [mine[i] for i in row]
                for row in first_fit_decreasing([lengths[i] for i in mine], width)
            ]
            begin = sizes[-1] + len(placed) * width
            if rows:
                parts[task].append(slice(begin, begin + len(rows) * width))
            placed += rows
        owner = np.full(
            (len(placed), width), -1
        )  # which sequence a token belongs to; padding attends to padding
        for r, row in enumerate(placed):
            column = 0
            for i in row:
                starts[i] = sizes[-1] + r * width + column
                owner[r, column : column + lengths[i]] = i
                column += lengths[i]
        seen_by = torch.from_numpy(owner)
        groups.append(
            Group(len(placed), width, (seen_by[:, :, None] == seen_by[:, None, :])[:, None])
        )
        sizes.append(sizes[-1] + owner.size)
    flat = np.zeros(
        (3, sizes[-1]), dtype=np.int64
    )  # ids ([PAD] is 0 in every BERT vocabulary), positions, token types
    for start, (_, ids, types) in zip(starts, sequences, strict=True):
        flat[:, start : start + len(ids)] = ids, np.arange(len(ids)), types
    input_ids, position_ids, token_type_ids = torch.from_numpy(flat)
    return Packed(
        input_ids,
        position_ids,
        token_type_ids,
        groups,
        torch.from_numpy(starts),
        torch.tensor(lengths),
        parts,
    )
