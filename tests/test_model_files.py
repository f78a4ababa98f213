"""Files of a model, damaged: each is told in a line that names it, and nothing else is loaded."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import base_bert
import pretrained
from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from multitask_bert import MultitaskBERT, build
from options import Options
from pretrained import find_embedded, read_pickled
from tokenizer import BertTokenizer
from training.manifest import write_manifest

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES += [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
PIECES += ["film", "dull", "fine", "Æ"]  # 61: no multiple of 8
SMALL = BertConfig(
    vocab_size=len(PIECES),
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=64,
)
LORA = {"lora": True, "lora_rank": 2}


def write_model(folder: Path, seed: int = 0) -> Path:
    """A model of a few numbers and pieces, as save_pretrained writes it."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(SMALL).save_pretrained(folder)
    return folder


def load(folder: Path) -> MultitaskBERT:
    """A model on the pretrained one in a folder, its tokenizer read too."""
    model = build(Options(model=str(folder), max_length=64, precision="fp32"))
    model.predict("sst", ["a fine film ☃"])
    return model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the small model, which may be damaged."""
    return Path(shutil.copytree(original, tmp_path / "small"))


def message_of(call: Callable[[], object]) -> str:
    """The message of the UserError that a call ends in, one line of 300 characters at most."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) <= 300
    return message


# ---- a saved model


@pytest.fixture(scope="module")
def saved(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved models: whole and adapters, two of each kind."""
    place = tmp_path_factory.mktemp("saved")
    for name, change in (("whole", {}), ("adapter", LORA)):
        for seed in (0, 1):
            torch.manual_seed(seed)
            options = Options(model=str(original), max_length=64, precision="fp32", **change)
            model = build(options if seed == 0 else replace(options, seed=2))
            with torch.no_grad():
                for p in model.parameters():
                    p += 0.1 * torch.randn_like(p)
            (place / f"{name}{seed}").mkdir()
            model.save(place / f"{name}{seed}")
    return place


FILES = {
    "whole": [
        "config.json",
        "model.safetensors",
        "heads.safetensors",
        "options.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "manifest.json",
    ],
    "adapter": [
        "adapter_config.json",
        "adapter_model.safetensors",
        "heads.safetensors",
        "base.json",
        "options.json",
        "manifest.json",
    ],
}


def flip(path: Path) -> None:
    """One bit of the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "truncated": truncate,
    "flipped": flip,
    "a list": lambda path: path.write_text("[]") and None,
    "a number": lambda path: path.write_text('{"files": 3, "model": 3}') and None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in FILES.items() for name in names]
)
def test_a_damaged_file_of_a_saved_model(
    saved: Path, tmp_path: Path, kind: str, name: str, damage: str
) -> None:
    best = Path(shutil.copytree(saved / f"{kind}0", tmp_path / "best"))
    found = {path.relative_to(best).as_posix() for path in best.rglob("*") if path.is_file()}
    assert found == set(FILES[kind])
    DAMAGES[damage](best / name)
    message = message_of(lambda: MultitaskBERT.load(tmp_path))
    if damage == "gone" and name == "options.json":
        assert "no model in it" in message
    elif (name, damage) != ("manifest.json", "flipped"):  # there it may be another's checksum
        assert name in message


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in FILES.items() for name in names]
)
def test_a_file_of_another_saved_model(saved: Path, tmp_path: Path, kind: str, name: str) -> None:
    best = Path(shutil.copytree(saved / f"{kind}0", tmp_path / "best"))
    other = saved / f"{kind}1" / name
    if other.read_bytes() == (best / name).read_bytes():
        assert not name.endswith("tensors") and name not in ("options.json", "manifest.json")
        return
    shutil.copyfile(other, best / name)
    message = message_of(lambda: MultitaskBERT.load(tmp_path))
    assert "changed since it was written" in message


def test_a_file_too_many_and_none(saved: Path, tmp_path: Path) -> None:
    best = Path(shutil.copytree(saved / "whole0", tmp_path / "best"))
    added = best / "adapter_model.safetensors"
    shutil.copyfile(saved / "adapter0" / added.name, added)
    assert f"{added.name} added" in message_of(lambda: MultitaskBERT.load(tmp_path))
    added.unlink()
    assert MultitaskBERT.load(tmp_path).predict("sst", ["a film"])


@pytest.mark.parametrize("name", FILES["whole"][:6])  # vocab.txt beside tokenizer.json is not read
def test_a_saved_model_that_its_manifest_vouches_for(
    saved: Path, tmp_path: Path, name: str
) -> None:
    """Edited with the manifest, a file is still read with care."""
    best = Path(shutil.copytree(saved / "whole0", tmp_path / "best"))
    (best / name).write_text('{"hidden_size": "wide", "epochs": "x", "do_lower_case": 3}')
    write_manifest(best)
    assert name in message_of(lambda: MultitaskBERT.load(tmp_path))


def test_a_saved_model_s_options_fit_its_encoder(saved: Path, tmp_path: Path) -> None:
    """A text that is longer than its positions would fail in the middle of predicting."""
    best = Path(shutil.copytree(saved / "whole0", tmp_path / "best"))
    options = json.loads((best / "options.json").read_text())
    (best / "options.json").write_text(json.dumps({**options, "max_length": 65}))
    write_manifest(best)
    message = message_of(lambda: MultitaskBERT.load(tmp_path))
    assert message == f"--max_length 65: {best} has 64 positions"


def test_a_saved_encoder_is_not_made_larger_than_its_weights(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = Path(shutil.copytree(saved / "whole0", tmp_path / "best"))
    config = json.loads((best / "config.json").read_text())
    (best / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 256}))
    write_manifest(best)
    monkeypatch.setattr(BertModel, "__init__", lambda *_: pytest.fail("made"))
    message = message_of(lambda: MultitaskBERT.load(tmp_path))
    assert "num_hidden_layers is 256 in config.json, 2 in the weights" in message


def changed_weights(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["pooler.dense.bias"][0] += 1e-6
    save_file(state, folder / "model.safetensors")


def changed_vocabulary(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"film"', '"flim"'))


@pytest.mark.parametrize(
    ("change", "what"), [(changed_weights, "weights"), (changed_vocabulary, "token ids")]
)
@pytest.mark.parametrize("kind", [LORA, {"option": "pretrain"}])
def test_an_adapter_on_another_base(folder: Path, tmp_path: Path, change, what, kind) -> None:
    model = build(Options(model=str(folder), max_length=64, precision="fp32", **kind))
    (tmp_path / "best").mkdir()
    model.save(tmp_path / "best")
    before = model.eval().predict("sst", ["a dull film"])
    assert MultitaskBERT.load(tmp_path).predict("sst", ["a dull film"]) == before
    change(folder)
    message = message_of(lambda: MultitaskBERT.load(tmp_path))
    assert message.startswith(f"{folder}: not what {tmp_path / 'best'} was trained on (small)")
    assert f"its {what} have the checksum" in message


def test_weights_are_readable_by_others(saved: Path, folder: Path) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    paths = [x for y in (saved / "whole0", saved / "adapter0", folder) for x in y.rglob("*")]
    files = [path for path in paths if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


# ---- a pretrained model: the configuration

WRONG = [None, "x", True, -1, 2**31, 10**9, 0.5, float("nan"), [], {}]
NUMBERS = [name for name, value in vars(SMALL).items() if isinstance(value, int | float)]
LEGAL = {
    "pad_token_id": (),
    "num_key_value_heads": (),
    "hidden_dropout_prob": (0.5,),
    "attention_probs_dropout_prob": (0.5,),
    "initializer_range": (0.5,),
    "layer_norm_eps": (0.5,),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_a_configuration(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BertModel, "__init__", lambda *_: pytest.fail("made"))
    config = json.loads((folder / "config.json").read_text())
    for value in [*WRONG, 0, 10**400, -(10**400)]:
        if value in LEGAL.get(name, ()) or (value == 0 and name in LEGAL):
            continue
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        message = message_of(lambda: BertModel.from_pretrained(folder))
        assert name in message or "not readable JSON" in message, value


@pytest.mark.parametrize(
    "name",
    ["norm", "feed_forward", "hidden_act", "model_type", "position_embedding_type", "is_decoder"],
)
def test_names_of_a_configuration(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    for value in [None, 3, "x", "x" * 10**6, "\x1b[2J", [], {}]:
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        assert name in message_of(lambda: BertModel.from_pretrained(folder))


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "null", "{", "[" * 10**5, '{"a": 1, "a": 2}', "\0", "\ufeff"]
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_json_that_is_none(folder: Path, name: str, text: str) -> None:
    if (name, text) == ("tokenizer.json", '{"a": 1, "a": 2}'):
        return
    (folder / name).write_text(text)
    assert name in message_of(lambda: load(folder))


def test_sizes_that_are_not_the_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More memory than the file vouches for is never asked for."""
    monkeypatch.setattr(BertModel, "__init__", lambda *_: pytest.fail("made"))
    config = json.loads((folder / "config.json").read_text())
    for name, value in (
        ("vocab_size", 2**22),
        ("hidden_size", 2**14),
        ("num_hidden_layers", 256),
        ("intermediate_size", 2**16),
        ("max_position_embeddings", 2**16),
        ("type_vocab_size", 2**10),
    ):
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        message = message_of(lambda: BertModel.from_pretrained(folder))
        assert f"{name} is {value} in config.json" in message


def test_passing_the_sizes_draws_no_random_number(folder: Path) -> None:
    def state_after(make: Callable[[], object]) -> Tensor:
        torch.manual_seed(0)
        make()
        return torch.get_rng_state()

    made = state_after(lambda: BertModel(SMALL))
    assert torch.equal(state_after(lambda: BertModel.from_pretrained(folder)), made)


# ---- weights


def test_a_checksum_of_the_weights_whatever_their_file(folder: Path) -> None:
    first = BertModel.from_pretrained(folder).base_sha256
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({f"bert.{name}": x for name, x in state.items()}, folder / "pytorch_model.bin")
    assert BertModel.from_pretrained(folder).base_sha256 == first and len(first) == 64
    assert BertModel(SMALL).base_sha256 == ""
    half = {name: x.half() for name, x in state.items()}
    torch.save(half, folder / "pytorch_model.bin")
    assert BertModel.from_pretrained(folder).base_sha256 != first


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda x: x.fill_(float("nan")), "holds NaN or infinity"),
        (lambda x: x.index_fill_(0, torch.tensor(3), -torch.inf), "holds NaN or infinity"),
        (lambda x: x.double() * 1e300 if x.any() else x.double() + 1e300, "holds NaN or infinity"),
        (lambda x: x.long(), "is of torch.int64, expected floating numbers"),
        (lambda x: x.bool(), "is of torch.bool"),
        (lambda x: x[0], "wrong shapes: pooler_dense.bias () instead of (8,)"),
        (lambda x: x[None], "wrong shapes"),
    ],
)
def test_numbers_that_are_no_weights(folder: Path, change, part: str, kind: str) -> None:
    state = load_file(folder / "model.safetensors")
    state["pooler.dense.bias"] = change(state["pooler.dense.bias"]).contiguous()
    save_file(state, folder / "model.safetensors")
    if kind == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    message = message_of(lambda: BertModel.from_pretrained(folder))
    assert part in message and "pooler_dense.bias" in message


def large_but_finite(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["pooler.dense.bias"].fill_(3e38)  # their sum is not
    save_file(state, folder / "model.safetensors")


def test_large_weights_are_weights(folder: Path) -> None:
    large_but_finite(folder)
    assert BertModel.from_pretrained(folder).pooler_dense.bias[0] == 3e38


def test_a_feed_forward_made_from_weights_that_are_not_whole(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.intermediate.dense.bias"]
    save_file(state, folder / "model.safetensors")
    config = replace(BertConfig.from_pretrained(folder), feed_forward="swiglu")
    message = message_of(lambda: BertModel.from_pretrained(folder, config))
    assert "the weights lack bert_layers.1.interm_dense.bias" in message


def test_two_names_of_one_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["bert.pooler.dense.bias"] = state["pooler.dense.bias"].clone()
    save_file(state, folder / "model.safetensors")
    message = message_of(lambda: BertModel.from_pretrained(folder))
    assert "holds pooler_dense.bias twice" in message


BIAS = torch.zeros(3)
NO_STATES = {
    "int keys": {1: BIAS},
    "nested": {"model": {"x": BIAS}},
    "sparse": {"x": torch.eye(3).to_sparse()},
    "csr": {"x": torch.eye(3).to_sparse_csr()},
    "meta": {"x": torch.zeros(3, device="meta")},
    "quantised": {"x": torch.quantize_per_tensor(BIAS, 0.1, 0, torch.qint8)},
    "repeated": {"x": torch.zeros(1).expand(10**9)},
    "none": {"x": None},
    "list": [BIAS],
    "long names": {"x" * 10**5 + "\x1b\n": 3},
}


@pytest.mark.parametrize("kind", NO_STATES)
def test_what_is_no_state_dict(folder: Path, kind: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(NO_STATES[kind], folder / "pytorch_model.bin")
    message = message_of(lambda: BertModel.from_pretrained(folder))
    assert "pytorch_model.bin: not a state dict" in message


def test_a_pickle_that_unpacks_to_more(tmp_path: Path) -> None:
    """A file of 6 KB must not ask for 4 MB, nor for what it could be with 4 GB."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(10**6)}, path)
    assert len(read_pickled(path)["a"]) == 10**6
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    assert path.stat().st_size < 10**4
    assert "not a readable weights file" in message_of(lambda: read_pickled(path))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_one_byte_changed(tmp_path: Path, zipped: bool) -> None:
    """At every place: a state dict or a UserError, and nothing else."""
    buffer = io.BytesIO()
    state = {"a.b": torch.ones(2)}
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    whole = buffer.getvalue()
    path = tmp_path / "pytorch_model.bin"
    refused = 0
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 0xFF if position % 2 else 1 << position % 7
        path.write_bytes(content)
        try:
            read_pickled(path)
        except UserError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > len(whole) / 4


def test_a_safetensors_header_with_one_byte_changed(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    refused = 0
    for position in [*range(16), *range(16, header, 29)]:
        content = bytearray(whole)
        content[position] ^= 1 << position % 7
        path.write_bytes(content)
        try:
            BertModel.from_pretrained(folder)
        except UserError as error:
            assert str(folder) in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "vocab.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    ],
)
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    if name == "vocab.txt":
        (folder / "tokenizer.json").unlink()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert f"{name}: a pipe or a device" in message_of(lambda: load(folder))


def test_the_embedded_weights_are_hashed_once(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    sha256_of = pretrained.sha256_of
    monkeypatch.setattr(pretrained, "sha256_of", lambda path: calls.append(path) or sha256_of(path))
    pretrained.sha256_once.cache_clear()
    for _ in range(3):
        assert find_embedded() == embedded
    assert calls == [embedded / "model.safetensors"]


# ---- the vocabulary


def rewrite_lines(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Another vocab.txt, without the tokenizer.json that would win over it."""
    (folder / "tokenizer.json").unlink()
    lines = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(change(lines)) + "\n")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda lines: lines[:20] + lines[21:], "60 pieces in the vocabulary"),
        (lambda lines: lines[:-1], "60 pieces in the vocabulary"),
        (lambda lines: lines + [f"w{i}" for i in range(4999)], "5060 pieces in the vocabulary"),
        (lambda lines: [*lines, ""], "62 pieces"),
        (lambda lines: [*lines[:30], lines[7], *lines[31:]], 'vocab.txt:31: "c" stands in line 8'),
        (lambda lines: lines[:9], "9 pieces"),
        (lambda lines: [f" {line}" for line in lines], "lacks [PAD], [UNK], [CLS], [SEP], [MASK]"),
        (lambda lines: [], "vocab.txt"),
    ],
)
def test_a_vocabulary_of_another_size(folder: Path, change, part: str) -> None:
    rewrite_lines(folder, change)
    message = message_of(lambda: load(folder))
    assert part in message
    assert "vocab_size is 61" in message or "pieces" not in part


def test_a_model_filled_up_to_a_multiple(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """transformers' resize_token_embeddings(pad_to_multiple_of=8)."""
    state = load_file(folder / "model.safetensors")
    for size, legal in ((64, True), (128, True), (63, False), (72, False)):
        table = "embeddings.word_embeddings.weight"
        state[table] = torch.cat([state[table], torch.zeros(size, 8)])[:size].contiguous()
        save_file(state, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
        if legal:
            load(folder)
            assert f"61 pieces in the vocabulary, {size} rows" in capsys.readouterr().out
        else:
            assert f"vocab_size is {size}" in message_of(lambda: load(folder))


def test_a_vocabulary_written_on_windows(folder: Path) -> None:
    expected = load(folder).tokenizer.get_vocab()
    (folder / "tokenizer.json").unlink()
    text = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(folder).tokenizer.get_vocab() == expected


# ---- tokenizer.json and its settings


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model_max_length", ["x", True, -5, 0, 2, [], {}, float("nan"), 10**400]),
        ("do_lower_case", [3, "yes", [], {}]),
        ("strip_accents", [1, "no", []]),
        ("tokenize_chinese_chars", [None, 1, "no"]),
    ],
)
def test_settings_of_a_tokenizer(folder: Path, name: str, values: list[object]) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    for value in values:
        path.write_text(json.dumps({**settings, name: value}))
        message = message_of(lambda: BertTokenizer.from_pretrained(folder))
        assert "tokenizer_config.json: " in message


def edited(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda v: v["model"]["vocab"].update(film=2**31), "where 57 is next"),
        (lambda v: v["model"]["vocab"].update(film=61), "where 57 is next"),
        (lambda v: v["model"]["vocab"].update(film=-1), "tokenizer.json"),
        (lambda v: v["model"]["vocab"].update(film="x"), "tokenizer.json"),
        (lambda v: v["model"]["vocab"].update(film=7), "has the id 7 where 8 is next"),
        (lambda v: v["model"]["vocab"].pop("film"), "where 57 is next"),
        (lambda v: v["model"].update(type="BPE", merges=[]), "tokenizer.json"),
        (lambda v: v["model"].update(unk_token="[X]"), "Missing [UNK] token"),
        (lambda v: v["model"].update(unk_token=3), "tokenizer.json"),
        (lambda v: v.update(post_processor=None), "expected [CLS] [SEP] [SEP]"),
        (
            lambda v: v["post_processor"]["special_tokens"]["[CLS]"].update(ids=[10**6]),
            "expected [CLS] [SEP] [SEP]",
        ),
    ],
)
def test_a_wrong_tokenizer_json(folder: Path, change, part: str) -> None:
    edited(folder, change)
    assert part in message_of(lambda: load(folder))


@pytest.mark.parametrize("value", [None, 3, "x", True, [], [3], {}, {"type": "x"}])
def test_any_part_of_a_tokenizer_json_of_another_type(folder: Path, value: object) -> None:
    """A UserError, or a tokenizer that works; no traceback, and no panic of Rust's."""
    whole = json.loads((folder / "tokenizer.json").read_text())

    def places(node: object, path: tuple = ()) -> list[tuple]:
        found = [path] if path else []
        each = node.items() if isinstance(node, dict) else enumerate(node)  # type: ignore
        for key, below in each:
            deep = isinstance(below, dict | list) and key != "vocab"
            found += places(below, (*path, key)) if deep else [(*path, key)]
        return found

    refused = 0
    for path in places(whole):
        changed = json.loads(json.dumps(whole))
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        (folder / "tokenizer.json").write_text(json.dumps(changed))
        try:
            BertTokenizer.from_pretrained(folder).encode_batch([("a fine film Æ", "☃")], 64)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10


class Panic(BaseException):
    """As pyo3's PanicException, which is no Exception."""


@pytest.mark.parametrize("error", [Panic("index out of\nbounds"), ValueError(), MemoryError()])
def test_a_panic_of_the_library(
    folder: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> None:
        raise error

    monkeypatch.setattr("text.tokenizer_files.Tokenizer.from_str", fail)
    message = message_of(lambda: BertTokenizer.from_pretrained(folder))
    assert "tokenizer.json: not usable (" in message


def test_ctrl_c_is_no_panic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("text.tokenizer_files.Tokenizer.from_str", stop)
    with pytest.raises(KeyboardInterrupt):
        BertTokenizer.from_pretrained(folder)


def test_base_bert_reads_no_larger_file_than_it_must(folder: Path) -> None:
    with open(folder / "config.json", "wb") as file:
        file.truncate(2**40)
    assert "config.json: over 16 MiB" in message_of(
        lambda: base_bert.BertConfig.from_pretrained(folder)
    )
