"""Options of what outputs learn from labels."""

from dataclasses import dataclass

from declare import Section, declare


@dataclass(frozen=True)
class LossOptions(Section):
    """How outputs are compared with labels"""

    sst_loss: str = declare(
        "softmax",
        "loss of sentiment; softmax: cross-entropy, one_vs_all: a yes or no for each class, "
        "ordinal: a yes or no for each step from a class to the next; of cfimdb too",
    )
    sts_loss: str = declare(
        "bce",
        "loss of similarity; bce: sigmoid cross-entropy against label / 5, mse: squared error "
        "against the label",
    )
