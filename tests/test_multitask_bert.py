"""MultitaskBERT: each example's result is its own, all faces agree, what is saved is what is
loaded.
"""

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from base_bert import BertConfig
from bert import BertModel
from datasets import Batch
from errors import UserError
from heads import HEADS, POOLINGS, cls_pooling
from lora import LoRALinear
from multitask_bert import MultitaskBERT, build, join_pair, pick_device, pick_dtype, unpad
from options import Options
from tasks import TASKS
from tokenizer import BertTokenizer

WORDS = [
    "a",
    "the",
    "film",
    "question",
    "is",
    "not",
    "very",
    "dull",
    "fine",
    "how",
    "where",
    "do",
    "I",
    "?",
    "zyzzyva",
]
BASE = Options(tasks=("sst", "para", "sts"), precision="fp32")
ENCODINGS = ("cross", "bi")


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny)


def make(tiny: Path, **change) -> MultitaskBERT:
    """A tiny model whose heads are far enough from zero for a leak to show."""
    torch.manual_seed(0)
    model = build(replace(BASE, model=str(tiny), **change))
    for head in model.heads.values():
        torch.nn.init.normal_(head.out.weight)
    return model.eval()


def texts(task: str, size: int = 13, longest: int = 30, seed: int = 0) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(seed)
    columns = range(len(TASKS[task].columns))
    return [
        tuple(" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in columns)
        for _ in range(size)
    ]


def batch(model: MultitaskBERT, task: str, some: list[tuple[str, ...]]) -> Batch:
    flat = [(x,) for text in some for x in text] if model.is_bi(task) else some
    return Batch(model.tokenizer.encode_batch(flat, model.options.max_length), torch.empty(0))


@torch.no_grad()
def logits(model: MultitaskBERT, task: str, some: list[tuple[str, ...]]) -> torch.Tensor:
    return model.logits({task: batch(model, task, some)})[task]


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def padded(
    tokenizer: BertTokenizer, sentences: list[str], width: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The course's batch: ids and mask, with extra columns of padding on the right."""
    encoding = tokenizer(sentences, return_tensors="pt", padding=True, truncation=True)
    extra = torch.zeros(len(sentences), width, dtype=torch.int64)
    return torch.cat([encoding["input_ids"], extra], 1), torch.cat(
        [encoding["attention_mask"], extra], 1
    )


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


@pytest.mark.parametrize("pooling,head,encoding", list(product(POOLINGS, HEADS, ENCODINGS)))
def test_the_courses_faces_agree_with_texts(tiny, tokenizer, pooling, head, encoding):
    model = make(tiny, pooling=pooling, head=head, pair_encoding=encoding)
    for width in (0, 9):
        some = texts("sst")
        with torch.no_grad():
            close(
                model.predict_sentiment(*padded(tokenizer, [x for (x,) in some], width)),
                logits(model, "sst", some),
            )
            for task, method in (
                ("para", model.predict_paraphrase),
                ("sts", model.predict_similarity),
            ):
                some = texts(task)
                inputs = [
                    x
                    for i in (0, 1)
                    for x in padded(tokenizer, [text[i] for text in some], (i + 1) * width)
                ]
                out = method(*inputs)
                expected = logits(model, task, some)
                close(out, expected[:, 0] if task == "para" else TASKS["sts"].predict(expected))
                assert out.shape == (13,)
                close(method(*(x[4:7] for x in inputs)), out[4:7])
                swapped = method(*inputs[2:], *inputs[:2])
                assert (swapped - out).abs().max() > 1e-4  # which sentence is first is not lost
        model.train()
        for task in BASE.tasks:
            some = texts(task)
            predicted = model.predict(task, some)
            assert predicted == pytest.approx(
                TASKS[task].predict(logits(model.eval(), task, some)).tolist(), rel=1e-5
            )
            assert (
                model.train().predict(task, some[:1]) == pytest.approx(predicted[:1], rel=1e-5)
                and model.training
            )
        model.eval()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings(tiny, tokenizer, pooling):
    """model(ids, mask) is the pooled encoder: [B, H], as the encoder's padded face has it."""
    model = make(tiny, pooling=pooling)
    ids, mask = padded(tokenizer, [x for (x,) in texts("sst")], 5)
    with torch.no_grad():
        states = model.bert(ids, mask)["last_hidden_state"]
        own = mask[:, :, None]
        expected = states[:, 0] if pooling == "cls" else (states * own).sum(1) / own.sum(1)
        close(model(ids, mask), expected)
        close(model(ids[3:4, : mask[3].sum()], mask[3:4, : mask[3].sum()]), expected[3:4])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_long_texts_are_cut_alike(tiny, tokenizer, encoding):
    model = make(tiny, pooling="mean", pair_encoding=encoding, max_length=14)
    singles, pairs = texts("sst", longest=40), texts("sts", longest=40)
    with torch.no_grad():
        close(
            model.predict_sentiment(*padded(tokenizer, [x for (x,) in singles])),
            logits(model, "sst", singles),
        )
        inputs = [x for i in (0, 1) for x in padded(tokenizer, [pair[i] for pair in pairs])]
        close(model.predict_similarity(*inputs), TASKS["sts"].predict(logits(model, "sts", pairs)))


# ---- pairs


def test_join_pair_is_the_tokenizers_own_pair(tokenizer):
    """All small lengths at several limits, and random texts."""
    rng = np.random.default_rng(0)
    pairs = [("film " * n, "dull " * m) for n in range(11) for m in range(11)]
    pairs += [
        tuple(" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in "ab") for _ in range(100)
    ]
    first, second = (tokenizer.encode_batch([(pair[i],) for pair in pairs], 512) for i in (0, 1))
    for limit in (3, 4, 5, 8, 13, 64):
        for (a, _), (b, _), (ids, types) in zip(
            first, second, tokenizer.encode_batch(pairs, limit), strict=True
        ):
            joined, joined_types = join_pair(a, b, limit)
            assert joined.tolist() == ids.tolist() and joined_types.tolist() == types.tolist(), (
                limit,
                len(a),
                len(b),
            )


def test_unpad():
    ids = torch.tensor([[101, 5, 6, 102, 0], [101, 102, 0, 0, 0], [101, 5, 6, 7, 102]])
    whole, cut = (
        [[101, 5, 6, 102], [101, 102], [101, 5, 6, 7, 102]],
        [[101, 5, 102], [101, 102], [101, 5, 102]],
    )
    for limit, expected in ((9, whole), (5, whole), (3, cut)):
        rows = unpad(ids, (ids > 0).long(), limit)
        assert [row.tolist() for row, _ in rows] == expected
        assert [types.tolist() for _, types in rows] == [[0] * len(x) for x in expected]


# ---- build, device, precision


def test_what_trains(tiny, capsys):
    assert all(p.requires_grad for p in make(tiny).parameters())
    assert "2 layers, 1.01M of 1.01M parameters train" in capsys.readouterr().out
    frozen = make(tiny, option="pretrain")
    assert not any(p.requires_grad for p in frozen.bert.parameters())
    assert all(p.requires_grad for p in frozen.heads.parameters())
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
        type(model.heads["sst"].norm).__name__ == "RMSNorm"
        and type(model.heads["sst"].dense).__name__ == "SwiGLU"
    )
    assert make(tiny, swiglu="encoder", swiglu_start="random").bert.config.intermediate_size < 64
    plain = make(tiny, rmsnorm="heads", swiglu="heads")
    assert (plain.bert.config.norm, plain.bert.config.feed_forward) == ("layernorm", "gelu")
    assert type(plain.heads["sts"].norm).__name__ == "RMSNorm"


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
        ({"pooling": "max"}, "^--pooling max: expected one of cls, mean$"),
        ({"head": "deep"}, "^--head deep: expected one of mlp, linear$"),
    ):
        with pytest.raises(UserError, match=message):
            make(tiny, **change)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="^--use_gpu: torch sees no CUDA device"):
            pick_device(True)


def test_device_and_dtype():
    cpu = pick_device(False)
    assert (
        cpu.type == "cpu"
        and pick_dtype("fp32", cpu) == torch.float32
        and pick_dtype("bf16", cpu) == torch.bfloat16
    )
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)


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
    {"lora": True},
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
    frozen = (
        change.get("lora") or change.get("option") == "pretrain"
    )  # then only what trains is saved
    assert {x for x in files if x.endswith("tensors")} == {
        f"{'adapter' if frozen else 'model'}.safetensors"
    }


def test_an_adapter_is_small(tiny, tmp_path):
    saved(tiny, tmp_path / "whole")
    saved(tiny, tmp_path / "adapter", lora=True)
    whole, adapter = (
        tmp_path / x for x in ("whole/model.safetensors", "adapter/adapter.safetensors")
    )
    assert adapter.stat().st_size < 0.1 * whole.stat().st_size


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
        ({}, "options.json", '{"seed": 1', "options.json is not readable"),
        ({}, "options.json", '{"deepness": 1}', "unknown options: deepness"),
        ({}, "options.json", '{"tasks": ["mnli"]}', "--tasks mnli: expected one of"),
        (
            {},
            "options.json",
            '{"tasks": ["cfimdb"]}',
            "model.safetensors: not this model's weights",
        ),
        ({}, "config.json", None, "config.json: not readable"),
        ({}, "config.json", "{", "config.json: not readable"),
        (
            {},
            "config.json",
            '{"hidden_size": 20, "num_attention_heads": 5}',
            "not this model's weights",
        ),
        ({}, "model.safetensors", None, "no model in it"),
        ({}, "model.safetensors", b"", "not a readable checkpoint"),
        ({}, "model.safetensors", bytes(1000), "not a readable checkpoint"),
        ({"lora": True}, "adapter.safetensors", b"torn", "not a readable checkpoint"),
        ({"lora": True}, "options.json", "rank", "wrong shapes"),
    ],
)
def test_loading_errors_are_one_line(tiny, tmp_path, change, name, content, message):
    model = saved(tiny, tmp_path / "run" / "best", **change)
    if content == "rank":
        content = json.dumps({**json.loads(model.options.to_json()), "lora_rank": 3})
    break_file(tmp_path / "run" / "best", name, content)
    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        with pytest.raises(UserError, match=message) as caught:
            MultitaskBERT.load(folder)
        assert "\n" not in str(caught.value)


def test_torn_weights(tiny, tmp_path):
    saved(tiny, tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable checkpoint"):
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
    for pool in (
        cls_pooling,
        lambda encoded: cls_pooling(encoded),
    ):  # the second is not known to need no other token
        model = make(tiny, pair_encoding=encoding)
        model.pool = pool
        out = model.logits({task: batch(model, task, texts(task, 5)) for task in BASE.tasks})
        sum(x.sin().sum() for x in out.values()).backward()
        found.append([*out.values(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for few, all_ in zip(*found, strict=True):
        close(few, all_)
