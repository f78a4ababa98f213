"""Packed rows: the sequences of a step laid whole into rows of fixed widths.

Krell et al. 2021, Efficient Sequence Packing, https://arxiv.org/abs/2107.02027. Here by first-fit
decreasing: positions restart with each sequence and attention stays inside a sequence. A sequence
too long for a row of 64 goes to wider ones, so one long sentence does not widen the attention of
all the others. Left out: splitting a sequence over two rows.

Everything that works token by token (embeddings, linears, norms) sees all rows as one flat list of
N tokens; only attention looks at the groups. A row holds sequences of one task only, and a group
says which rows are whose, so layers can have parts of their own for a task.

Dimensions: T tokens of one sequence, B examples of a batch, S sequences of a task, N tokens of all
rows, R rows of width W in a group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

WIDTHS = (64, 96, 128, 256, 512)


@dataclass(frozen=True)
class Tokens:
    """One sequence, unpadded: token ids and token types, [T] each, and further numbers a token."""

    ids: np.ndarray
    types: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> [T], such as tags

    def __len__(self) -> int:
        return len(self.ids)


def with_virtual(tokens: Tokens, count: int) -> Tokens:
    """The same with `count` virtual tokens behind [CLS].

    They have the id of [PAD], token type 0 and no features but "virtual", which numbers them from 1
    and is 0 at all other tokens: whoever asks for them adds their embeddings.
    """
    none = np.zeros(count, dtype=np.int64)

    def opened(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:1], none, values[1:]])  # [T + count]

    numbers = np.zeros(len(tokens) + count, dtype=np.int64)
    numbers[1 : 1 + count] = np.arange(1, count + 1)
    features = {name: opened(values) for name, values in tokens.features.items()}
    return Tokens(opened(tokens.ids), opened(tokens.types), {**features, "virtual": numbers})


def moved(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device."""
    # On Apple's MPS a copy that nobody waits for may read what was freed (pytorch issue 189690).
    return x.to(device, non_blocking=device.type == "cuda")


@dataclass(frozen=True)
class Batch:
    """Some examples of one task. An example is one sequence, or several."""

    task: str
    tokens: list[Tokens]  # S sequences
    owners: Tensor  # [S], the example that a sequence belongs to, 0 to B - 1, ascending
    labels: Tensor  # [B] or [B, ...], float; NaN without labels
    # [S], whether a sequence is of its example's first text, 0, or its second, 1; None: an example
    # is one sequence, or two in this order.
    sides: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same with its labels on another device; tokens go there packed."""
        return replace(self, labels=moved(self.labels, device))


@dataclass(frozen=True)
class Group:
    """R rows of one width W."""

    rows: int
    width: int
    begin: int  # where its tokens begin among the N
    mask: Tensor  # [R, 1, W or 1, W], True where a token attends to another
    tasks: dict[str, slice]  # the rows of each task that has some

    def tokens_of(self, task: str) -> slice:
        """Where among the N the rows of a task stand; it must have some in this group."""
        rows = self.tasks[task]
        return slice(self.begin + rows.start * self.width, self.begin + rows.stop * self.width)


@dataclass(frozen=True)
class Packed:
    """All tokens of a forward pass, flat: N tokens, padding of the rows included."""

    input_ids: Tensor  # [N]
    position_ids: Tensor  # [N]
    token_type_ids: Tensor  # [N]
    features: dict[str, Tensor]  # name -> [N], 0 where a sequence has none
    groups: list[Group]  # sum of rows * width = N
    starts: Tensor  # [all S] where a sequence's [CLS] stands among the N
    lengths: Tensor  # [all S], virtual tokens counted
    owners: Tensor  # [all S] the example of its task that a sequence belongs to
    sides: Tensor  # [all S] 0 or 1, which of the example's texts it is of
    tasks: dict[str, slice]  # the sequences of each task
    longest: dict[str, int]  # tokens of each task's longest sequence, virtual ones counted
    virtual: int = 0  # of each sequence's tokens those behind [CLS] that are of no text

    def to(self, device: torch.device) -> "Packed":
        """The same on another device."""

        def move(x: Tensor) -> Tensor:
            return moved(x, device)

        return replace(
            self,
            input_ids=move(self.input_ids),
            position_ids=move(self.position_ids),
            token_type_ids=move(self.token_type_ids),
            features={name: move(x) for name, x in self.features.items()},
            groups=[replace(group, mask=move(group.mask)) for group in self.groups],
            starts=move(self.starts),
            lengths=move(self.lengths),
            owners=move(self.owners),
            sides=move(self.sides),
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


def width_for(length: int) -> int:
    """The narrowest row that holds a sequence; ValueError where none does."""
    for width in WIDTHS:
        if length <= width:
            return width
    raise ValueError(
        f"a sequence of {length} tokens does not fit a row of {WIDTHS[-1]}: truncate it first"
    )


def place(
    lengths: list[int], tasks: dict[str, slice], width: int, row_multiple: int
) -> tuple[list[list[int]], dict[str, slice]]:
    """The rows of one width: which sequences each holds, and which rows are each task's."""
    rows: list[list[int]] = []
    rows_of_tasks: dict[str, slice] = {}
    for task, part in tasks.items():
        fitting = [i for i in range(part.start, part.stop) if width_for(lengths[i]) == width]
        if fitting:
            own = first_fit_decreasing([lengths[i] for i in fitting], width)
            rows_of_tasks[task] = slice(len(rows), len(rows) + len(own))
            rows += [[fitting[j] for j in row] for row in own]
    while len(rows) % row_multiple:
        rows.append([])
    return rows, rows_of_tasks


def lay_out(
    rows: list[list[int]], lengths: list[int], width: int, begin: int, starts: np.ndarray
) -> Tensor:
    """Write where the rows' sequences start into `starts`; returns the rows' mask [R, 1, W, W]."""
    owner = np.full((len(rows), width), -1)  # of each place; what is left over attends to itself
    for r, row in enumerate(rows):
        column = 0
        for i in row:
            starts[i] = begin + r * width + column
            owner[r, column : column + lengths[i]] = i
            column += lengths[i]
    same = torch.from_numpy(owner)
    return (same[:, :, None] == same[:, None, :])[:, None]


def spread(values: list[np.ndarray], starts: np.ndarray, size: int) -> Tensor:
    """Each sequence's values at its place among `size` numbers, 0 elsewhere: [size], int64."""
    flat = np.zeros(size, dtype=np.int64)
    for start, numbers in zip(starts, values, strict=True):
        flat[start : start + len(numbers)] = numbers
    return torch.from_numpy(flat)


def sides_of(batch: Batch) -> Tensor:
    """Which of its example's texts each sequence is of: [S], 0 or 1."""
    if batch.sides is not None:
        return batch.sides
    sides = torch.zeros_like(batch.owners)
    sides[1:] = batch.owners[1:] == batch.owners[:-1]
    return sides


def pack(batches: Mapping[str, Batch], row_multiple: int = 1, virtual: int = 0) -> Packed:
    """Lay the sequences of {task: batch} into rows.

    Sequences are numbered task after task in the order given; `starts`, `lengths`, `owners` and
    `sides` follow that order. The rows of each width are filled up with empty ones to a multiple
    of `row_multiple`, so that few shapes occur. Each sequence gets `virtual` tokens more, as
    with_virtual() has them. Raises ValueError where a sequence is longer than the widest row.
    """
    # Number the sequences, task after task.
    sequences: list[Tokens] = []
    tasks: dict[str, slice] = {}
    for task, batch in batches.items():
        tasks[task] = slice(len(sequences), len(sequences) + len(batch.tokens))
        sequences += batch.tokens
    if virtual:
        sequences = [with_virtual(tokens, virtual) for tokens in sequences]
    lengths = [len(tokens) for tokens in sequences]

    # Place them into rows, the narrow groups first.
    starts = np.zeros(len(sequences), dtype=np.int64)
    groups: list[Group] = []
    size = 0
    for width in sorted({width_for(length) for length in lengths}):
        rows, rows_of_tasks = place(lengths, tasks, width, row_multiple)
        mask = lay_out(rows, lengths, width, size, starts)
        groups.append(Group(len(rows), width, size, mask, rows_of_tasks))
        size += len(rows) * width

    # Write the tokens; [PAD] is 0 in every BERT vocabulary.
    names = sorted({name for tokens in sequences for name in tokens.features})
    nothing = np.zeros(0, dtype=np.int64)
    features = {
        name: spread([x.features.get(name, nothing) for x in sequences], starts, size)
        for name in names
    }
    return Packed(
        input_ids=spread([x.ids for x in sequences], starts, size),
        position_ids=spread([np.arange(n) for n in lengths], starts, size),
        token_type_ids=spread([x.types for x in sequences], starts, size),
        features=features,
        groups=groups,
        starts=torch.from_numpy(starts),
        lengths=torch.tensor(lengths),
        owners=torch.cat([batch.owners for batch in batches.values()]),
        sides=torch.cat([sides_of(batch) for batch in batches.values()]),
        tasks=tasks,
        longest={task: max(map(len, batch.tokens)) + virtual for task, batch in batches.items()},
        virtual=virtual,
    )
