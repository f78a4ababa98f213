"""Options of parts of the encoder that belong to a task, and of several encoders."""

from dataclasses import dataclass

from declare import Section, declare


@dataclass(frozen=True)
class PartsOptions(Section):
    """Parts of the encoder for each task, and experts"""

    # Projected attention layers.
    pals: bool = declare(False, "each task's own attention beside each layer; a small one")
    pals_size: int | None = declare(
        None,
        "width of that attention; 204 beside bert-base's 768, as large a share of others",
        least=1,
        most=4096,
        needs="pals",
        usual="204 for bert-base",
    )
    pals_heads: int = declare(12, "heads of that attention", least=1, most=256, needs="pals")
    pals_train: str = declare(
        "with_bert",
        "what trains; with_bert: all, alone: they and the heads on a frozen BERT, at 10 times the "
        "learning rate; after BERT: alone, with --init RUN",
        choices=("with_bert", "alone"),
        needs="pals",
    )

    # Copies of whole layers.
    task_layers: int = declare(
        0,
        "so many last layers are each task's own; all start as the pretrained ones",
        least=0,
        most=256,
        usual="none",
    )

    # Several encoders.
    experts: int = declare(
        0,
        "several encoders, weighed by a further one; for each sequence anew; all start as the same "
        "pretrained one, and share its embeddings",
        least=0,
        most=16,
        usual="one",
    )
    experts_gate: str = declare(
        "softmax",
        "how their states become one; softmax: all, weighed, top1: those of the best alone, times "
        "its weight; the others cost nothing then",
        choices=("softmax", "top1"),
        needs="experts",
    )
    experts_balance: float = declare(
        0.01,
        "weight of a loss for their even use; 0: none",
        least=0,
        most=1000,
        needs="experts",
    )
