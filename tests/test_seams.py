"""The seams, proved: a small newcomer plugs into each from outside, without an edit to the
project.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import samplers
import surgery
import torch
from torch import Tensor, nn

import bert
import heads
import losses
import multitask_bert
import optimizer
from base_bert import BertConfig
from datasets import Batch
from heads import Encoded
from multitask_classifier import MultitaskBERT, train
from options import Options
from tasks import TASKS
from tests.test_train import same, weights


def changed(options: Options, **change: object) -> dict[str, Tensor]:
    """The weights of a run with the change, which must differ from those without it."""
    new = weights(train(replace(options, name="changed", **change))["folder"])  # type: ignore[arg-type]
    return new


def test_a_second_adapter(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.Module):
        """(IA)^3's idea, small: a learned scale on each output of a frozen linear."""

        def __init__(self, base: nn.Module, width: int):
            super().__init__()
            self.base, self.scale = base, nn.Parameter(torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) * self.scale.to(x.dtype)

    def adapt(model: MultitaskBERT, options: Options) -> None:
        model.bert.requires_grad_(False)
        for layer in model.bert.bert_layers:
            layer.self_attention.value = Scaled(
                layer.self_attention.value, model.bert.config.hidden_size
            )

    monkeypatch.setitem(multitask_bert.ADAPTERS, "scaled", adapt)
    folder = Path(train(options)["folder"])
    trained = weights(folder)
    assert not torch.equal(trained["bert.bert_layers.0.self_attention.value.scale"], torch.ones(32))
    assert set(p.name for p in (folder / "best").iterdir()) == {
        "options.json",
        "adapter.safetensors",
    }
    loaded = MultitaskBERT.load(folder).state_dict()
    assert same(
        {k: v for k, v in loaded.items() if "scale" in k},
        {k: v for k, v in trained.items() if "scale" in k},
    )


def test_a_further_loss(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = changed(options)
    squared = replace(
        TASKS["sts"],
        loss=lambda logits, labels: (logits.squeeze(1).sigmoid() * 5 - labels).square().mean(),
    )
    monkeypatch.setitem(TASKS, "sts", squared)
    assert not same(plain, changed(options))


def test_an_extra_term(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = changed(options)

    def extra(
        model: MultitaskBERT, batches: dict[str, Batch], logits: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return {"sst": 0.1 * logits["sst"].square().mean()}

    monkeypatch.setitem(losses.EXTRAS, "small_logits", lambda options: extra)
    assert not same(plain, changed(options))
    monkeypatch.setitem(losses.EXTRAS, "small_logits", lambda options: None)
    assert same(plain, changed(options))


def test_a_gradient_combiner(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = changed(options)
    seen = []

    def largest(gradients: Tensor) -> Tensor:
        seen.append(gradients.shape)
        return gradients[gradients.norm(dim=1).argmax()]

    monkeypatch.setitem(surgery.COMBINERS, "largest", largest)
    assert not same(plain, changed(options, combiner="largest"))
    assert len(seen) == 3 and seen[0][0] == 3


def test_a_task_sampler(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = changed(options)

    def only_sentiment_first(sizes: dict[str, int], options: Options) -> samplers.Draw:
        return lambda step: {"sst": options.batch_size} if step == 0 else {"para": 5, "sts": 4}

    monkeypatch.setitem(samplers.SAMPLERS, "mine", only_sentiment_first)
    assert not same(plain, changed(options, sampler="mine"))


def test_a_schedule(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = changed(options)

    def stairs(total_steps: int, warmup_steps: int) -> Callable[[int], float]:
        return lambda step: 0.5 ** (step // 2)

    monkeypatch.setitem(optimizer.SCHEDULES, "stairs", stairs)
    assert not same(plain, changed(options, schedule="stairs"))


def test_a_pooling(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = changed(options)

    def max_pooling(encoded: Encoded) -> Tensor:
        states, mask = encoded.tokens()
        return states.masked_fill(~mask[:, :, None], float("-inf")).amax(1)

    monkeypatch.setitem(heads.POOLINGS, "max", max_pooling)
    assert not same(plain, changed(options, pooling="max"))


def test_a_head(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tanh(nn.Module):
        def __init__(
            self, features: int, hidden: int, outputs: int, dropout: float, norm: str, gated: bool
        ):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(features, 13), nn.Tanh(), nn.Linear(13, outputs))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    monkeypatch.setitem(heads.HEADS, "tanh", Tanh)
    assert changed(options, head="tanh")["heads.sst.layers.0.weight"].shape == (13, 32)


def test_a_norm_and_a_feed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are named by BertConfig."""

    class Narrow(nn.LayerNorm):
        def __init__(self, size: int, eps: float):
            super().__init__(size, eps=eps, bias=False)

    monkeypatch.setitem(bert.NORMS, "narrow", Narrow)
    monkeypatch.setitem(bert.FEED_FORWARDS, "relu", (nn.Linear, torch.relu))
    small = BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = bert.BertModel(replace(small, norm="narrow", feed_forward="relu"))
    assert (
        isinstance(model.bert_layers[0].out_layer_norm, Narrow)
        and model.bert_layers[0].interm_af is torch.relu
    )
    model(torch.tensor([[1, 2, 3]]), torch.ones(1, 3))[
        "last_hidden_state"
    ].square().sum().backward()
    assert model.embed_layer_norm.weight.grad is not None


def test_a_fourth_task(
    options: Options, monkeypatch: pytest.MonkeyPatch, small_data: Path, tmp_path: Path
) -> None:
    header = "Predicted_Acceptability"
    cola = replace(
        TASKS["cfimdb"], title="CoLA", files="cola-{}.csv", label="acceptability", header=header
    )
    monkeypatch.setitem(TASKS, "cola", cola)
    for path in small_data.glob("*.csv"):
        (tmp_path / path.name).write_text(path.read_text())
        if "cfimdb" in path.name:
            name = path.name.replace("ids-cfimdb", "cola")
            (tmp_path / name).write_text(path.read_text().replace("sentiment", "acceptability", 1))
    result = train(replace(options, data_dir=str(tmp_path), tasks=("sst", "para", "sts", "cola")))
    assert set(result["best"]["scores"]) == {"sst", "para", "sts", "cola"}
    assert (
        Path("predictions/cola-test-output.csv")
        .read_text()
        .startswith("id \t Predicted_Acceptability \n")
    )
