"""RMSNorm in place of a pretrained LayerNorm: its gain and bias fitted instead of copied.

RMSNorm does not subtract the mean that LayerNorm does (rmsnorm.py). Of the affine maps of what it
gives, this start takes the one that comes nearest to what LayerNorm gave there: in each channel the
least squares of LayerNorm's output t on RMSNorm's normalised input n,

    gain = cov(n, t) / var(n),    bias = mean(t) - gain mean(n),

norm after norm in the order in which they compute, each on what the ones before it, fitted already,
let through: so a norm also makes up for what they changed. The t are those of the encoder with
LayerNorm throughout, on the tokens of a hundred sentences of the built-in corpus, which is always
there and always the same: so the start is a function of the pretrained weights alone. On other
sentences the fit is as good (benchmarks/starts.py measures it). Not from a paper.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bert import BertModel
from examples import read_examples
from packing import Batch, Packed, Tokens, pack
from tasks import LEADERBOARD, TASKS
from text.data_files import BUILT_IN, SPLITS
from tokenizer import BertTokenizer

EXAMPLES = 20  # of each task; three times as many sentences gave no better fit
LONGEST = 64  # tokens of a sentence

# A norm that can be fitted, as RMSNorm: normalised(x), times its weight, plus its bias.
Norm = Any


def norms_in(bert: nn.Module) -> dict[str, Norm]:
    """The norms of an encoder that can be fitted, by name."""
    return {name: norm for name, norm in bert.named_modules() if hasattr(norm, "normalised")}


def sentences(folder: Path = BUILT_IN, split: str = "train", count: int = EXAMPLES) -> list[str]:
    """Sentences of the course's tasks from a folder with their files: `count` examples of each."""
    found: list[str] = []
    for task in (TASKS[name] for name in LEADERBOARD):
        examples = read_examples(folder / task.files.format(SPLITS[split]), task, split)
        # Spread evenly over the file.
        for example in examples[:: max(1, len(examples) // count)][:count]:
            found += example.texts
    return found


def pack_sentences(texts: Sequence[str], tokenizer: BertTokenizer, longest: int) -> Packed:
    """Sentences in packed rows, each cut to `longest` tokens."""
    encoded = tokenizer.encode_batch([(text,) for text in texts], longest)
    tokens = [Tokens(ids, types) for ids, types in encoded]
    return pack({"": Batch("", tokens, torch.arange(len(tokens)), torch.empty(0))})


def token_places(packed: Packed) -> Tensor:
    """Where among the N places of packed rows tokens stand, not padding."""
    both = zip(packed.starts.tolist(), packed.lengths.tolist(), strict=True)
    return torch.cat([torch.arange(start, start + length) for start, length in both])


def fit(norm: Norm, x: Tensor, target: Tensor) -> None:
    """Set a norm's gain and bias so that norm(x) comes nearest to `target`; both are [tokens, H].

    A channel that does not vary keeps its gain.
    """
    n, t = norm.normalised(x).double(), target.double()
    n_mean, t_mean = n.mean(0), t.mean(0)  # [H]
    variance = (n - n_mean).square().mean(0)
    covariance = ((n - n_mean) * (t - t_mean)).mean(0)

    gain = torch.where(variance > 0, covariance / variance, norm.weight.double())
    norm.weight.copy_(gain)
    if norm.bias is not None:  # as all in the encoder have
        norm.bias.copy_(t_mean - gain * n_mean)


@torch.no_grad()
def calibrate(bert: BertModel, packed: Packed) -> None:
    """Fit all RMSNorms of an encoder whose gains and biases are those of its LayerNorms, in place.

    `packed`: the sentences that they are fitted on.
    """
    places = token_places(packed)
    targets: dict[nn.Module, Tensor] = {}

    def as_layernorm(norm: Norm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """The norm gives what LayerNorm does, which is noted as its target."""
        (x,) = inputs
        centred = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
        targets[norm] = centred[places]
        return centred

    def fitted(norm: Norm, inputs: tuple[Tensor]) -> None:
        """The norm is fitted on its first input, just before it computes."""
        fit(norm, inputs[0][places], targets.pop(norm))

    with hooked(norms_in(bert), lambda norm: norm.register_forward_hook(as_layernorm)):
        bert.encode_packed(packed)
    with hooked(norms_in(bert), lambda norm: norm.register_forward_pre_hook(fitted)):
        bert.encode_packed(packed)


def hooked(
    norms: dict[str, Norm], register: Callable[[Norm], RemovableHandle]
) -> contextlib.ExitStack:
    """A context in which each of the norms has a hook."""
    stack = contextlib.ExitStack()
    for norm in norms.values():
        stack.enter_context(register(norm))
    return stack


def calibrated_start(bert: BertModel, tokenizer: BertTokenizer) -> None:
    """Calibrate a pretrained encoder that has just been read, and say what was done."""
    longest = min(LONGEST, bert.config.max_position_embeddings)
    packed = pack_sentences(sentences(), tokenizer, longest)
    calibrate(bert, packed)
    tokens = int(packed.lengths.sum())
    print(f"RMSNorm: {len(norms_in(bert))} norms fitted to LayerNorm on {tokens} tokens")
