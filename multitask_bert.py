"""MultitaskBERT: one encoder, one head a task. Built here from options, or loaded from a run
folder.

from multitask_classifier import MultitaskBERT
model = MultitaskBERT.load("runs/2026-11-20-multitask")
model.predict("sst", ["A lovely film .", "It is not good ."])  # classes, 0 to 4
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import lora
from bert import BertConfig, BertModel
from checkpoint import read_json, read_tensors
from datasets import Batch, Sequence, Split
from errors import UserError
from evaluation import predict_logits
from examples import Example
from heads import HEADS, POOLINGS, Encoded, cls_pooling, pair_features
from options import Options, pick
from packing import Packed, pack
from swiglu import two_thirds
from tasks import LEADERBOARD, TASKS
from tokenizer import BertTokenizer

SENTIMENT, PARAPHRASE, SIMILARITY = LEADERBOARD

# What may wrap linears of the loaded encoder and freeze the rest of it; each reads from the options
# whether to.
ADAPTERS: dict[str, Callable[[nn.Module, Options], None]] = {"lora": lora.adapt_from_options}


def pick_device(use_gpu: bool) -> torch.device:
    """CUDA or the CPU; UserError where CUDA is asked for and absent."""
    if use_gpu and not torch.cuda.is_available():
        raise UserError(
            "--use_gpu: torch sees no CUDA device; leave the flag out to run on the CPU"
        )
    return torch.device("cuda" if use_gpu else "cpu")


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the encoder's activations. "auto" is bf16 where the hardware multiplies it
    faster than fp32.
    """
    if precision == "auto" and device.type == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    elif precision == "auto":
        precision = (
            "bf16"
            if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
            else "fp32"
        )
    return torch.bfloat16 if precision == "bf16" else torch.float32


def join_pair(first: np.ndarray, second: np.ndarray, limit: int) -> Sequence:
    """`[CLS] a [SEP]` and `[CLS] b [SEP]` as `[CLS] a [SEP] b [SEP]` of at most `limit` tokens, the
    longer cut first.

    The tokenizer's own pairs are cut in the same way: of an odd number of places the longer text,
    or else b, gets the one that is left over.
    """
    a, b, room = first[1:-1], second[1:-1], limit - 3
    if len(a) + len(b) > room:
        short = min(len(a), len(b), room // 2)
        a, b = (a[: room - short], b[:short]) if len(a) > len(b) else (a[:short], b[: room - short])
    ids = np.concatenate([first[:1], a, first[-1:], b, second[-1:]])
    return ids, (np.arange(len(ids)) > len(a) + 1).astype(np.int64)


class MultitaskBERT(nn.Module):
    """The encoder, and a head for each of options.tasks."""

    def __init__(self, bert: BertModel, options: Options):
        super().__init__()
        self.bert, self.options = bert, options
        self.pool = pick(POOLINGS, options.pooling, "--pooling")
        self.compute_dtype = torch.float32
        self._tokenizer: BertTokenizer | None = None
        hidden, head = bert.config.hidden_size, pick(HEADS, options.head, "--head")
        norm = "rmsnorm" if options.rmsnorm in ("heads", "all") else "layernorm"
        gated = options.swiglu in ("heads", "all")
        self.heads = nn.ModuleDict(
            {
                name: head(
                    4 * hidden if self.is_bi(name) else hidden,
                    hidden,
                    pick(TASKS, name, "--tasks").outputs,
                    options.hidden_dropout_prob,
                    norm,
                    gated,
                )
                for name in options.tasks
            }
        )

    def is_bi(self, task: str) -> bool:
        """Whether an example of the task is two sequences."""
        return pick(TASKS, task, "--tasks").pair and self.options.pair_encoding == "bi"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.bert.word_embedding.weight.device

    @property
    def tokenizer(self) -> BertTokenizer:
        """The tokenizer that came with the encoder."""
        if self._tokenizer is None:
            self._tokenizer = BertTokenizer.from_pretrained(self.bert.name_or_path)
        return self._tokenizer

    def encode(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """The last states [N, H] and where sequences start in them [B]; only the [CLS] states where
        no more is pooled.
        """
        if self.pool is not cls_pooling:
            return self.bert.encode(packed, self.compute_dtype)[-1], packed.starts
        first = self.bert.encode(packed, self.compute_dtype, packed.starts)[-1]
        return first, torch.arange(len(first), device=first.device)

    def logits(self, batches: dict[str, Batch]) -> dict[str, Tensor]:
        """All sentences of all tasks through the encoder at once: {task: [examples, outputs]},
        fp32.
        """
        packed = pack({task: batch.sequences for task, batch in batches.items()}).to(self.device)
        states, starts = self.encode(packed)
        out, begin = {}, 0
        for task, batch in batches.items():
            end = begin + len(batch.sequences)
            longest = max(len(ids) for ids, _ in batch.sequences)
            pooled = self.pool(
                Encoded(states, starts[begin:end], packed.lengths[begin:end], longest)
            )
            out[task] = self.heads[task](pair_features(pooled) if self.is_bi(task) else pooled)
            begin = end
        return out

    def predict(self, task: str, texts: Iterable[str | tuple[str, ...]]) -> list[float]:
        """Classes of sentences, or 0.0 / 1.0 or similarities of pairs of sentences."""
        if task not in self.heads:
            raise UserError(
                f"{task}: this model has no head for it, only for {', '.join(self.heads)}"
            )
        width = 2 if TASKS[task].pair else 1
        texts = [texts] if isinstance(texts, str) else texts
        tuples = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        if any(len(text) != width for text in tuples):
            raise UserError(
                f"{task} takes a list of {'pairs (first, second)' if width == 2 else 'sentences'}"
            )
        if not tuples:
            return []
        flat = [(t,) for text in tuples for t in text] if self.is_bi(task) else tuples
        examples = [Example("", text, None) for text in tuples]
        split = Split(
            task,
            examples,
            self.tokenizer.encode_batch(flat, self.options.max_length),
            width if self.is_bi(task) else 1,
        )
        return TASKS[task].predict(predict_logits(self, split)).tolist()

    # The course's faces: padded batches [B, T], masks 1 at tokens.

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """A batch of sentences to their pooled embeddings: [B, H]."""
        sequences = unpad(input_ids, attention_mask, self.options.max_length)
        packed = pack({"": sequences}).to(self.device)
        longest = max(len(ids) for ids, _ in sequences)
        states, starts = self.encode(packed)
        return self.pool(Encoded(states, starts, packed.lengths, longest))

    def predict_sentiment(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the five grades: [B, 5]."""
        sequences = unpad(input_ids, attention_mask, self.options.max_length)
        return self.logits({SENTIMENT: Batch(sequences, torch.empty(0))})[SENTIMENT]

    def predict_pair(
        self, task: str, ids_1: Tensor, mask_1: Tensor, ids_2: Tensor, mask_2: Tensor
    ) -> Tensor:
        """Logits of pairs that come as two padded batches: [B, outputs]."""
        limit = (
            self.options.max_length if self.is_bi(task) else ids_1.shape[1] + ids_2.shape[1]
        )  # join_pair cuts later
        pairs = zip(unpad(ids_1, mask_1, limit), unpad(ids_2, mask_2, limit), strict=True)
        if self.is_bi(task):
            sequences = [sequence for pair in pairs for sequence in pair]
        else:
            sequences = [join_pair(a, b, self.options.max_length) for (a, _), (b, _) in pairs]
        return self.logits({task: Batch(sequences, torch.empty(0))})[task]

    def predict_paraphrase(
        self,
        input_ids_1: Tensor,
        attention_mask_1: Tensor,
        input_ids_2: Tensor,
        attention_mask_2: Tensor,
    ) -> Tensor:
        """Logits of being paraphrases: [B]."""
        return self.predict_pair(
            PARAPHRASE, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2
        ).squeeze(1)

    def predict_similarity(
        self,
        input_ids_1: Tensor,
        attention_mask_1: Tensor,
        input_ids_2: Tensor,
        attention_mask_2: Tensor,
    ) -> Tensor:
        """Similarities on the labels' scale, 0 to 5: [B]."""
        logits = self.predict_pair(
            SIMILARITY, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2
        )
        return TASKS[SIMILARITY].predict(logits)

    def save(self, folder: Path) -> None:
        """Write what load() reads: the whole model, or where parts of the encoder are frozen only
        what training changes.
        """
        options = self.options
        if os.path.isdir(options.model) and not os.path.isabs(
            options.model
        ):  # for an adapter, loaded from anywhere
            options = replace(
                options,
                model=os.path.relpath(os.path.realpath(options.model), os.path.realpath(folder)),
            )
        (folder / "options.json").write_text(options.to_json() + "\n", encoding="utf-8")
        if not all(p.requires_grad for p in self.bert.parameters()):
            state, name = lora.adapter_state(self), "adapter.safetensors"
        else:
            state, name = self.state_dict(), "model.safetensors"
            self.bert.config.save(folder)
            self.tokenizer.save_pretrained(folder)
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / name)

    @classmethod
    def load(cls, folder: str | Path, use_gpu: bool = False) -> "MultitaskBERT":
        """The best model of a run folder (or a folder that save() wrote), in eval mode."""
        best = [
            Path(folder) / name for name in ("best", "best.old")
        ]  # .old: for an instant, while best is replaced
        folder = next((path for path in best if path.exists()), Path(folder))
        if not (folder / "options.json").exists() or not any(folder.glob("*.safetensors")):
            raise UserError(
                f"{folder}: no model in it; expected a run folder with best/, such as runs/<date>-<name>"
            )
        options = Options.from_json((folder / "options.json").read_text(encoding="utf-8"))
        if (folder / options.model).is_dir():
            options = replace(options, model=str((folder / options.model).resolve()))
        if (folder / "adapter.safetensors").exists():
            model = build(options)
            lora.load_adapter(model, read_tensors(folder / "adapter.safetensors"))
        else:
            model = cls(BertModel(BertConfig.from_dict(read_json(folder / "config.json"))), options)
            model.bert.name_or_path = str(folder)
            try:
                model.load_state_dict(read_tensors(folder / "model.safetensors"))
            except RuntimeError as error:
                reason = " ".join(str(error).split())  # torch's message has a line for each name
                raise UserError(
                    f"{folder}/model.safetensors: not this model's weights ({reason})"
                ) from None
        device = pick_device(use_gpu)
        model.compute_dtype = pick_dtype(options.precision, device)
        return model.to(device).eval()


def unpad(input_ids: Tensor, attention_mask: Tensor, limit: int) -> list[Sequence]:
    """The sentences of a padded batch, without their padding, cut before [SEP] to at most `limit`
    tokens.
    """
    rows = zip(input_ids.cpu().numpy(), attention_mask.cpu().numpy().astype(bool), strict=True)
    sentences = [row[keep] for row, keep in rows]
    cut = [x if len(x) <= limit else np.concatenate([x[: limit - 1], x[-1:]]) for x in sentences]
    return [(x, np.zeros(len(x), dtype=np.int64)) for x in cut]


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
        random = options.swiglu_start == "random"
        width = two_thirds(config.intermediate_size) if random else config.intermediate_size
        config = replace(config, feed_forward="swiglu", intermediate_size=width)
    return config


def build(options: Options) -> MultitaskBERT:
    """The model that the options ask for, pretrained weights loaded, adapters on; prints what
    trains.
    """
    config = encoder_config(options)
    if options.max_length > config.max_position_embeddings:
        raise UserError(
            f"--max_length {options.max_length}: {options.model} has {config.max_position_embeddings} positions"
        )
    if (
        config.type_vocab_size < 2
        and options.pair_encoding == "cross"
        and any(TASKS[t].pair for t in options.tasks)
    ):
        raise UserError(
            f"{options.model}: has one token type, a cross-encoded pair takes two; use --pair_encoding bi"
        )
    bert = BertModel.from_pretrained(options.model, config, options.swiglu_start == "pretrained")
    model = MultitaskBERT(bert, options)
    for adapt in ADAPTERS.values():
        adapt(model, options)
    if options.option == "pretrain":
        model.bert.requires_grad_(False)
    total = sum(p.numel() for p in model.parameters())
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layers = bert.config.num_hidden_layers
    print(
        f"{options.model}: {layers} layers, {trains / 1e6:.2f}M of {total / 1e6:.2f}M parameters train"
    )
    return model
