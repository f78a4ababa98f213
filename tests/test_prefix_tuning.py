"""Prefix-tuning, and the prefixes that P-tuning v2 has too. Oracles: PEFT's prefix encoder, in a
process of its own, and attention over a prefix written out in float64.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.prefix import Prefix
from errors import UserError
from multitask_bert import MultitaskBERT
from options import Options
from tests.multitask import BASE, batch, close, logits, make, padded, texts
from tests.plain_layers import plain_layers
from tests.test_bottleneck import ids, moved
from tests.test_seams import exported, survives

SMALL = {"prefix_tuning_length": 3, "prefix_tuning_width": 7}
KINDS = [{"prefix_tuning": True, **SMALL}, {"p_tuning": "v2", "p_tuning_length": 3}]

PEFT = """
import sys, torch
from peft.tuners.prefix_tuning import PrefixEncoder, PrefixTuningConfig
from safetensors.torch import load_file, save_file
given = load_file(sys.argv[1])
(length, size), (width, _) = given["matrix"].shape, given["up.weight"].shape
config = PrefixTuningConfig(num_virtual_tokens=length, token_dim=size, num_layers=2,
    encoder_hidden_size=width, prefix_projection=True, num_transformer_submodules=1)
encoder = PrefixEncoder(config)
encoder.embedding.weight.data = given["matrix"]
up, _, down = encoder.transform
up.weight.data, up.bias.data = given["up.weight"], given["up.bias"]
down.weight.data, down.bias.data = given["down.weight"], given["down.bias"]
made = encoder(torch.arange(length)[None])
# As PeftModel.get_prompt() cuts it: layers, each keys and then values.
made = made.view(length, 4, size).transpose(0, 1)
save_file({"prefixes": made.detach().contiguous()}, sys.argv[2])
"""


def test_the_mlp_equals_peft(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = moved(make(tiny, **KINDS[0]))
    shared = model.bert.get_submodule("reparametrisation")
    prefixes = [layer.self_attention.prefix for layer in model.bert.bert_layers]
    given = {
        "matrix": shared.matrix,
        "up.weight": shared.dense.weight,
        "up.bias": shared.dense.bias,
        "down.weight": torch.cat([prefix.source.out.weight for prefix in prefixes]),
        "down.bias": torch.cat([prefix.source.out.bias for prefix in prefixes]),
    }
    files = [str(tmp_path / "given.safetensors"), str(tmp_path / "out.safetensors")]
    save_file({name: x.detach() for name, x in given.items()}, files[0])
    done = subprocess.run(
        [sys.executable, "-I", "-c", PEFT, *files], cwd="/tmp", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    group = model.pack({"sst": batch(model, "sst", texts("sst", size=1))}).groups[0]
    ours = [x[0] for prefix in prefixes for x in prefix(group)]
    close(torch.stack(ours), load_file(files[1])["prefixes"])


@pytest.mark.parametrize("change", KINDS)
def test_states_equal_the_formula(tiny: Path, change: dict) -> None:
    """By both kernels, whose masks are of two kinds."""
    model = moved(make(tiny, **change))

    def prefix(layer: int) -> tuple[Tensor, Tensor]:
        pair = model.bert.bert_layers[layer].self_attention.prefix.source().double()
        return pair[:, :32], pair[:, 32:]

    with torch.no_grad():
        for row in ids():
            expected = plain_layers(model.bert, model.bert.embed(row), prefix=prefix)
            for model.bert.kernel in ("softmax", "sdpa"):
                states = model.bert(row[None], torch.ones(1, 13))["last_hidden_state"]
                close(states[0].double(), expected)


@pytest.mark.parametrize("change", KINDS)
def test_what_trains(tiny: Path, change: dict) -> None:
    model = make(tiny, **change)
    learns = {name for name, p in model.bert.named_parameters() if p.requires_grad}
    kinds = {name.removeprefix("bert_layers.").lstrip("01") for name in learns}
    place = ".self_attention.prefix.source"
    shared = {f"reparametrisation.{x}" for x in ("matrix", "dense.weight", "dense.bias")}
    expected = shared | {f"{place}.out.weight", f"{place}.out.bias"}
    assert kinds == (expected if "prefix_tuning" in change else {f"{place}.table"})
    # A loss reaches all of it, in bf16 too, and nothing else of the encoder.
    model.compute_dtype = torch.bfloat16
    moved(model).train()
    model.predict_sentiment(ids(), torch.ones(2, 13)).sum().backward()
    reached = {name for name, p in model.bert.named_parameters() if p.grad is not None}
    assert reached == learns
    assert all(p.grad.any() for p in model.bert.parameters() if p.requires_grad)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("change", KINDS)
def test_neighbours_and_padding_change_nothing(tiny: Path, change: dict, pooling: str) -> None:
    model = moved(make(tiny, **change, pooling=pooling))
    some = texts("para", longest=80)
    together = logits(model, "para", some)
    model.row_multiple = 8
    close(torch.cat([logits(model, "para", [x]) for x in some]), together)

    # The padded face gives the same states, whichever task.
    sentences = texts("sst", size=7)
    tokens, mask = padded(model.tokenizer, [x for (x,) in sentences], width=5)
    with torch.no_grad():
        by_rows = model.bert(tokens, mask)["last_hidden_state"]
        first, seen = by_rows[:, 0], mask[:, :, None]
        expected = first if pooling == "cls" else (by_rows * seen).sum(1) / seen.sum(1)
        packed = model.pack({"sst": batch(model, "sst", sentences)})
        close(model(packed).pooled["sst"], expected)


@pytest.mark.parametrize("change", KINDS)
def test_trained_saved_and_exported(
    options: Options, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = survives(replace(options, **change), monkeypatch)
    prefix = "bert.bert_layers.1.self_attention.prefix"
    assert any(name.startswith(f"model:{prefix}") for name in state)
    run = next(Path("runs").glob("*-newcomer"))
    model = exported(run, "whole", options)
    best = MultitaskBERT.load(run)
    assert sum(isinstance(module, Prefix) for module in model.modules()) == 2
    for task in BASE.tasks:
        assert torch.equal(logits(model, task, texts(task)), logits(best, task, texts(task)))


def test_beside_lora(tiny: Path) -> None:
    with pytest.raises(UserError, match="^--lora and --prefix_tuning are two adapters, .* drop"):
        make(tiny, lora=True, prefix_tuning=True)
