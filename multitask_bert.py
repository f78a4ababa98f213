"""MultitaskBERT: one encoder, one pipeline a task. Built here from options, or loaded from a run.

A run's best model in three lines:

    from multitask_classifier import MultitaskBERT
    model = MultitaskBERT.load("runs/2026-11-20-multitask")
    model.predict("sst", ["A lovely film .", "It is not good ."])  # classes, 0 to 4

load() also takes a folder that export.py or save() wrote, and USER/NAME of the Hugging Face hub.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters.kinds import adapt, adapters_of
from adapters.wrap import Adaptable
from bert import BertModel
from course.faces import CourseFaces
from datasets import split_of_texts
from errors import UserError
from evaluation import predict, predict_logits
from forward import Encoded, Forward
from heads.pipeline import Pipeline
from heads.shared import make_shared
from heads.symmetric import in_both_orders
from models.encoder import pretrained_encoder, saved_encoder
from models.folder import (
    BASE,
    Base,
    check_base,
    find_saved,
    read_options,
    read_state,
    write_adapter_config,
    write_base,
    write_options,
    write_state,
)
from models.placing import as_filed, peft_form, places
from models.sentence_bert import chosen_task, pooling_mode, write_sentence_bert
from options import Options
from packing import Batch, Packed, pack
from tasks import Task, check_tasks, tasks_of
from text.texts import as_tuples
from tokenizer import BertTokenizer
from training.environment import pick_device, pick_dtype
from training.manifest import NAME as MANIFEST
from training.manifest import check_manifest, write_manifest


class MultitaskBERT(CourseFaces, Adaptable):
    """The encoder, and a pipeline for each of options.tasks.

    `rebuilt` are the names of the parameters that need not be saved (adapters/wrap.py). They are
    fixed when the model is built: what is saved does not depend on what is frozen at the moment.
    """

    def __init__(self, bert: BertModel, options: Options):
        super().__init__()
        self.bert = bert
        self.options = options
        self.tasks = tasks_of(options)
        self.compute_dtype = torch.float32
        # Above 1 the rows of a group come in multiples: few shapes, for compiled kernels, but more
        # padding.
        self.row_multiple = 1
        self.rebuilt: frozenset[str] = frozenset()
        self.started_from = ""  # see training/start.py
        self._tokenizer: BertTokenizer | None = None
        # Modules that adapters add: each turns packed rows into a summand of the embeddings [N, H].
        self.embedding_terms = nn.ModuleDict()
        self.virtual_tokens = 0  # that adapters put behind each [CLS]
        self.mixture: nn.Module | None = None  # see Adaptable
        self.pipelines = nn.ModuleDict()
        for name, task in self.tasks.items():
            make = task.pipeline or Pipeline
            self.pipelines[name] = make(task, bert, options)
        # Layers of several tasks, which their pipelines know of.
        self.shared = make_shared(self.tasks, self.pipelines, options)

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
        return pack(batches, self.row_multiple, self.virtual_tokens).to(self.device)

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
        gates = None
        if self.mixture is None:
            states = self.bert.encode_packed(packed, self.compute_dtype, wanted, embeddings)
        else:
            states, gates = self.mixture(packed, self.compute_dtype, wanted, embeddings)

        pooled: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        for name, part in packed.tasks.items():
            encoded = Encoded(
                layers=states,
                starts=packed.starts[part],
                lengths=packed.lengths[part],
                longest=packed.longest[name],
                last_first=states[-1][part] if only_first else None,
                virtual=packed.virtual,
                sides=packed.sides[part],
                pooler=self.bert.pool,
            )
            pooled[name], logits[name] = self.pipelines[name](encoded, packed.owners[part])
        return Forward(packed, embeddings, states, pooled, logits, gates)

    def forward_of(self, batches: Mapping[str, Batch]) -> Forward:
        """All sentences of all tasks through the encoder at once, for predictions.

        With --symmetric the logits of pairs are means over both orders.
        """
        if self.options.symmetric:
            return in_both_orders(self, batches)
        return self(self.pack(batches))

    def logits(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """What forward_of() gives as logits: {task: [B, outputs]}, fp32."""
        return self.forward_of(batches).logits

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
        """Whether all of the encoder is saved: nothing of it is the base's, frozen."""
        return not self.rebuilt

    def own_state(self) -> dict[str, Tensor]:
        """What save() writes: all tensors but those that build() makes again."""
        known = {*self.rebuilt, "bert.position_ids"}
        return {name: x for name, x in self.state_dict().items() if name not in known}

    @property
    def extended(self) -> bool:
        """Whether something computes in the encoder that BERT has not."""
        names = set(self.bert.state_dict()) - {"position_ids"}
        added = len(self.embedding_terms) > 0 or self.mixture is not None
        return added or names != self.bert.own_names()

    def save(self, folder: Path) -> None:
        """Write what load() reads into a folder that exists; models/folder.py says which files.

        UserError where a model was saved there before: of its files some would stay beside these.
        """
        if (folder / MANIFEST).exists():
            raise UserError(f"{folder}: holds a saved model already; name another folder")
        write_options(folder, self.options)
        write_state(folder, as_filed(self, self.own_state()), places(self))
        if self.whole:
            self.bert.config.save(folder, self.extended)
            self.tokenizer.save_pretrained(folder)
            mode = pooling_mode(self.pipelines[chosen_task(self.tasks)])
            if mode and self.bert.config.is_bert and not self.extended:
                size = self.bert.config.hidden_size
                write_sentence_bert(folder, mode, size, self.options.max_length)
        else:
            write_base(folder, self.base)
        if form := peft_form(self):
            write_adapter_config(folder, form.config, self.options.model)
        write_manifest(folder)

    @property
    def base(self) -> Base:
        """What tells the pretrained model from others."""
        return Base(self.options.model, self.bert.base_sha256, self.tokenizer.fingerprint)

    @classmethod
    def load(cls, folder: str | Path, use_gpu: bool = False) -> "MultitaskBERT":
        """The best model of a run folder, of one that save() wrote, or of the hub's USER/NAME.

        In eval mode. UserError where a file of it is not what was written, or an adapter's base
        another one.
        """
        folder = find_saved(folder)
        check_manifest(folder)
        options = read_options(folder)

        # The same build as before training; then what was saved, all of it or what a build lacks.
        model = build(options, saved=folder)
        if os.path.exists(folder / BASE):
            check_base(folder, model.base)
        own = model.own_state()
        state = read_state(folder, as_filed(model, own), places(model))
        taken = {name: x.view(own[name].shape) for name, x in state.items()}
        model.load_state_dict(taken, strict=False)

        # The vocabulary is read now: the folder may be named from here only, or move.
        model._tokenizer = model.tokenizer
        device = pick_device(use_gpu)
        model.compute_dtype = pick_dtype(options.precision, device)
        return model.to(device).eval()

    def merge(self) -> list[str]:
        """Fold the adapters into the encoder's weights; from then on the model is saved whole.

        Returns the flags of those that have no such form: they stay beside the weights.
        """
        options = replace(self.options, option="finetune")  # nothing is frozen from here on
        stay = []
        for adapter in reversed(adapters_of(options)):
            if adapter.merge:
                adapter.merge(self)
                options = adapter.without(options)
            else:
                stay.append(adapter.flag)
        self.options = options
        self.bert.requires_grad_(True)
        self.rebuilt = frozenset()
        return stay


def build(options: Options, saved: Path | None = None) -> MultitaskBERT:
    """The model that the options ask for: norm, feed-forward, pipelines and adapters chosen here.

    Pretrained weights are loaded; or the encoder is `saved`'s, a folder that save() wrote, and the
    caller loads what is in it. UserError where the options do not fit the encoder or one another.
    """
    # Both refuse what can't work, before anything is read.
    check_tasks(options)
    adapters_of(options)
    bert = pretrained_encoder(options) if saved is None else saved_encoder(saved, options)
    model = MultitaskBERT(bert, options)
    model.rebuilt = adapt(model, options)
    return model
