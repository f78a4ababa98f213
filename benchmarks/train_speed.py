"""Training speed and memory of this project against a course-style loop and transformers, on the
same examples.

    python benchmarks/train_speed.py --data_dir DATA --record benchmarks/records/train_speed.json
    python benchmarks/train_speed.py --use_gpu --steps 100
    python benchmarks/train_speed.py --steps 0 --rounds 1          # a whole epoch

Takes the main job's flags and its own. Every side makes the same number of updates from the same
examples, in train mode, with the same dropout, clipping and warm-up. The sides take turns, each in
a process of its own; medians over rounds count. First all encoders must give the same outputs. A
real token is a word-piece of an example as `[CLS] a [SEP] b [SEP]`, counted alike for every side.

    ours         multitask_classifier.update(): packed, bf16 where the hardware has it, all tasks in
                 one encoder call
    course       course_loop.py: fp32, tokenised when batched, random batches, two encoder calls a
                 pair
    sdpa, eager  transformers' BertModel with either attention, autocast to our dtype, examples
                 grouped by length over all steps of a round, padded, one encoder call a task, pairs
                 as one sequence, token ids made beforehand, fused AdamW
    sdpa_joint, eager_joint    the same with one encoder call a step; left out unless named in
                               --sides
    eager_kept                 eager with the malloc setting that train() makes for itself
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

# A benchmark is run as a script, so the project's folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks import common, course_loop, race
from benchmarks.common import Step
from benchmarks.plain_bert import PlainBERT, autocast, task_loss
from datasets import Split
from errors import run_main
from multitask_bert import build
from multitask_classifier import make_learner, update
from optimizer import parameter_groups
from options import Options, pick
from pretrained import default_pretrained
from tokenizer import BertTokenizer
from training.checkpoint import seed_everything
from training.draws import epoch_steps
from training.environment import pick_device, pick_dtype
from training.optimizers import set_rates
from training.rates import peak_rate
from training.schedules import SCHEDULES

Side = Callable[[list[Step]], list[Tensor]]  # one update a step; returns the steps' losses


def learning_rates(options: Options, total: int) -> Callable[[torch.optim.Optimizer], None]:
    """A function that sets the rates of the next step; after `total` steps they stay."""
    # Each side counts its own steps; the schedule goes on through all its rounds.
    schedule = pick(SCHEDULES, options.schedule, "--schedule")(total, round(options.warmup * total))
    steps = itertools.count()

    def set_next(optimizer: torch.optim.Optimizer) -> None:
        set_rates(optimizer, schedule(min(next(steps), total - 1), ()))

    return set_next


def our_side(options: Options, training: dict[str, Split], total: int) -> Side:
    """multitask_classifier.update(), without log and checkpoints."""
    # The main job's own step, with its optimizer and dtype.
    device = pick_device(options.use_gpu)
    model = build(options).to(device).train()
    model.compute_dtype = pick_dtype(options.precision, device)
    learner = make_learner(options, model, training)
    set_next = learning_rates(options, total)
    numbers = itertools.count()

    def side(steps: list[Step]) -> list[Tensor]:
        # Losses are kept on the device: reading them would wait at every step.
        seen = []
        for drawn in steps:
            set_next(learner.optimizer)
            done = update(learner, drawn, next(numbers))
            seen.append(torch.stack(list(done.losses.values())).sum())
        return seen

    return side


def course_side(options: Options, training: dict[str, Split], total: int) -> Side:
    """course_loop.py."""
    # Our weights, so that all sides train the same encoder.
    source = build(options).bert
    model = course_loop.CourseMultitask(source.config, source.state_dict(), training)
    model = model.to(pick_device(options.use_gpu)).train()
    tokenizer = BertTokenizer.from_pretrained(options.model)

    # Its optimizer has one group, and set_rates() looks for the peak in each.
    lr = peak_rate(options, source.config.hidden_size)
    optimizer = course_loop.LoopAdamW(model.parameters(), lr, options.weight_decay)
    optimizer.param_groups[0]["peak_lr"] = lr
    set_next = learning_rates(options, total)

    def side(steps: list[Step]) -> list[Tensor]:
        seen = []
        for step in steps:
            set_next(optimizer)

            # Texts, not token ids: tokenising is part of this side's step.
            examples = {
                task: [training[task].examples[i] for i in indices]
                for task, indices in step.items()
            }
            loss = course_loop.train_step(
                model, optimizer, examples, tokenizer, options.clip or float("inf")
            )
            seen.append(torch.tensor(loss))
        return seen

    return side


def transformers_side(
    attention: str, joint: bool = False
) -> Callable[[Options, dict[str, Split], int], Side]:
    """transformers' BertModel with this attention; one encoder call a task, or one for all."""

    def make(options: Options, training: dict[str, Split], total: int) -> Side:
        # The same dtype, and the same groups of parameters with and without decay.
        device = pick_device(options.use_gpu)
        dtype = pick_dtype(options.precision, device)
        model = PlainBERT(options, attention).to(device).train()
        lr = peak_rate(options, model.bert.config.hidden_size)
        groups = parameter_groups(model, options.weight_decay, lr)

        # The fastest AdamW that torch has for the device.
        try:
            optimizer = torch.optim.AdamW(groups, fused=True)
        except RuntimeError:  # no fused kernel for this device
            optimizer = torch.optim.AdamW(groups, foreach=True)
        set_next = learning_rates(options, total)

        def side(steps: list[Step]) -> list[Tensor]:
            seen = []

            # Padding is the price of this side, so it gets the batches with the least of it.
            for step in common.by_similar_length(steps, training, options.seed):
                set_next(optimizer)
                batches = {task: training[task].batch(indices) for task, indices in step.items()}
                with autocast(device, dtype):
                    if joint:
                        logits = model.joint(batches)
                    else:
                        logits = {task: model(task, batch) for task, batch in batches.items()}

                # The loss that ours has for scores too, so that the work is the same.
                losses = [
                    task_loss(t, logits[t], batch.labels.to(device), "bce")
                    for t, batch in batches.items()
                ]

                # One update for all tasks; no clipping is an infinite bound.
                loss = torch.stack(losses).sum()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip or float("inf"))
                optimizer.step()
                optimizer.zero_grad()
                seen.append(loss.detach())
            return seen

        return side

    return make


# eager_kept is eager; race.py gives its process the malloc setting.
SIDES = {
    "ours": our_side,
    "course": course_side,
    "sdpa": transformers_side("sdpa"),
    "eager": transformers_side("eager"),
    "sdpa_joint": transformers_side("sdpa", True),
    "eager_joint": transformers_side("eager", True),
    "eager_kept": transformers_side("eager"),
}

# Names in the printed table.
TITLES = {
    "ours": "minBERT",
    "course": "course-style loop, fp32",
    "sdpa": "transformers, SDPA, length grouping",
    "eager": "transformers, eager attention, length grouping",
    "sdpa_joint": "transformers, SDPA, length grouping, one call a step",
    "eager_joint": "transformers, eager attention, length grouping, one call a step",
    "eager_kept": "transformers, eager attention, length grouping, our malloc setting",
}


def last_states(model: PlainBERT, batch: dict[str, Tensor]) -> Tensor:
    """The last states [B, T, H] of a padded batch, as transformers' encoder gives them."""
    return model.bert(**batch).last_hidden_state


def agreement(options: Options, training: dict[str, Split]) -> float:
    """The largest difference between the three encoders' outputs, in fp32."""
    # All three from the same pretrained weights; ours are copied by name to the course's.
    ours = build(options).to(pick_device(options.use_gpu))
    course = course_loop.CourseBERT(ours.bert.config)
    course.load_state_dict(
        {name: x for name, x in ours.bert.state_dict().items() if name != "position_ids"}
    )
    course.to(ours.device).eval()

    # In eval mode: dropout would make any two runs differ.
    plain = {name: PlainBERT(options, name).to(ours.device).eval() for name in ("sdpa", "eager")}

    # One call for all: a padded batch in, [B, T, H] out.
    others: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
        "course": lambda batch: course.encode(**batch)
    }
    for name, model in plain.items():
        others[name] = partial(last_states, model)
    return max(common.check_agreement(ours, others, split) for split in training.values())


def main(argv: list[str]) -> None:
    """The command line."""
    # Flags; every error of the user's shows before a model is loaded.
    own = race.own_parser(SIDES, ["sdpa", "eager", "eager_kept", "course"])
    own.add_argument("--steps", type=int, default=12, help="updates a round; 0: one epoch [12]")
    mine, options = common.arguments(argv, own, __doc__.split("\n\n")[0])
    race.check(mine, "steps")
    common.check_followed(
        options, "sampler", "sampling_exponent", "schedule", "warmup", "weight_decay", "clip"
    )
    if options.model == "auto":
        options = replace(options, model=default_pretrained())

    # Parent and workers draw the same steps, by the seed; each loads the data for itself.
    device = pick_device(options.use_gpu)
    data, built_in = common.load(options, BertTokenizer.from_pretrained(options.model), ("train",))
    training = data["train"]

    # Drawn once: every round trains on the same examples.
    sizes = {task: len(split) for task, split in training.items()}
    count = mine.steps or epoch_steps(common.sampler(options, training), sizes)
    seed_everything(options.seed)
    steps = common.draw_steps(options, training, count)

    def prepare() -> Callable[[], list[Tensor]]:
        # Two steps first, so that one-time costs stay out of the rounds; the schedule counts them.
        side = SIDES[mine.worker](options, training, 2 + count * mine.rounds)
        side(steps[:2])  # warm-up
        return lambda: side(steps)

    # A worker's process ends here; the rest is the parent's.
    if mine.worker:
        return race.serve(mine.worker, prepare, device)

    # Times are worth comparing only if the sides compute the same.
    worst = agreement(options, training)
    print(f"largest difference between the encoders' outputs: {worst:.1e}", flush=True)
    seconds, peaks = race.race(__file__, argv, mine)

    # Real tokens, alike for every side, whatever it pads or encodes twice.
    tokens = common.real_tokens(steps, training)
    examples = sum(len(part) for step in steps for part in step.values())
    record = {
        **common.facts(options, built_in),
        "dtype": str(pick_dtype(options.precision, device)),
        "steps": count,
        "batch_size": options.batch_size,
        "tokens": tokens,
        "examples": examples,
        "largest_difference": worst,
        "sides": race.summarise(seconds, tokens, examples, peaks, TITLES),
    }
    race.report(record, f"{count} steps of {options.batch_size} examples a round", mine.record)


if __name__ == "__main__":
    run_main(main)
