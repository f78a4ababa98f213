"""What a run does after its last step."""

from typing import Any

from adapters.kinds import merge_flag
from datasets import Data
from multitask_bert import MultitaskBERT
from options import Options
from training.best import merge_best
from training.console import as_time
from training.outputs import write_outputs
from training.run import Run
from training.signals import resumable


def finish(run: Run, options: Options, data: Data) -> dict[str, Any]:
    """Load the best model, write the prediction files, say where everything is."""
    # Until run.json has the results, whatever ends this can be done again by --resume.
    best = run.progress.best
    with resumable(run.folder):
        model = MultitaskBERT.load(run.folder, options.use_gpu)
        if merge_flag(model.options):
            merge_best(run.folder / "best", model, run.facts, best)
        predictions = write_outputs(run.folder, options, model, data, run.console)
        results = run.finish({"best": best, "predictions": str(predictions)})

    # What a user looks for at the end.
    print(f"best epoch {best['epoch']}: overall {best['overall']:.3f}")
    scores = [
        f"{model.tasks[name].title} {model.tasks[name].metric_name} {score:.3f}"
        for name, score in best["scores"].items()
    ]
    print("  ".join(scores))
    print(f"model: {run.folder}/best   time: {as_time(results['seconds'])}")
    return {**results, "folder": str(run.folder)}
