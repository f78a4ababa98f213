"""Options of what is read and written."""

from collections.abc import Collection
from dataclasses import dataclass

from choices.limits import NEVER
from declare import Files, PerTask, Section, declare, shown
from errors import UserError

FILE_KINDS = ("train", "dev", "test", "dev_out", "test_out")  # what a task has a file for


@dataclass(frozen=True)
class DataOptions(Section):
    """What is read and written"""

    # Read.
    data_dir: str = declare(
        "data",
        "where the tasks' files are; without data/ here those beside the scripts, and the built-in "
        "corpus if there are none",
    )
    files: Files = declare((), "single files elsewhere")
    test: bool = declare(True, "read and predict test files, or --no-test")

    # Less than all of it.
    drop_leaks: bool = declare(
        False, "drop training examples that dev or test hold; a line says how many"
    )
    limit: int = declare(
        0,
        "at most so many examples of each file; the first ones, 0: all",
        least=0,
        most=NEVER,
        usual="all",
    )
    train_fraction: float = declare(
        1.0,
        "share of the training examples; drawn by the seed, a smaller share is part of a larger",
        above=0,
        most=1,
    )

    # Longer sequences than 512 have no position embedding in BERT.
    max_length: int = declare(
        256,
        "word-pieces of a sequence; longer ones are truncated, the longer sentence of a pair first",
        least=3,
        most=512,
    )
    truncation: PerTask = declare(
        PerTask("head"),
        "what is kept of a text that is too long; its beginning, its end, or a quarter from the "
        "first and the rest from the last; for all tasks, or as in head cfimdb=head_tail",
        choices=("head", "tail", "head_tail"),
    )
    segment_length: PerTask = declare(
        PerTask("whole"),
        "word-pieces of a segment; a longer text is read as several sequences, whatever its "
        "length, and attention joins them; whole: as one sequence; or as in whole cfimdb=128",
        choices=("whole",),
        number=int,
        least=3,
        most=512,
    )
    max_segments: int = declare(
        0,
        "at most so many segments of a text; what is kept says --truncation, 0: all",
        least=0,
        most=NEVER,
        needs="segment_length",
        usual="all",
    )

    # Written.
    predictions: str = declare(
        "predictions/{task}-{split}-output.csv",
        "the CSVs; {task} and {split} stand for the names of both",
    )

    def file(self, name: str) -> str | None:
        """The path that was given for "sst_train", "sts_dev_out" and so on, if any was."""
        return dict(self.files).get(name)

    def segment_of(self, task: str) -> int:
        """The word-pieces of a segment of a task's texts, 0 where a text is one sequence."""
        length = self.segment_length.of(task)
        return 0 if length == "whole" else int(length)

    def check_files(self, tasks: Collection[str]) -> None:
        """UserError where a path was given for what is no file of these tasks."""
        known = {f"{task}_{kind}" for task in tasks for kind in FILE_KINDS}
        for name, _ in self.files:
            if name not in known:
                raise UserError(
                    f"files: {shown(name)} is unknown; expected one of {', '.join(tasks)} "
                    f"with one of {', '.join(f'_{kind}' for kind in FILE_KINDS)}"
                )
