"""Options: everything that can be chosen for a run, one declaration an option.

A declaration (declare.py) carries the default, the help text, the choices or the range, and the
option without which it would do nothing. commandline/parser.py makes a flag from it, `check()` what
is refused, `to_json()` the file in a run's folder. A section is a group of flags, and what a
function that needs no more takes.

Choices that a table of the code holds (HEADS, SAMPLERS, ...) are not repeated here: TABLES in
commandline/parser.py says which table, and whoever uses it looks the name up with `pick`.
"""

import json
import os
import re
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from declare import Files, Names, PerTask, Section, check_value, declare, rules_of, settled, shown
from errors import UserError, listed
from storage.files import read_text
from storage.json_files import parse_json

# What may be given anew when a run is resumed; that data is the same is checked by its contents.
MOVING = ("resume", "use_gpu", "data_dir", "files", "keep_last", "tags")
# Options that say where things are, what is kept, or how a run is watched: they change no score.
WITHOUT_EFFECT = {
    *("files", "predictions", "runs_dir", "data_dir", "name", "tags", "resume"),
    *("save_every", "keep_last", "log_every", "tensorboard", "train_scores"),
}
FILE_KINDS = ("train", "dev", "test", "dev_out", "test_out")  # what a task has a file for
# Where a kind of layer is used instead of the usual one.
PLACES = ("off", "heads", "encoder", "all")

# Values of --option that train no network (training/baselines.py), and what matters to them.
WITHOUT_NETWORK = ("random", "bag_of_words")
OF_BASELINES = (
    *("option", "seed", "tasks", "name", "tags", "runs_dir", "resume", "tensorboard"),
    *("data_dir", "files", "test", "drop_leaks", "limit", "train_fraction", "predictions"),
)

# Bounds that no sensible run meets: a slip of the keyboard beyond them would never end, or take all
# memory.
MOST_STEPS = 10_000_000  # an epoch
MOST_EXAMPLES = 2**20  # a step
NEVER = 1_000_000_000  # steps or evaluations; more than any run has
LONGEST_TAG = 40  # characters
LONGEST_NAME = 200  # bytes; a folder's may have 255, with the date before it and a number behind


@dataclass(frozen=True)
class ModelOptions(Section):
    """The encoder, and what its layers are made of"""

    # Which encoder.
    model: str = declare(
        "auto",
        "hub id, folder or run; auto: bert-base-uncased if it is on this machine, else "
        "all-MiniLM-L6-v2",
        usual="auto: bert-base, else MiniLM",
    )
    init: str | None = declare(
        None, "a run to start from; its encoder, and the heads of tasks that it had"
    )
    # Its layers, exchanged for others.
    rmsnorm: str = declare(
        "off",
        "RMSNorm instead of LayerNorm; in the heads, the encoder or all, which it means alone",
        choices=PLACES,
        bare="all",
    )
    swiglu: str = declare(
        "off",
        "SwiGLU instead of GELU; in the heads, the encoder or all, which it means alone",
        choices=PLACES,
        bare="all",
    )
    swiglu_start: str = declare(
        "pretrained",
        "how the encoder's SwiGLU starts; as the old layer, or afresh and 2/3 wide",
        choices=("pretrained", "random"),
        needs="swiglu",
        needs_value=("encoder", "all"),
    )

    # Dropout.
    hidden_dropout_prob: float = declare(
        0.1, "dropout in the encoder and the heads", least=0, below=1
    )
    attention_dropout_prob: float = declare(
        0.1, "dropout on the attention weights", least=0, below=1
    )


@dataclass(frozen=True)
class AdapterOptions(Section):
    """Adapters: small updates of a frozen encoder"""

    # An option that needs no other one asks for an adapter: adapters_in() finds it by that.
    lora: bool = declare(
        False,
        "train low-rank updates of the encoder; its weights are frozen, the heads train on, all at "
        "10 times the learning rate",
    )

    # The update of one weight.
    lora_rank: int = declare(8, "r of the update B A", least=1, most=4096, needs="lora")
    lora_alpha: float = declare(
        16.0, "the update is scaled by alpha / r", above=0, most=100_000, needs="lora"
    )
    lora_dropout: float = declare(
        0.0, "dropout on the low-rank path", least=0, below=1, needs="lora"
    )

    # Where updates go, and what becomes of them.
    lora_targets: str = declare(
        "all", "which linears of a layer", choices=("qk", "qv", "qkv", "all"), needs="lora"
    )
    lora_layers: str = declare(
        "all", "which layers; all, first4, middle4, last4, or a list such as 0,2,5", needs="lora"
    )
    lora_merge: bool = declare(
        False, "at the end fold the updates into the weights; of the best model", needs="lora"
    )


@dataclass(frozen=True)
class HeadOptions(Section):
    """From token states to a task's logits"""

    # In the order of the computation: encoding, pooling, head.
    pair_encoding: str = declare(
        "cross",
        "how a pair is read; cross: both sentences in one sequence, bi: each on its own",
        choices=("cross", "bi"),
    )
    pooling: PerTask = declare(
        PerTask("cls"), "from token states to one vector; for all tasks, or as in cls sts=mean"
    )
    head: PerTask = declare(
        PerTask("mlp"), "what turns that vector into logits; for all tasks, or as in mlp sts=linear"
    )


@dataclass(frozen=True)
class TaskOptions(Section):
    """What is learned"""

    tasks: Names = declare(("sst", "para", "sts"), "one or more tasks")


@dataclass(frozen=True)
class SamplingOptions(Section):
    """Which examples a step takes"""

    # How long.
    epochs: int = declare(
        3, "passes; one lasts until the sampler has been through one task", least=1, most=10_000
    )
    steps_per_epoch: int = declare(
        0,
        "optimizer steps an epoch; 0: until the sampler has been through one task",
        least=0,
        most=MOST_STEPS,
        usual="until a task is through",
    )

    samples_per_epoch: PerTask = declare(
        PerTask("all"),
        "a task's examples in an epoch; all, a number, or by task as in all para=8000; the sampler "
        "takes the task for that large (or as large as it is), and the next epoch goes on in its "
        "examples where this one stopped",
        choices=("all",),
        least=1,
        most=NEVER,
    )

    # How large a step is, and how it is cut to fit into memory.
    batch_size: int = declare(
        96, "examples a forward pass; of all tasks together", least=1, most=65_536
    )
    accumulation: int = declare(
        1,
        "forward passes a step; its batch of batch_size * accumulation examples is cut into them",
        least=1,
        most=4096,
    )

    # Where its examples come from.
    sampler: str = declare(
        "mixed", "which tasks feed a step; mixed: all of them, round_robin: one in turn"
    )
    sampling_exponent: float = declare(
        0.5,
        "a task's share is its size to this power; of a mixed batch",
        least=-10,
        most=10,
        needs="sampler",
        needs_value=("mixed",),
    )


@dataclass(frozen=True)
class OptimizerOptions(Section):
    """From gradients to weights"""

    # The step.
    optimizer: str = declare("adamw", "which optimizer")
    optimizer_form: str = declare(
        "course",
        "whose AdamW; the course's or PyTorch's, see optimizer.py",
        choices=("course", "torch"),
    )

    # Its size, over the run. The default of None depends on other options.
    lr: float | None = declare(
        None,
        "learning rate; 5e-5 for bert-base, 2e-4 for MiniLM, more for adapters, 1e-3 for pretrain",
        above=0,
        most=1000,
        usual="5e-5 for bert-base",
    )
    schedule: str = declare("linear", "how the learning rate falls; after the warm-up")
    warmup: float = declare(0.1, "share of the steps in which the rate rises", least=0, below=1)

    # What holds the weights and gradients back.
    weight_decay: float = declare(
        0.01, "decoupled weight decay; not on norms and biases", least=0, most=1000
    )
    clip: float = declare(
        1.0, "largest norm of the gradient; 0: no limit", least=0, most=1_000_000_000
    )

    # How gradients of several tasks are joined.
    combiner: str = declare("sum", "how the tasks' gradients become one")


@dataclass(frozen=True)
class DataOptions(Section):
    """What is read and written"""

    # Read.
    data_dir: str = declare(
        "data",
        "where the tasks' files are; without data/ here those beside the scripts, and the built-in "
        "corpus if there are none",
    )
    files: Files = declare((), "single files elsewhere")
    test: bool = declare(True, "read and predict test files, or --no-test")

    # Less than all of it.
    drop_leaks: bool = declare(
        False, "drop training examples that dev or test hold; a line says how many"
    )
    limit: int = declare(
        0,
        "at most so many examples of each file; the first ones, 0: all",
        least=0,
        most=NEVER,
        usual="all",
    )
    train_fraction: float = declare(
        1.0,
        "share of the training examples; drawn by the seed, a smaller share is part of a larger",
        above=0,
        most=1,
    )

    # Longer sequences than 512 have no position embedding in BERT.
    max_length: int = declare(
        256,
        "word-pieces of a sequence; longer ones are truncated, the longer sentence of a pair first",
        least=3,
        most=512,
    )

    # Written.
    predictions: str = declare(
        "predictions/{task}-{split}-output.csv",
        "the CSVs; {task} and {split} stand for the names of both",
    )

    def file(self, name: str) -> str | None:
        """The path that was given for "sst_train", "sts_dev_out" and so on, if any was."""
        return dict(self.files).get(name)

    def check_files(self, tasks: Collection[str]) -> None:
        """UserError where a path was given for what is no file of these tasks."""
        known = {f"{task}_{kind}" for task in tasks for kind in FILE_KINDS}
        for name, _ in self.files:
            if name not in known:
                raise UserError(
                    f"files: {shown(name)} is unknown; expected one of {', '.join(tasks)} "
                    f"with one of {', '.join(f'_{kind}' for kind in FILE_KINDS)}"
                )


@dataclass(frozen=True)
class RunOptions(Section):
    """How the run goes"""

    # What trains, and on what.
    option: str = declare(
        "finetune",
        "what trains; finetune: the whole model, pretrain: the heads on a frozen BERT, random and "
        "bag_of_words: baselines without a network, test: nothing, what predict.py does with "
        "--model RUN",
        choices=("finetune", "pretrain", *WITHOUT_NETWORK, "test"),
    )
    seed: int = declare(11711, "of everything random", least=0, most=2**32 - 1)
    use_gpu: bool = declare(False, "run on the GPU; CUDA, else Apple's MPS")
    precision: str = declare(
        "auto",
        "of the encoder's products; auto: bf16 where the hardware has it, fp16 on older CUDA",
        choices=("auto", "fp32", "bf16", "fp16"),
        usual="auto: bf16 if supported",
    )

    # When it ends before its last epoch.
    patience: int = declare(
        0,
        "evaluations to wait for a better score; the overall one, then stop, 0: never",
        least=0,
        most=NEVER,
        usual="never",
    )

    # Its folder.
    name: str = declare("multitask", "part of the run folder's name")
    tags: Names = declare((), "words to find the run by; report.py --tag picks by one")
    runs_dir: str = declare("runs", "where run folders are made")
    resume: str | None = declare(
        None, "a run folder; go on where it stopped, and up to --epochs if that is more"
    )

    # What is written meanwhile.
    save_every: int = declare(
        500,
        "steps between checkpoints; one is also written at every evaluation",
        least=1,
        most=NEVER,
    )
    keep_last: bool = declare(
        False, "keep the optimizer when all is done; so that --epochs extends the run exactly"
    )
    log_every: int = declare(10, "steps between lines of log.jsonl", least=1, most=NEVER)
    train_scores: bool = declare(
        False,
        "score training examples too; at each evaluation the first ones of each task's file, as "
        "many as its dev set has",
    )
    tensorboard: bool = declare(False, "write the log for TensorBoard too")


@dataclass(frozen=True)
class Options(
    ModelOptions,
    AdapterOptions,
    HeadOptions,
    TaskOptions,
    SamplingOptions,
    OptimizerOptions,
    DataOptions,
    RunOptions,
):
    """Everything that a run depends on."""

    def check(self) -> "Options":
        """These options, or UserError where a value or a pair of them can't work."""
        # Values one by one first: the checks of several rely on each being legal.
        self.check_values()
        self.check_needs()
        for f in fields(self):
            if f.type is PerTask:
                self.check_tasks_of(f.name)

        self.check_of_baseline()

        # What only shows when options meet.
        for conflict in CONFLICTS:
            if conflict.found(self):
                values = {**self.to_dict(), "adapter": " and ".join(adapters_in(self))}
                raise UserError(conflict.message.format(**values))
        return self

    def check_of_baseline(self) -> None:
        """UserError where a baseline, which has no network, is given an option of one."""
        if self.option not in WITHOUT_NETWORK:
            return
        for f in fields(self):
            if f.name not in OF_BASELINES and getattr(self, f.name) != f.default:
                raise UserError(
                    f"--{f.name} is nothing to --option {self.option}, which has no network: "
                    "drop one"
                )

    def check_tasks_of(self, name: str) -> None:
        """UserError where an option has a value for a task that is not learned."""
        value: PerTask = getattr(self, name)
        for task in value.named:
            if task not in self.tasks:
                raise UserError(
                    f"--{name} {shown(value)}: expected tasks of --tasks {' '.join(self.tasks)}"
                )

    def of_same_run(self, given: dict[str, Any]) -> "Options":
        """These options, of a run that is resumed, with what may change as `given` has it.

        That is folder, device and files, and there may be more epochs. UserError where more
        differs.
        """
        # Only the files that were typed replace those of the run; then all is compared.
        files = {**dict(self.files), **dict(given.get("files", ()))}
        wanted = replace(self, **{**given, "files": files}).to_dict()
        for name, was in self.to_dict().items():
            value = wanted[name]
            # A run and its data may move, and it may get longer; anything else would make it
            # another run.
            if name == "epochs" and value < was:
                raise UserError(f"--epochs {value}: the run has {was}, and --resume only adds some")
            if name not in (*MOVING, "epochs") and value != was:
                before = "not given" if was is None else f"{was}, not {value}"
                raise UserError(
                    f"--resume goes on with the run's own options; --{name} was {before}"
                )
        moved = {name: value for name, value in given.items() if name in (*MOVING, "epochs")}
        return replace(self, **{**moved, "files": files}).check()

    @classmethod
    def of_run(cls, folder: Path) -> "Options":
        """The options that a run folder holds, checked as those of a new run are."""
        # A wrong folder is the usual mistake, so the message shows what one looks like.
        path = folder / "options.json"
        if not os.path.exists(path):
            raise UserError(
                f"{shown(folder)}: no options.json in it; expected a run folder, such as "
                "runs/<date>-<name>"
            )
        return cls.from_json(read_text(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Section by section, under the options' names, with `files` as a dict."""
        names = [f.name for section in SECTIONS.values() for f in fields(section)]
        return {**{name: getattr(self, name) for name in names}, "files": dict(self.files)}

    def to_json(self) -> str:
        """As saved in a run folder."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str, source: str = "options.json") -> "Options":
        """From the text of a run folder's file, checked as those of a new run are.

        UserError, which names the source, where they can't work, or it is damaged.
        """
        options = cls(**read_values(text, source))
        try:
            return options.check()
        except UserError as error:
            raise UserError(f"{source}: {error}") from None


# By the name that --help takes, in the order of the help.
SECTIONS: dict[str, type[Section]] = {
    "model": ModelOptions,
    "adapter": AdapterOptions,
    "head": HeadOptions,
    "task": TaskOptions,
    "sampling": SamplingOptions,
    "optimizer": OptimizerOptions,
    "data": DataOptions,
    "run": RunOptions,
}


class Conflict(NamedTuple):
    """Options that can't work together."""

    found: Callable[[Options], bool]
    # An option's name in braces stands for its value, {adapter} for the flags of adapters_in().
    message: str


def adapters_in(o: AdapterOptions) -> list[str]:
    """The flags of the adapters that are asked for: they train on a frozen encoder.

    These are the options of the section that need no other one, where they are not at the default.
    One for an adapter that lets the encoder train belongs in another section.
    """
    switches = [f for f in fields(AdapterOptions) if not rules_of(f).needs]
    return [f"--{f.name}" for f in switches if getattr(o, f.name) != f.default]


def is_template(text: str) -> bool:
    """Whether nothing but {task} and {split} stands in a text's braces.

    A width as in {task:>99} could ask for any amount of memory, {task.x} for anything's inside.
    """
    try:
        fields_of_text = list(string.Formatter().parse(text))
    except ValueError:  # a brace alone
        return False
    plain = (None, "task", "split")  # None: the text ends without one
    return all(name in plain and not (way or form) for _, name, form, way in fields_of_text)


def is_tag(word: str) -> bool:
    """Whether a word can be a tag."""
    return len(word) <= LONGEST_TAG and re.fullmatch(r"[\w.][\w.-]*", word) is not None


# Heads to which --rmsnorm or --swiglu is nothing.
WITHOUT_NORM = {"linear"}
WITHOUT_ACTIVATION = {"linear"}


def heads_in(o: Options) -> set[str]:
    """The heads that the tasks have."""
    return {o.head.of(task) for task in o.tasks}


CONFLICTS = (
    # What trains against what is frozen.
    Conflict(
        lambda o: bool(adapters_in(o)) and o.option == "pretrain",
        "{adapter} trains the encoder, --option pretrain freezes it: drop one",
    ),
    Conflict(
        lambda o: bool(adapters_in(o)) and o.swiglu_start == "random",
        "--swiglu_start random starts layers afresh, which {adapter} keeps frozen: drop one",
    ),
    Conflict(
        lambda o: o.option == "pretrain" and o.swiglu_start == "random",
        "--swiglu_start random starts layers afresh, which --option pretrain keeps "
        "frozen: drop one",
    ),
    Conflict(
        lambda o: o.option == "test",
        "--option test trains nothing; it is for the command line: --option test --model RUN",
    ),
    # Files of a split that is not read.
    Conflict(
        lambda o: not o.test and any("_test" in name for name, _ in o.files),
        "--no-test leaves the test files out, but one was named: drop either",
    ),
    # Layers asked for in heads that have none.
    Conflict(
        lambda o: heads_in(o) <= WITHOUT_NORM and o.rmsnorm in ("heads", "all"),
        "--head {head} has no norm: use --rmsnorm encoder, not {rmsnorm}",
    ),
    Conflict(
        lambda o: heads_in(o) <= WITHOUT_ACTIVATION and o.swiglu in ("heads", "all"),
        "--head {head} has no activation: use --swiglu encoder, not {swiglu}",
    ),
    # Values that are wrong on their own, but depend on more than a range.
    Conflict(lambda o: not o.tasks, "--tasks: expected at least one task"),
    Conflict(lambda o: len(set(o.tasks)) < len(o.tasks), "--tasks names a task twice"),
    Conflict(
        lambda o: o.batch_size < len(o.tasks),
        "--batch_size {batch_size} is below the number of tasks",
    ),
    Conflict(
        lambda o: o.batch_size * o.accumulation > MOST_EXAMPLES,
        "--batch_size {batch_size} times --accumulation {accumulation}: expected at most "
        f"{MOST_EXAMPLES} examples a step",
    ),
    Conflict(
        lambda o: not is_template(o.predictions),
        "--predictions {predictions}: only {{task}} and {{split}} may stand in braces",
    ),
    Conflict(
        lambda o: not re.fullmatch(r"[\w.-]+", o.name),
        "--name {name}: letters, digits, dot, dash and underscore only",
    ),
    Conflict(
        lambda o: len(o.name.encode("utf-8")) > LONGEST_NAME,
        f"--name {{name}}: at most {LONGEST_NAME} bytes, or the run folder's name gets too long",
    ),
    Conflict(
        lambda o: not all(is_tag(tag) for tag in o.tags),
        "--tags: expected words with blanks between, each of at most "
        f"{LONGEST_TAG} letters, digits, dots, dashes and underscores, no dash first",
    ),
)


def read_values(text: str, source: str) -> dict[str, Any]:
    """The options that a JSON text holds, checked one by one but not with one another.

    UserError, which names the source, where it is damaged or holds what is no option.
    """
    # The text as a whole.
    values = parse_json(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected an object of options and their values")

    # Its names, all unknown ones at once.
    known = {f.name: f for f in fields(Options)}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"{source} holds unknown options: {listed(unknown)}")

    # Its values; lists become tuples and the like before they are checked.
    try:
        values = {name: settled(known[name], value) for name, value in values.items()}
        for name, value in values.items():
            check_value(known[name], value)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return values


def pick(table: Mapping[str, Any], key: str, flag: str) -> Any:
    """table[key], or UserError that names the flag and the choices."""
    if key not in table:
        raise UserError(f"{flag} {shown(key)}: expected one of {', '.join(table)}")
    return table[key]
