"""What the CS224N course's scripts of 2023 and 2024 ask of our modules: the same calls, in the same
order.

No course code is here. The scripts themselves run unchanged on these modules, given a cached
bert-base-uncased.
"""

import argparse
import importlib
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.utils.data import DataLoader

import evaluation
from bert import BertModel
from datasets import (
    SentenceClassificationDataset,
    SentenceClassificationTestDataset,
    SentencePairDataset,
    SentencePairTestDataset,
    load_multitask_data,
    load_multitask_test_data,
    preprocess_string,
)
from errors import UserError
from optimizer import AdamW
from tokenizer import BertTokenizer

SENTENCES = [
    "A fine film.",
    "Dull, isn't it?",
    "So so",
    "It's the best of the year!",
    "Bad",
    "Why ?",
    "never again .",
]
PAIR_KEYS = [
    f"{key}_{i}" for i in (1, 2) for key in ("token_ids", "token_type_ids", "attention_mask")
]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub cache in which bert-base-uncased is the tiny model, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    model = tmp_path / "hub" / "models--bert-base-uncased"
    shutil.copytree(tiny, model / "snapshots" / ("0" * 40))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def args(tmp_path: Path) -> SimpleNamespace:
    """The scripts' arguments, over seven rows a file; the first column is the course's unnamed
    index.
    """
    namespace = SimpleNamespace(batch_size=3, lr=1e-3, hidden_dropout_prob=0.3, option="finetune")
    labels = {
        "sst": ("sentiment", [3, 0, 2, 4, 1, 2, 0]),
        "para": ("is_duplicate", [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]),
        "sts": ("similarity", [4.6, 0.0, 5.0, 2.2, 1.0, 3.8, 0.4]),
    }
    for task, (column, values) in labels.items():
        texts = ["sentence"] if task == "sst" else ["sentence1", "sentence2"]
        for split in ("train", "dev", "test"):
            names = ["", "id", *texts] + ([] if split == "test" else [column])
            rows = ["\t".join(names)]
            for i, value in enumerate(values):
                cells = [str(i), f"ID{split}{i}", SENTENCES[i], SENTENCES[(3 * i + 1) % 7]][
                    : 2 + len(texts)
                ]
                rows.append("\t".join(cells + ([] if split == "test" else [str(value)])))
            path = tmp_path / f"{task}-{split}.csv"
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
            setattr(namespace, f"{task}_{split}", str(path))
            setattr(namespace, f"{task}_{split}_out", str(tmp_path / f"{task}-{split}-output.csv"))
    return namespace


def rows_of(args: SimpleNamespace, name: str, split: str) -> tuple:
    """load_multitask_data as both years call it: three paths in order, `split` by name."""
    return load_multitask_data(
        *(getattr(args, f"{task}_{name}") for task in ("sst", "para", "sts")), split=split
    )


def loaders_of(args: SimpleNamespace, name: str) -> list[DataLoader]:
    """The three DataLoaders of a split, as both years make them."""
    sst, _, para, sts = rows_of(args, name, name)
    if name == "test":
        sets = [
            SentenceClassificationTestDataset(sst, args),
            *(SentencePairTestDataset(x, args) for x in (para, sts)),
        ]
    else:
        sets = [
            SentenceClassificationDataset(sst, args),
            SentencePairDataset(para, args),
            SentencePairDataset(sts, args, isRegression=True),
        ]
    return [
        DataLoader(s, shuffle=False, batch_size=args.batch_size, collate_fn=s.collate_fn)
        for s in sets
    ]


class Model(nn.Module):
    """A multitask model as the scripts have it. `fixed` makes its answers plain functions of the
    token ids.
    """

    def __init__(self, fixed: bool = False):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        self.heads = nn.ModuleList(
            nn.Linear(n * self.bert.config.hidden_size, k) for n, k in ((1, 5), (2, 1), (2, 1))
        )
        self.dropout = nn.Dropout(0.3)
        self.fixed = fixed

    def forward(self, input_ids, attention_mask):
        return self.dropout(self.bert(input_ids, attention_mask)["pooler_output"])

    def predict_sentiment(self, input_ids, attention_mask):
        assert not (self.fixed and self.training)
        if self.fixed:
            return F.one_hot((input_ids * attention_mask).sum(1) % 5, 5).float().requires_grad_()
        return self.heads[0](self(input_ids, attention_mask))

    def pair(self, head, ids1, mask1, ids2, mask2):
        assert not (self.fixed and (self.training or torch.is_grad_enabled()))
        if self.fixed:
            return ((ids1 * mask1).sum(1, keepdim=True) - (ids2 * mask2).sum(1, keepdim=True)) / (
                1000.0 * (1 + head)
            )
        return self.heads[head](torch.cat([self(ids1, mask1), self(ids2, mask2)], dim=1))

    def predict_paraphrase(self, *inputs):
        return self.pair(1, *inputs)

    def predict_similarity(self, *inputs):
        return self.pair(2, *inputs)


def expected_of(args: SimpleNamespace, split: str) -> dict[str, list]:
    """What the fixed model answers, from the tokenizer alone, by task."""
    tok = BertTokenizer.from_pretrained("bert-base-uncased")
    sst, _, para, sts = rows_of(args, split, split)

    def total(text: str) -> int:
        return sum(tok(text)["input_ids"])

    gap = {
        name: np.array([total(r[0]) - total(r[1]) for r in rows])
        for name, rows in (("para", para), ("sts", sts))
    }
    return {
        "sst": [total(r[0]) % 5 for r in sst],
        "para": list((gap["para"] > 0).astype(float)),
        "sts": list((gap["sts"] / 3000).astype(np.float32)),
    }


PROJECT = Path(evaluation.__file__).parent


def in_a_fresh_process(code: str, **environment: str) -> str:
    """What `code` prints in a new python that finds our modules."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_courses_names_are_where_its_scripts_import_them():
    for module in ("datasets", "evaluation"):
        ours = vars(importlib.import_module(f"course.{module}"))
        fixed = vars(importlib.import_module(module))
        for name, value in ours.items():
            defined_here = getattr(value, "__module__", "") == f"course.{module}"
            if defined_here and not name.startswith("_"):
                assert fixed[name] is value, f"{module}.{name}"


def test_the_course_folder_imports_nothing_that_imports_it():
    code = "import sys, course.evaluation; print({'datasets', 'evaluation'} & set(sys.modules))"
    assert in_a_fresh_process(code).strip() == "set()"
    assert (PROJECT / "course" / "__init__.py").read_text() == ""


def test_rows(args):
    sst, num_labels, para, sts = rows_of(args, "train", "train")
    assert sst[0] == ("a fine film.", 3, "idtrain0") and isinstance(sst[0][1], int)
    assert para[1] == ("dull , isn 't it ?", "bad", 0, "idtrain1") and isinstance(para[1][2], int)
    assert sts[0] == ("a fine film .", "dull , isn 't it ?", 4.6, "idtrain0")
    assert num_labels == {3: 0, 0: 1, 2: 2, 4: 3, 1: 4}
    assert rows_of(args, "dev", "dev")[0][1] == ("dull, isn't it?", 0, "iddev1")
    sst, _, para, sts = rows_of(args, "test", "test")
    assert sst[4] == ("bad", "idtest4") and para[2] == sts[2] == (
        "so so",
        "a fine film .",
        "idtest2",
    )
    assert preprocess_string("It's  a\tTest, no?") == "it 's a test , no ?"


def test_2023s_test_data_without_ids(args, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for task, name in (
        ("sst", "ids-sst-test.txt"),
        ("para", "quora-test.csv"),
        ("sts", "sts-test.csv"),
    ):
        shutil.copyfile(getattr(args, f"{task}_test"), tmp_path / "data" / name)
    monkeypatch.chdir(tmp_path)
    sst, para, sts = load_multitask_test_data()
    assert sst[4] == "bad" and para[2] == sts[2] == ("so so", "a fine film .")


def test_batches(args):
    sst, _, para, sts = rows_of(args, "train", "train")
    batch = next(
        iter(
            DataLoader(
                d := SentenceClassificationDataset(sst, args), batch_size=3, collate_fn=d.collate_fn
            )
        )
    )
    assert list(batch) == ["token_ids", "attention_mask", "labels", "sents", "sent_ids"]
    assert len(d) == 7 and d[0] == sst[0]
    assert batch["sents"] == [r[0] for r in sst[:3]] and batch["sent_ids"] == [
        "idtrain0",
        "idtrain1",
        "idtrain2",
    ]
    assert batch["labels"].tolist() == [3, 0, 2]
    tok = BertTokenizer.from_pretrained("bert-base-uncased")
    encoding = tok(batch["sents"], return_tensors="pt", padding=True, truncation=True)
    assert torch.equal(torch.LongTensor(encoding["input_ids"]), batch["token_ids"])
    assert torch.equal(torch.LongTensor(encoding["attention_mask"]), batch["attention_mask"])

    for rows, extra, dtype in (
        (para, {}, torch.int64),
        (sts, {"isRegression": True}, torch.float64),
    ):
        batch = (d := SentencePairDataset(rows, args, **extra)).collate_fn([d[i] for i in range(4)])
        assert list(batch) == [*PAIR_KEYS, "labels", "sent_ids"]
        assert batch["labels"].dtype == dtype and batch["labels"].tolist() == [
            r[2] for r in rows[:4]
        ]
        for i in (1, 2):
            alone = tok(
                [r[i - 1] for r in rows[:4]], return_tensors="pt", padding=True, truncation=True
            )
            for key, value in (
                ("token_ids", "input_ids"),
                ("token_type_ids",) * 2,
                ("attention_mask",) * 2,
            ):
                assert torch.equal(batch[f"{key}_{i}"], alone[value])
    # 2023 has no isRegression and would cut 4.6 to 4: here the labels stay what they are.
    assert (d := SentencePairDataset(sts, args)).collate_fn([d[0]])["labels"].tolist() == [4.6]

    sst, _, para, _ = rows_of(args, "test", "test")
    d = SentenceClassificationTestDataset(sst, args)
    assert list(d.collate_fn(sst[:2])) == ["token_ids", "attention_mask", "sents", "sent_ids"]
    assert list(SentencePairTestDataset(para, args).collate_fn(para[:2])) == [
        *PAIR_KEYS,
        "sent_ids",
    ]
    for batch in (
        b for name in ("train", "test") for loader in loaders_of(args, name) for b in loader
    ):
        assert all(
            x.dtype == torch.int64 for key, x in batch.items() if key[:5] in ("token", "atten")
        )


def test_the_tokenizers_name(args, tiny, embedded, tmp_path, monkeypatch):
    """args.tokenizer_name, then MINBERT_TOKENIZER, then the class's tokenizer_name."""
    sst, _, para, _ = rows_of(args, "dev", "dev")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for n in range(3):
        (tmp_path / f"words{n}").mkdir()
        words = [*special, *[f"w{i}" for i in range(n)]]
        (tmp_path / f"words{n}" / "vocab.txt").write_text("\n".join(words) + "\n")

    class Own(SentencePairDataset):
        tokenizer_name = str(tmp_path / "words0")

    assert len(SentenceClassificationDataset(sst, args).tokenizer) == 30522
    assert len(Own(para, args).tokenizer) == 5
    monkeypatch.setenv("MINBERT_TOKENIZER", str(tmp_path / "words1"))
    assert len(SentenceClassificationDataset(sst, args).tokenizer) == 6
    assert len(Own(para, args).tokenizer) == 6
    args.tokenizer_name = str(tmp_path / "words2")
    assert len(SentenceClassificationDataset(sst, args).tokenizer) == 7
    assert len(Own(para, args).tokenizer) == 7


@pytest.mark.parametrize("frozen", [False, True])
def test_train_save_load(args, tmp_path, frozen):
    """The scripts' training loop and checkpoint."""
    torch.manual_seed(0)
    model = Model()
    for param in model.bert.parameters():
        param.requires_grad = not frozen
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = AdamW(model.parameters(), lr=args.lr)
    model.train()
    for batch in loaders_of(args, "train")[0]:
        optimizer.zero_grad()
        logits = model.predict_sentiment(
            batch["token_ids"].to(CPU), batch["attention_mask"].to(CPU)
        )
        loss = F.cross_entropy(logits, batch["labels"].view(-1), reduction="sum") / args.batch_size
        loss.backward()
        optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert {"heads.0.weight", "heads.0.bias"} <= moved and not any(
        k.startswith(("heads.1", "heads.2")) for k in moved
    )
    assert any(k.startswith("bert.") for k in moved) is not frozen
    stored = {
        "model": model.state_dict(),
        "optim": optimizer.state_dict(),
        "args": args,
        "model_config": args,
        "system_rng": random.getstate(),
        "numpy_rng": np.random.get_state(),
        "torch_rng": torch.random.get_rng_state(),
    }
    torch.save(stored, tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt")  # the scripts' own call
    again = Model()
    again.load_state_dict(saved["model"])
    AdamW(again.parameters(), lr=args.lr).load_state_dict(saved["optim"])
    batch = next(iter(loaders_of(args, "dev")[1]))
    inputs = [batch[f"{key}_{i}"] for i in (1, 2) for key in ("token_ids", "attention_mask")]
    assert torch.equal(
        model.eval().predict_paraphrase(*inputs), again.eval().predict_paraphrase(*inputs)
    )
    assert model.predict_paraphrase(*inputs).shape == (3, 1)


SAVE = """
import argparse, random, types, numpy, torch
torch.save({
    "args": argparse.Namespace(lr=1e-5, option="finetune"),
    "model_config": types.SimpleNamespace(hidden_size=768, num_labels={3: 0}),
    "system_rng": random.getstate(),
    "numpy_rng": numpy.random.get_state(),
    "torch_rng": torch.random.get_rng_state(),
}, "course.pt")
"""
LOAD = """
import torch
import MODULE
saved = torch.load("course.pt")
print(saved["args"].lr, saved["model_config"].num_labels, len(saved["numpy_rng"][1]))
"""


@pytest.mark.parametrize("module", ["datasets", "evaluation", "course.datasets"])
def test_course_checkpoints_load_in_a_fresh_process(module, tmp_path, monkeypatch):
    """A plain torch.load, which takes no objects but those that course/checkpoints.py names."""
    monkeypatch.chdir(tmp_path)
    in_a_fresh_process(SAVE)
    assert in_a_fresh_process(LOAD.replace("MODULE", module)).strip() == "1e-05 {3: 0} 624"
    without = LOAD.replace("MODULE", "bert")
    with pytest.raises(AssertionError, match="Weights only load failed"):
        in_a_fresh_process(without)


def test_course_checkpoints_of_numpy_1(tmp_path):
    """Its private modules had other names."""
    torch.save({"numpy_rng": np.random.get_state()}, tmp_path / "plain")
    plain, old = zipfile.ZipFile(tmp_path / "plain"), zipfile.ZipFile(tmp_path / "old", "w")
    with plain, old:
        for entry in plain.infolist():
            content = plain.read(entry)
            content = content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
            old.writestr(entry, content)
    assert b"numpy.core.multiarray" in (tmp_path / "old").read_bytes()
    state = torch.load(tmp_path / "old")["numpy_rng"]
    assert np.array_equal(state[1], np.random.get_state()[1])


def test_a_malicious_checkpoint_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    for i, value in enumerate((Evil(), argparse.Namespace(x=Evil()), SimpleNamespace(x=[Evil()]))):
        torch.save({"args": value}, tmp_path / f"{i}.pt")
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            torch.load(tmp_path / f"{i}.pt")
        assert not (tmp_path / "ran").exists()
        torch.load(tmp_path / f"{i}.pt", weights_only=False)
        assert (tmp_path / "ran").exists(), "the trap itself does not work"
        (tmp_path / "ran").unlink()


def test_forged_arrays_are_refused(tmp_path):
    """numpy's own constructors would take a file's bytes for objects, that is, for addresses."""

    class Forged:
        def __init__(self, *reduced):
            self.reduced = reduced

        def __reduce__(self):
            return self.reduced

    reconstruct = np.random.get_state()[1].__reduce__()[0]
    empty, word = (np.ndarray, (0,), b"b"), bytes(8)
    number, thing = np.dtype("u4"), np.dtype("O")
    forgeries = {
        "an array of objects over bytes": (np.ndarray, ((1,), "O", word)),
        "an object dtype": (np.dtype, ("O", False, True)),
        "an array of an object dtype": (reconstruct, empty, (1, (1,), thing, False, [None])),
        "another shape": (reconstruct, empty, (1, (2, 1), number, False, word)),
        "too few bytes": (reconstruct, empty, (1, (3,), number, False, word)),
        "no bytes": (reconstruct, empty, (1, (2,), number, False, [1, 2])),
        "a changed dtype": (np.dtype, ("u4",), (3, ">", None, None, None, -1, -1, 0)),
    }
    for what, reduced in forgeries.items():
        torch.save({"numpy_rng": Forged(*reduced)}, tmp_path / "forged.pt")
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            print(what, torch.load(tmp_path / "forged.pt"))
    assert np.dtype("u4").isnative


def test_numpys_random_state_goes_on(tmp_path):
    """From a checkpoint, and from the checkpoint of a checkpoint, which plain pickle reads too."""
    torch.save(np.random.get_state(), tmp_path / "first.pt")
    expected = np.random.random(3)
    torch.save(torch.load(tmp_path / "first.pt"), tmp_path / "second.pt")
    for name in ("first.pt", "second.pt"):
        np.random.set_state(torch.load(tmp_path / name))
        assert np.array_equal(np.random.random(3), expected)
    assert type(torch.load(tmp_path / "second.pt", weights_only=False)[1]) is np.ndarray


REGISTERED = """
import datasets, evaluation, torch
for known in torch.serialization.get_safe_globals():
    known, name = known if isinstance(known, tuple) else (known, "")
    if not known.__module__.startswith("torch."):
        print(known.__module__, known.__qualname__, name)
"""


def test_only_plain_data_is_registered():
    """No function or class of numpy's: ours stand in for them."""
    lines = in_a_fresh_process(REGISTERED).splitlines()
    assert sorted(line.strip() for line in lines) == [
        "argparse Namespace",
        "course.checkpoints RandomNumbers numpy.ndarray",
        "course.checkpoints UnsignedType numpy.dtype",
        "course.checkpoints empty_numbers numpy._core.multiarray._reconstruct",
        "course.checkpoints empty_numbers numpy.core.multiarray._reconstruct",
        "types SimpleNamespace",
    ]


def test_sanity_check(tiny):
    """The course's two sentences, given as positional and as named arguments."""
    ids = torch.tensor(
        [[101, 7592, 2088, 102, 0, 0, 0, 0], [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]]
    )
    mask = torch.tensor([[1] * 4 + [0] * 4, [1] * 8])
    bert = BertModel.from_pretrained("bert-base-uncased")
    outputs = bert(ids, mask)
    outputs["last_hidden_state"] = outputs["last_hidden_state"] * mask.unsqueeze(-1)
    named = bert(input_ids=ids, attention_mask=mask)
    for key, shape in (("last_hidden_state", (2, 8, 32)), ("pooler_output", (2, 32))):
        assert outputs[key].shape == shape
    assert torch.equal(named["pooler_output"], outputs["pooler_output"])
    oracle = pytest.importorskip("transformers").BertModel.from_pretrained(tiny).eval()(ids, mask)
    torch.testing.assert_close(
        outputs["last_hidden_state"], oracle.last_hidden_state * mask.unsqueeze(-1)
    )
    torch.testing.assert_close(outputs["pooler_output"], oracle.pooler_output)


def test_model_eval_sst(args):
    loader = loaders_of(args, "dev")[0]
    acc, f1, y_pred, y_true, sents, sent_ids = evaluation.model_eval_sst(loader, Model(True), CPU)
    assert [int(y) for y in y_true] == [3, 0, 2, 4, 1, 2, 0]
    assert [int(y) for y in y_pred] == expected_of(args, "dev")["sst"]
    assert acc == accuracy_score(y_true, y_pred) and f1 == f1_score(y_true, y_pred, average="macro")
    assert sents[0] == "a fine film." and sent_ids == [f"iddev{i}" for i in range(7)]


ORDER = {2023: ("para", "sst", "sts"), 2024: ("sst", "para", "sts")}


@pytest.mark.parametrize(
    ("handout", "how"),
    [
        (2023, "environment"),
        (2024, "environment"),
        (2023, "argument"),
        (2024, "argument"),
        (2024, "default"),
    ],
)
def test_the_order_of_each_handout(args, monkeypatch, handout, how):
    """2023: paraphrase, sentiment, similarity. 2024: sentiment, paraphrase, similarity."""
    monkeypatch.delenv("MINBERT_HANDOUT", raising=False)
    given = {}
    if how == "environment":
        monkeypatch.setenv("MINBERT_HANDOUT", str(handout))
    elif how == "argument":
        monkeypatch.setenv("MINBERT_HANDOUT", str(2023 + 2024 - handout))
        given = {"handout": handout}
    model, dev, test = Model(True), loaders_of(args, "dev"), loaders_of(args, "test")
    expected = expected_of(args, "dev")
    sst, _, para, sts = rows_of(args, "dev", "dev")
    score = {
        "sst": accuracy_score([r[1] for r in sst], expected["sst"]),
        "para": accuracy_score([r[2] for r in para], expected["para"]),
        "sts": np.corrcoef(expected["sts"], [r[2] for r in sts])[0, 1],
    }
    out = evaluation.model_eval_multitask(*dev, model, CPU, **given)
    assert len(out) == 9
    for i, task in enumerate(ORDER[handout]):
        assert out[3 * i] == pytest.approx(score[task])
        predictions = np.array(out[3 * i + 1], dtype=float)
        np.testing.assert_allclose(predictions, expected[task], rtol=1e-6)
        assert out[3 * i + 2] == [f"iddev{n}" for n in range(7)]

    expected = expected_of(args, "test")
    out = evaluation.model_eval_test_multitask(*test, model, CPU, **given)
    assert len(out) == 6
    for i, task in enumerate(ORDER[handout]):
        predictions = np.array(out[2 * i], dtype=float)
        np.testing.assert_allclose(predictions, expected[task], rtol=1e-6)
        assert out[2 * i + 1] == [f"idtest{n}" for n in range(7)]


def test_the_order_is_announced_once(args, monkeypatch, capsys):
    monkeypatch.delenv("MINBERT_HANDOUT", raising=False)
    monkeypatch.setattr("course.evaluation._announced", False)
    for _ in range(2):
        evaluation.model_eval_multitask(*loaders_of(args, "dev"), Model(True), CPU)
    line = "2024's order, sentiment first; MINBERT_HANDOUT=2023 gives 2023's"
    assert capsys.readouterr().out.count(line) == 1
    monkeypatch.setattr("course.evaluation._announced", False)
    evaluation.model_eval_test_multitask(*loaders_of(args, "test"), Model(True), CPU, handout=2023)
    line = "2023's order, paraphrase first; MINBERT_HANDOUT=2024 gives 2024's"
    assert capsys.readouterr().out.count(line) == 1


def test_another_handout_is_refused(args, monkeypatch):
    for score in (evaluation.model_eval_multitask, evaluation.model_eval_test_multitask):
        with pytest.raises(UserError, match='handout is "2022", expected 2023 or 2024'):
            score([], [], [], None, CPU, handout=2022)
        monkeypatch.setenv("MINBERT_HANDOUT", "later")
        with pytest.raises(UserError, match='handout is "later", expected 2023 or 2024'):
            score([], [], [], None, CPU)


@pytest.mark.parametrize("handout", ["2023", "2024"])
def test_2023s_prediction_files(args, monkeypatch, handout):
    """test_model_multitask writes six files: a header, then `{id} , {value} ` a row, dev ids with
    dev predictions.
    """
    monkeypatch.setenv("MINBERT_HANDOUT", handout)
    evaluation.test_model_multitask(args, Model(True), CPU)
    heads = {
        "sst": "Predicted_Sentiment",
        "para": "Predicted_Is_Paraphrase",
        "sts": "Predicted_Similiary",
    }
    for split in ("dev", "test"):
        expected = expected_of(args, split)
        for task, head in heads.items():
            lines = (
                Path(getattr(args, f"{task}_{split}_out")).read_text(encoding="utf-8").split("\n")
            )
            assert lines[0] == f"id \t {head} " and lines[-1] == "" and len(lines) == 9
            values = []
            for i, line in enumerate(lines[1:-1]):
                name, value = line.split(" , ")
                assert name == f"id{split}{i}" and value.endswith(" ") and value.strip() in line
                values.append(float(value))
            np.testing.assert_allclose(values, expected[task], rtol=1e-6)
            shape = {"sst": r"\d ", "para": r"[01]\.0 ", "sts": r"-?\d+\.\d+(e-\d+)? "}[task]
            assert all(re.fullmatch(shape, line.split(" , ")[1]) for line in lines[1:-1])


ENCODER = """
import torch
from bert import BertModel
from config import BertConfig
from utils import get_extended_attention_mask

bert = BertModel.from_pretrained("bert-base-uncased", local_files_only=True)
assert isinstance(bert.config, BertConfig)
ids = torch.tensor([[101, 7592, 2088, 102], [101, 102, 0, 0]])
outputs = bert(ids, (ids > 0).long())
assert outputs["last_hidden_state"].shape == (2, 4, 32)
assert outputs["pooler_output"].shape == (2, 32)
assert get_extended_attention_mask(ids, bert.dtype).shape == (2, 1, 1, 4)
"""
TOKENIZER = """
from tokenizer import BertTokenizer

tokenizer = BertTokenizer.from_pretrained("bert-base-uncased", local_files_only=True)
assert tokenizer("hello world", return_tensors="pt").input_ids.tolist() == [[101, 7592, 2088, 102]]
"""
OPTIMIZER = """
import torch
from optimizer import AdamW

layer = torch.nn.Linear(3, 1)
before = layer.weight.clone()
optimizer = AdamW(layer.parameters(), lr=1e-3)
layer(torch.ones(2, 3)).sum().backward()
optimizer.step()
assert not torch.equal(layer.weight, before)
optimizer.load_state_dict(optimizer.state_dict())
"""
SCORES = """
import argparse
import torch
from torch.utils.data import DataLoader
from datasets import SentenceClassificationDataset, SentencePairDataset, load_multitask_data
from evaluation import model_eval_multitask

class Model(torch.nn.Module):
    def predict_sentiment(self, ids, mask):
        return torch.eye(5)[ids.sum(1) % 5]
    def predict_paraphrase(self, ids1, mask1, ids2, mask2):
        return (ids1.sum(1) - ids2.sum(1)).float()
    predict_similarity = predict_paraphrase

torch.save({"args": argparse.Namespace(batch_size=3)}, "model.pt")
args = torch.load("model.pt")["args"]
sst, num_labels, para, sts = load_multitask_data(*FILES, split="dev")
sets = [SentenceClassificationDataset(sst, args), SentencePairDataset(para, args)]
sets.append(SentencePairDataset(sts, args, isRegression=True))
loaders = [DataLoader(s, batch_size=args.batch_size, collate_fn=s.collate_fn) for s in sets]
out = model_eval_multitask(*loaders, Model(), torch.device("cpu"))
para_acc, para_y_pred, para_ids, sst_acc, sst_y_pred, sst_ids, sts_corr, sts_y_pred, sts_ids = out
assert set(para_y_pred) <= {0.0, 1.0} and set(sst_y_pred) <= {0, 1, 2, 3, 4}
assert len(num_labels) == 5 and len(sts_y_pred) == 7
"""
LOADED = """
import sys
from pathlib import Path

here = Path(__file__).parent
for module in list(sys.modules.values()):
    file = Path(getattr(module, "__file__", None) or "/")
    if here in file.parents:
        print("uses", file.relative_to(here).as_posix())
"""


@pytest.mark.parametrize(
    ("purpose", "script"),
    [
        ("`BertModel`", ENCODER),
        ("`BertTokenizer`", TOKENIZER),
        ("`AdamW`", OPTIMIZER),
        ("datasets, scores", SCORES),
    ],
)
def test_the_files_that_the_readme_says_to_copy(args, tmp_path, purpose, script):
    """They are all that a course-style script needs in an empty folder, and each is needed."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in readme.splitlines() if line.startswith(f"| {purpose} | "))
    folder = tmp_path / "course folder"
    folder.mkdir()
    named = re.findall(r"`([^`]+)`", row.split("|")[2])
    for name in named:
        if name.endswith("/"):
            shutil.copytree(PROJECT / name, folder / name)
        else:
            shutil.copyfile(PROJECT / name, folder / name)
    copied = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}

    files = [args.sst_dev, args.para_dev, args.sts_dev]
    (folder / "script.py").write_text(f"FILES = {files}\n{script}{LOADED}", encoding="utf-8")
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    environment["MINBERT_HANDOUT"] = "2023"
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used = set(re.findall(r"^uses (.*)$", done.stdout, re.MULTILINE))
    assert used <= copied | {"script.py"}
    # Each file that is named is needed, and of a folder something is.
    for name in named:
        assert any(file == name or (name[-1] == "/" and file.startswith(name)) for file in used)
