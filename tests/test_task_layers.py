"""Layers of which each task has its own copy. Oracle: plain models with one task's layers each."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import export
from adapters.task_layers import TaskLayer
from errors import UserError
from multitask_bert import MultitaskBERT, build
from options import Options
from tests.multitask import batch, close, logits, make, texts
from tests.test_seams import survives
from training.start import started

TASKS = ("sst", "para", "sts")
pytestmark = pytest.mark.usefixtures("one_tokenizer")


def moved(model: MultitaskBERT) -> MultitaskBERT:
    """A model whose copies differ."""
    torch.manual_seed(1)
    for layer in model.bert.bert_layers:
        if isinstance(layer, TaskLayer):
            for p in layer.by_task.parameters():
                p.data += 0.1 * torch.randn_like(p)
    return model


def with_layers_of(model: MultitaskBERT, task: str, plain: MultitaskBERT) -> MultitaskBERT:
    """The plain model, which gets this task's layers for all tasks."""
    for number, layer in enumerate(model.bert.bert_layers):
        if isinstance(layer, TaskLayer):
            plain.bert.bert_layers[number] = layer.by_task[task]
    plain.pipelines.load_state_dict(model.pipelines.state_dict())
    return plain


def together(model: MultitaskBERT) -> dict[str, Tensor]:
    """The logits of all tasks in one call."""
    with torch.no_grad():
        return model.logits({task: batch(model, task, texts(task, 7)) for task in TASKS})


@pytest.mark.parametrize(("pooling", "count"), [("cls", 1), ("cls", 2), ("cls sts=mean", 1)])
def test_each_task_goes_through_its_own(tiny: Path, pooling: str, count: int) -> None:
    """At first all are the pretrained ones; then each task gets what its own layers compute."""
    plain = make(tiny, pooling=pooling)
    model = make(tiny, pooling=pooling, task_layers=count)
    assert [isinstance(x, TaskLayer) for x in model.bert.bert_layers] == [count == 2, True]
    model.pipelines.load_state_dict(plain.pipelines.state_dict())
    expected = together(plain)
    for task, found in together(model).items():
        close(found, expected[task])

    moved(model)
    for multiple in (1, 8):  # with rows of no task among them
        model.row_multiple = multiple
        for task, found in together(model).items():
            oracle = logits(with_layers_of(model, task, plain), task, texts(task, 7))
            close(found, oracle)
            assert (found - expected[task]).abs().max() > 0.01
            close(found, logits(model, task, texts(task, 7)))  # without the others beside it


def test_what_learns(tiny: Path) -> None:
    """A copy that no row goes through has no gradient."""
    model = make(tiny, task_layers=1)
    model.logits({"para": batch(model, "para", texts("para", 3))})["para"].sum().backward()
    for name, p in model.bert.named_parameters():
        others = "by_task" in name and ".para." not in name
        assert (p.grad is None) == (others or name.startswith("pooler")), name
    copies = model.bert.bert_layers[1].by_task
    assert list(copies) == list(TASKS)
    pointers = {x.out_dense.weight.data_ptr() for x in copies.values()}
    assert len(pointers) == 3


def test_bf16(tiny: Path) -> None:
    model = moved(make(tiny, task_layers=1))
    exact = together(model)["sst"]
    model.compute_dtype = torch.bfloat16
    rounded = together(model)["sst"]
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.3)


def test_a_padded_batch_of_no_task_goes_through_the_first_one_s(tiny: Path) -> None:
    plain, model = make(tiny), moved(make(tiny, task_layers=1))
    ids = torch.randint(1000, 2000, (3, 9))
    mask = torch.ones_like(ids)
    expected = with_layers_of(model, "sst", plain).bert(ids, mask)["last_hidden_state"]
    close(model.bert(ids, mask)["last_hidden_state"], expected)


def test_more_layers_than_there_are(tiny: Path) -> None:
    with pytest.raises(UserError, match="^--task_layers 3: expected at most 2, the encoder's la"):
        make(tiny, task_layers=3)


# ---- files


def test_a_run_is_resumed_saved_and_exported(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = replace(options, task_layers=1)
    state = survives(options, monkeypatch)
    printed = capsys.readouterr().out
    assert "task layers: the last 1 of 2, each for 3 tasks, 0.02M parameters more" in printed
    names = [f"model:bert.bert_layers.1.by_task.{task}.out_dense.weight" for task in TASKS]
    assert not torch.equal(state[names[0]], state[names[1]])

    # The first task's layer stands for the encoder's, under BERT's names.
    run = next(Path("runs").glob("*-newcomer"))
    export.export(run, Path("whole"))
    assert json.loads(Path("whole/config.json").read_text())["model_type"] == "minbert"
    held = load_file("whole/model.safetensors")
    loaded = MultitaskBERT.load("whole")
    own = loaded.bert.bert_layers[1].by_task["sst"].out_dense.weight
    assert torch.equal(held["encoder.layer.1.output.dense.weight"], own)
    before = MultitaskBERT.load(run)
    for task, found in together(loaded).items():
        assert torch.equal(found, together(before)[task])

    # So --model takes that encoder, and --init each task's layer, in whatever order they come.
    taken = build(replace(options, model="whole", task_layers=0))
    assert torch.equal(taken.bert.bert_layers[1].out_dense.weight, own)
    other = replace(options, model="whole", init="whole", tasks=("sts", "sst"))
    again = started(build(other)).bert.bert_layers[1].by_task
    for task in ("sts", "sst"):
        expected = loaded.bert.bert_layers[1].by_task[task]
        assert torch.equal(again[task].out_dense.weight, expected.out_dense.weight), task
    with pytest.raises(UserError, match="its --task_layers can't be folded into its encoder"):
        started(build(replace(options, model="whole", init="whole", task_layers=0)))


def test_beside_lora(tiny: Path, tmp_path: Path) -> None:
    """Each copy has updates of its own on frozen weights, and merging folds them in."""
    model = make(tiny, lora=True, task_layers=1)
    updates = [m for m in model.bert.bert_layers[1].modules() if hasattr(m, "lora_B")]
    assert len(updates) == 3 * 6
    for name, p in model.bert.named_parameters():
        assert p.requires_grad == ("lora_" in name)
    for update in updates:
        nn.init.normal_(update.lora_B, std=0.1)
    expected = together(model)
    assert (expected["sst"] - together(make(tiny))["sst"]).abs().max() > 0.01
    merged = copy.deepcopy(model)
    assert merged.merge() == ["--task_layers"]
    for number, some in enumerate((model, merged)):
        folder = tmp_path / str(number)
        folder.mkdir()
        some.save(folder)
        for task, found in together(MultitaskBERT.load(folder)).items():
            close(found, expected[task])
