"""--init: what a run takes over from another, what is refused, and how it is resumed."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import multitask_classifier
from errors import UserError
from multitask_bert import MultitaskBERT, build
from multitask_classifier import train
from options import Options
from pretrained import find_pretrained
from tests.multitask import BASE, close, logits, make, texts
from tests.test_run import interrupted
from tests.test_train import same, weights
from training import start
from training.run import Run
from training.start import model_for


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(tiny: Path, name: str, **change: object) -> MultitaskBERT:
    """A model with all that trains moved, saved as a run's best."""
    model = make(tiny, **change)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    folder = Path(name, "best")
    folder.mkdir(parents=True)
    model.save(folder)
    return model


def started(name: str, **change: object) -> MultitaskBERT:
    """A new model that starts from a saved one."""
    options = replace(BASE, init=name, **change)  # type: ignore[arg-type]
    options = replace(options, model=model_for(options))
    return start.started(build(options.check())).eval()


def all_logits(model: MultitaskBERT) -> dict[str, Tensor]:
    return {task: logits(model, task, texts(task)) for task in model.tasks}


SUM = {"pair_encoding": "bi", "pair_features": "sum", "pair_projection": "linear"}
ADAPTED = {"lora": True, "lora_rank": 3, "lora_targets": "qv"}


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({}, {}),
        ({}, {"lora": True}),
        ({}, {"option": "pretrain"}),
        ({"option": "pretrain"}, {}),
        ({"option": "pretrain"}, {"lora": True}),
        (ADAPTED, {**ADAPTED, "lora_dropout": 0.3, "lora_merge": True}),
        (ADAPTED, {}),  # merged
        ({"rmsnorm": "all", "swiglu": "all"}, {"rmsnorm": "heads", "swiglu": "heads"}),
        ({"swiglu": "encoder", "swiglu_start": "random", "rmsnorm": "encoder"}, {}),
        ({"pair_encoding": "bi", "pooling": "mean"}, {"pair_encoding": "bi", "pooling": "mean"}),
        ({**SUM, "shared_pair_layer": True}, {**SUM, "shared_pair_layer": True}),
        ({"sst_loss": "ordinal", "sts_loss": "mse"}, {"sst_loss": "ordinal", "sts_loss": "mse"}),
        ({"head_layers": "1 sst=3"}, {"head_layers": "1 sst=3", "freeze_heads": True}),
    ],
)
def test_it_computes_what_the_other_run_did(tiny: Path, here: Path, was: dict, now: dict) -> None:
    before = all_logits(saved(tiny, "run", **was))
    model = started("run", **now)
    after = all_logits(model)
    for task, values in after.items():
        close(values, before[task])

    # And what it saves stands for itself, on the base that it names.
    Path("again").mkdir()
    model.save(Path("again"))
    for task, values in all_logits(MultitaskBERT.load("again")).items():
        assert torch.equal(values, after[task])


def test_new_tasks_start_afresh_and_a_line_says_so(
    tiny: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    old = saved(tiny, "run", tasks=("sts", "sst"))
    model = started("run", tasks=("sst", "para"), head="linear sst=mlp")
    assert "--init run: the encoder, sst; afresh: para\n" in capsys.readouterr().out
    close(all_logits(model)["sst"], all_logits(old)["sst"])


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ({"head": "linear"}, {}, "the head of sst is linear there, mlp here; .* --head sst=linear"),
        (
            {},
            {"head": "mlp sts=linear"},
            "the head of sts is mlp .* to make it fit: --head sts=mlp",
        ),
        ({"activation": "gelu sst=elu"}, {}, "activation of sst is elu there, gelu here"),
        ({"lstm_layers": 2}, {"pooling": "mean"}, "the lstm_layers of sst is 2 there, 0 here"),
        ({"head_norm": False}, {}, "sst: does not fit the model"),
        ({"pooling": "mean"}, {}, "pooling of sst is mean there, cls here.*: --pooling sst=mean"),
        ({"pair_encoding": "bi"}, {}, "encoding of para is bi .* fit: --pair_encoding bi"),
        (SUM, {**SUM, "pair_features": "u,v"}, "features of para is sum .* --pair_features para=s"),
        (SUM, {**SUM, "pair_projection": "none"}, "is linear .* fit: --pair_projection para=line"),
        ({"sst_loss": "ordinal"}, {}, "the loss of sst is ordinal .* fit: --sst_loss ordinal"),
        ({}, {"sts_loss": "mse"}, "the loss of sts is bce there, mse .* fit: --sts_loss bce"),
        ({"shared_pair_layer": True}, {}, "of pairs is on there, .* fit: --shared_pair_layer$"),
        ({}, {"shared_pair_layer": True}, "off there, on here; .* --no-shared_pair_layer"),
        ({"rmsnorm": "heads"}, {}, "--rmsnorm is heads there, off here; .* fit: --rmsnorm heads"),
        ({}, {"swiglu": "heads"}, "--swiglu is off there, heads here; .* fit: --swiglu off"),
        ({}, {"rmsnorm": "encoder"}, "encoder's norm is layernorm there.* fit: --rmsnorm off"),
        (
            {"lora": True, "swiglu": "encoder"},
            {},
            "encoder's feed_forward is swiglu there.*encoder",
        ),
        (
            {**ADAPTED, "kv_heads": 2},
            ADAPTED,
            "num_key_value_heads is 2 there, 4 here.*kv_heads 2$",
        ),
        (
            {"rmsnorm": "encoder", "rmsnorm_start": "calibrated", "option": "pretrain"},
            {"rmsnorm": "encoder", "option": "pretrain"},
            "--rmsnorm_start is calibrated there, copied here; .*: --rmsnorm_start calibrated$",
        ),
        (ADAPTED, {"lora": True}, "export.py run FOLDER, then --init FOLDER"),
        (ADAPTED, {"option": "pretrain"}, "keeps the encoder frozen; merge it first"),
        ({}, {"model": "all-MiniLM-L6-v2"}, "brings its own encoder; leave out --model all-MiniLM"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny: Path, here: Path, was: dict, now: dict, message: str
) -> None:
    saved(tiny, "run", **was)
    with pytest.raises(UserError, match=f"^--init run.*{message}"):
        started("run", **now)


def test_no_such_run(here: Path) -> None:
    """A name that looks like one of the hub's, but stands where runs are."""
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/options.json").touch()
    with pytest.raises(
        UserError, match="runs/none: no such folder, no model in it; expected a run folder"
    ):
        multitask_classifier.prepared(Options(init="runs/none"))
    with pytest.raises(UserError, match="runs/none: no such folder, and not a hub id"):
        find_pretrained("runs/none")


# ---- whole runs


def test_what_a_run_began_from_is_gone(
    options: Options, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of --model a folder among runs, since a name alone may be the hub's."""
    saved(tiny, "runs/before")
    folder = interrupted(replace(options, epochs=2, model="runs/before"), 4, monkeypatch)
    shutil.move("runs/before", "moved")
    with pytest.raises(UserError) as caught:
        train(Options(resume=str(folder)))
    assert str(caught.value) == f"{folder} began from runs/before, which is not there; put it back"


@pytest.fixture
def six_steps(options: Options, tiny: Path) -> Options:
    """A run of six steps that starts from a saved model."""
    saved(tiny, "before", **ADAPTED)
    return replace(options, epochs=2, save_every=2, init="before")


def test_a_run_is_interrupted_and_resumed(
    six_steps: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(six_steps)
    folder = interrupted(six_steps, 4, monkeypatch)
    train(Options(resume=str(folder)))
    assert same(weights(whole["folder"]), weights(folder))
    # Where nothing was saved yet it begins anew, from the same.
    folder = interrupted(six_steps, 4, monkeypatch)
    shutil.rmtree(folder / "last")
    shutil.rmtree(folder / "previous", ignore_errors=True)
    train(Options(resume=str(folder)))
    assert same(weights(whole["folder"]), weights(folder))


def test_the_other_run_went_on_meanwhile(
    six_steps: Options, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    folder = interrupted(six_steps, 4, monkeypatch)
    shutil.move("before", "moved")
    with pytest.raises(UserError, match="began from before, which is not there; put it back"):
        train(Options(resume=str(folder)))
    saved(tiny, "before", **{**ADAPTED, "lora_alpha": 3.0})  # the same tensors
    with pytest.raises(UserError, match="the model that --init started from changed since"):
        train(Options(resume=str(folder)))
    shutil.rmtree("before")
    os.rename("moved", "before")
    train(Options(resume=str(folder)))


def test_the_first_step_starts_where_the_other_run_ended(
    options: Options, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    """And --model RUN takes the encoder alone."""
    old = saved(tiny, "before")
    seen: list[dict[str, Tensor]] = []

    def note(self: Run, *_: object) -> None:
        seen.append({k: x.clone() for k, x in self.pieces["model"].state_dict().items()})
        raise UserError("enough")

    monkeypatch.setattr(Run, "__init__", lambda self, *args: setattr(self, "pieces", args[3]))
    monkeypatch.setattr(Run, "warmed_up", lambda self, schedule: schedule)
    monkeypatch.setattr(Run, "__enter__", note)
    monkeypatch.setattr(Run, "__exit__", lambda *_: None)
    for change in ({"init": "before", "model": "auto"}, {"model": "before"}):
        with pytest.raises(UserError, match="enough"):
            train(replace(options, **change))
    own = old.state_dict()
    encoder = [name for name in own if name.startswith("bert.")]
    for state in seen:
        assert all(torch.equal(state[name], own[name]) for name in encoder)
    head = "pipelines.sts.head.out.weight"
    assert torch.equal(seen[0][head], own[head]) and not torch.equal(seen[1][head], own[head])


@pytest.mark.parametrize("change", [{"lora": True}, {"option": "pretrain"}])
def test_model_of_a_run_that_saved_no_encoder(tiny: Path, here: Path, change: dict) -> None:
    saved(tiny, "run", **change)
    with pytest.raises(UserError, match="run/best: only an adapter or heads.*export.py run FOLDER"):
        build(replace(BASE, model="run"))
