"""MultitaskBERT: one encoder, one pipeline a task. Built here from options, or loaded from a run.

A run's best model in three lines:

    from multitask_classifier import MultitaskBERT
    model = MultitaskBERT.load("runs/2026-11-20-multitask")
    model.predict("sst", ["A lovely film .", "It is not good ."])  # classes, 0 to 4
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lora
from adapters.wrap import Adapter, fits, partial_state
from base_bert import BertConfig
from bert import FEED_FORWARDS, BertModel
from course.faces import CourseFaces
from datasets import split_of_texts
from errors import UserError
from evaluation import predict, predict_logits
from forward import Encoded, Forward
from heads.pipeline import Pipeline
from model_folder import Base, check_base, find_saved, read_options, write_base, write_options
from options import Options
from packing import Batch, Packed, pack
from storage.tensor_files import read_tensors, shapes_of, write_tensors
from tasks import Task, tasks_of
from text.texts import as_tuples
from tokenizer import BertTokenizer
from training.environment import pick_device, pick_dtype
from training.manifest import check_manifest, write_manifest
from weights import check_sizes

# What may change the loaded encoder, from inside, each with the options that ask for it.
ADAPTERS: dict[str, Adapter] = {
    "lora": lora.ADAPTER,
}


def peak_rate(options: Options, hidden_size: int) -> float:
    """The highest learning rate of a run: --lr, or what suits the model.

    That is 1e-3 for heads alone; else 5e-5 for bert-base and more for narrower encoders (2e-4 for
    MiniLM), times what adapters take.
    """
    if options.lr is not None:
        return options.lr
    if options.option == "pretrain":
        return 1e-3
    rate = min(3e-4, 5e-5 * (768 / hidden_size) ** 2)
    for adapter in ADAPTERS.values():
        if adapter.wanted(options):
            rate = adapter.rate_factor * rate
    return rate


class MultitaskBERT(CourseFaces, nn.Module):
    """The encoder, and a pipeline for each of options.tasks.

    `trained` is the set of parameter names that the options let train, fixed when the model is
    built: what is saved does not depend on what happens to be frozen at the moment.
    """

    def __init__(self, bert: BertModel, options: Options):
        super().__init__()
        self.bert = bert
        self.options = options
        self.tasks: dict[str, Task] = tasks_of(options)
        self.compute_dtype = torch.float32
        # Above 1 the rows of a group come in multiples: few shapes, for compiled kernels, but more
        # padding.
        self.row_multiple = 1
        self.trained: frozenset[str] = frozenset()
        self._tokenizer: BertTokenizer | None = None
        # Modules that adapters add: each turns packed rows into a summand of the embeddings [N, H].
        self.embedding_terms = nn.ModuleDict()
        self.pipelines = nn.ModuleDict()
        for name, task in self.tasks.items():
            make = task.pipeline or Pipeline
            self.pipelines[name] = make(task, bert, options)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.bert.word_embedding.weight.device

    @property
    def tokenizer(self) -> BertTokenizer:
        """The tokenizer that came with the encoder; UserError where the two do not fit."""
        if self._tokenizer is None:
            found = BertTokenizer.from_pretrained(self.bert.name_or_path)
            found.check_fits(self.bert.config.vocab_size, self.bert.name_or_path)
            self._tokenizer = found
        return self._tokenizer

    # ---- from batches to logits

    def pack(self, batches: Mapping[str, Batch]) -> Packed:
        """{task: batch} as packed rows, on the model's device."""
        return pack(batches, self.row_multiple).to(self.device)

    def embed(self, packed: Packed) -> Tensor:
        """The embeddings of packed rows, as the first layer gets them: [N, H], fp32."""
        summand = None
        for term in self.embedding_terms.values():
            summand = term(packed) if summand is None else summand + term(packed)
        return self.bert.embed_packed(packed, summand)

    def forward(self, packed: Packed, embeddings: Tensor | None = None) -> Forward:
        """One encoder call for all tasks in `packed`, then each task's pipeline.

        `embeddings` [N, H] stand in for the rows' own, for noise on them.
        """
        if embeddings is None:
            embeddings = self.embed(packed)

        # Where every pipeline reads only [CLS], no more of the last layer is computed.
        only_first = all(self.pipelines[name].needs == "cls" for name in packed.tasks)
        wanted = packed.starts if only_first else None
        states = self.bert.encode_packed(packed, self.compute_dtype, wanted, embeddings)

        pooled: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        for name, part in packed.tasks.items():
            encoded = Encoded(
                layers=states,
                starts=packed.starts[part],
                lengths=packed.lengths[part],
                longest=packed.longest[name],
                last_first=states[-1][part] if only_first else None,
            )
            pooled[name], logits[name] = self.pipelines[name](encoded, packed.owners[part])
        return Forward(packed, embeddings, states, pooled, logits)

    def logits(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """All sentences of all tasks through the encoder at once: {task: [B, outputs]}, fp32."""
        return self(self.pack(batches)).logits

    def task_named(self, name: str) -> Task:
        """One of the model's tasks, or UserError."""
        if not isinstance(name, str) or name not in self.tasks:
            raise UserError(
                f"{name}: this model has no head for it, only for {', '.join(self.tasks)}"
            )
        return self.tasks[name]

    def predict(
        self, name: str, texts: Iterable[str | tuple[str, ...]], probabilities: bool = False
    ) -> list[Any]:
        """Classes of sentences; 0.0 / 1.0 or similarities of pairs; a list where tokens have one.

        With `probabilities` all classes' in a list, or a duplicate's; UserError where none are.
        """
        task = self.task_named(name)
        if probabilities and not task.probabilities:
            raise UserError(f"{name}: {task.title} has no probabilities, only predictions")
        tuples = as_tuples(texts, len(task.columns), name)
        if not tuples:
            return []
        split = split_of_texts(task, tuples, self.options, self.tokenizer)
        if probabilities and task.probabilities:
            return task.probabilities(predict_logits(self, split)).tolist()
        return [prediction.tolist() for prediction in predict(self, split)]

    # ---- saving and loading

    @property
    def whole(self) -> bool:
        """Whether all of the encoder trains, so that all of it has to be saved."""
        return all(f"bert.{name}" in self.trained for name, _ in self.bert.named_parameters())

    def own_state(self) -> dict[str, Tensor]:
        """What save() writes: everything, or where the encoder is frozen what training changes."""
        return self.state_dict() if self.whole else partial_state(self, self.trained)

    def save(self, folder: Path) -> None:
        """Write what load() reads into a folder that exists."""
        write_options(folder, self.options)
        if self.whole:
            self.bert.config.save(folder)
            self.tokenizer.save_pretrained(folder)
            write_tensors(folder / "model.safetensors", self.own_state())
        else:
            write_base(folder, self.base)
            write_tensors(folder / "adapter.safetensors", self.own_state())
        write_manifest(folder)

    @property
    def base(self) -> Base:
        """What tells the pretrained model from others."""
        return Base(self.options.model, self.bert.base_sha256, self.tokenizer.fingerprint)

    @classmethod
    def load(cls, folder: str | Path, use_gpu: bool = False) -> "MultitaskBERT":
        """The best model of a run folder (or a folder that save() wrote), in eval mode.

        UserError where a file of it is not what was written, or an adapter's base another one.
        """
        folder = find_saved(Path(folder))
        check_manifest(folder)
        options = read_options(folder)

        # The same build as before training; then what was saved, all of it or what had trained.
        partial = folder / "adapter.safetensors"
        if partial.exists():
            model = build(options)
            check_base(folder, model.base)
            state = read_tensors(partial)
            fits(state, partial_state(model, model.trained))
            model.load_state_dict(state, strict=False)
        else:
            model = build(options, saved=folder)
            try:
                model.load_state_dict(read_tensors(folder / "model.safetensors"))
            except RuntimeError as error:
                reason = " ".join(str(error).split())  # torch's message has a line for each name
                raise UserError(
                    f"{folder}/model.safetensors: not this model's weights ({reason})"
                ) from None
        # The vocabulary is read now: the folder may be named from here only, or move.
        model._tokenizer = model.tokenizer
        device = pick_device(use_gpu)
        model.compute_dtype = pick_dtype(options.precision, device)
        return model.to(device).eval()

    @property
    def merge_wanted(self) -> bool:
        """Whether the options ask for merge() at the end of a run."""
        return any(adapter.merge_wanted(self.options) for adapter in ADAPTERS.values())

    def merge(self) -> None:
        """Fold every adapter into the encoder's weights; from then on the model is saved whole."""
        options = self.options
        for adapter in reversed(ADAPTERS.values()):
            if adapter.wanted(options):
                adapter.merge(self)
                options = adapter.without(options)
        self.options = options
        self.bert.requires_grad_(True)
        self.trained = frozenset(name for name, _ in self.named_parameters())


def encoder_config(options: Options) -> BertConfig:
    """The pretrained configuration with the options' dropouts, norm and feed-forward."""
    config = replace(
        BertConfig.from_pretrained(options.model),
        hidden_dropout_prob=options.hidden_dropout_prob,
        attention_probs_dropout_prob=options.attention_dropout_prob,
    )
    if options.rmsnorm in ("encoder", "all"):
        config = replace(config, norm="rmsnorm")
    if options.swiglu in ("encoder", "all"):
        width = config.intermediate_size
        if options.swiglu_start == "random":
            width = FEED_FORWARDS["swiglu"].width_afresh(width)
        config = replace(config, feed_forward="swiglu", intermediate_size=width)
    return config


def pretrained_encoder(options: Options) -> BertModel:
    """The encoder with its pretrained weights; UserError where the options do not fit it."""
    config = encoder_config(options)
    if options.max_length > config.max_position_embeddings:
        raise UserError(
            f"--max_length {options.max_length}: "
            f"{options.model} has {config.max_position_embeddings} positions"
        )
    crossed = [t for t in tasks_of(options).values() if t.pair and not t.is_bi(options)]
    if config.type_vocab_size < 2 and crossed:
        raise UserError(
            f"{options.model}: has one token type, a cross-encoded pair takes two; "
            "use --pair_encoding bi"
        )
    return BertModel.from_pretrained(options.model, config, options.swiglu_start == "random")


def saved_encoder(folder: Path) -> BertModel:
    """The encoder of a folder that save() wrote, its weights still to be loaded."""
    config = BertConfig.from_pretrained(folder)
    weights = folder / "model.safetensors"
    shapes = {name.removeprefix("bert."): shape for name, shape in shapes_of(weights).items()}
    check_sizes(shapes, config, str(weights))
    bert = BertModel(config)
    bert.name_or_path = str(folder)
    return bert


def build(options: Options, saved: Path | None = None) -> MultitaskBERT:
    """The model that the options ask for: norm, feed-forward, pipelines and adapters chosen here.

    Pretrained weights are loaded, and what trains is printed; or the encoder is `saved`'s, a folder
    whose weights the caller loads.
    """
    bert = pretrained_encoder(options) if saved is None else saved_encoder(saved)
    model = MultitaskBERT(bert, options)
    for adapter in ADAPTERS.values():
        if adapter.wanted(options):
            adapter.adapt(model, options)
    if options.option == "pretrain":
        model.bert.requires_grad_(False)
    model.trained = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    if saved is None:
        print_counts(model)
    return model


def print_counts(model: MultitaskBERT) -> None:
    """Say how much of the model trains."""
    total = sum(p.numel() for p in model.parameters())
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layers = model.bert.config.num_hidden_layers
    print(
        f"{model.options.model}: {layers} layers, "
        f"{trains / 1e6:.2f}M of {total / 1e6:.2f}M parameters train"
    )
