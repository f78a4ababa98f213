"""Part 1: one sentence classifier, on SST and then on CFIMDB, each with a BERT of its own.

    python classifier.py --option finetune --use_gpu
    python classifier.py --fine-tune-mode last-linear-layer

Takes the flags of multitask_classifier.py; writes predictions/<option>-{sst,cfimdb}-{dev,test}-out.csv, as the course does.
"""

from dataclasses import replace
from typing import Any

from errors import run
from multitask_classifier import train
from options import COURSE_MODES, parse

# CFIMDB's reviews are long: whole ones, and few of them a step.
SETTINGS: dict[str, dict[str, Any]] = {"sst": {}, "cfimdb": {"batch_size": 8, "max_length": 512}}


def main(argv: list[str]) -> None:
    """The command line."""
    options = parse(argv, __doc__.split("\n")[0])
    named = [mode for mode in COURSE_MODES if mode in " ".join(argv)]  # 2024's output names carry 2024's names
    for task, settings in SETTINGS.items():
        print(f"Training on {task}")
        pattern = f"predictions/{(named or [options.option])[0]}-{{task}}-{{split}}-out.csv"
        train(replace(options, tasks=(task,), name=f"{task}-classifier", predictions=pattern, **settings))


if __name__ == "__main__":
    run(main)
