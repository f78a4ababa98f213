"""How much of a model there is, and how much of it trains."""

from adapters.kinds import adapters_of
from multitask_bert import MultitaskBERT


def count_parameters(model: MultitaskBERT) -> dict[str, int]:
    """How many numbers a model's weights are, and how many of them train."""
    return {
        "all": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def print_counts(model: MultitaskBERT) -> None:
    """Say how much of a new model trains."""
    for adapter in adapters_of(model.options):
        if adapter.counts:
            print(adapter.counts(model))
    counts = count_parameters(model)
    layers = model.bert.config.num_hidden_layers
    print(
        f"{model.options.model}: {layers} layers, "
        f"{counts['trained'] / 1e6:.2f}M of {counts['all'] / 1e6:.2f}M parameters train"
    )
