"""A mixture of experts: several encoders, and one more that weighs them for each sequence.

Jacobs et al. 1991, Adaptive Mixtures of Local Experts, https://doi.org/10.1162/neco.1991.3.1.79:
y = sum_i g_i E_i(x) with g = softmax of the gate's logits. Here E_i are BERT's stacks of layers, of
which the first is the model's own encoder. The gate is one more, with a linear on its [CLS]. What
is mixed are the states of all tokens after each layer, by the sequence's weights, so every pooling
works.

--experts_gate top1 (Fedus et al. 2021, Switch Transformers, https://arxiv.org/abs/2101.03961,
equation 2) runs a sequence through the expert with the largest g_i alone, times that g_i, through
which the gate learns. losses/balance.py is the loss for an even use.

All experts and the gate share the embeddings, so noise that a caller puts on them reaches all. They
all start as the same pretrained stack: experts become different through their own dropout masks
and the gate's linear, which starts at random. Left out: noise on the gate, a limit on how many
sequences an expert takes.
"""

import copy

import torch
from torch import Tensor, nn

from adapters.wrap import Adaptable, Adapter
from attention import packed_rows
from bert import BertModel
from casting import through_layers
from options import Options
from packing import Batch, Packed, Tokens, pack


def sequence_of_tokens(packed: Packed) -> Tensor:
    """The number of the sequence that each token belongs to: [N]; all S at padding."""
    tokens = torch.arange(len(packed.input_ids), device=packed.starts.device)
    count = len(packed.starts)
    number = torch.full_like(tokens, count)
    number[packed.starts] = torch.arange(count, device=packed.starts.device)
    # Positions count from a sequence's first token; at padding they are 0.
    return number[tokens - packed.position_ids]


def weights_of_tokens(packed: Packed, weights: Tensor) -> Tensor:
    """Each token's sequence's weights: [all S, any] -> [N, any]; 0 at padding."""
    nothing = weights.new_zeros(1, weights.shape[1])
    return torch.cat([weights, nothing])[sequence_of_tokens(packed)]


def some_of(packed: Packed, chosen: Tensor) -> Packed:
    """Only the sequences [C] with these numbers, ascending, in rows of their own.

    Its input_ids say where a token stood among the N: 0, which says nothing, at padding.
    """
    starts, lengths = packed.starts[chosen].tolist(), packed.lengths[chosen].tolist()
    numbers = chosen.tolist()
    batches = {}
    for task, part in packed.tasks.items():
        tokens = []
        for number, start, length in zip(numbers, starts, lengths, strict=True):
            if part.start <= number < part.stop:
                places = torch.arange(start, start + length).numpy()
                tokens.append(Tokens(places, torch.zeros(length, dtype=torch.int64).numpy()))
        if tokens:
            batches[task] = Batch(task, tokens, torch.arange(len(tokens)), torch.empty(0))
    return pack(batches).to(chosen.device)


class Experts(nn.Module):
    """Several stacks of layers and a gate, in the place of an encoder's one stack."""

    def __init__(self, bert: BertModel, count: int, top1: bool):
        super().__init__()
        self.top1 = top1
        self.others = nn.ModuleList([copy.deepcopy(bert.bert_layers) for _ in range(count - 1)])
        self.gate_layers = copy.deepcopy(bert.bert_layers)
        self.gate = nn.Linear(bert.config.hidden_size, count)
        nn.init.normal_(self.gate.weight, std=bert.config.initializer_range)
        nn.init.zeros_(self.gate.bias)
        # The first expert, which the model holds: in a list, where no module is looked for.
        self.encoder = [bert]

    @property
    def stacks(self) -> list[nn.ModuleList]:
        """The experts' layers, the model's own encoder's first."""
        return [self.encoder[0].bert_layers, *self.others]

    def run(
        self,
        layers: nn.ModuleList,
        packed: Packed,
        hidden: Tensor,
        dtype: torch.dtype,
        wanted: Tensor | None,
    ) -> list[Tensor]:
        """The states of one stack; see casting.through_layers()."""
        rows = packed_rows(packed.groups, self.encoder[0].pick_kernel(), dtype)
        recompute = self.encoder[0].checkpointing
        return through_layers(layers, hidden, rows, dtype, wanted, recompute)

    def gates(self, packed: Packed, hidden: Tensor, dtype: torch.dtype) -> Tensor:
        """The experts' weights for each sequence, which sum to 1: [all S, experts], fp32."""
        states = self.run(self.gate_layers, packed, hidden, dtype, packed.starts)
        return self.gate(states[-1].float()).softmax(1)  # [all S, H] -> [all S, experts]

    def forward(
        self, packed: Packed, dtype: torch.dtype, wanted: Tensor | None, embeddings: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The mixed states, as one encoder's, and the gate's weights [all S, experts].

        `wanted`: None, or packed.starts, for [CLS] alone of the last layer. With top1 the weights
        are the gate's softmax, too, of which only the largest counts.
        """
        gates = self.gates(packed, embeddings, dtype)
        mix = self.routed if self.top1 else self.weighed
        return mix(packed, dtype, wanted, embeddings, gates), gates

    def weighed(
        self,
        packed: Packed,
        dtype: torch.dtype,
        wanted: Tensor | None,
        hidden: Tensor,
        gates: Tensor,
    ) -> list[Tensor]:
        """All experts' states, each times its weight, summed."""
        of_tokens = weights_of_tokens(packed, gates)  # [N, experts]
        sums: list[Tensor] = []
        for number, layers in enumerate(self.stacks):
            for depth, x in enumerate(self.run(layers, packed, hidden, dtype, wanted)):
                # Of the last layer there may be one token a sequence.
                short = wanted is not None and depth == len(layers)
                weights = gates if short else of_tokens
                part = x * weights[:, number : number + 1]  # fp32
                if number == 0:
                    sums.append(part)
                else:
                    sums[depth] = sums[depth] + part
        return [x.to(dtype) for x in sums]

    def routed(
        self,
        packed: Packed,
        dtype: torch.dtype,
        wanted: Tensor | None,
        hidden: Tensor,
        gates: Tensor,
    ) -> list[Tensor]:
        """Each sequence's states from its best expert alone, times that one's weight."""
        count, width = hidden.shape
        depths = len(self.gate_layers) + 1
        sums = [hidden.new_zeros(count, width) for _ in range(depths)]
        if wanted is not None:
            sums[-1] = hidden.new_zeros(len(wanted), width)

        best = gates.argmax(1)
        for number, layers in enumerate(self.stacks):
            chosen = (best == number).nonzero().squeeze(1)
            if len(chosen) == 0:
                continue

            # These sequences in rows of their own, through this expert: M tokens.
            some = some_of(packed, chosen)
            places = some.input_ids
            first = None if wanted is None else some.starts
            states = self.run(layers, some, hidden.index_select(0, places), dtype, first)

            # Back to where they stood. Padding weighs nothing, wherever it is added.
            weights = gates[chosen, number].unsqueeze(1)  # [C, 1]
            of_tokens = weights_of_tokens(some, weights)  # [M, 1]
            for depth, x in enumerate(states):
                if first is not None and depth == depths - 1:
                    sums[depth] = sums[depth].index_add(0, chosen, x * weights)
                else:
                    sums[depth] = sums[depth].index_add(0, places, x * of_tokens)
        return [x.to(dtype) for x in sums]


def add_experts(model: Adaptable, options: Options) -> None:
    """Put further experts and the gate beside the encoder."""
    model.mixture = Experts(model.bert, options.experts, options.experts_gate == "top1")


def counts(model: Adaptable) -> str:
    """How many encoders there are, and how large a stack of each is."""
    mixture = model.mixture
    assert isinstance(mixture, Experts)
    each = sum(p.numel() for p in model.bert.bert_layers.parameters())
    layers = len(model.bert.bert_layers)
    return (
        f"experts: {len(mixture.stacks)} and a gate, each of {layers} layers, "
        f"{each / 1e6:.2f}M parameters; one table of embeddings"
    )


ADAPTER = Adapter("experts", add_experts, counts=counts)
