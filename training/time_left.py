"""How long a run will still take: its steps, the evaluations between them, the test files."""

from collections.abc import Mapping

from datasets import Data, count_tokens

# A token that is only predicted takes about this share of one that is trained on. It serves until
# the first evaluation was timed.
PREDICTED_SHARE = 0.25


def time_left_of(data: Data, steps: int, epoch: int) -> "TimeLeft":
    """The TimeLeft of a run on these data."""
    tokens = {
        split: count_tokens(data.get(split, {}).values()) for split in ("dev", "of_train", "test")
    }
    # One evaluation reads both.
    tokens["dev"] += tokens.pop("of_train")
    return TimeLeft(steps, epoch, tokens)


class TimeLeft:
    """An estimate from what was timed so far.

    `steps`: of the whole run. `epoch`: steps from one evaluation to the next. `tokens`: what is
    read for dev in an evaluation, and of test at the end.
    """

    def __init__(self, steps: int, epoch: int, tokens: Mapping[str, int]):
        self.steps = steps
        self.epoch = epoch
        self.tokens = tokens
        # What was timed, and how long it took.
        self.trained_steps = 0
        self.trained_tokens = 0
        self.training_seconds = 0.0
        self.predicted_tokens = 0
        self.predicting_seconds = 0.0

    def trained(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took this long, with all since the step before it."""
        self.trained_steps += 1
        self.trained_tokens += tokens
        self.training_seconds += seconds

    def predicted(self, tokens: int, seconds: float) -> None:
        """So many tokens were predicted in this time."""
        self.predicted_tokens += tokens
        self.predicting_seconds += seconds

    def to_predict(self, tokens: int) -> float:
        """The seconds that predicting these will take; 0 where nothing was timed yet."""
        if self.predicted_tokens:
            return tokens * self.predicting_seconds / self.predicted_tokens
        per_token = self.training_seconds / max(1, self.trained_tokens)
        return PREDICTED_SHARE * per_token * tokens

    def after(self, step: int) -> float:
        """The seconds from the end of a step, 1 to `steps`, to the end of the run."""
        to_train = (self.steps - step) * self.training_seconds / max(1, self.trained_steps)
        # The evaluation that follows this very step is still to come.
        evaluations = self.steps // self.epoch - (step - 1) // self.epoch
        return to_train + self.to_predict(evaluations * self.tokens["dev"] + self.tokens["test"])
