"""Prediction speed and memory of this project against a course-style loop and transformers, on the
same dev examples.

    python benchmarks/predict_speed.py --data_dir DATA --record speed.json
    python benchmarks/predict_speed.py --use_gpu --examples 0      # the whole dev split

Takes the main job's flags and its own. The sides take turns, each in a process of its own; medians
over the rounds count. First all encoders must give the same outputs. Tokens are counted as in
train_speed.py.

    ours, ours_fp32   evaluation.predict_logits: packed, longest first; bf16 where the hardware has
                      it, and fp32
    course            course_loop.py: fp32, batches of 64 in file order, tokenised when batched, two
                      encoder calls a pair
    sdpa, eager       transformers' BertModel, autocast to our dtype, batches of 64 sorted by
                      length, pairs as one sequence
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from torch import Tensor

from benchmarks import common, course_loop, plain_bert, race
from benchmarks.train_speed import agreement
from datasets import Split
from errors import run_main
from evaluation import predict_logits
from multitask_bert import build
from options import Options
from packing import Tokens
from pretrained import default_pretrained
from tokenizer import BertTokenizer
from training.checkpoint import seed_everything
from training.environment import pick_device, pick_dtype

Side = Callable[[dict[str, Split]], dict[str, Tensor]]  # {task: examples} -> {task: logits}
COURSE_BATCH = 64


def our_side(precision: str | None) -> Callable[[Options], Side]:
    """evaluation.py's, with this precision or the options'."""

    def make(options: Options) -> Side:
        # Only the model's compute dtype differs between our sides; the weights are the same.
        device = pick_device(options.use_gpu)
        model = build(options).to(device).eval()
        model.compute_dtype = pick_dtype(precision or options.precision, device)
        return lambda splits: {task: predict_logits(model, split) for task, split in splits.items()}

    return make


def course_side(options: Options) -> Side:
    """course_loop.py's."""
    # Our weights, so that all sides run the same encoder.
    source = build(options).bert
    model = course_loop.CourseMultitask(source.config, source.state_dict(), options.tasks)
    model = model.to(pick_device(options.use_gpu))

    # The examples' texts go in: tokenising is part of this side's time.
    tokenizer = BertTokenizer.from_pretrained(options.model)
    return lambda splits: {
        task: course_loop.predict_logits(model, task, split.examples, tokenizer, COURSE_BATCH)
        for task, split in splits.items()
    }


def transformers_side(attention: str) -> Callable[[Options], Side]:
    """plain_bert.py's, with this attention."""

    def make(options: Options) -> Side:
        # The model stays in fp32; autocast brings it to the dtype that ours has.
        device = pick_device(options.use_gpu)
        dtype = pick_dtype(options.precision, device)
        model = plain_bert.PlainBERT(options, attention).to(device)
        return lambda splits: {
            task: plain_bert.predict_logits(model, split, dtype) for task, split in splits.items()
        }

    return make


# Makers rather than models: a process builds only the side that it runs.
SIDES: dict[str, Callable[[Options], Side]] = {
    "ours": our_side(None),
    "ours_fp32": our_side("fp32"),
    "course": course_side,
    "sdpa": transformers_side("sdpa"),
    "eager": transformers_side("eager"),
}

# Names in the printed table.
TITLES = {
    "ours": "minBERT",
    "ours_fp32": "minBERT, fp32",
    "course": "course-style loop, fp32",
    "sdpa": "transformers, SDPA, sorted by length",
    "eager": "transformers, eager attention, sorted by length",
}


def some(split: Split, count: int, seed: int) -> Split:
    """`count` examples of a split drawn at random, in file order; 0: all."""
    if not count or count >= len(split):
        return split

    # Drawn, not the first ones: files may be sorted by label or length.
    chosen = sorted(np.random.default_rng(seed).permutation(len(split))[:count].tolist())

    # A split keeps its examples' sequences in one list; bounds[i] is where example i begins.
    tokens: list[Tokens] = []
    bounds = [0]
    for index in chosen:
        tokens += split.sequences(index)
        bounds.append(len(tokens))
    return Split(split.task, [split.examples[i] for i in chosen], tokens, bounds, split.seed)


def main(argv: list[str]) -> None:
    """The command line."""
    # Flags; every error of the user's shows before a model is loaded.
    own = race.own_parser(SIDES, [name for name in SIDES if name != "ours"])
    own.add_argument(
        "--examples",
        type=int,
        default=400,
        help="dev examples of each task, drawn at random; 0: all [400]",
    )
    mine, options = common.arguments(argv, own, __doc__.split("\n\n")[0])
    race.check(mine, "examples")
    common.check_followed(options)
    if options.model == "auto":
        options = replace(options, model=default_pretrained())

    # Parent and workers draw the same examples, by the seed; each loads them for itself.
    device = pick_device(options.use_gpu)
    data, built_in = common.load(options, BertTokenizer.from_pretrained(options.model), ("dev",))
    splits = {task: some(split, mine.examples, options.seed) for task, split in data["dev"].items()}
    seed_everything(options.seed)

    def prepare() -> Callable[[], dict[str, Tensor]]:
        # A few examples first, so that one-time costs stay out of the rounds.
        side = SIDES[mine.worker](options)
        side({task: some(split, 32, 0) for task, split in splits.items()})  # warm-up
        return lambda: side(splits)

    # A worker's process ends here; the rest is the parent's.
    if mine.worker:
        return race.serve(mine.worker, prepare, device)

    # Times are worth comparing only if the sides compute the same.
    worst = agreement(options, splits)
    print(f"largest difference between the encoders' outputs: {worst:.1e}", flush=True)
    seconds, peaks = race.race(__file__, argv, mine)

    # Real tokens, alike for every side, whatever it pads or encodes twice.
    tokens = sum(len(tokens) for split in splits.values() for tokens in split.tokens)
    examples = sum(len(split) for split in splits.values())
    record = {
        **common.facts(options, built_in),
        "dtype": str(pick_dtype(options.precision, device)),
        "tokens": tokens,
        "examples": examples,
        "largest_difference": worst,
        "sides": race.summarise(seconds, tokens, examples, peaks, TITLES),
    }
    race.report(record, f"{examples} dev examples, {tokens} tokens", mine.record)


if __name__ == "__main__":
    run_main(main)
