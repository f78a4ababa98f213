"""BERTs of any size and in any form of file. Oracle: transformers, which wrote them."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bert import BertModel
from errors import UserError

transformers = pytest.importorskip("transformers")

# Layers, hidden size, heads: in small the proportions of tiny, mini, small, medium, base and large.
SIZES = {
    "tiny": (2, 16, 2),
    "mini": (4, 16, 4),
    "small": (4, 24, 8),
    "medium": (8, 24, 8),
    "base": (12, 36, 12),
    "large": (24, 48, 16),
}
FORMS = ("safetensors", "bin", "old bin", "old safetensors")


def write(folder: Path, size: str, form: str, vocabulary: int, **change: object) -> torch.nn.Module:
    """A random model in a folder, as the hub has such; `change` goes into its config.json."""
    layers, hidden, heads = SIZES[size]
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=64,
    )
    torch.manual_seed(hidden)
    model = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    model.save_pretrained(folder)

    # Released before transformers 2: gamma and beta, no type in the configuration.
    if form != "safetensors":
        state = load_file(folder / "model.safetensors")
        if form.startswith("old"):
            state = {old_name(name): x for name, x in state.items()}
            change = {**change, "model_type": None, "architectures": None}
        (folder / "model.safetensors").unlink()
        if form.endswith("bin"):
            torch.save(state, folder / "pytorch_model.bin")
        else:
            save_file(state, folder / "model.safetensors")

    values = {**json.loads((folder / "config.json").read_text()), **change}
    values = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))
    return model.bert


def old_name(name: str) -> str:
    """As TensorFlow's checkpoint has it."""
    name = re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", name)
    return re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)


@torch.no_grad()
def outputs(model: torch.nn.Module, ours: bool, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The last states and the pooler of padded pairs."""
    torch.manual_seed(0)
    lengths = torch.tensor([13, 7, 1])
    mask = (torch.arange(13) < lengths[:, None]).long()
    ids = torch.randint(1, vocabulary, mask.shape) * mask
    types = (torch.arange(13) >= 5).long() * mask
    out = model(ids, mask, types) if ours else model(ids, attention_mask=mask, token_type_ids=types)
    return out["last_hidden_state"][mask.bool()], out["pooler_output"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_transformers(size: str, form: str, tmp_path: Path) -> None:
    """With the pre-training heads beside it, of a cased vocabulary's size or an uncased one's."""
    vocabulary = 101 if form == "bin" else 113
    theirs = write(tmp_path, size, form, vocabulary)
    ours = BertModel.from_pretrained(tmp_path)
    assert len(ours.bert_layers) == SIZES[size][0]
    for a, b in zip(
        outputs(ours, True, vocabulary), outputs(theirs, False, vocabulary), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"position_embedding_type": "relative_key"},
            'config.json: position_embedding_type is "relative_key", expected "absolute"',
        ),
        ({"is_decoder": True}, "config.json: is_decoder is true, expected false"),
        ({"hidden_act": "relu"}, 'hidden_act is "relu"; BERT\'s is "gelu"'),
        ({"model_type": "roberta"}, 'config.json: model_type is "roberta", expected "bert"'),
    ],
)
def test_other_networks_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    write(tmp_path, "tiny", "safetensors", 101, **change)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        BertModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
