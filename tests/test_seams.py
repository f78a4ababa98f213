"""The seams, proved: a hard newcomer plugs into each from outside, without an edit to the project.

Each (tests/newcomers.py) trains, is interrupted and resumed to the same bytes, is saved, loaded and
predicts as its run did.
"""

import copy
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import bert
import export
import multitask_classifier
from adapters.kinds import ADAPTERS, adapters_of
from attention import padded_rows
from base_bert import BertConfig, FeedForward
from errors import Interrupted, UserError
from evaluation import predict
from heads import pipeline
from losses import extras
from multitask_bert import build
from multitask_classifier import MultitaskBERT, train
from options import Options
from predict import predict_with
from tasks import TASKS
from tests import newcomers
from tests.multitask import FROZEN_FILES, RUN_FILES
from tokenizer import BertTokenizer
from training import hooks, optimizers, samplers, schedules, surgery
from training.draws import Draw
from training.gradients import Gradients
from training.run import Run
from training.start import started
from weights import hub_name

Patch = pytest.MonkeyPatch


def last_state(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a run's last checkpoint, file by file."""
    found = {}
    for path in sorted((Path(folder) / "last").glob("*.safetensors")):
        found.update({f"{path.stem}:{name}": x for name, x in load_file(path).items()})
    return found


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Two checkpoints are equal bit for bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def interrupted(options: Options, monkeypatch: Patch, step: int) -> str:
    """The folder of a run that Ctrl-C stopped after this step."""
    log = Run.log

    def log_and_stop(self: Run, number: int, *rest: Any) -> None:
        log(self, number, *rest)
        if number + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", log_and_stop)
        with pytest.raises(Interrupted) as stopped:
            train(options)
    return str(stopped.value).split("--resume ")[1]


def predictions(model: MultitaskBERT, options: Options) -> dict[str, list]:
    """The model's answers on the dev files."""
    _, data = loaded_data(options, model)
    return {task: [x.tolist() for x in predict(model, split)] for task, split in data.items()}


def loaded_data(options: Options, model: MultitaskBERT) -> tuple[dict, dict]:
    """The facts and the dev splits."""
    data, facts = multitask_classifier.load_data(options, model)
    return facts, data["dev"]


def written(options: Options) -> dict[str, list[str]]:
    """What stands in a run's prediction files of the dev sets."""
    found = {}
    for task in options.tasks:
        lines = Path(f"predictions/{task}-dev-output.csv").read_text().splitlines()[1:]
        found[task] = [line.split(" , ")[1].strip() for line in lines]
    return found


def survives(options: Options, monkeypatch: Patch) -> dict[str, Tensor]:
    """What every technique must do; the last checkpoint of the run, file by file."""
    options = replace(options, epochs=2, steps_per_epoch=3, name="newcomer")
    plain_run = train(options)
    whole = last_state(plain_run["folder"])
    answers = written(options)

    # Interrupted in the second epoch and resumed: the same bytes, the same answers.
    folder = interrupted(options, monkeypatch, step=4)
    held = json.loads((Path(folder) / "last" / "progress.json").read_text())
    assert held["step"] == 4  # saved where it stopped, not at the epoch's end
    train(Options(resume=folder))
    assert_same(whole, last_state(folder))
    assert written(options) == answers

    # Saved, loaded, and what it predicts is what the run wrote.
    model = MultitaskBERT.load(plain_run["folder"])
    for task, values in predictions(model, options).items():
        texts = [
            " ".join(map(str, value)) if isinstance(value, list) else f"{value}" for value in values
        ]
        assert [x[:6] for x in texts] == [x[:6] for x in answers[task]]
    return whole


def differs(new: dict[str, Tensor], options: Options) -> None:
    """The run's weights are not those of a run without the newcomer."""
    options = replace(options, epochs=2, steps_per_epoch=3, name="plain")
    old = last_state(train(options)["folder"])
    common = [name for name in old if name.startswith("model:") and name in new]
    assert any(not torch.equal(old[name], new[name]) for name in common)


# ---- adapters


def test_a_prefix(options: Options, monkeypatch: Patch) -> None:
    plain = build(options)
    monkeypatch.setitem(ADAPTERS, "prefix", newcomers.PREFIX)
    state = survives(options, monkeypatch)
    name = "bert.bert_layers.1.self_attention"
    assert state[f"model:{name}.prefix.keys.sts"].shape == (2, 32)
    assert f"optimizer:exp_avg.model.{name}.prefix.values.sst" in state
    # The encoder itself stayed as it was, and only the rest was saved.
    query = plain.state_dict()[f"{name}.query.weight"]
    assert torch.equal(state[f"model:{name}.query.weight"], query)
    best = next(Path("runs").glob("*-newcomer/best"))
    assert {path.name for path in best.iterdir()} == FROZEN_FILES | RUN_FILES
    # A task's prefix reaches its own rows only.
    model = MultitaskBERT.load(best)
    before = predictions(model, options)
    with torch.no_grad():
        for layer in model.bert.bert_layers:
            layer.self_attention.prefix.values["sts"] += 3.0
    after = predictions(model, options)
    assert after["sst"] == before["sst"] and after["para"] == before["para"]
    assert after["sts"] != before["sts"]

    # A padded batch is of no task: its tokens see no prefix.
    ids = torch.randint(1000, 2000, (2, 9))
    for encoder in (plain.bert.eval(), model.bert):
        encoder.kernel = "softmax"
    expected = plain.bert(ids, torch.ones_like(ids))["last_hidden_state"]
    assert torch.equal(model.bert(ids, torch.ones_like(ids))["last_hidden_state"], expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_decomposed_weight(options: Options, monkeypatch: Patch, precision: str) -> None:
    """Its norms are of the fp32 weight, though in bf16 a layer sees that rounded."""
    options = replace(options, precision=precision)
    plain = build(options).eval()
    monkeypatch.setitem(ADAPTERS, "decomposed", newcomers.DECOMPOSED)
    torch.manual_seed(0)
    model = build(options).eval()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    ids = torch.randint(1000, 2000, (2, 9))
    hidden = model.bert.embed(ids)
    rows = padded_rows(torch.ones_like(ids), "softmax", dtype)
    seen: list[tuple[torch.dtype, Tensor]] = []
    for layer in model.bert.bert_layers:
        layer.self_attention.value.register_forward_hook(
            lambda module, x, y: seen.append((module.base.weight.dtype, module.scale()))
        )
    states = model.bert.encode_layers(hidden, rows, dtype)[-1]
    assert [weight for weight, _ in seen] == [dtype, dtype]
    assert all(torch.equal(scale, torch.ones(32)) for _, scale in seen)
    assert torch.equal(states, plain.bert.encode_layers(hidden, rows, dtype)[-1])

    # So they are once the model was copied and moved to another dtype, and after training.
    value = copy.deepcopy(model).double().bert.bert_layers[0].self_attention.value
    assert value.master[0] is value.base.weight and value.base.weight.dtype == torch.float64
    state = survives(options, monkeypatch)
    assert state["model:bert.bert_layers.1.self_attention.value.up"].any()

    # Merged it computes the same.
    loaded = MultitaskBERT.load(next(Path("runs").glob("*-newcomer")))
    before = loaded.bert(ids, torch.ones_like(ids))["last_hidden_state"]
    newcomers.compose(loaded)
    assert not any(isinstance(m, newcomers.Decomposed) for m in loaded.modules())
    after = loaded.bert(ids, torch.ones_like(ids))["last_hidden_state"]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_a_side_branch_of_each_task(options: Options, monkeypatch: Patch) -> None:
    torch.manual_seed(0)
    plain = build(options).eval()
    monkeypatch.setitem(ADAPTERS, "side", newcomers.SIDE)
    torch.manual_seed(0)
    model = build(options).eval()
    assert predictions(plain, options) == predictions(model, options)  # zero at first
    state = survives(options, monkeypatch)
    ups = [x for name, x in state.items() if name.startswith("model:") and ".side.up." in name]
    assert len(ups) == 12 and all(x.any() for x in ups)
    best = next(Path("runs").glob("*-newcomer/best"))
    # All of BERT trains: all is saved, and says that it is not BERT alone.
    assert (best / "model.safetensors").exists()
    assert json.loads((best / "config.json").read_text())["model_type"] == "minbert"
    assert not (best / "modules.json").exists()


def test_a_side_branch_in_bf16(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(ADAPTERS, "side", newcomers.SIDE)
    survives(replace(options, precision="bf16"), monkeypatch)


def test_a_summand_of_the_embeddings(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(ADAPTERS, "parity", newcomers.PARITY)
    state = survives(options, monkeypatch)
    assert state["model:embedding_terms.parity.table.weight"].shape == (2, 32)


def exported(run: str | Path, folder: str, options: Options) -> MultitaskBERT:
    """What export.py makes of a run, loaded; it predicts as the run's best model does."""
    export.main([str(run), folder])
    model = MultitaskBERT.load(folder)
    assert model.whole and not Path(folder, "base.json").exists()
    assert bert.BertModel.from_pretrained(folder).own_names()  # the encoder alone loads too
    expected = predictions(MultitaskBERT.load(run), options)
    for task, values in predictions(model, options).items():
        assert values == pytest.approx(expected[task], abs=1e-3)
    return model


@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_what_an_adapter_freezes_is_saved_unless_it_is_the_base_s(
    options: Options, monkeypatch: Patch, start: str, capsys: pytest.CaptureFixture
) -> None:
    """Heads, layers that start at random, its constants, and a base's weight that it changed."""
    monkeypatch.setitem(ADAPTERS, "features", newcomers.FEATURES)
    options = replace(options, swiglu="encoder", swiglu_start=start)
    state = survives(options, monkeypatch)
    run = next(Path("runs").glob("*-newcomer"))
    loaded = MultitaskBERT.load(run).state_dict()
    assert all(torch.equal(x, state[f"model:{name}"]) for name, x in loaded.items())

    # Nothing trained but its own weights; of the others those are saved that the base has not.
    moments = {name for name in state if name.startswith("optimizer:exp_avg.")}
    assert len(moments) == 2 and all(name.endswith(".value.learned") for name in moments)
    layer = "bert.bert_layers.0"
    held = set(load_file(run / "best" / "heads.safetensors"))
    kinds = ("features", "sign", "learned", "base.weight")
    assert {f"{layer}.self_attention.value.{kind}" for kind in kinds} <= held
    assert {"pipelines.sst.head.out.weight", "pipelines.sst.head.out.bias"} <= held
    assert (f"{layer}.out_dense.weight" in held) == (start == "random")
    assert f"{layer}.self_attention.query.weight" not in held

    # It has no merged form: an export keeps it beside the encoder, and says so.
    exported(run, "whole", options)
    assert "--features can't be merged: kept beside" in capsys.readouterr().out
    export.main([str(run), "kept", "--keep_adapter"])
    assert "kept: the adapter and heads" in capsys.readouterr().out
    assert not Path("kept/model.safetensors").exists()
    assert predictions(MultitaskBERT.load("kept"), options) == predictions(
        MultitaskBERT.load("whole"), options
    )

    # A run with the same one starts from it; its encoder brings SwiGLU along.
    now = replace(options, model="whole", init="whole", swiglu="off", swiglu_start="pretrained")
    begun = started(build(now)).state_dict()
    assert all(torch.equal(x, begun[name]) for name, x in loaded.items())

    # A run that does not ask for it can't.
    monkeypatch.delitem(ADAPTERS, "features")
    monkeypatch.setitem(ADAPTERS, "was_on", OnThere("features", newcomers.add_features))
    with pytest.raises(UserError, match="--init .*: its --features can't be folded into"):
        train(replace(options, model="auto", init=str(run)))


class OnThere(newcomers.AlwaysOn):
    """An adapter that every model has but those that start from another one."""

    def wanted(self, options: Options) -> bool:
        return options.init is None


def test_bert_s_own_biases(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(ADAPTERS, "bitfit", newcomers.BITFIT)
    state = survives(options, monkeypatch)
    run = next(Path("runs").glob("*-newcomer"))
    held = set(load_file(run / "best" / "heads.safetensors"))
    assert all(name.endswith(".bias") for name in held if name.startswith("bert."))
    assert state["model:bert.bert_layers.1.out_dense.bias"].any()

    # Merged it is a plain BERT, with nothing more than its weights.
    model = exported(run, "whole", options)
    assert not model.extended and not adapters_of(model.options)
    assert json.loads(Path("whole/config.json").read_text())["model_type"] == "bert"


def test_two_adapters(options: Options, monkeypatch: Patch) -> None:
    """Only where all but one say that they combine; an export merges what can be."""
    monkeypatch.setitem(ADAPTERS, "side", newcomers.SIDE)
    with pytest.raises(UserError, match="^--lora and --side are two adapters, .*: drop one$"):
        train(replace(options, lora=True))
    monkeypatch.delitem(ADAPTERS, "side")
    monkeypatch.setitem(ADAPTERS, "parity", newcomers.PARITY)
    survives(replace(options, lora=True), monkeypatch)
    run = next(Path("runs").glob("*-newcomer"))
    model = exported(run, "whole", options)
    assert not model.options.lora and "parity" in model.embedding_terms
    names = set(load_file("whole/model.safetensors"))
    assert not any("lora" in name or "base" in name for name in names)


def test_an_adapter_of_a_model_that_trains_as_a_whole(options: Options, monkeypatch: Patch) -> None:
    """And where BERT is frozen, all that it adds trains."""
    monkeypatch.setitem(ADAPTERS, "side", newcomers.SIDE)
    run = train(options)["folder"]
    exported(run, "whole", options)
    frozen = build(replace(options, option="pretrain"))
    trains = {name for name, p in frozen.named_parameters() if p.requires_grad}
    assert trains == {
        name for name, _ in frozen.named_parameters() if ".side." in name or "pipelines" in name
    }


# ---- poolings, token layers, heads


def test_a_bilstm_for_one_task(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(pipeline.POOLINGS, "bilstm", newcomers.BiLSTMPooling)
    state = survives(replace(options, pooling="cls sts=bilstm"), monkeypatch)
    assert any("pipelines.sts.pooling.lstm" in name for name in state)
    assert not any("pipelines.sst.pooling" in name for name in state)


def test_a_pooling_of_all_layers_beside_one_of_cls(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(pipeline.POOLINGS, "mix", newcomers.LayerMixPooling)
    state = survives(replace(options, pooling="cls para=mix"), monkeypatch)
    assert state["model:pipelines.para.pooling.weights"].any()


def test_attention_on_top_for_one_task(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(pipeline.TOKEN_LAYERS, "top", newcomers.top_attention)
    state = survives(options, monkeypatch)
    assert any("pipelines.sst.token_layers.top" in name for name in state)
    assert not any("pipelines.sts.token_layers" in name for name in state)


def test_a_head(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(pipeline.HEADS, "deep", newcomers.DeepHead)
    state = survives(replace(options, head="deep sst=linear", pair_encoding="bi"), monkeypatch)
    # As wide as --batch_size says, and of one task as deep as --epochs.
    assert state["model:pipelines.sts.head.0.weight"].shape == (13, 4 * 32)
    assert state["model:pipelines.sts.head.2.weight"].shape == (13, 13)
    assert state["model:pipelines.para.head.2.weight"].shape == (1, 13)
    assert state["model:pipelines.sst.head.out.weight"].shape == (5, 32)


# ---- tasks and losses


def test_a_task_with_a_label_a_token(
    options: Options, monkeypatch: Patch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(TASKS, "pieces", newcomers.PIECES)
    source = Path(options.data_dir)
    for path in source.glob("*.csv"):
        (tmp_path / path.name).write_text(path.read_text())
    newcomers.write_pieces(source, tmp_path, BertTokenizer.from_pretrained(tiny))
    options = replace(options, data_dir=str(tmp_path), tasks=("sst", "pieces"), accumulation=2)
    state = survives(options, monkeypatch)
    assert state["model:pipelines.pieces.out.weight"].shape == (2, 32)
    lines = Path("predictions/pieces-test-output.csv").read_text().splitlines()
    assert lines[0] == "id \t Predicted_Pieces "
    assert set(lines[1].split(" , ")[1].split()) <= {"0", "1"}
    folder = next(Path("runs").glob("*-newcomer"))
    before = {path: path.read_bytes() for path in Path("predictions").iterdir()}
    assert set(predict_with(str(folder), {}, probabilities=True)) == {"sst_dev", "pieces_dev"}
    after = {path: path.read_bytes() for path in Path("predictions").iterdir()}
    tables = {f"predictions/sst-{split}-output-probabilities.csv" for split in ("dev", "test")}
    assert {str(path) for path in after.keys() - before.keys()} == tables
    assert all(after[path] == text for path, text in before.items())
    model = MultitaskBERT.load(folder)
    pieces = model.tokenizer(["a fine film"])["input_ids"][0]
    assert [len(row) for row in model.predict("pieces", ["a fine film"])] == [len(pieces) - 2]


def test_masked_language_modelling_is_a_task(
    options: Options, monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TASKS, "mlm", newcomers.MLM)
    for path in Path(options.data_dir).glob("*.csv"):
        (tmp_path / path.name).write_text(path.read_text())
    for split in ("train", "dev", "test-student"):
        rows = (tmp_path / f"ids-sst-{split}.csv").read_text().splitlines()[1:]
        lines = [max(row.split("\t"), key=len) for row in rows]
        (tmp_path / f"lines-{split}.txt").write_text("\n".join(lines) + "\n")
    options = replace(options, data_dir=str(tmp_path), tasks=("mlm", "sts"), name="newcomer")
    options = replace(options, epochs=2, steps_per_epoch=3)
    whole = train(options)
    folder = interrupted(options, monkeypatch, step=4)
    train(Options(resume=folder))
    assert_same(last_state(whole["folder"]), last_state(folder))
    assert last_state(folder)["model:pipelines.mlm.bias"].any()
    scores = whole["best"]["scores"]
    assert scores["mlm"] < -5 and not Path("predictions/mlm-dev-output.csv").exists()
    assert MultitaskBERT.load(folder).predict("sts", [("A film .", "A film .")])
    again = predict_with(folder, {})
    assert {name: found["score"] for name, found in again.items()} == {
        "mlm_dev": scores["mlm"],
        "sts_dev": scores["sts"],
    }
    assert not Path("predictions/mlm-dev-output.csv").exists()


def test_a_fourth_task(
    options: Options, monkeypatch: Patch, small_data: Path, tmp_path: Path
) -> None:
    header = "Predicted_Acceptability"
    cola = replace(
        TASKS["cfimdb"],
        name="cola",
        title="CoLA",
        files="cola-{}.csv",
        label="acceptability",
        header=header,
    )
    monkeypatch.setitem(TASKS, "cola", cola)
    for path in small_data.glob("*.csv"):
        (tmp_path / path.name).write_text(path.read_text())
        if "cfimdb" in path.name:
            text = path.read_text().replace("sentiment", "acceptability", 1)
            (tmp_path / path.name.replace("ids-cfimdb", "cola")).write_text(text)
    tasks = ("sst", "para", "sts", "cola")
    result = train(replace(options, data_dir=str(tmp_path), tasks=tasks))
    assert tuple(result["best"]["scores"]) == tasks
    text = Path("predictions/cola-test-output.csv").read_text()
    assert text.startswith(f"id \t {header} \n")


def test_a_loss_of_a_task(options: Options, monkeypatch: Patch) -> None:
    def squared(forward: Any, batch: Any) -> Tensor:
        values = forward.logits[batch.task].squeeze(1).sigmoid() * 5
        return (values - batch.labels).square().mean()

    monkeypatch.setitem(TASKS, "sts", replace(TASKS["sts"], loss=squared))
    state = survives(options, monkeypatch)
    monkeypatch.undo()
    monkeypatch.chdir(Path(options.data_dir).parent)
    differs(state, options)


def test_an_extra_with_two_forward_passes(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "smoothness", lambda model, options: newcomers.Smoothness())
    state = survives(replace(options, accumulation=2), monkeypatch)
    assert state["extras:smoothness.calls"].item() == 12  # six steps of two forward passes
    assert state["extras:smoothness.log_weight"].item() != 0  # its parameter trains
    log = next(Path("runs").glob("*-newcomer/log.jsonl")).read_text().splitlines()
    first = json.loads(log[0])
    assert {"loss_smoothness", "loss_sst", "loss"} <= set(first)
    parts = sum(first[f"loss_{name}"] for name in ("sst", "para", "sts", "smoothness"))
    assert first["loss"] == pytest.approx(parts)


def test_an_extra_that_sits_out(options: Options, monkeypatch: Patch) -> None:
    plain = last_state(train(options)["folder"])
    monkeypatch.setitem(extras.EXTRAS, "smoothness", lambda model, options: None)
    assert_same(plain, last_state(train(options)["folder"]))


def test_an_extra_under_a_taken_name(options: Options, monkeypatch: Patch) -> None:
    class Thief(nn.Module):
        def forward(self, *_: Any) -> dict[str, Tensor]:
            return {"sst": torch.zeros(())}

    monkeypatch.setitem(extras.EXTRAS, "thief", lambda model, options: Thief())
    with pytest.raises(ValueError, match="two terms of one name: sst"):
        train(options)


# ---- the step


@pytest.mark.parametrize("sampler", ["mixed", "round_robin"])
def test_a_combiner_that_remembers(options: Options, monkeypatch: Patch, sampler: str) -> None:
    seen: list[list[str]] = []

    class Watched(newcomers.Remembering):
        def combine(self, gradients: Gradients) -> Tensor:
            seen.append(gradients.tasks)
            return super().combine(gradients)

    monkeypatch.setitem(surgery.COMBINERS, "mine", lambda options: Watched())
    changed = replace(options, combiner="mine", sampler=sampler, accumulation=2)
    state = survives(changed, monkeypatch)
    assert {name for name in state if name.startswith("combiner:")} == {
        "combiner:sst",
        "combiner:para",
        "combiner:sts",
    }
    assert seen and all(sorted(tasks) == ["para", "sst", "sts"] for tasks in seen)


def test_an_optimizer_with_curvature(options: Options, monkeypatch: Patch) -> None:
    monkeypatch.setitem(
        optimizers.OPTIMIZERS, "curved", lambda groups, options: newcomers.Curved(groups)
    )
    state = survives(replace(options, optimizer="curved"), monkeypatch)
    hessian = state["optimizer:hessian.model.bert.bert_layers.0.interm_dense.weight"]
    assert hessian.any() and hessian.isfinite().all()


def test_unfreezing(options: Options, monkeypatch: Patch) -> None:
    pretrained = build(options).state_dict()
    monkeypatch.setitem(
        hooks.HOOKS, "unfreezing", lambda model, options: newcomers.Unfreezing(model)
    )
    state = survives(options, monkeypatch)
    name = "bert_layers.0.out_dense.weight"
    assert not torch.equal(state[f"model:bert.{name}"], pretrained[f"bert.{name}"])
    # Two of six steps moved it: its moments are younger than the others'.
    assert state[f"optimizer:step.model.bert.{name}"] == 2
    assert state["optimizer:step.model.bert.bert_layers.1.out_dense.weight"] == 6
    # What was saved while it was frozen is the whole model all the same.
    best = next(Path("runs").glob("*-newcomer/best"))
    assert hub_name(name) in load_file(best / "model.safetensors")


def test_averaged_weights(options: Options, monkeypatch: Patch) -> None:
    pretrained = build(options).state_dict()
    monkeypatch.setitem(hooks.HOOKS, "averaging", lambda model, options: newcomers.Averaging(model))
    state = survives(replace(options, epochs=1), monkeypatch)
    # What was kept as best is an average: neither the weights that train on nor those at first.
    best = next(Path("runs").glob("*-newcomer/best"))
    kept = load_file(best / "model.safetensors")
    name = "bert_layers.0.out_dense.weight"
    assert not torch.equal(kept[hub_name(name)], state[f"model:bert.{name}"])
    assert not torch.equal(kept[hub_name(name)], pretrained[f"bert.{name}"])
    plain = last_state(train(replace(options, epochs=2, name="plain"))["folder"])
    monkeypatch.delitem(hooks.HOOKS, "averaging")
    without = last_state(train(replace(options, epochs=2, name="without"))["folder"])
    assert torch.equal(plain[f"model:bert.{name}"], without[f"model:bert.{name}"])


def test_a_sampler_that_follows_the_progress(options: Options, monkeypatch: Patch) -> None:
    def delayed(sizes: dict[str, int], options: Options) -> Draw:
        def draw(step: int, progress: float) -> dict[str, int]:
            return {"para": 7} if progress < 0.5 else {"sst": 4, "sts": 5}

        return draw

    monkeypatch.setitem(samplers.SAMPLERS, "delayed", delayed)
    survives(replace(options, sampler="delayed"), monkeypatch)
    log = next(Path("runs").glob("*-newcomer/log.jsonl")).read_text().splitlines()
    records = [json.loads(line) for line in log]
    steps = [record for record in records if "loss" in record]
    assert ["loss_para" in record for record in steps] == [True] * 3 + [False] * 3


def test_a_schedule_that_follows_the_scores(options: Options, monkeypatch: Patch) -> None:
    def plateau(total_steps: int, warmup_steps: int) -> Callable[..., float]:
        return lambda step, history: 0.1 ** len(history)

    monkeypatch.setitem(schedules.SCHEDULES, "plateau", plateau)
    survives(replace(options, schedule="plateau"), monkeypatch)
    log = next(Path("runs").glob("*-newcomer/log.jsonl")).read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in log if "lr" in json.loads(line)]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 3)


# ---- layers


def test_a_norm_and_a_feed_forward(monkeypatch: Patch) -> None:
    """Both are named by BertConfig."""

    class Narrow(nn.LayerNorm):
        def __init__(self, size: int, eps: float):
            super().__init__(size, eps=eps, bias=False)

    monkeypatch.setitem(bert.NORMS, "narrow", Narrow)
    monkeypatch.setitem(bert.FEED_FORWARDS, "relu", FeedForward(nn.Linear, torch.relu))
    small = BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = bert.BertModel(replace(small, norm="narrow", feed_forward="relu"))
    layer = model.bert_layers[0]
    assert isinstance(layer.out_layer_norm, Narrow) and layer.interm_af is torch.relu
    out = model(torch.tensor([[1, 2, 3]]), torch.ones(1, 3))["last_hidden_state"]
    out.square().sum().backward()
    assert model.embed_layer_norm.weight.grad is not None
