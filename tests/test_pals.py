"""PALs. Oracle: the formula written out for one sequence, token by token, in float64."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import export
from adapters.kinds import adapters_of
from adapters.pals import ProjectedAttention, Projections, chosen_size
from attention import packed_rows
from base_bert import BertConfig
from bert import BertLayer
from errors import UserError
from multitask_bert import MultitaskBERT, build
from multitask_classifier import train
from options import Options
from packing import Batch, Tokens, pack
from tests.multitask import FROZEN_FILES, RUN_FILES, batch, close, logits, make, padded, texts
from tests.test_seams import survives
from training.rates import peak_rate
from training.start import started

TASKS = ("sst", "para", "sts")
pytestmark = pytest.mark.usefixtures("one_tokenizer")
SMALL = BertConfig(
    hidden_size=26,
    num_attention_heads=2,
    intermediate_size=7,
    vocab_size=101,
    num_hidden_layers=1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def moved(model: MultitaskBERT) -> MultitaskBERT:
    """A model whose PALs are no longer the identity."""
    torch.manual_seed(1)
    for projections in model.bert.pals.values():
        torch.nn.init.normal_(projections.up.weight, std=0.3)
        torch.nn.init.normal_(projections.up.bias, std=0.3)
    return model


@torch.no_grad()
def written_out(layer: BertLayer, task: str, h: Tensor, a: Tensor, heads: int) -> Tensor:
    """LN(FFN(a) + a + GELU(up(attention(down(h))))) of one sequence [T, H]."""
    side = layer.side
    down, up = side.shared[task].down, side.shared[task].up
    attention = side.attention[task]
    low = [down.weight @ x + down.bias for x in h]
    query = [attention.query.weight @ x + attention.query.bias for x in low]
    key = [attention.key.weight @ x + attention.key.bias for x in low]
    value = [attention.value.weight @ x + attention.value.bias for x in low]
    size = len(low[0]) // heads
    rows = []
    for t in range(len(h)):
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = [math.exp(query[t][own] @ k[own] / math.sqrt(size)) for k in key]
            pairs = zip(scores, value, strict=True)
            parts.append(sum(score * v[own] for score, v in pairs) / sum(scores))
        joined = torch.cat(parts)  # no output matrix follows
        beside = F.gelu(up.weight @ joined + up.bias)
        inner = layer.out_dense(F.gelu(layer.interm_dense(a[t])))
        total = inner + a[t] + beside
        centred = (total - total.mean()) / torch.sqrt(total.var(correction=0) + 1e-12)
        rows.append(centred * layer.out_layer_norm.weight + layer.out_layer_norm.bias)
    return torch.stack(rows)


def test_the_formula() -> None:
    """Two tasks' sequences in one call, each through its own; 13 and 7 tokens."""
    torch.manual_seed(0)
    layer = BertLayer(SMALL).double().eval()
    projections = {task: Projections(SMALL, 9).double() for task in ("a", "b")}
    layer.side = ProjectedAttention(SMALL, 9, 3, projections).double().eval()
    for module in [layer, *projections.values()]:
        for p in module.parameters():
            torch.nn.init.normal_(p, std=0.4)

    lengths = {"a": 13, "b": 7}
    batches = {}
    for task, n in lengths.items():
        tokens = Tokens(torch.arange(1, n + 1).numpy(), torch.zeros(n).long().numpy())
        batches[task] = Batch(task, [tokens], torch.zeros(1).long(), torch.empty(0))
    packed = pack(batches)
    hidden = torch.randn(len(packed.input_ids), 26, dtype=torch.float64)

    # What the first norm gives comes from the layer's own parts, which test_bert.py holds.
    rows = packed_rows(packed.groups, "softmax", torch.float64)
    with torch.no_grad():
        attended = layer.attention_dense(layer.self_attention(hidden, rows))
        first = layer.attention_layer_norm(hidden + attended)
        found = layer(hidden, rows)
        wanted = layer(hidden, rows, packed.starts)
    for task, start in zip(lengths, packed.starts.tolist(), strict=True):
        own = slice(start, start + lengths[task])
        expected = written_out(layer, task, hidden[own], first[own], heads=3)
        torch.testing.assert_close(found[own], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(wanted[packed.tasks[task]], expected[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("train_as", ["with_bert", "alone"])
def test_step_0_is_the_identity(tiny: Path, train_as: str) -> None:
    plain, model = make(tiny), make(tiny, pals=True, pals_train=train_as)
    model.pipelines.load_state_dict(plain.pipelines.state_dict())
    for task in TASKS:
        some = texts(task)
        assert torch.equal(logits(model, task, some), logits(plain, task, some))
    some = texts("sst")
    assert not torch.equal(logits(moved(model), "sst", some), logits(plain, "sst", some))


def test_neighbours_and_padding(tiny: Path) -> None:
    """A sentence alone, beside others of its task, and beside those of other tasks."""
    model = moved(make(tiny, pals=True))
    some = texts("sst", 7)
    alone = torch.cat([logits(model, "sst", [one]) for one in some])
    close(logits(model, "sst", some), alone)
    together = {task: batch(model, task, texts(task, 7)) for task in TASKS}
    for multiple in (1, 8):  # rows of no task among them
        model.row_multiple = multiple
        with torch.no_grad():
            close(model.logits(together)["sst"], alone)


def test_a_pal_is_its_task_s_alone(tiny: Path) -> None:
    model = moved(make(tiny, pals=True))
    before = {task: logits(model, task, texts(task)) for task in TASKS}
    with torch.no_grad():
        model.bert.pals["sts"].up.bias += 1.0
    for task in TASKS:
        same = torch.equal(logits(model, task, texts(task)), before[task])
        assert same == (task != "sts")


def test_what_learns(tiny: Path) -> None:
    """Projections are shared by all layers; a task that is absent has no gradient at all."""
    model = moved(make(tiny, pals=True))
    model.logits({"sst": batch(model, "sst", texts("sst", 3))})["sst"].square().sum().backward()
    pals = {name: p for name, p in model.named_parameters() if "pals." in name or ".side." in name}
    assert len(pals) == 3 * (4 + 2 * 6)  # of each task: four shared, and six in each of two layers
    for name, p in pals.items():
        assert (p.grad is not None and p.grad.any()) == (".sst." in name), name
    assert all(p.requires_grad for p in model.parameters())


def test_alone_bert_is_frozen_and_heads_train(tiny: Path) -> None:
    model = make(tiny, pals=True, pals_train="alone")
    own = model.bert.own_names()
    for name, p in model.named_parameters():
        assert p.requires_grad != (name.removeprefix("bert.") in own), name
    assert model.rebuilt == {f"bert.{name}" for name in own}
    alone = Options(pals=True, pals_train="alone")
    assert peak_rate(alone, 768) == pytest.approx(10 * peak_rate(Options(pals=True), 768))


def test_bf16(tiny: Path) -> None:
    model = moved(make(tiny, pals=True))
    exact = logits(model, "sst", texts("sst"))
    model.compute_dtype = torch.bfloat16
    rounded = logits(model, "sst", texts("sst"))
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.3)


# ---- padded batches


def test_a_padded_batch_of_no_task_sees_no_pal(tiny: Path) -> None:
    plain, model = make(tiny), moved(make(tiny, pals=True))
    ids = torch.randint(1000, 2000, (3, 9))
    mask = torch.ones_like(ids)
    expected = plain.bert(ids, mask)["last_hidden_state"]
    assert torch.equal(model.bert(ids, mask)["last_hidden_state"], expected)


def test_the_course_s_faces_know_their_task(tiny: Path) -> None:
    model = moved(make(tiny, pals=True))
    some = texts("sst", 7)
    ids, mask = padded(model.tokenizer, [text for (text,) in some], 5)
    with torch.no_grad():
        close(model.predict_sentiment(ids, mask), logits(model, "sst", some))
        first = padded(model.tokenizer, [a for a, _ in texts("para", 7)])
        second = padded(model.tokenizer, [b for _, b in texts("para", 7)])
        found = model.predict_paraphrase(*first, *second)
    close(found, logits(model, "para", texts("para", 7)).squeeze(1))


# ---- sizes


@pytest.mark.parametrize(
    ("width", "heads", "size"),
    [(768, 12, 204), (1024, 12, 276), (384, 12, 96), (32, 12, 12), (384, 6, 102)],
)
def test_the_size_by_default(width: int, heads: int, size: int) -> None:
    assert chosen_size(Options(pals=True, pals_heads=heads), width) == size


def test_the_paper_s_count(tiny: Path) -> None:
    """1.13 times BERT-base for 8 tasks, here with biases: section 4.2 of the paper."""
    with torch.device("meta"):
        projections = Projections(BertConfig(), 204)
        layer = ProjectedAttention(BertConfig(), 204, 12, {"a": projections})
    of_task = sum(p.numel() for p in projections.parameters())
    of_task += 12 * sum(p.numel() for p in layer.parameters())
    assert round(1 + 8 * of_task / 110e6, 2) == 1.13


def test_a_size_that_does_not_fit(tiny: Path) -> None:
    too_wide = r"--pals_size {} \(with --pals_heads {}\): expected at most 32, the width"
    for change in ({"pals_size": 36}, {"pals_heads": 36}):
        heads = change.get("pals_heads", 12)
        with pytest.raises(UserError, match=too_wide.format(36, heads)):
            make(tiny, pals=True, **change)


# ---- runs


def test_a_run_alone_is_resumed_saved_and_exported(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = replace(options, pals=True, pals_train="alone", pals_size=6, pals_heads=3)
    state = survives(options, monkeypatch)
    assert "PALs: 2 layers x 3 tasks, of size 6, 0.00M parameters" in capsys.readouterr().out
    names = [name for name in state if name.startswith("model:") and "pals.sst.down" in name]
    assert names == [f"model:bert.pals.sst.down.{x}" for x in ("bias", "weight")]
    run = next(Path("runs").glob("*-newcomer"))
    assert {path.name for path in (run / "best").iterdir()} == FROZEN_FILES | RUN_FILES

    # Exported it is whole, and no BERT to others.
    export.export(run, Path("whole"))
    assert json.loads(Path("whole/config.json").read_text())["model_type"] == "minbert"
    assert not any("pals" in name for name in load_file("whole/model.safetensors"))
    before, after = MultitaskBERT.load(run), MultitaskBERT.load("whole")
    assert after.extended and after.options.pals
    close(logits(after, "sts", texts("sts")), logits(before, "sts", texts("sts")))


def test_pals_after_bert(options: Options) -> None:
    """BERT and heads are fine-tuned first, then PALs and heads alone: --init RUN."""
    first = train(replace(options, name="first"))["folder"]
    after = replace(options, model=first, init=first, pals=True, pals_train="alone")
    old, new = MultitaskBERT.load(first), started(build(after)).eval()
    for task in TASKS:
        assert torch.equal(logits(new, task, texts(task)), logits(old, task, texts(task)))

    # The second run moves what is not BERT's, and its model names the first as its base.
    folder = train(replace(after, name="second"))["folder"]
    best = MultitaskBERT.load(folder)
    for name, x in old.bert.state_dict().items():
        assert torch.equal(best.bert.state_dict()[name], x), name
    heads = best.pipelines.state_dict()
    assert any(not torch.equal(heads[k], x) for k, x in old.pipelines.state_dict().items())
    assert all(x.up.weight.any() for x in best.bert.pals.values())

    # From there PALs and BERT may train on together.
    third = replace(options, model=first, init=folder, pals=True)
    going_on = started(build(third)).eval()
    assert all(p.requires_grad for p in going_on.parameters())
    for task in TASKS:
        assert torch.equal(logits(going_on, task, texts(task)), logits(best, task, texts(task)))


def test_beside_lora(tiny: Path, tmp_path: Path) -> None:
    """LoRA freezes BERT and adapts its linears, not those of PALs; merged, PALs stay."""
    model = moved(make(tiny, lora=True, pals=True))
    adapted = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted and not any(".side." in name or "pals." in name for name in adapted)
    for module in model.modules():
        if hasattr(module, "lora_B"):
            torch.nn.init.normal_(module.lora_B, std=0.1)
    before = logits(model, "para", texts("para"))
    merged = copy.deepcopy(model)
    assert merged.merge() == ["--pals"]
    close(logits(merged, "para", texts("para")), before)
    for number, some in enumerate((model, merged)):
        folder = tmp_path / str(number)
        folder.mkdir()
        some.save(folder)
        loaded = MultitaskBERT.load(folder)
        close(logits(loaded, "para", texts("para")), before)
    assert [adapter.flag for adapter in adapters_of(loaded.options)] == ["--pals"]
