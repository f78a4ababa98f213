"""A saved model for the library sentence-transformers: which pooling gives a sentence's vector.

SentenceTransformer(folder) reads modules.json, and from there which pooling and how long a text may
be. The names and keys are those that all of its versions since 2 read.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from heads.base import Pooling
from heads.pipeline import Pipeline
from heads.poolings import ClsPooling, MaxPooling, MeanPooling
from storage.json_files import write_json
from tasks import Task

MODES: dict[type[Pooling], str] = {
    ClsPooling: "pooling_mode_cls_token",
    MeanPooling: "pooling_mode_mean_tokens",
    MaxPooling: "pooling_mode_max_tokens",
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def chosen_task(tasks: Mapping[str, Task]) -> str:
    """Whose pooling stands for the model: that of similarity, else of pairs, else the first."""
    pairs = [name for name, task in tasks.items() if task.pair]
    return "sts" if "sts" in tasks else [*pairs, *tasks][0]


def pooling_mode(pipeline: nn.Module) -> str | None:
    """What sentence-transformers calls a pipeline's pooling; None where it has no such one."""
    if not isinstance(pipeline, Pipeline):
        return None
    if len(pipeline.token_layers) > 0 or pipeline.segments is not None:
        return None
    return MODES.get(type(pipeline.pooling))


def write_sentence_bert(folder: Path, mode: str, size: int, max_length: int) -> None:
    """Write its three files: `size` is a vector's width, `max_length` in word-pieces."""
    write_json(folder / "modules.json", MODULES)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length})
    pooling = {"word_embedding_dimension": size, **{name: name == mode for name in MODES.values()}}
    write_json(folder / "1_Pooling" / "config.json", pooling)
