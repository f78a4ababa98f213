"""P-tuning (Liu et al. 2021, GPT Understands, Too, https://arxiv.org/abs/2103.10385).

With `--p_tuning v1`. Virtual tokens stand behind [CLS], which stays first, in every sequence of a
frozen encoder; each has a position like any token, so texts and they share the encoder's 512.
Section 3.2: their embeddings are h_i = MLP([LSTM(h_0:i), LSTM(h_i:m)]), a bidirectional LSTM of two
layers over a trained [P, H], and two linears with a ReLU between. An embedding stands in the place
of a word's: position, token type and norm follow.

Poolings and token heads do not see the virtual tokens (forward.Encoded). BertModel.forward, the
padded face, has no embedding terms and so no prompts; the model's own faces have them. Left out:
prompts elsewhere than behind [CLS], anchor words, training the encoder too, prompts for each task.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.wrap import Adaptable, Adapter
from bert import BertModel
from errors import UserError
from options import Options
from packing import Packed


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


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and put virtual tokens into every sequence; heads train on.

    UserError where that makes sequences longer than the encoder takes.
    """
    max_length, length = options.max_length, options.p_tuning_length
    positions = model.bert.config.max_position_embeddings
    if max_length + length > positions:
        raise UserError(
            f"--max_length {max_length} and --p_tuning_length {length}: the encoder has "
            f"{positions} positions for both"
        )
    model.bert.requires_grad_(False)
    model.virtual_tokens = length
    model.embedding_terms["p_tuning"] = Prompts(model.bert, length)


def counts(model: Adaptable) -> str:
    """How many virtual tokens there are."""
    return f"P-tuning: {model.virtual_tokens} virtual tokens behind [CLS]"


# The network that makes the prompts learns at rates nearer to fine-tuning's than prompts alone.
ADAPTER = Adapter("p_tuning", adapt, value="v1", rate_factor=3.0, counts=counts)
