"""P-tuning: trained prompts for a frozen encoder, in the input (v1) or in every layer (v2).

`--p_tuning v1`: Liu et al. 2021, GPT Understands, Too, https://arxiv.org/abs/2103.10385. Virtual
tokens stand behind [CLS], which stays first; each has a position like any token, so texts and they
share the encoder's 512. Section 3.2: their embeddings are h_i = MLP([LSTM(h_0:i), LSTM(h_i:m)]), a
bidirectional LSTM of two layers over a trained [P, H], and two linears with a ReLU between. An
embedding stands in the place of a word's: position, token type and norm follow. Poolings and token
heads do not see the virtual tokens (forward.Encoded); BertModel.forward, the padded face, which
has no embedding terms, has no prompts.

`--p_tuning v2`: Liu et al. 2021, P-Tuning v2, https://arxiv.org/abs/2110.07602. Keys and values of
every layer, trained themselves without an MLP.

Left out: prompts elsewhere than behind [CLS], anchor words, training the encoder with them (v1);
the MLP that some tasks prefer, and a classifier on the vocabulary (v2); prompts for each task.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.prefix import add_prefixes
from adapters.prefix import counts as count_prefixes
from adapters.wrap import Adaptable, Adapter
from bert import BertModel
from errors import UserError
from options import Options
from packing import Packed

# ---- v1: in the input


class PromptEncoder(nn.Module):
    """The virtual tokens' embeddings: [P, H]."""

    def __init__(self, length: int, size: int):
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(length, size))
        self.lstm = nn.LSTM(size, size // 2, num_layers=2, bidirectional=True)
        self.mlp = nn.Sequential(nn.Linear(size // 2 * 2, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self) -> Tensor:
        """[P, H]."""
        return self.mlp(self.lstm(self.prompts)[0])


class Prompts(nn.Module):
    """The summand that puts the prompts in the place of the placeholders' word embeddings."""

    def __init__(self, bert: BertModel, length: int):
        super().__init__()
        self.encoder = PromptEncoder(length, bert.config.hidden_size)
        self.bert = [bert]  # in a list: no submodule of this one

    def forward(self, packed: Packed) -> Tensor:
        """[N, H], 0 at all tokens that are not virtual."""
        # A virtual token has the id of [PAD], whose embedding is taken away again.
        placeholder = self.bert[0].word_embedding.weight[0]  # [H]
        prompts = self.encoder() - placeholder  # [P, H]
        table = F.pad(prompts, (0, 0, 1, 0))  # [1 + P, H]
        return F.embedding(packed.features["virtual"], table, padding_idx=0)


def add_prompts(model: Adaptable, length: int, max_length: int) -> None:
    """Freeze the encoder and put `length` virtual tokens into every sequence.

    UserError where that makes sequences longer than the encoder takes.
    """
    positions = model.bert.config.max_position_embeddings
    if max_length + length > positions:
        raise UserError(
            f"--max_length {max_length} and --p_tuning_length {length}: the encoder has "
            f"{positions} positions for both"
        )
    model.bert.requires_grad_(False)
    model.virtual_tokens = length
    model.embedding_terms["p_tuning"] = Prompts(model.bert, length)


# ---- v2: in every layer


class Table(nn.Module):
    """One layer's keys beside values, trained themselves: [P, 2H]."""

    def __init__(self, length: int, size: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, 2 * size))

    def forward(self) -> Tensor:
        """[P, 2H]."""
        return self.table


# ---- both


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and add prompts; heads train on."""
    length = options.p_tuning_length
    if options.p_tuning == "v1":
        add_prompts(model, length, options.max_length)
    else:
        size = model.bert.config.hidden_size
        add_prefixes(model.bert, [Table(length, size) for _ in model.bert.bert_layers])


def counts(model: Adaptable) -> str:
    """Where the prompts are."""
    if model.virtual_tokens:
        return f"P-tuning: {model.virtual_tokens} virtual tokens behind [CLS]"
    return f"P-tuning v2: {count_prefixes(model.bert)}"


ADAPTER = Adapter("p_tuning", adapt, rate_factor=10.0, counts=counts)
