"""BitFit (Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199): only BERT's biases train.

All of them, those of norms, embeddings and pooler too; or the subset of the paper's section 4, the
biases of the queries and of the feed-forward's first linear. Nothing is added, so there is nothing
to merge. What other adapters add trains on beside them.
"""

import re

from adapters.wrap import Adaptable, Adapter
from options import Options

# Which biases, by their names in the encoder. With SwiGLU interm_dense is two linears.
BIASES = {
    "all": r".*\.bias",
    "query_mlp": r"bert_layers\.\d+\.(self_attention\.query|interm_dense(\.gate|\.value)?)\.bias",
}


def plain(name: str) -> str:
    """A parameter's name in an encoder without adapters, which may have wrapped its linear."""
    return name.replace(".base.", ".")


def adapt(model: Adaptable, options: Options) -> None:
    """Freeze BERT's own weights but for the chosen biases."""
    own = model.bert.own_names()
    for name, p in model.bert.named_parameters():
        if plain(name) in own:
            p.requires_grad_(re.fullmatch(BIASES[options.bitfit], plain(name)) is not None)


def counts(model: Adaptable) -> str:
    """How many biases train."""
    own = model.bert.own_names()
    trained = [
        name for name, p in model.bert.named_parameters() if p.requires_grad and plain(name) in own
    ]
    biases = [name for name in own if name.endswith(".bias")]
    return f"BitFit: {len(trained)} of BERT's {len(biases)} biases train"


def merge(model: Adaptable) -> None:
    """Nothing to do: the biases are BERT's own."""


# The paper searches 1e-4 to 1e-3 where it takes 1e-5 to 5e-5 for all weights.
ADAPTER = Adapter("bitfit", adapt, merge, combines=True, rate_factor=10.0, counts=counts)
