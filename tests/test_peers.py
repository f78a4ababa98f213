"""Oracles: what transformers, PEFT and sentence-transformers make of saved models.

Each in a process of its own elsewhere, since our datasets.py would shadow the package `datasets`.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.sentence_bert import chosen_task
from multitask_bert import MultitaskBERT
from packing import Batch, Tokens
from tests.multitask import make, padded

TEXTS = ["A lovely film .", "It is not good , sadly , and far too long .", "How do I zyzzyva ?"]
WHOLE: dict[str, dict[str, Any]] = {
    "cls": {},
    "mean": {"pooling": "cls sts=mean"},
    "max": {"pooling": "cls sts=max"},
    "pairs": {"pooling": "mean sst=cls", "tasks": ("sst", "para")},
    "sentences": {"pooling": "mean", "tasks": ("sst",)},
}
PEFT: dict[str, dict[str, Any]] = {
    "all": {"lora": True},
    "one layer": {"lora": True, "lora_layers": "1"},
    "qk": {"lora": True, "lora_targets": "qk", "lora_rank": 3, "lora_alpha": 5.0},
    "qv": {"lora": True, "lora_targets": "qv", "lora_layers": "0", "lora_dropout": 0.3},
    "qkv": {"lora": True, "lora_targets": "qkv"},
    "rslora": {"lora": True, "lora_scale": "sqrt_rank", "lora_rank": 7, "lora_init": "gaussian"},
    "dora": {"lora": True, "lora_type": "dora", "lora_rank": 3, "lora_dropout": 0.3},
    "ia3": {"ia3": True},
}
OURS: dict[str, dict[str, Any]] = {"rmsnorm": {"rmsnorm": "all"}, "swiglu": {"swiglu": "encoder"}}


def moved(model: MultitaskBERT) -> MultitaskBERT:
    """The model with everything that trains moved."""
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with saved models, the texts' ids, and what our own models make of them."""
    folder = tmp_path_factory.mktemp("peers")
    ours: dict[str, Tensor] = {}
    for name, change in {**WHOLE, **PEFT, **OURS}.items():
        model = moved(make(tiny, **change))
        (folder / name).mkdir()
        model.save(folder / name)
        ids, mask = padded(model.tokenizer, TEXTS)
        with torch.no_grad():
            ours[f"{name}.states"] = model.bert(ids, mask)["last_hidden_state"].contiguous()
        if name in WHOLE:
            ours[f"{name}.vectors"] = vectors(model, chosen_task(model.tasks))
    save_file({**ours, "ids": ids, "mask": mask}, folder / "ours.safetensors")
    return folder


@torch.no_grad()
def vectors(model: MultitaskBERT, task: str) -> Tensor:
    """TEXTS' vectors by the pooling of a task: [3, H]."""
    encoded = model.tokenizer.encode_batch([(text,) for text in TEXTS], 256)
    tokens = [Tokens(ids, types) for ids, types in encoded]
    some = Batch(task, tokens, torch.arange(len(TEXTS)), torch.empty(0))
    return model(model.pack({task: some})).pooled[task]


Answers = tuple[dict[str, Tensor], dict[str, Any]]


def answers(code: str, place: Path, *names: str) -> Answers:
    """What `code` puts into `tensors` and `words`, in a process elsewhere, about these models."""
    frame = (
        "import json, sys, torch\nfrom safetensors.torch import load_file, save_file\n"
        "names = sys.argv[1:]\nours = load_file('ours.safetensors')\n"
        "ids, mask = ours['ids'], ours['mask']\ntensors, words = {'none': ids}, {}\n"
        "torch.set_grad_enabled(False)\n"
        f"{code}\n"
        "save_file(tensors, 'theirs.safetensors')\n"
        "json.dump(words, open('words.json', 'w'))\n"
    )
    command = [sys.executable, "-P", "-c", frame, *names]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = json.loads((place / "words.json").read_text())
    return load_file(place / "theirs.safetensors"), words


# What transformers can't load is said; what PEFT puts an adapter on is its base.
LOADED = """
from transformers import AutoModel, AutoTokenizer
from peft import PeftModel
from pathlib import Path
for name in names:
    adapter = Path(name, "adapter_config.json")
    place = json.loads(adapter.read_text())["base_model_name_or_path"] if adapter.exists() else name
    try:
        model, info = AutoModel.from_pretrained(place, output_loading_info=True)
    except ValueError as error:
        words[name] = str(error)
        continue
    words[name] = {key: sorted(map(str, value)) for key, value in info.items()}
    if adapter.exists():
        model = PeftModel.from_pretrained(model, name)
        words[name] = sum("lora_" in x or "ia3_" in x for x in model.state_dict())
    assert AutoTokenizer.from_pretrained(place)("A film")["input_ids"][0] == ids[0, 0]
    tensors[name] = model.eval()(ids, attention_mask=mask).last_hidden_state
"""


@pytest.fixture(scope="module")
def loaded(place: Path) -> Answers:
    """What transformers and PEFT make of the models."""
    pytest.importorskip("peft")
    return answers(LOADED, place, *WHOLE, *OURS, *PEFT)


def test_transformers_loads_the_trained_encoder(place: Path, loaded: Answers) -> None:
    theirs, words = loaded
    ours = load_file(place / "ours.safetensors")
    for name in WHOLE:
        assert not any(words[name].values()), words[name]  # nothing missing, nothing left over
        torch.testing.assert_close(theirs[name], ours[f"{name}.states"], atol=1e-5, rtol=1e-5)


def test_what_is_not_bert_is_refused(loaded: Answers) -> None:
    """Not loaded with weights at random."""
    for name in OURS:
        assert "model type `minbert`" in loaded[1][name]


def test_peft_loads_the_adapters(place: Path, loaded: Answers) -> None:
    theirs, words = loaded
    ours = load_file(place / "ours.safetensors")
    for name in PEFT:
        torch.testing.assert_close(theirs[name], ours[f"{name}.states"], atol=1e-5, rtol=1e-5)
        # As many updates as the file has, so that none went elsewhere.
        assert words[name] == len(load_file(place / name / "adapter_model.safetensors"))


SENTENCES = f"""
from sentence_transformers import SentenceTransformer
for name in names:
    model = SentenceTransformer(name, device="cpu")
    tensors[name] = torch.from_numpy(model.encode({TEXTS!r}))
    words[name] = model.max_seq_length
"""


def test_sentence_transformers_gives_our_vectors(place: Path) -> None:
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("sentence_transformers is not installed")
    theirs, words = answers(SENTENCES, place, *WHOLE)
    ours = load_file(place / "ours.safetensors")
    for name in WHOLE:
        torch.testing.assert_close(theirs[name], ours[f"{name}.vectors"], atol=1e-5, rtol=1e-5)
        assert words[name] == 256


def test_a_pooling_that_sentence_transformers_has_not(place: Path) -> None:
    """Or an encoder that it can't load."""
    kinds = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "pairs": "mean_tokens"}
    for name, kind in kinds.items():
        pooling = json.loads((place / name / "1_Pooling" / "config.json").read_text())
        assert [key for key, value in pooling.items() if value is True] == [f"pooling_mode_{kind}"]
    for name in (*PEFT, *OURS):
        assert not (place / name / "modules.json").exists()
