"""Part 1: one sentence classifier, on SST and then on CFIMDB, each with a BERT of its own.

    python classifier.py --option finetune --use_gpu
    python classifier.py --fine-tune-mode last-linear-layer

Takes the flags of multitask_classifier.py; writes predictions/<option>-{sst,cfimdb}-{dev,test}-out.csv, as the course does.
"""

from dataclasses import replace
from typing import Any

from errors import UserError, run
from multitask_classifier import train
from options import COURSE_MODES, Options, parse

# CFIMDB's reviews are long: whole ones, and few of them a step.
SETTINGS: dict[str, dict[str, Any]] = {"sst": {}, "cfimdb": {"batch_size": 8, "max_length": 512}}


def main(argv: list[str]) -> None:
    """The command line."""
    options = parse(argv, __doc__.split("\n")[0])
    if options.resume:
        raise UserError(f"each of the two runs is resumed by: python multitask_classifier.py --resume {options.resume}")
    if options.tasks != Options.tasks:
        raise UserError("--tasks: part 1 is always sst and cfimdb; multitask_classifier.py takes any")
    names_of_2024 = {ours: theirs for theirs, ours in COURSE_MODES.items()}
    new = any(argument.startswith("--fine-tune-mode") for argument in argv)
    mode = names_of_2024[options.option] if new else options.option
    for task, settings in SETTINGS.items():
        print(f"Training on {task}")
        wanted = {"predictions": f"predictions/{mode}-{{task}}-{{split}}-out.csv", "name": "classifier", **settings}
        mine = {key: value for key, value in wanted.items() if getattr(options, key) == getattr(Options, key)}
        one = replace(options, tasks=(task,), **mine)
        train(replace(one, name=f"{task}-{one.name}"))


if __name__ == "__main__":
    run(main)
