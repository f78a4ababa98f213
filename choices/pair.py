"""Options of pairs of sentences."""

from dataclasses import dataclass

from declare import Section, declare


@dataclass(frozen=True)
class PairOptions(Section):
    """How the two sentences of a pair meet"""

    pair_encoding: str = declare(
        "cross",
        "how a pair is read; cross: both sentences in one sequence, bi: each on its own",
        choices=("cross", "bi"),
    )
    cross_attention: bool = declare(
        False,
        "the two sentences attend to one another; in a layer on top of BERT",
        needs="pair_encoding",
        needs_value=("bi",),
    )
