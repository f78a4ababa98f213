"""Options: one frozen dataclass is the flags, the saved JSON and what `train(options)` takes.

A field's comment is its help text, written once, here. `@file` on the command line reads flags from a file; `#` starts a
comment there. `check()` refuses values and pairs that can't work and says what to do instead.
"""

import argparse
import inspect
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from errors import UserError

Place = Literal["off", "heads", "encoder", "all"]
# Choices that no table holds: only these words exist.
CLOSED = ("option", "pair_encoding", "rmsnorm", "swiglu", "swiglu_start", "optimizer_form", "precision")
COURSE_MODES = {"last-linear-layer": "pretrain", "full-model": "finetune"}  # 2024's names for 2023's


@dataclass(frozen=True)
class Options:
    """Everything that a run depends on."""

    # what is trained
    option: Literal["finetune", "pretrain"] = "finetune"  # finetune: the whole model; pretrain: the heads on a frozen BERT
    model: str = "auto"  # hub id or folder; auto: bert-base-uncased if it is on this machine, else all-MiniLM-L6-v2
    tasks: tuple[str, ...] = ("sst", "para", "sts")  # names from tasks.py
    pair_encoding: Literal["cross", "bi"] = "cross"  # cross: both sentences in one sequence; bi: each on its own
    pooling: Literal["cls", "mean"] = "cls"  # from token states to one vector
    head: Literal["mlp", "linear"] = "mlp"  # what turns that vector into logits
    rmsnorm: Place = "off"  # RMSNorm instead of LayerNorm; alone it means in the heads
    swiglu: Place = "off"  # SwiGLU instead of GELU; alone it means in the heads
    swiglu_start: Literal["pretrained", "random"] = "pretrained"  # the encoder's: as the old layer, or afresh, 2/3 wide
    lora: bool = False  # train low-rank updates of the encoder's linears only, and the heads
    lora_rank: int = 8  # r
    lora_alpha: float = 16.0  # the update is scaled by alpha / r
    lora_dropout: float = 0.0  # on the low-rank path
    lora_targets: Literal["qk", "qv", "qkv", "all"] = "all"  # which linears of a layer
    lora_layers: str = "all"  # all, first4, middle4, last4, or a list such as 0,2,5
    lora_merge: bool = False  # at the end fold the updates into the best model's weights
    # how it is trained
    epochs: int = 3  # an epoch lasts until the sampler has been through one task
    steps_per_epoch: int = 0  # optimizer steps; 0: as above
    batch_size: int = 96  # examples a forward pass, all tasks together
    accumulation: int = 1  # forward passes an optimizer step
    sampler: Literal["mixed", "round_robin"] = "mixed"  # mixed: all tasks in every step; round_robin: one task a step
    sampling_exponent: float = 0.5  # a task's share of a mixed batch is its size to this power
    combiner: Literal["sum"] = "sum"  # how the tasks' gradients become one
    lr: float | None = None  # learning rate; 5e-5 for bert-base, 2e-4 for MiniLM, tenfold for --lora, 1e-3 for pretrain
    schedule: Literal["linear", "constant", "cosine"] = "linear"  # of the learning rate, after the warm-up
    warmup: float = 0.1  # share of the steps in which the learning rate rises
    weight_decay: float = 0.01  # decoupled, not on norms and biases
    optimizer_form: Literal["course", "torch"] = "course"  # of AdamW, see optimizer.py
    clip: float = 1.0  # largest norm of the gradient; 0: no limit
    hidden_dropout_prob: float = 0.1  # in the encoder and the heads
    attention_dropout_prob: float = 0.1  # on the attention weights
    patience: int = 0  # stop after this many evaluations without a better overall score; 0: never
    max_length: int = 256  # word-pieces of a sequence; longer ones are truncated, the longer sentence of a pair first
    seed: int = 11711  # of everything random
    use_gpu: bool = False  # run on CUDA
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the encoder's products; auto: bf16 where the hardware has it
    # data
    data_dir: str = "data"  # where the files below are looked for; the built-in corpus if none is there
    sst_train: str | None = None  # default ids-sst-train.csv in --data_dir, and so on
    sst_dev: str | None = None
    sst_test: str | None = None
    para_train: str | None = None
    para_dev: str | None = None
    para_test: str | None = None
    sts_train: str | None = None
    sts_dev: str | None = None
    sts_test: str | None = None
    predictions: str = "predictions/{task}-{split}-output.csv"  # where the predictions go; single ones can go elsewhere:
    sst_dev_out: str | None = None
    sst_test_out: str | None = None
    para_dev_out: str | None = None
    para_test_out: str | None = None
    sts_dev_out: str | None = None
    sts_test_out: str | None = None
    # the run
    name: str = "multitask"  # part of the run folder's name
    runs_dir: str = "runs"  # where run folders are made
    resume: str | None = None  # a run folder: go on where it stopped
    save_every: int = 500  # optimizer steps between checkpoints; one is also written at every evaluation
    log_every: int = 10  # optimizer steps between lines of log.jsonl
    tensorboard: bool = False  # write the log for TensorBoard too

    def learning_rate(self, hidden_size: int) -> float:
        """The peak learning rate: --lr, or 1e-3 for heads alone, or 5e-5 for bert-base and more for narrower encoders (2e-4
        for MiniLM), ten times that with LoRA."""
        if self.lr is not None:
            return self.lr
        full = min(3e-4, 5e-5 * (768 / hidden_size) ** 2)
        return 1e-3 if self.option == "pretrain" else 10 * full if self.lora else full

    def check(self) -> "Options":
        """These options, or UserError where a value or a pair of them can't work."""
        hints = get_type_hints(Options)
        for name in CLOSED:
            if (value := getattr(self, name)) not in get_args(hints[name]):
                raise UserError(f"--{name} {value}: expected one of {', '.join(get_args(hints[name]))}")
        positive = ("epochs", "batch_size", "accumulation", "lora_rank", "save_every", "log_every")
        shares = ("hidden_dropout_prob", "attention_dropout_prob", "lora_dropout", "warmup")
        for wrong, expected in [
            *((f"--{n} {getattr(self, n)}", "at least 1") for n in positive if getattr(self, n) < 1),
            *((f"--{n} {getattr(self, n)}", "from 0 to below 1") for n in shares if not 0 <= getattr(self, n) < 1),
            *[(f"--lr {self.lr}", "above 0")] * (self.lr is not None and not 0 < self.lr < float("inf")),
            *[(f"--max_length {self.max_length}", "3 to 512")] * (not 3 <= self.max_length <= 512),
            *((f"--{n} {getattr(self, n)}", "0 or more") for n in ("clip", "patience", "steps_per_epoch", "weight_decay")
              if not getattr(self, n) >= 0),
        ]:  # fmt: skip
            raise UserError(f"{wrong}: expected {expected}")
        encoder_swiglu = self.swiglu in ("encoder", "all")
        for refused, why in [
            (self.lora and self.option == "pretrain", "--lora trains the encoder, --option pretrain freezes it: drop one"),
            (self.lora_merge and not self.lora, "--lora_merge needs --lora"),
            (self.swiglu_start == "random" and not encoder_swiglu, "--swiglu_start random needs --swiglu encoder or all"),
            (self.swiglu_start == "random" and (self.lora or self.option == "pretrain"),
             "--swiglu_start random starts layers afresh, which --lora and --option pretrain keep frozen: drop one"),
            (self.head == "linear" and self.rmsnorm in ("heads", "all"), "--head linear has no norm: use --rmsnorm encoder"),
            (self.head == "linear" and self.swiglu in ("heads", "all"),
             "--head linear has no activation: use --swiglu encoder"),
            (not self.lora and any(getattr(self, f.name) != f.default for f in fields(self) if f.name.startswith("lora_")),
             "--lora_rank, --lora_alpha, --lora_dropout, --lora_targets, --lora_layers and --lora_merge need --lora"),
            (self.sampler != "mixed" and self.sampling_exponent != Options.sampling_exponent,
             "--sampling_exponent is of --sampler mixed"),
            (not -10 <= self.sampling_exponent <= 10, f"--sampling_exponent {self.sampling_exponent}: expected -10 to 10"),
            (not 0 < self.lora_alpha < float("inf"), f"--lora_alpha {self.lora_alpha}: expected above 0"),
            (not 0 <= self.seed < 2**32, f"--seed {self.seed}: expected 0 to 4294967295"),
            (len(set(self.tasks)) < len(self.tasks), "--tasks names a task twice"),
            (self.batch_size < len(self.tasks), f"--batch_size {self.batch_size} is below the number of tasks"),
            (not self.tasks, "--tasks needs at least one task"),
            (not re.fullmatch(r"[\w.-]+", self.name), f"--name {self.name}: letters, digits, dot, dash and underscore only"),
        ]:  # fmt: skip
            if refused:
                raise UserError(why)
        return self

    def of_same_run(self, given: dict[str, Any]) -> "Options":
        """These options, of a run that is resumed, with the folder and device of `given`; UserError where more differs."""
        for name, value in given.items():
            if name not in ("resume", "use_gpu") and value != getattr(self, name):
                was = getattr(self, name)
                raise UserError(f"--resume goes on with the run's own options; --{name} was {was}, not {value}")
        return replace(self, resume=given["resume"], use_gpu=given.get("use_gpu", self.use_gpu))

    def to_json(self) -> str:
        """As saved in a run folder."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def of_run(cls, folder: Path) -> "Options":
        """The options that a run folder holds."""
        if not (folder / "options.json").exists():
            raise UserError(f"--resume {folder}: no options.json in it; expected a run folder, such as runs/<date>-<name>")
        return cls.from_json((folder / "options.json").read_text(encoding="utf-8"))

    @classmethod
    def from_json(cls, text: str) -> "Options":
        """From a run folder's file; unknown names are an error."""
        try:
            values = dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise UserError(f"options.json is not readable ({error})") from None
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(f"options.json holds unknown options: {', '.join(sorted(unknown))}")
        return cls(**as_tuples(values))


def as_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists, as JSON and argparse give them, to tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def help_texts() -> dict[str, str]:
    """Each field's comment."""
    found = re.findall(r"^    (\w+): [^#\n]+?(?:  # (.*))?$", inspect.getsource(Options).split("def ")[0], re.M)
    return {name: text.replace("%", "%%") for name, text in found}


class _Parser(argparse.ArgumentParser):
    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return arg_line.split("#")[0].split()

    def error(self, message: str) -> Any:
        raise UserError(f"{message}; --help lists the flags")


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with one flag a field; `--batch-size` means `--batch_size`."""
    parser = _Parser(
        description=description, fromfile_prefix_chars="@", allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    help_text = "the 2024 course's name for --option"
    parser.add_argument("--fine-tune-mode", choices=COURSE_MODES, default=argparse.SUPPRESS, help=help_text)
    texts, hints = help_texts(), get_type_hints(Options)
    for f in fields(Options):
        kind = hints[f.name]
        settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{texts[f.name]} [{f.default}]".lstrip()}
        if get_origin(kind) in (Union, type(float | None)):  # `float | None`
            kind = get_args(kind)[0]
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is Literal:
            settings["choices"] = get_args(kind)
            if kind == Place:
                settings.update(nargs="?", const="heads")
        elif get_origin(kind) is tuple:
            settings.update(nargs="+", metavar="TASK")
        else:
            settings.update(type=kind, metavar=kind.__name__.upper())
        names = dict.fromkeys([f"--{f.name}", f"--{f.name.replace('_', '-')}"])
        parser.add_argument(*names, **settings)
    return parser


def read_flags(argv: list[str], description: str) -> dict[str, Any]:
    """What the command line gives, under the fields' names and `fine_tune_mode`; UserError where that can't be."""
    try:
        return as_tuples(vars(make_parser(description).parse_args(argv)))
    except UnicodeDecodeError:
        raise UserError("a file of flags (@file) is not UTF-8 text") from None


def parse(argv: list[str], description: str) -> Options:
    """Checked options from command-line arguments; UserError with one line where they are off."""
    return options_of(read_flags(argv, description))


def options_of(flags: dict[str, Any]) -> Options:
    """Checked options from what the command line gave."""
    given = dict(flags)
    mode = given.pop("fine_tune_mode", None)
    if mode and given.setdefault("option", COURSE_MODES[mode]) != COURSE_MODES[mode]:
        raise UserError(f"--fine-tune-mode {mode} means --option {COURSE_MODES[mode]}, not {given['option']}: drop one")
    if "resume" in given:
        return Options.of_run(Path(given["resume"])).of_same_run(given)
    return Options(**given).check()


def pick(table: dict[str, Any], key: str, flag: str) -> Any:
    """table[key], or UserError that names the flag and the choices."""
    if key not in table:
        raise UserError(f"{flag} {key}: expected one of {', '.join(table)}")
    return table[key]
