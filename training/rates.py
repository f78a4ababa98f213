"""The learning rate of a run where no flag says it."""

from adapters.kinds import adapters_of
from options import Options


def peak_rate(options: Options, hidden_size: int) -> float:
    """The highest learning rate of a run: --lr, or what suits the model.

    That is 1e-3 for heads alone; else 5e-5 for bert-base and more for narrower encoders (2e-4 for
    MiniLM), times the largest factor that an adapter has.
    """
    if options.lr is not None:
        return options.lr
    if options.option == "pretrain":
        return 1e-3
    factors = [adapter.rate(options) for adapter in adapters_of(options)]
    return max(factors, default=1.0) * min(3e-4, 5e-5 * (768 / hidden_size) ** 2)
