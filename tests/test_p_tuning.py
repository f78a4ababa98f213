"""P-tuning v1: virtual tokens behind [CLS]. Oracles: transformers' BERT on embeddings that were put
together by hand, and the LSTM's equations in float64. v2 is tested in test_prefix_tuning.py.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters.p_tuning import PromptEncoder
from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from models.counts import print_counts
from multitask_bert import MultitaskBERT, build
from options import Options
from packing import Tokens, pack, with_virtual
from tasks import TASKS
from tests import newcomers
from tests.multitask import BASE, batch, close, logits, make, padded, texts
from tests.test_bottleneck import ids, moved, saved_and_merged
from tests.test_seams import exported, survives

V1 = {"p_tuning": "v1", "p_tuning_length": 5}


# ---- the prompt encoder


def lstm64(module: nn.LSTM, x: Tensor) -> Tensor:
    """A bidirectional LSTM of several layers, written out: [P, in] -> [P, 2 out]."""
    w = {name: p.double() for name, p in module.named_parameters()}
    for layer in range(module.num_layers):
        sides = []
        for end, order in (("", range(len(x))), ("_reverse", range(len(x) - 1, -1, -1))):
            h = c = x.new_zeros(module.hidden_size)
            out = [h] * len(x)
            for t in order:
                name = f"l{layer}{end}"
                gates = x[t] @ w[f"weight_ih_{name}"].T + w[f"bias_ih_{name}"]
                gates = gates + h @ w[f"weight_hh_{name}"].T + w[f"bias_hh_{name}"]
                i, f, g, o = gates.chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                out[t] = h
            sides.append(torch.stack(out))
        x = torch.cat(sides, 1)
    return x


@torch.no_grad()
def test_the_encoder_equals_the_formula() -> None:
    torch.manual_seed(0)
    encoder = PromptEncoder(7, 26)
    hidden = lstm64(encoder.lstm, encoder.prompts.double())
    first, _, second = encoder.mlp
    low = (hidden @ first.weight.double().T + first.bias).clamp(min=0)
    close(encoder().double(), low @ second.weight.double().T + second.bias)


# ---- the sequence


def test_virtual_tokens_stand_behind_cls() -> None:
    tokens = Tokens(np.array([101, 7, 8, 102]), np.array([0, 0, 1, 1]), {"tags": np.arange(4)})
    longer = with_virtual(tokens, 3)
    assert longer.ids.tolist() == [101, 0, 0, 0, 7, 8, 102]
    assert longer.types.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert longer.features["tags"].tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert longer.features["virtual"].tolist() == [0, 1, 2, 3, 0, 0, 0]


def test_a_pack_with_virtual_tokens(tiny: Path) -> None:
    """Each sequence is whole, and its positions count them."""
    model = make(tiny)
    batches = {task: batch(model, task, texts(task, longest=70)) for task in BASE.tasks}
    packed = pack(batches, virtual=5)
    sequences = [x for some in batches.values() for x in some.tokens]
    assert packed.lengths.tolist() == [len(x) + 5 for x in sequences]
    for x, start, length in zip(sequences, packed.starts, packed.lengths, strict=True):
        place = slice(start, start + length)
        assert packed.input_ids[place].tolist() == with_virtual(x, 5).ids.tolist()
        assert packed.position_ids[place].tolist() == list(range(length))
    assert packed.virtual == 5 and pack(batches).virtual == 0
    longest = {task: max(map(len, some.tokens)) + 5 for task, some in batches.items()}
    assert packed.longest == longest


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_states_equal_transformers(tiny: Path, pooling: str) -> None:
    """The mean is over the text's tokens alone, [CLS] and [SEP] with them."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertModel.from_pretrained(tiny).eval()
    model = moved(make(tiny, **V1, pooling=pooling))
    prompts = model.embedding_terms["p_tuning"].encoder()
    some = texts("para", size=7)
    own = batch(model, "para", some)
    pooled = model(model.pack({"para": own})).pooled["para"]
    for x, vector in zip(own.tokens, pooled, strict=True):
        words = theirs.embeddings.word_embeddings(torch.from_numpy(x.ids.astype(np.int64)))
        words = torch.cat([words[:1], prompts, words[1:]])
        types = np.concatenate([x.types[:1], np.zeros(5), x.types[1:]])
        states = theirs(
            inputs_embeds=words[None], token_type_ids=torch.from_numpy(types.astype(np.int64))[None]
        ).last_hidden_state[0]
        text = torch.cat([states[:1], states[6:]])
        close(vector, text[0] if pooling == "cls" else text.mean(0))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_neighbours_and_padding_change_nothing(tiny: Path, pooling: str) -> None:
    model = moved(make(tiny, **V1, pooling=pooling, pair_encoding="bi"))
    some = texts("sts", longest=80)
    together = logits(model, "sts", some)
    model.row_multiple = 8
    close(torch.cat([logits(model, "sts", [x]) for x in some]), together)


def test_the_faces(tiny: Path) -> None:
    """The model's have prompts; the encoder's alone has none."""
    model, plain = moved(make(tiny, **V1)), make(tiny)
    sentences = texts("sst", size=7)
    tokens, mask = padded(model.tokenizer, [x for (x,) in sentences], width=5)
    with torch.no_grad():
        close(model.predict_sentiment(tokens, mask), logits(model, "sst", sentences))
        alone = model.bert(tokens, mask)["last_hidden_state"]
        assert torch.equal(alone, plain.bert(tokens, mask)["last_hidden_state"])
        assert not torch.equal(logits(model, "sst", sentences), logits(plain, "sst", sentences))


def test_what_trains(tiny: Path, capsys: pytest.CaptureFixture) -> None:
    model = make(tiny, **V1)
    print_counts(model)
    assert capsys.readouterr().out.startswith("P-tuning: 5 virtual tokens behind [CLS]\n")
    assert not any(p.requires_grad for p in model.bert.parameters())
    moved(model).train()
    model.predict_sentiment(ids(), torch.ones(2, 13)).sum().backward()
    assert all(p.grad is not None for p in model.embedding_terms.parameters())
    assert all(p.grad is None for p in model.bert.parameters())
    # What the embeddings of words get is bit for bit theirs.
    packed = model.eval().pack({"sst": batch(model, "sst", texts("sst"))})
    real = packed.features["virtual"] == 0
    assert torch.equal(model.embed(packed)[real], model.bert.embed_packed(packed)[real])


def test_too_long_for_the_encoder(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^--max_length 500 and --p_tuning_length 13: .* most 512"):
        replace(BASE, p_tuning="v1", p_tuning_length=13, max_length=500).check()
    replace(BASE, p_tuning="v2", p_tuning_length=13, max_length=500).check()
    small = BertModel(replace(BertConfig.from_pretrained(tiny), max_position_embeddings=64))
    small.name_or_path = str(tiny)
    small.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="^--max_length 60 and --p_tuning_length 5: .* has 64 pos"):
        make(tmp_path, **V1, max_length=60)
    # The longest text that fits.
    model = make(tmp_path, **V1, max_length=59)
    assert model.predict("sst", [("film " * 100).strip()])


# ---- runs


def test_saved_and_merged(tiny: Path, tmp_path: Path) -> None:
    saved_and_merged(moved(make(tiny, **V1)), tmp_path, "--p_tuning")


def test_trained_resumed_and_exported(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    state = survives(replace(options, **V1), monkeypatch)
    assert state["optimizer:exp_avg.model.embedding_terms.p_tuning.encoder.prompts"].any()
    exported(next(Path("runs").glob("*-newcomer")), "whole", options)


def test_a_label_a_token(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits stand where the text's tokens do."""
    monkeypatch.setitem(TASKS, "pieces", newcomers.PIECES)
    model = moved(make_pieces(tiny))
    some = ["a fine film", "not very dull"]
    answers = model.predict("pieces", some)
    counts = [len(model.tokenizer([text])["input_ids"][0]) - 2 for text in some]
    assert [len(answer) for answer in answers] == counts


def make_pieces(tiny: Path) -> MultitaskBERT:
    torch.manual_seed(0)
    return build(replace(BASE, model=str(tiny), tasks=("pieces",), **V1)).eval()
