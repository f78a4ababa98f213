"""Options of how a run goes."""

from dataclasses import dataclass

from choices.limits import NEVER
from declare import Names, Section, declare

# Values of --option that train no network (training/baselines.py), and what matters to them.
WITHOUT_NETWORK = ("random", "bag_of_words")


@dataclass(frozen=True)
class RunOptions(Section):
    """How the run goes"""

    # What trains, and on what.
    option: str = declare(
        "finetune",
        "what trains; finetune: the whole model, pretrain: the heads on a frozen BERT, random and "
        "bag_of_words: baselines without a network, test: nothing, what predict.py does with "
        "--model RUN",
        choices=("finetune", "pretrain", *WITHOUT_NETWORK, "test"),
    )
    seed: int = declare(11711, "of everything random", least=0, most=2**32 - 1)
    use_gpu: bool = declare(False, "run on the GPU; CUDA, else Apple's MPS")
    precision: str = declare(
        "auto",
        "of the encoder's products; auto: bf16 where the hardware has it, fp16 on older CUDA",
        choices=("auto", "fp32", "bf16", "fp16"),
        usual="auto: bf16 if supported",
    )
    gradient_checkpointing: bool = declare(
        False,
        "recompute layers in the backward pass; less memory for more time, the same gradients",
    )

    # When it ends before its last epoch.
    patience: int = declare(
        0,
        "evaluations to wait for a better score; the overall one, then stop, 0: never",
        least=0,
        most=NEVER,
        usual="never",
    )

    # Its folder.
    name: str = declare("multitask", "part of the run folder's name")
    tags: Names = declare((), "words to find the run by; report.py --tag picks by one")
    runs_dir: str = declare("runs", "where run folders are made")
    resume: str | None = declare(
        None, "a run folder; go on where it stopped, and up to --epochs if that is more"
    )

    # What is written meanwhile.
    save_every: int = declare(
        500,
        "steps between checkpoints; one is also written at every evaluation",
        least=1,
        most=NEVER,
    )
    keep_last: bool = declare(
        False, "keep the optimizer when all is done; so that --epochs extends the run exactly"
    )
    log_every: int = declare(10, "steps between lines of log.jsonl", least=1, most=NEVER)
    train_scores: bool = declare(
        False,
        "score training examples too; at each evaluation the first ones of each task's file, as "
        "many as its dev set has",
    )
    tensorboard: bool = declare(False, "write the log for TensorBoard too")
