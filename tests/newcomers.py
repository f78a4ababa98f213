"""Techniques that the project does not have, one for each seam, written as a user would write them.

test_seams.py plugs each in from outside and holds it to what every technique must do. They are hard
cases rather than good ones: small, and without the options that a real one would have.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from adapters.wrap import Adaptable, Adapter
from base_bert import BertConfig
from bert import BertModel, Rows
from datasets import Split
from examples import Example
from forward import Encoded, Forward
from heads.base import HeadConfig, Pooling
from multitask_bert import MultitaskBERT
from options import Options
from packing import Batch, Group, Packed, Tokens
from tasks import TASKS, Task
from tokenizer import BertTokenizer
from training.gradients import Gradients
from training.hook import Hook


class AlwaysOn(Adapter):
    """An adapter without options of its own."""

    def wanted(self, options: Options) -> bool:
        return True

    def without(self, options: Options) -> Options:
        return options


# ---- prefix-tuning: keys and values of each task in front of every layer's


class Prefix(nn.Module):
    """Two keys and values of each task, for the attention of one layer."""

    def __init__(self, size: int, tasks: Iterable[str]):
        super().__init__()
        self.keys = nn.ParameterDict({task: torch.randn(2, size) for task in tasks})
        self.values = nn.ParameterDict({task: torch.randn(2, size) for task in tasks})

    def forward(self, group: Group) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a group's rows: [R, 2, H] each; None where rows are of no task."""
        if not group.tasks:
            return None
        first = next(iter(self.keys.values()))
        keys = first.new_zeros(group.rows, *first.shape)
        values = first.new_zeros(group.rows, *first.shape)
        for task, rows in group.tasks.items():
            keys[rows] = self.keys[task]
            values[rows] = self.values[task]
        return keys, values


def add_prefix(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and give each layer a prefix."""
    model.bert.requires_grad_(False)
    for layer in model.bert.bert_layers:
        layer.self_attention.prefix = Prefix(model.bert.config.hidden_size, options.tasks)


PREFIX = AlwaysOn("prefix", add_prefix)


# ---- projected attention layers: a branch of each task beside the feed-forward


class ProjectedAttention(nn.Module):
    """GELU(up(attention(down(h)))), `up` of each task and zero at first."""

    def __init__(self, size: int, tasks: Iterable[str]):
        super().__init__()
        self.down = nn.Linear(size, 6)
        self.up = nn.ModuleDict({task: nn.Linear(6, size) for task in tasks})
        for up in self.up.values():
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)

    def forward(self, hidden: Tensor, rows: Rows) -> Tensor:
        """[N, H] -> [N, H]."""
        low = self.down(hidden)
        out = torch.zeros_like(hidden)
        for group, mask in zip(rows.groups, rows.masks, strict=True):
            for task, some in group.tasks.items():
                place = group.tokens_of(task)
                x = low[place].view(some.stop - some.start, 1, group.width, -1)
                attended = F.scaled_dot_product_attention(x, x, x, attn_mask=mask[some])
                out[place] = F.gelu(self.up[task](attended)).reshape(-1, hidden.shape[1])
        return out


def add_side(model: Adaptable, options: Options) -> None:
    """Give each layer a branch; all of BERT trains on."""
    for layer in model.bert.bert_layers:
        layer.side = ProjectedAttention(model.bert.config.hidden_size, options.tasks)


SIDE = AlwaysOn("side", add_side)


# ---- a summand of the embeddings


class ParityEmbedding(nn.Module):
    """Embeddings of whether a token's id is odd: the shape of a tag embedding."""

    def __init__(self, size: int):
        super().__init__()
        self.table = nn.Embedding(2, size)

    def forward(self, packed: Packed) -> Tensor:
        """[N, H]."""
        return self.table(packed.input_ids % 2)


def add_parity(model: Adaptable, options: Options) -> None:
    """Add the embeddings to the model's."""
    model.embedding_terms["parity"] = ParityEmbedding(model.bert.config.hidden_size)


PARITY = AlwaysOn("parity", add_parity, combines=True)


# ---- an adapter that trains nothing but its own weights, and changes frozen ones


class RandomFeatures(nn.Module):
    """A frozen linear, whose weights are cut down in place, with learned weights on random,
    frozen features beside it (PiSSA and VeRA meet).
    """

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        with torch.no_grad():
            base.weight.mul_(torch.rand_like(base.weight) > 0.1)
        self.features = nn.Parameter(torch.randn(base.in_features, 3), requires_grad=False)
        self.register_buffer("sign", torch.randn(3).sign())
        self.learned = nn.Parameter(torch.zeros(3, base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        low = x @ self.features.to(x.dtype) * self.sign.to(x.dtype)
        return self.base(x) + low @ self.learned.to(x.dtype)


def add_features(model: Adaptable, options: Options) -> None:
    """Freeze all of the model, heads too, and wrap the values' linears."""
    model.requires_grad_(False)
    for layer in model.bert.bert_layers:
        layer.self_attention.value = RandomFeatures(layer.self_attention.value)


FEATURES = AlwaysOn("features", add_features)


# ---- DoRA: a weight's direction by a low-rank update, its length by a parameter


class Decomposed(nn.Module):
    """m (W + B A) / |W + B A|, the norm that of each row and no part of the gradient."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.master = [base.weight]  # in fp32 also where base.weight is cast: see Adapter
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))
        self.down = nn.Parameter(torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def scale(self) -> Tensor:
        """[out], fp32."""
        return self.magnitude / (self.master[0] + self.up @ self.down).detach().norm(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]; bit for bit the base's at first."""
        scale = self.scale()
        low = x @ self.down.T.to(x.dtype) @ self.up.T.to(x.dtype)
        more = (scale - 1).to(x.dtype) * F.linear(x, self.base.weight)
        return self.base(x) + more + scale.to(x.dtype) * low

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base, with the weight that this one stands for."""
        scale = self.scale()
        self.base.weight.add_(self.up @ self.down).mul_(scale[:, None])
        return self.base


def decompose(model: Adaptable, options: Options) -> None:
    """Freeze the encoder and wrap the values' linears."""
    model.bert.requires_grad_(False)
    for layer in model.bert.bert_layers:
        layer.self_attention.value = Decomposed(layer.self_attention.value)


def compose(model: Adaptable) -> None:
    """Plain linears again."""
    for layer in model.bert.bert_layers:
        layer.self_attention.value = layer.self_attention.value.merged()


DECOMPOSED = AlwaysOn("decomposed", decompose)


# ---- BitFit: BERT's own biases, nothing added


def train_biases(model: Adaptable, options: Options) -> None:
    """Freeze the encoder but for its biases."""
    for name, parameter in model.bert.named_parameters():
        parameter.requires_grad_(name.endswith(".bias"))


# Asked for by --keep_last, which the tests have on: a trick, so that wanted() and without() are
# Adapter's own. A real one declares its --bitfit in options.py.
BITFIT = Adapter("keep_last", train_biases, merge=lambda model: None)


# ---- a BiLSTM over the tokens, as a pooling


class BiLSTMPooling(Pooling):
    """The mean of a bidirectional LSTM's states."""

    def __init__(self, config: BertConfig, options: Options, task: str):
        super().__init__(config, options, task)
        self.lstm = nn.LSTM(config.hidden_size, 5, batch_first=True, bidirectional=True)
        self.size = 10

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, 10]."""
        states, mask = encoded.tokens()
        lengths = mask.sum(1)
        packed = pack_padded_sequence(states, lengths.cpu(), True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return out.sum(1) / lengths[:, None]


class LayerMixPooling(Pooling):
    """A learned mix of all layers' [CLS]."""

    needs = "layers"

    def __init__(self, config: BertConfig, options: Options, task: str):
        super().__init__(config, options, task)
        self.weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))

    def forward(self, encoded: Encoded) -> Tensor:
        """Encoded -> [S, H]."""
        firsts = [encoded.first(layer) for layer in range(len(encoded.layers))]
        return (torch.stack(firsts) * self.weights.softmax(0)[:, None, None]).sum(0)


class TopAttention(nn.Module):
    """A layer of self-attention on top of BERT."""

    def __init__(self, size: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(size, 2, batch_first=True)

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        """[S, T, H], [S, T], [S] -> [S, T, H]."""
        out, _ = self.attention(states, states, states, key_padding_mask=~mask)
        return states + out


def top_attention(task: Task, bert: BertModel, options: Options) -> nn.Module | None:
    """For sentiment alone."""
    return TopAttention(bert.config.hidden_size) if task.name == "sst" else None


# ---- a head with options of its own


class DeepHead(nn.Sequential):
    """Tanh layers; how wide and how deep they are is asked of options."""

    def __init__(self, config: HeadConfig):
        # Where there are options that the tests have on: a real one reads deep_width and the like.
        width = config.options.batch_size
        depth = config.options.epochs if config.task == "sts" else 1
        layers: list[nn.Module] = []
        size = config.features
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.Tanh()]
            size = width
        super().__init__(*layers, nn.Linear(size, config.outputs))


# ---- a combiner that remembers


class Remembering:
    """Weighs each task by the inverse of its gradient's running norm, in an order drawn anew in
    each step, layer by layer: it uses all that Gradients holds.
    """

    def __init__(self) -> None:
        self.norms: dict[str, Tensor] = {}

    def combine(self, gradients: Gradients) -> Tensor:
        """[K, P] -> [P]."""
        order = np.random.default_rng([gradients.seed, gradients.step]).permutation(
            len(gradients.tasks)
        )
        combined = torch.zeros_like(gradients.values[0])
        for k in order:
            task = gradients.tasks[k]
            norm = gradients.values[k].norm()
            self.norms[task] = 0.9 * self.norms.get(task, norm) + 0.1 * norm
            for place in gradients.borders.values():
                combined[place] += gradients.values[k, place] / (1 + self.norms[task])
        return combined

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.norms)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.norms = dict(state)


# ---- gradual unfreezing


class Unfreezing(Hook):
    """Embeddings and the first layer stand still until step 4."""

    def __init__(self, model: nn.Module):
        lower = [*model.bert.bert_layers[0].parameters(), *model.bert.word_embedding.parameters()]
        self.lower = lower

    def before_step(self, step: int, progress: float) -> None:
        for parameter in self.lower:
            parameter.requires_grad_(step >= 4)


# ---- averaged weights, evaluated in place of the last ones


class Averaging(Hook):
    """An exponential moving average of the weights."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    def after_step(self, step: int) -> None:
        for name, p in self.model.named_parameters():
            self.average[name].lerp_(p.detach(), 0.3)

    def swap(self) -> None:
        """Exchange the weights with their averages."""
        for name, p in self.model.named_parameters():
            held = p.detach().clone()
            p.data.copy_(self.average[name])
            self.average[name] = held

    def evaluating(self) -> Any:
        return Swapped(self)

    def state_dict(self) -> dict[str, Tensor]:
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, x in state.items():
            self.average[name].copy_(x)


class Swapped:
    """Inside, the averages are the weights."""

    def __init__(self, averaging: Averaging):
        self.averaging = averaging

    def __enter__(self) -> None:
        self.averaging.swap()

    def __exit__(self, *_: object) -> None:
        self.averaging.swap()


# ---- an extra term with a second forward pass, a parameter and a buffer of its own


class Smoothness(nn.Module):
    """The change of the logits under noise on the embeddings, times a learned weight (SMART's
    shape).
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(
        self, model: MultitaskBERT, forward: Forward, batches: dict[str, Batch]
    ) -> dict[str, Tensor]:
        """{"smoothness": scalar}."""
        self.calls += 1
        noise = 0.1 * torch.randn_like(forward.embeddings)
        noisy = model(forward.packed, forward.embeddings.detach() + noise)
        changes = [(noisy.logits[t] - forward.logits[t]).square().mean(1) for t in batches]
        mean = torch.cat(changes).mean()  # over all examples, of whichever task
        return {"smoothness": (self.log_weight.exp() * mean - self.log_weight).squeeze()}


# ---- a task with a label a token


class TokenLabels:
    """A class for each word-piece, as numbers with spaces between; -100 where there is none."""

    low, high, whole = 0, 1, True

    def parse(self, text: str) -> tuple[int, ...]:
        numbers = tuple(int(number) for number in text.split())
        if not set(numbers) <= {0, 1}:
            raise ValueError("expected 0 and 1, with spaces between")
        return numbers

    def tensor(self, labels: list[Any], lengths: list[int]) -> Tensor:
        out = torch.full((len(labels), max(lengths)), -100)
        for i, label in enumerate(labels):
            if label is not None:
                out[i, 1 : 1 + len(label)] = torch.tensor(label)
        return out

    def unpad(self, predictions: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
        return [row[1 : n - 1] for row, n in zip(predictions, lengths, strict=True)]


class TokenPipeline(nn.Module):
    """One linear on each token."""

    needs = "tokens"

    def __init__(self, task: Task, bert: BertModel, options: Options):
        super().__init__()
        self.out = nn.Linear(bert.config.hidden_size, task.outputs)

    def forward(self, encoded: Encoded, owners: Tensor) -> tuple[Tensor, Tensor]:
        """The first states [S, H], and logits [S, T, outputs]."""
        states, _ = encoded.tokens()
        return states[:, 0], self.out(states)


def token_loss(forward: Forward, batch: Batch) -> Tensor:
    """Cross-entropy over all tokens that have a label."""
    logits = forward.logits[batch.task]
    return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten().long(), ignore_index=-100)


PIECES = replace(
    TASKS["sst"],
    name="pieces",
    title="Pieces",
    files="pieces-{}.csv",
    label="tags",
    labels=TokenLabels(),
    outputs=2,
    loss=token_loss,
    predict=lambda logits: logits.argmax(-1),
    probabilities=None,
    header="Predicted_Pieces",
    pipeline=TokenPipeline,
)


def write_pieces(source: Path, folder: Path, tokenizer: BertTokenizer) -> None:
    """SST's files with a tag for each word-piece: whether its id is odd."""
    for split in ("train", "dev", "test-student"):
        lines = (source / f"ids-sst-{split}.csv").read_text().splitlines()
        columns = lines[0].split("\t")
        place = columns.index("sentence")
        head = ["id", "sentence", "tags"] if split != "test-student" else ["id", "sentence"]
        out = ["\t".join(head)]
        for line in lines[1:]:
            cells = line.split("\t")
            text = cells[place]
            ids = tokenizer([text])["input_ids"][0][1:-1]
            row = [cells[columns.index("id")], text, " ".join(str(i % 2) for i in ids)]
            out.append("\t".join(row[: len(head)]))
        (folder / f"pieces-{split}.csv").write_text("\n".join(out) + "\n")


# ---- masked language modelling: a task with its own reader, batches, head and metric


def read_lines(path: Path, task: Task, split: str) -> list[Example]:
    """A text file: a sentence a line."""
    lines = path.read_text().splitlines()
    return [Example(f"line{i}", (line,), None) for i, line in enumerate(lines)]


class NoLabels:
    """The text is its own label: see mask()."""

    def tensor(self, labels: list[Any], lengths: list[int]) -> Tensor:
        return torch.full((len(labels), max(lengths)), -100)


def mask(batch: Batch) -> Batch:
    """15 % of the word-pieces become [MASK]; what they were are the labels."""
    tokens = []
    labels = batch.labels.clone()
    for row, sequence in enumerate(batch.tokens):
        ids = sequence.ids.astype(np.int64)
        chosen = (torch.rand(len(ids)) < 0.15).numpy()
        chosen[0] = chosen[-1] = False
        chosen[1] = True
        labels[row, np.flatnonzero(chosen)] = torch.from_numpy(ids[chosen])
        ids[chosen] = 103
        tokens.append(Tokens(ids, sequence.types))
    return replace(batch, tokens=tokens, labels=labels)


class TiedDecoder(nn.Module):
    """Scores of all word-pieces, by the word embeddings; which stay the encoder's."""

    needs = "tokens"

    def __init__(self, task: Task, bert: BertModel, options: Options):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(bert.config.vocab_size))
        self.bert = [bert]  # in a list: no submodule of this one

    def forward(self, encoded: Encoded, owners: Tensor) -> tuple[Tensor, Tensor]:
        """The first states [S, H], and logits [S, T, vocabulary]."""
        states, _ = encoded.tokens()
        return states[:, 0], F.linear(states, self.bert[0].word_embedding.weight, self.bias)


@torch.no_grad()
def masked_loss(model: MultitaskBERT, split: Split) -> dict[str, Any]:
    """Minus the loss on all examples, under masks that are the same each time."""
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = split.batch(list(range(len(split))))
    loss = token_loss(model(model.pack({"mlm": batch})), batch)
    model.train(was_training)
    return {"score": -loss.item(), "metric": "log-likelihood", "count": len(split)}


MLM = replace(
    TASKS["sst"],
    name="mlm",
    title="MLM",
    files="lines-{}.txt",
    labels=NoLabels(),
    loss=token_loss,
    metric_name="log-likelihood",
    probabilities=None,
    header="",
    read=read_lines,
    change=mask,
    pipeline=TiedDecoder,
    evaluate=masked_loss,
)


# ---- an optimizer with curvature


class Curved(torch.optim.Optimizer):
    """Sophia-H's shape: Hutchinson's estimate of the Hessian's diagonal every second step, and
    clipped steps.
    """

    moments = ("exp_avg", "hessian")
    curvature_every = 2

    def __init__(self, groups: Iterable[Any]):
        super().__init__(groups, {"lr": 1e-3})

    def entry(self, p: Tensor) -> dict[str, Any]:
        """A parameter's state, made at its first use."""
        state = self.state[p]
        if not state:
            state.update(step=1, exp_avg=torch.zeros_like(p), hessian=torch.zeros_like(p))
        return state

    def estimate_curvature(self, loss: Tensor) -> None:
        """h = 0.5 h + 0.5 u * (H u), with u drawn from -1 and 1."""
        group_parameters = [p for group in self.param_groups for p in group["params"]]
        parameters = [p for p in group_parameters if p.requires_grad]
        first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        reached = [(p, g) for p, g in zip(parameters, first, strict=True) if g is not None]
        signs = [torch.randint_like(p, 2) * 2 - 1 for p, _ in reached]
        product = sum((g * u).sum() for (_, g), u in zip(reached, signs, strict=True))
        second = torch.autograd.grad(product, [p for p, _ in reached], allow_unused=True)
        for (p, _), u, h in zip(reached, signs, second, strict=True):
            if h is not None:
                self.entry(p)["hessian"].lerp_(u * h, 0.5)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.entry(p)
                    state["step"] += 1
                    state["exp_avg"].lerp_(p.grad, 0.1)
                    size = state["hessian"].clamp(min=1e-4)
                    p.sub_((state["exp_avg"] / size).clamp(-1, 1), alpha=group["lr"])
