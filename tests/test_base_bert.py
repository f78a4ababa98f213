"""Finding, loading and saving weights. Oracle for what is saved: transformers' AutoModel and
AutoTokenizer.
"""

import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import base_bert
from base_bert import BertConfig, course_name, hub_name
from bert import BertModel
from errors import UserError

PROJECT = Path(base_bert.__file__).parent
CONFIG = {
    "hidden_size": 26,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 7,
    "vocab_size": 101,
    "max_position_embeddings": 64,
}


@pytest.fixture
def model() -> BertModel:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**CONFIG)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture
def folder(model: BertModel, tmp_path: Path) -> Path:
    """`model` as it is saved."""
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def output(model: BertModel) -> torch.Tensor:
    ids = torch.arange(1, 27).view(2, 13)
    with torch.no_grad():
        return model(ids, torch.ones_like(ids))["pooler_output"]


def rewrite(folder: Path, change) -> None:
    """Pass the saved tensors through `change`, which alters the dict or returns another."""
    state = load_file(folder / "model.safetensors")
    state = change(state) or state
    save_file(state, folder / "model.safetensors")


def old_style(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As bert-base-uncased on the hub: `bert.` before every name, gamma and beta for norms,
    pre-training heads.
    """
    named = {
        "bert."
        + re.sub(
            r"LayerNorm\.weight$",
            "LayerNorm.gamma",
            re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", k),
        ): v
        for k, v in state.items()
    }
    return {
        **named,
        "cls.predictions.bias": torch.zeros(101),
        "cls.seq_relationship.weight": torch.zeros(2, 26),
    }


# ---- loading


def test_save_and_load(model: BertModel, folder: Path):
    loaded = BertModel.from_pretrained(folder)
    assert not loaded.training and loaded.name_or_path == str(folder)
    assert torch.equal(output(loaded), output(model))
    assert loaded.config == model.config and loaded.dtype == torch.float32


def test_old_names_prefix_and_heads(model: BertModel, folder: Path, capsys):
    rewrite(folder, old_style)
    assert "bert.embeddings.LayerNorm.gamma" in load_file(folder / "model.safetensors")
    assert torch.equal(output(BertModel.from_pretrained(folder)), output(model))
    assert (
        "passed over 2 names outside the encoder: cls.predictions.bias, cls.seq_rel"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_bin_file_in_half_precision_with_position_ids(model: BertModel, folder: Path, legacy: bool):
    state = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
    state["embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    (folder / "model.safetensors").unlink()
    loaded = BertModel.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(output(loaded), output(model), atol=1e-2, rtol=1e-2)


def test_safetensors_before_bin(model: BertModel, folder: Path):
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert torch.equal(output(BertModel.from_pretrained(folder)), output(model))


def test_the_courses_names(model: BertModel, folder: Path):
    (folder / "model.safetensors").unlink()
    torch.save(
        {f"bert.{k}": v for k, v in model.state_dict().items()}, folder / "pytorch_model.bin"
    )
    assert torch.equal(output(BertModel.from_pretrained(folder)), output(model))


def test_names_go_both_ways(model: BertModel):
    for feed_forward in ("gelu", "swiglu"):
        names = BertModel(BertConfig(**CONFIG, feed_forward=feed_forward)).state_dict()
        assert [course_name(hub_name(n)) for n in names] == list(names)
        assert [course_name(n) for n in names] == list(names)
    assert (
        hub_name("bert_layers.1.attention_layer_norm.bias")
        == "encoder.layer.1.attention.output.LayerNorm.bias"
    )
    assert (
        hub_name("bert_layers.1.interm_dense.weight") == "encoder.layer.1.intermediate.dense.weight"
    )
    assert (
        course_name("bert.encoder.layer.11.output.LayerNorm.gamma")
        == "bert_layers.11.out_layer_norm.weight"
    )


def test_without_a_pooler(model: BertModel, folder: Path, capsys):
    rewrite(folder, lambda state: {k: v for k, v in state.items() if "pooler" not in k})
    loaded = BertModel.from_pretrained(folder)
    assert "has no pooler; ours starts at random" in capsys.readouterr().out
    assert torch.equal(
        loaded.bert_layers[1].out_dense.weight, model.bert_layers[1].out_dense.weight
    )


def test_malicious_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.LayerNorm.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin: not a readable weights file"):
        BertModel.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists(), "the trap itself does not work"


def test_loading_info_as_transformers(folder: Path):
    """Names differ in form; which they are does not."""
    transformers = pytest.importorskip("transformers")

    def without_pooler(state):
        for name in [name for name in state if "pooler" in name]:
            del state[name]
        return old_style(state)

    for change in (lambda state: None, without_pooler):
        rewrite(folder, change)
        loaded, info = BertModel.from_pretrained(folder, output_loading_info=True)
        theirs = transformers.BertModel.from_pretrained(folder, output_loading_info=True)[1]
        assert not loaded.training and set(info) == set(theirs)
        assert [hub_name(name) for name in info["missing_keys"]] == sorted(theirs["missing_keys"])
        assert info["unexpected_keys"] == sorted(theirs["unexpected_keys"])
        assert info["mismatched_keys"] == info["error_msgs"] == []
    assert len(info["missing_keys"]) == len(info["unexpected_keys"]) == 2


def test_loading_info_names_a_random_feed_forward(folder: Path):
    config = replace(BertConfig.from_pretrained(folder), feed_forward="swiglu")
    _, info = BertModel.from_pretrained(folder, config, output_loading_info=True)
    assert info["missing_keys"] == []
    _, info = BertModel.from_pretrained(folder, config, afresh=True, output_loading_info=True)
    assert len(info["missing_keys"]) == 2 * 6 and "pooler" not in str(info["missing_keys"])


def test_unknown_arguments_are_refused(folder: Path):
    with pytest.raises(TypeError, match="num_labels"):
        BertModel.from_pretrained(folder, num_labels=3)


# ---- refusals


def refused(folder: Path, *parts: str, config: BertConfig | None = None) -> None:
    """Loading raises a UserError of one line that holds `parts`."""
    with pytest.raises(UserError) as caught:
        BertModel.from_pretrained(folder, config)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_missing_names(folder: Path):
    def drop(state):
        del (
            state["encoder.layer.1.output.dense.bias"],
            state["encoder.layer.0.attention.self.query.weight"],
        )

    rewrite(folder, drop)
    first, second = "bert_layers.0.self_attention.query.weight", "bert_layers.1.out_dense.bias"
    refused(folder, str(folder), f"missing: {first}, {second}; unexpected: none")


def test_half_a_pooler_is_not_no_pooler(folder: Path):
    rewrite(folder, lambda state: {k: v for k, v in state.items() if k != "pooler.dense.bias"})
    refused(folder, "missing: pooler_dense.bias; unexpected: none")


def test_unexpected_names(folder: Path):
    rewrite(folder, lambda state: {**state, "encoder.layer.2.output.dense.bias": torch.zeros(26)})
    refused(folder, "missing: none; unexpected: bert_layers.2.out_dense.bias")


def test_wrong_shapes(folder: Path):
    rewrite(folder, lambda state: {**state, "pooler.dense.bias": torch.zeros(13)})
    refused(folder, "pooler_dense.bias (13,) instead of (26,)")


def test_a_corrupt_file(folder: Path):
    whole = (folder / "model.safetensors").read_bytes()
    for part in (
        whole[: len(whole) // 2],
        whole[:5],
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
    ):
        (folder / "model.safetensors").write_bytes(part)
        refused(folder, "model.safetensors: not a readable safetensors file")
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1000)}, folder / "pytorch_model.bin")
    whole = (folder / "pytorch_model.bin").read_bytes()
    for part in (whole[: len(whole) // 2], whole[:5], b"", b"<html>404</html>"):
        (folder / "pytorch_model.bin").write_bytes(part)
        refused(folder, "pytorch_model.bin: not a readable weights file")
    refused(
        folder, "(damaged, or more than tensors); fetch it again"
    )  # torch's own advice is to trust the file


@pytest.mark.parametrize(
    "content", [[torch.zeros(3)], torch.zeros(3), {"epoch": 3}, {"model": {"x": torch.zeros(3)}}]
)
def test_a_bin_file_of_something_else(folder: Path, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin: not a state dict")


def test_a_folder_without_weights_or_config(folder: Path, tmp_path: Path):
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors and no pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "config.json")


def test_config_errors(folder: Path):
    path = folder / "config.json"
    good = json.loads(path.read_text())
    for text, part in [
        ("{", "config.json: not readable JSON"),
        ("[]", "config.json is [], expected an object"),
        (json.dumps({**good, "model_type": "roberta"}), 'model_type is "roberta", expected "bert"'),
        (json.dumps({**good, "hidden_act": "gelu_new"}), 'hidden_act is "gelu_new"'),
        (
            json.dumps({**good, "num_attention_heads": 3}),
            "hidden_size 26 is not a multiple of 3 heads",
        ),
        (
            json.dumps({**good, "num_hidden_layers": 1}),
            "unexpected: bert_layers.1.attention_dense.bias, ",
        ),
        (
            json.dumps({**good, "vocab_size": 100}),
            "vocab_size is 100 in config.json, 101 in the weights",
        ),
    ]:
        path.write_text(text)
        refused(folder, part)


def test_config_passes_over_what_is_not_berts():
    assert (
        BertConfig.from_dict(
            {"hidden_size": 24, "torch_dtype": "float32", "id2label": {}}
        ).hidden_size
        == 24
    )


# ---- saving


def test_transformers_loads_what_is_saved(model: BertModel, tiny: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    ours = BertModel.from_pretrained(tiny)
    ours.save_pretrained(tmp_path)  # a second generation
    theirs, loading = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        "A film", "Python is a film.", return_tensors="pt"
    )
    assert inputs["input_ids"][0, 0] == 101 and inputs["token_type_ids"].sum() == 6
    with torch.no_grad():
        a, b = ours(**inputs), theirs.eval()(**inputs)
    for key in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(a[key], b[key], atol=1e-5, rtol=1e-5)


def test_what_is_not_bert_any_more_says_so(folder: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    for i, change in enumerate([{"norm": "rmsnorm"}, {"feed_forward": "swiglu"}]):
        changed = BertModel.from_pretrained(
            folder, replace(BertConfig.from_pretrained(folder), **change)
        )
        changed.save_pretrained(tmp_path / str(i))
        again = BertModel.from_pretrained(tmp_path / str(i))
        assert torch.equal(output(again), output(changed)) and again.config == changed.config
        with pytest.raises(ValueError, match="minbert"):
            transformers.AutoModel.from_pretrained(tmp_path / str(i))


def test_saving_over_its_own_folder(folder: Path):
    loaded = BertModel.from_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    loaded.save_pretrained(os.path.relpath(folder))  # spelt differently
    assert (folder / "vocab.txt").read_text() == "[PAD]\n"
    assert torch.equal(output(BertModel.from_pretrained(folder)), output(loaded))


def test_command_line(folder: Path, capsys):
    base_bert.main([str(folder)])
    assert capsys.readouterr().out.strip() == str(folder)
    for argv in ([], ["a", "b"], ["--help"]):
        with pytest.raises(UserError, match="usage: python base_bert.py NAME"):
            base_bert.main(argv)
