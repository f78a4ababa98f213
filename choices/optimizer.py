"""Options of the way from gradients to weights."""

from dataclasses import dataclass

from declare import Section, declare


@dataclass(frozen=True)
class OptimizerOptions(Section):
    """From gradients to weights"""

    # The step.
    optimizer: str = declare("adamw", "which optimizer")
    optimizer_form: str = declare(
        "course",
        "whose AdamW; the course's or PyTorch's, see optimizer.py",
        choices=("course", "torch"),
    )

    # Its size, over the run. The default of None depends on other options.
    lr: float | None = declare(
        None,
        "learning rate; 5e-5 for bert-base, 2e-4 for MiniLM, more for adapters, 1e-3 for pretrain",
        above=0,
        most=1000,
        usual="5e-5 for bert-base",
    )
    schedule: str = declare("linear", "how the learning rate falls; after the warm-up")
    warmup: float = declare(0.1, "share of the steps in which the rate rises", least=0, below=1)

    # What holds the weights and gradients back.
    weight_decay: float = declare(
        0.01, "decoupled weight decay; not on norms and biases", least=0, most=1000
    )
    clip: float = declare(
        1.0, "largest norm of the gradient; 0: no limit", least=0, most=1_000_000_000
    )

    # How gradients of several tasks are joined.
    combiner: str = declare("sum", "how the tasks' gradients become one")
