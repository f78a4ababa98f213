"""Part 1: one sentence classifier, on SST and then on CFIMDB, each with a BERT of its own.

    python classifier.py --option finetune --use_gpu
    python classifier.py --fine-tune-mode last-linear-layer

Takes the flags of multitask_classifier.py; writes
predictions/<option>-{sst,cfimdb}-{dev,test}-out.csv, as the course does.
"""

if __name__ == "__main__":  # before the slow imports
    from startup import begin_script

    begin_script()

from dataclasses import replace
from typing import Any

from errors import UserError, run_main
from flags import options_of, read_flags
from multitask_classifier import train
from options import Options
from training.baselines import BASELINES, baseline
from training.inputs import prepared
from training.outputs import check_outputs

# CFIMDB's reviews are long: whole ones, and few of them a step.
SETTINGS: dict[str, dict[str, Any]] = {"sst": {}, "cfimdb": {"batch_size": 8, "max_length": 512}}

# What --help shows as the defaults of both runs.
DEFAULTS = {
    "tasks": "sst, then cfimdb",
    "batch_size": "96, of cfimdb 8",
    "max_length": "256, of cfimdb 512",
    "predictions": "predictions/OPTION-{task}-{split}-out.csv",
    "name": "classifier",
}


def options_for(task: str, options: Options, flags: dict[str, Any]) -> Options:
    """The options of one of the two runs: the task's settings where no flag says otherwise."""
    mode = flags.get("fine_tune_mode", options.option)
    wanted: dict[str, Any] = {
        "predictions": f"predictions/{mode}-{{task}}-{{split}}-out.csv",
        "name": "classifier",
    }
    if options.option not in BASELINES:
        wanted.update(SETTINGS[task])
    not_given = {name: value for name, value in wanted.items() if name not in flags}
    files = tuple(given for given in options.files if given[0].startswith(f"{task}_"))
    changed = replace(options, tasks=(task,), files=files, **not_given)
    return replace(changed, name=f"{task}-{changed.name}")


def main(argv: list[str]) -> None:
    """The command line."""
    flags = read_flags(argv, __doc__.split("\n\n")[0], DEFAULTS)
    if flags.get("option") == "test":
        raise UserError(
            "--option test: part 1 has two models, each tested by: "
            "python predict.py runs/<date>-sst-classifier"
        )
    options = options_of(flags)
    if options.resume:
        raise UserError(
            "each of the two runs is resumed by: "
            f"python multitask_classifier.py --resume {options.resume}"
        )
    if options.tasks != Options.tasks:
        raise UserError(
            "--tasks: part 1 is always sst and cfimdb; multitask_classifier.py takes any"
        )

    # What could stop the second run is looked for before the first.
    options.check_files(SETTINGS)
    runs = [options_for(task, options, flags) for task in SETTINGS]
    if options.option not in BASELINES:
        runs = [prepared(one) for one in runs]
    check_outputs(*runs)

    run = baseline if options.option in BASELINES else train
    for one in runs:
        print(f"Training on {one.tasks[0]}")
        run(one)


if __name__ == "__main__":
    run_main(main)
