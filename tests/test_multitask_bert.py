"""MultitaskBERT: each example's result is its own, all faces agree, what is saved is what is
loaded.
"""

import json
import shutil
import threading
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from heads.pipeline import HEADS, POOLINGS
from lora import LoRALinear
from models.counts import print_counts
from multitask_bert import MultitaskBERT
from options import Options
from storage.tensor_files import write_tensors
from tasks import TASKS
from tests.multitask import BASE, ENCODINGS, batch, close, logits, make, padded, texts
from tokenizer import BertTokenizer
from training.manifest import write_manifest


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


# ---- padding and neighbours


@pytest.mark.parametrize("pooling,head,encoding", list(product(POOLINGS, HEADS, ENCODINGS)))
def test_neighbours_and_padding_change_nothing(tiny, pooling, head, encoding):
    model = make(tiny, pooling=pooling, head=head, pair_encoding=encoding)
    for task in BASE.tasks:
        some = texts(task)
        alone = torch.cat([logits(model, task, [text]) for text in some])
        assert (
            alone.shape == (13, TASKS[task].outputs) and alone.std(0).min() > 1e-3
        )  # or else a leak would not show
        close(logits(model, task, some), alone)
        close(logits(model, task, some[::-1]), alone.flip(0))
        close(
            logits(model, task, [*some, *texts(task, 5, 200, seed=1)])[:13], alone
        )  # beside rows of other widths
        close(logits(model, task, [some[0]] * 3), alone[:1].expand(3, -1))
    with torch.no_grad():  # all tasks in one call
        together = model.logits(
            {task: batch(model, task, texts(task)) for task in reversed(BASE.tasks)}
        )
    assert list(together) == ["sts", "para", "sst"]
    for task in BASE.tasks:
        close(together[task], logits(model, task, texts(task)))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_row_multiples_change_no_logits(tiny, pooling):
    model = make(tiny, pooling=pooling, pair_encoding="bi")
    batches = {task: batch(model, task, texts(task, longest=100)) for task in BASE.tasks}
    with torch.no_grad():
        exact = model(model.pack(batches))
        model.row_multiple = 8
        filled = model(model.pack(batches))
    assert len(filled.packed.input_ids) > len(exact.packed.input_ids)
    assert all(group.rows % 8 == 0 for group in filled.packed.groups)
    assert len(exact.packed.groups) > 1
    for task in BASE.tasks:
        torch.testing.assert_close(filled.logits[task], exact.logits[task], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_vectors(tiny, tokenizer, pooling):
    """Forward.pooled is [B, H], as the encoder's padded face has it."""
    model = make(tiny, pooling=pooling)
    some = texts("sst")
    ids, mask = padded(tokenizer, [x for (x,) in some], 5)
    with torch.no_grad():
        encoded = model.bert(ids, mask, output_hidden_states=True)
        states = encoded["last_hidden_state"]
        own = mask[:, :, None]
        # Attention starts as the mean over tokens, the mix as that over layers: here there are two.
        mean = (states * own).sum(1) / own.sum(1)
        layers = torch.stack(encoded["hidden_states"][1:])[:, :, 0].mean(0)
        expected = {
            "cls": states[:, 0],
            "mean": mean,
            "max": states.masked_fill(own == 0, -1e9).amax(1),
            "pooler": encoded["pooler_output"],
            "attention": mean,
            "cls_layers": layers,
            "layer_mix": layers,
        }[pooling]
        close(model(model.pack({"sst": batch(model, "sst", some)})).pooled["sst"], expected)
        alone = model(model.pack({"sst": batch(model, "sst", some[3:4])}))
        close(alone.pooled["sst"], expected[3:4])


# ---- build, device, precision


def test_what_trains(tiny, capsys):
    whole = make(tiny)
    assert all(p.requires_grad for p in whole.parameters())
    print_counts(whole)
    assert capsys.readouterr().out == f"{tiny}: 2 layers, 1.01M of 1.01M parameters train\n"
    frozen = make(tiny, option="pretrain")
    assert not any(p.requires_grad for p in frozen.bert.parameters())
    assert all(p.requires_grad for p in frozen.pipelines.parameters())
    adapted = make(tiny, lora=True, lora_layers="1", lora_targets="qv")
    assert {n.split(".")[-1] for n, p in adapted.bert.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }
    wrapped = {name for name, module in adapted.named_modules() if isinstance(module, LoRALinear)}
    assert wrapped == {f"bert.bert_layers.1.self_attention.{x}" for x in ("query", "value")}


def test_options_reach_the_encoder_and_heads(tiny):
    model = make(
        tiny, hidden_dropout_prob=0.3, attention_dropout_prob=0.2, rmsnorm="all", swiglu="all"
    )
    config = model.bert.config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.3, 0.2)
    assert (config.norm, config.feed_forward, config.intermediate_size) == ("rmsnorm", "swiglu", 64)
    assert (
        type(model.pipelines["sst"].head.norm).__name__ == "RMSNorm"
        and type(model.pipelines["sst"].head.dense).__name__ == "SwiGLU"
    )
    assert make(tiny, swiglu="encoder", swiglu_start="random").bert.config.intermediate_size < 64
    plain = make(tiny, rmsnorm="heads", swiglu="heads")
    assert (plain.bert.config.norm, plain.bert.config.feed_forward) == ("layernorm", "gelu")
    assert type(plain.pipelines["sts"].head.norm).__name__ == "RMSNorm"


def test_one_token_type_takes_no_cross_encoded_pairs(tiny, tmp_path):
    """RoBERTa's way; sentences alone and bi-encoded pairs are fine."""
    model = BertModel(replace(BertConfig.from_pretrained(tiny), type_vocab_size=1))
    model.name_or_path = str(tiny)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        UserError,
        match="has one token type, a cross-encoded pair takes two; use --pair_encoding bi",
    ):
        make(tmp_path)
    assert make(tmp_path, pair_encoding="bi").predict("sts", [("a b", "b c")])
    assert make(tmp_path, tasks=("sst",)).predict("sst", ["a b"])


def test_a_task_without_a_head(tiny):
    with pytest.raises(
        UserError, match="cfimdb: this model has no head for it, only for sst, para, sts"
    ):
        make(tiny).predict("cfimdb", ["A film ."])


def test_refusals(tiny):
    for change, message in (
        ({"tasks": ("sst", "mnli")}, "^--tasks mnli: expected one of sst, para, sts, cfimdb$"),
        ({"pooling": "median"}, "^--pooling median: expected one of cls, mean, max, pooler, atten"),
        ({"head": "deep"}, "^--head deep: expected one of mlp, linear$"),
    ):
        with pytest.raises(UserError, match=message):
            make(tiny, **change)


def test_frozen_heads(tiny):
    """All that follows the encoder; the pooler is the encoder's, and trains."""
    model = make(tiny, freeze_heads=True, pooling="pooler sst=attention", lstm_layers="0 sst=1")
    assert not any(p.requires_grad for p in model.pipelines.parameters())
    assert all(p.requires_grad for p in model.bert.parameters())


def test_a_pooler_that_would_stay_at_random(tiny, tmp_path):
    """Weights without a pooler: it may train, but not where the encoder is frozen."""
    folder = tmp_path / "headless"
    shutil.copytree(tiny, folder)
    state = load_file(folder / "model.safetensors")
    held = {name: x for name, x in state.items() if "pooler" not in name}
    assert len(held) == len(state) - 2
    save_file(held, folder / "model.safetensors")
    assert make(folder, pooling="pooler").bert.pooler_dense.weight.requires_grad
    make(folder, pooling="mean", lora=True)
    for change, flag in (({"lora": True}, "--lora"), ({"option": "pretrain"}, "--option pretrain")):
        message = f"has no pooler, and {flag} would keep one at random: use another --pooling than"
        with pytest.raises(UserError, match=message):
            make(folder, pooling="cls sts=pooler", **change)


def test_bf16_is_close_and_heads_stay_fp32(tiny):
    model = make(tiny, pooling="mean")
    exact = logits(model, "sst", texts("sst"))
    model.compute_dtype = torch.bfloat16
    rough = logits(model, "sst", texts("sst"))
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


# ---- save and load

SAVED = [
    {},
    {"pair_encoding": "bi", "pooling": "mean", "head": "linear"},
    {"rmsnorm": "all", "swiglu": "all"},
    {"swiglu": "encoder", "swiglu_start": "random"},
    {"option": "pretrain"},
    {"pooling": "pooler sst=max sts=attention", "head_layers": "1 sst=3", "freeze_heads": True},
    {"pooling": "cls_layers sts=layer_mix", "activation": "tanh", "lora": True},
    {"pooling": "mean", "lstm_layers": "2 sst=0", "cnn_layers": "sst=2", "head_norm": False},
    {"lora": True},
    {"ia3": True},
    {"bitfit": "query_mlp"},
    {"lora": True, "bitfit": "all"},
    {"diff_pruning": "structured"},
    {"diff_pruning": "unstructured", "swiglu": "encoder"},
    {"lora": True, "lora_type": "dora", "lora_scale": "sqrt_rank", "lora_init": "gaussian"},
    {
        "lora": True,
        "rmsnorm": "all",
        "swiglu": "all",
        "lora_layers": "0",
        "lora_alpha": 3.0,
        "lora_rank": 2,
    },
]


def saved(tiny: Path, folder: Path, **change) -> MultitaskBERT:
    """A model with every trainable tensor moved, and saved."""
    model = make(tiny, **change)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    folder.mkdir(parents=True)
    model.save(folder)
    return model


@pytest.mark.parametrize("change", SAVED)
def test_what_is_loaded_is_what_was_saved(tiny, tmp_path, change):
    model = saved(tiny, tmp_path / "run" / "best", **change)
    before = {task: logits(model, task, texts(task)) for task in BASE.tasks}
    for folder in (tmp_path / "run", str(tmp_path / "run" / "best")):
        torch.manual_seed(1)
        loaded = MultitaskBERT.load(folder)
        assert loaded.options == model.options and not loaded.training
        for task in BASE.tasks:
            assert torch.equal(logits(loaded, task, texts(task)), before[task])
    assert loaded.tokenizer.fingerprint == model.tokenizer.fingerprint
    files = {path.name for path in (tmp_path / "run" / "best").iterdir()}
    # Of a frozen encoder only what trains is saved; PEFT's file is for BERT as it is.
    held = {x.removesuffix(".safetensors") for x in files if x.endswith("tensors")}
    if change.get("lora") or change.get("ia3"):
        no_peft = {"rmsnorm", "bitfit"} & change.keys()
        assert held == ({"heads"} if no_peft else {"heads", "adapter_model"})
    else:
        frozen = {"option", "bitfit", "diff_pruning"} & change.keys()
        assert held == ({"heads"} if frozen else {"heads", "model"})


def test_an_adapter_is_small(tiny, tmp_path):
    saved(tiny, tmp_path / "whole")
    saved(tiny, tmp_path / "adapter", lora=True)
    whole, adapter = (
        sum(path.stat().st_size for path in (tmp_path / kind).glob("*.safetensors"))
        for kind in ("whole", "adapter")
    )
    assert adapter < 0.1 * whole


def test_a_model_stands_alone_once_saved(tiny, tmp_path):
    """Its folder does not need the pretrained one any more; an adapter's does, and says so."""
    shutil.copytree(tiny, tmp_path / "pretrained")
    saved(tmp_path / "pretrained", tmp_path / "whole")
    saved(tmp_path / "pretrained", tmp_path / "adapter", lora=True)
    shutil.rmtree(tmp_path / "pretrained")
    assert len(MultitaskBERT.load(tmp_path / "whole").predict("sst", [("fine",)])) == 1
    with pytest.raises(UserError, match="pretrained: no such folder"):
        MultitaskBERT.load(tmp_path / "adapter")


def break_file(folder: Path, name: str, content: str | bytes | None) -> None:
    path = folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    "change,name,content,message",
    [
        ({}, "options.json", None, "no model in it; expected a run folder with best/"),
        ({}, "options.json", '{"seed": 1', "options.json: not readable"),
        ({}, "options.json", '{"deepness": 1}', "unknown options: deepness"),
        ({}, "options.json", '{"tasks": ["mnli"]}', "--tasks mnli: expected one of"),
        ({}, "options.json", '{"precision": "fp8"}', "--precision fp8: expected one of"),
        ({}, "options.json", '{"lora_rank": 3}', "--lora_rank 3 needs --lora"),
        (
            {},
            "options.json",
            '{"tasks": ["cfimdb"]}',
            "heads.safetensors: does not fit the model .* missing: pipelines.cfimdb",
        ),
        ({}, "config.json", None, "config.json: No such file"),
        ({}, "config.json", "{", "config.json: not readable JSON"),
        (
            {},
            "config.json",
            '{"hidden_size": 20, "num_attention_heads": 5}',
            "hidden_size is 20 in config.json, 32 in the weights",
        ),
        ({}, "model.safetensors", None, "model.safetensors: No such file"),
        ({}, "heads.safetensors", None, "no heads.safetensors in it, so it is as older versions"),
        (
            {"lora": True},
            "heads.safetensors",
            None,
            "no heads.safetensors in it, so it is not whole",
        ),
        ({}, "model.safetensors", b"", "not a readable safetensors file"),
        ({}, "model.safetensors", bytes(1000), "not a readable safetensors file"),
        ({"lora": True}, "adapter_model.safetensors", b"torn", "not a readable safetensors file"),
        ({"lora": True}, "options.json", "rank", "wrong shapes"),
    ],
)
def test_loading_errors_are_one_line(tiny, tmp_path, change, name, content, message):
    model = saved(tiny, tmp_path / "run" / "best", **change)
    if content == "rank":
        content = json.dumps({**json.loads(model.options.to_json()), "lora_rank": 3})
    break_file(tmp_path / "run" / "best", name, content)
    write_manifest(tmp_path / "run" / "best")  # which would find all of these
    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        with pytest.raises(UserError, match=message) as caught:
            MultitaskBERT.load(folder)
        assert "\n" not in str(caught.value)


def test_two_models_are_not_mixed_in_one_folder(tiny, tmp_path):
    """--model would take the encoder of the first for that of the second."""
    saved(tiny, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(UserError, match="run: holds a saved model already; name another folder"):
        make(tiny, lora=True).save(tmp_path / "run")
    after = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize("change", [{}, {"lora": True}])
def test_a_folder_of_an_older_version(tiny, tmp_path, change):
    """Heads and encoder were in one file, under our names."""
    model = saved(tiny, tmp_path / "run", **change)
    for path in (tmp_path / "run").glob("*.safetensors"):
        path.unlink()
    name = "adapter.safetensors" if change else "model.safetensors"
    write_tensors(tmp_path / "run" / name, model.own_state())
    write_manifest(tmp_path / "run")
    with pytest.raises(UserError, match="so it is as older versions saved it; train again, or"):
        MultitaskBERT.load(tmp_path / "run")


def test_torn_weights(tiny, tmp_path):
    saved(tiny, tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    write_manifest(tmp_path / "run")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        MultitaskBERT.load(tmp_path / "run")


def test_no_run_there(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="no model in it; expected a run folder with best/"):
            MultitaskBERT.load(folder)
    (tmp_path / "options.json").write_text(Options().to_json())  # a run that was not evaluated yet
    with pytest.raises(UserError, match="no model in it"):
        MultitaskBERT.load(tmp_path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_only_cls_in_the_last_layer_changes_neither_logits_nor_gradients(tiny: Path, encoding: str):
    found = []
    sizes = []
    for needs in ("cls", "tokens"):
        model = make(tiny, pair_encoding=encoding)
        for pipeline in model.pipelines.values():
            pipeline.pooling.needs = needs
        batches = {task: batch(model, task, texts(task, 5)) for task in BASE.tasks}
        forward = model(model.pack(batches))
        sizes.append(len(forward.states[-1]))
        sum(x.sin().sum() for x in forward.logits.values()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([*forward.logits.values(), *gradients])
    assert sizes == [len(forward.packed.starts), len(forward.packed.input_ids)]
    assert len(found[0]) == len(found[1])
    for few, all_ in zip(*found, strict=True):
        close(few, all_)


def test_two_threads_share_a_model_in_bf16(tiny):
    """As in a web demo: the cast weights of one call must not become another's masters."""
    model = make(tiny)
    model.compute_dtype = torch.bfloat16
    before = {name: x.clone() for name, x in model.state_dict().items()}
    some = [("a dull film", "a fine film")] * 7
    expected = model.predict("sts", some)
    answers: list[list[float]] = []

    def ask() -> None:
        for _ in range(10):
            answers.append(model.predict("sts", some))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 30
    after = model.state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())
    assert all(p.dtype == torch.float32 and p.is_leaf for p in model.parameters())


def test_a_loaded_model_needs_its_folder_no_more(tiny, tmp_path, monkeypatch):
    saved(tiny, tmp_path / "run" / "best")
    monkeypatch.chdir(tmp_path)
    model = MultitaskBERT.load("run")
    monkeypatch.chdir("/")
    assert len(model.predict("sst", ["a fine film"])) == 1


def test_the_courses_faces_name_a_task_that_is_not_there(tiny, tokenizer):
    model = make(tiny, tasks=("sts",))
    one = padded(tokenizer, ["a film"])
    with pytest.raises(UserError, match="sst: this model has no head for it, only for sts"):
        model.predict_sentiment(*one)
    with pytest.raises(UserError, match="para: this model has no head for it, only for sts"):
        model.predict_paraphrase(*one, *one)
