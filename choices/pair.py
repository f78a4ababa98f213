"""Options of pairs of sentences."""

from dataclasses import dataclass

from declare import PerTask, Section, declare

# What a pair's vectors u and v can be turned into (heads/pairs.py); "cosine" stands alone.
FEATURES = ("u", "v", "sum", "abssum", "absdiff", "product", "cosine")
# Those that are the same for (u, v) and (v, u).
SYMMETRIC = {"sum", "abssum", "absdiff", "product", "cosine"}


@dataclass(frozen=True)
class PairOptions(Section):
    """How the two sentences of a pair meet"""

    pair_encoding: str = declare(
        "cross",
        "how a pair is read; cross: both sentences in one sequence, bi: each on its own",
        choices=("cross", "bi"),
    )
    pair_features: PerTask = declare(
        PerTask("u,v,absdiff,product"),
        "what of a pair the head gets; with commas between, for all tasks or as in "
        "u,v sts=sum; cosine alone: the similarity is the cosine itself, without a head",
        choices=FEATURES,
        several=True,
        needs="pair_encoding",
        needs_value=("bi",),
    )
    cosine_map: str = declare(
        "affine",
        "from a cosine to a similarity; affine: 2.5 (1 + cos), times5: 5 cos, of which what is "
        "below 0 is cut off in predictions, not in the loss",
        choices=("affine", "times5"),
        needs="pair_features",
        needs_value=("cosine",),
    )
    pair_projection: PerTask = declare(
        PerTask("none"),
        "a layer on each vector of a pair first; linear: the same for both",
        choices=("none", "linear"),
        needs="pair_encoding",
        needs_value=("bi",),
    )
    shared_pair_layer: bool = declare(
        False, "add a linear that pair tasks share; its output is added to each one's own"
    )
    symmetric: bool = declare(
        False, "predict pairs in both orders; their outputs (logits) are averaged"
    )
    swap_pairs: bool = declare(
        False, "train on half of the pairs in other order; which half is drawn anew in each pass"
    )
    cross_attention: bool = declare(
        False,
        "the two sentences attend to one another; in a layer on top of BERT",
        needs="pair_encoding",
        needs_value=("bi",),
    )
