"""The learning rate of a run where no flag says it."""

from multitask_bert import ADAPTERS
from options import Options


def peak_rate(options: Options, hidden_size: int) -> float:
    """The highest learning rate of a run: --lr, or what suits the model.

    That is 1e-3 for heads alone; else 5e-5 for bert-base and more for narrower encoders (2e-4 for
    MiniLM), times what adapters take.
    """
    if options.lr is not None:
        return options.lr
    if options.option == "pretrain":
        return 1e-3
    rate = min(3e-4, 5e-5 * (768 / hidden_size) ** 2)
    for adapter in ADAPTERS.values():
        if adapter.wanted(options):
            rate = adapter.rate_factor * rate
    return rate
