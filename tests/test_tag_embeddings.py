"""Tag embeddings: nothing at first, alive in training, and never beside another pipeline's tags."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapters.tag_embeddings import TagEmbeddings
from datasets import split_of_texts
from errors import UserError
from evaluation import predict_logits
from export import export
from multitask_bert import MultitaskBERT, build
from multitask_classifier import train
from options import Options
from packing import pack
from predict import predict_with
from tests.multitask import padded
from tests.test_train import losses, same, weights
from text.tagger import TAGS
from training.manifest import write_manifest

TEXTS = [("Is the film a question ?",), ("Ada of New Haven",), ("do",), ("a zyzzyva " * 20,)]
PAIRS = [("A film", "the question ?"), ("Ada", "do the film"), ("a " * 70, "is")]


@pytest.fixture
def tagged(options: Options, pipeline: Path) -> Options:
    return replace(options, word_tags=("pos", "ner"), word_tags_model=str(pipeline))


def learned(options: Options) -> MultitaskBERT:
    """A model whose tables are no longer zero."""
    torch.manual_seed(0)
    model = build(options)
    for table in model.embedding_terms["word_tags"].tables.values():
        torch.nn.init.normal_(table.weight)
        torch.nn.init.zeros_(table.weight[0])
    for pipeline in model.pipelines.values():
        torch.nn.init.normal_(pipeline.head.out.weight)
    return model.eval()


def logits(model: MultitaskBERT, task: str, texts: list[tuple[str, ...]]) -> Tensor:
    """[B, outputs]."""
    split = split_of_texts(model.tasks[task], texts, model.options, model.tokenizer)
    return predict_logits(model, split)


def test_reference(tagged: Options) -> None:
    """e = LN(word + position + type + pos[tag] + ner[tag]), written out."""
    model = learned(tagged)
    split = split_of_texts(model.tasks["sst"], TEXTS[:2], tagged, model.tokenizer)
    packed = pack({"sst": split.batch([0, 1])})
    found = model.embed(packed)
    bert, term = model.bert, model.embedding_terms["word_tags"]
    for start, tokens in zip(packed.starts.tolist(), split.tokens, strict=True):
        for place in range(len(tokens)):
            e = bert.word_embedding.weight[int(tokens.ids[place])]
            e = e + bert.pos_embedding.weight[place] + bert.tk_type_embedding.weight[0]
            for kind in ("pos", "ner"):
                e = e + term.tables[kind].weight[int(tokens.features[kind][place])]
            e = bert.embed_layer_norm(e)
            torch.testing.assert_close(found[start + place], e, rtol=1e-5, atol=1e-6)
    assert {int(n) for tokens in split.tokens for n in tokens.features["pos"]} != {0}


def test_at_first_nothing_changes(tagged: Options) -> None:
    """Bit for bit, and training draws the same: the first loss is the plain model's."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain, drawn = (
            build(replace(tagged, word_tags=(), word_tags_model="en_core_web_sm")),
            torch.rand(1),
        )
        torch.manual_seed(3)
        model, also = build(tagged), torch.rand(1)
    assert torch.equal(drawn, also)
    plain.eval(), model.eval()
    for task, texts in (("sst", TEXTS), ("sts", PAIRS)):
        assert torch.equal(logits(plain, task, texts), logits(model, task, texts))
    term = model.embedding_terms["word_tags"]
    shapes = {kind: tuple(table.weight.shape) for kind, table in term.tables.items()}
    assert shapes == {kind: (len(names) + 1, 32) for kind, names in TAGS.items()}


@pytest.mark.parametrize("encoding", ["cross", "bi"])
def test_neighbours_change_nothing(tagged: Options, encoding: str) -> None:
    model = learned(replace(tagged, pair_encoding=encoding))
    for task, texts in (("sst", TEXTS), ("sts", PAIRS)):
        together = logits(model, task, texts)
        alone = torch.cat([logits(model, task, [text]) for text in texts])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_it_is_alive(tagged: Options, pipeline: Path, tmp_path: Path) -> None:
    """Each kind trains its table, by the tags that occur; another pipeline gives other weights."""
    shutil.copytree(pipeline, tmp_path / "other")
    (tmp_path / "other" / "attribute_ruler" / "patterns").write_bytes(b"\x90")  # none
    other = replace(tagged, word_tags_model=str(tmp_path / "other"), word_tags=("pos",))
    plain = replace(tagged, word_tags=(), word_tags_model="en_core_web_sm")
    found = []
    for options in (plain, tagged, other):
        found.append(train(replace(options, tasks=("sst",)))["folder"])

    # Losses: the first are equal, and those of a pipeline that tags nothing are the plain ones.
    of_plain, of_both, of_other = (losses(folder) for folder in found)
    assert of_plain[0] == of_both[0] and of_plain[1] != of_both[1]
    assert of_other == pytest.approx(of_plain, rel=1e-6)

    # Rows: those of tags that occur have moved, and no others.
    name = "embedding_terms.word_tags.tables.{}.weight"
    pos, ner = (weights(found[1])[name.format(kind)] for kind in TAGS)
    assert pos[TAGS["pos"].index("NOUN") + 1].any()
    assert not pos[0].any() and not pos[TAGS["pos"].index("ADP") + 1].any()
    assert ner[TAGS["ner"].index("WORK_OF_ART") + 1].any()
    assert name.format("ner") not in weights(found[2])


@pytest.mark.parametrize("lora", [False, True])
def test_a_saved_model_tags_new_texts_in_the_same_way(
    tagged: Options, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Path
) -> None:
    """From any folder, though its pipeline was named by a relative path; exported too."""
    shutil.copytree(pipeline, "pipe")
    model = learned(replace(tagged, lora=lora, word_tags_model="pipe"))
    Path("saved").mkdir()
    model.save(Path("saved"))
    texts = {"sst": TEXTS, "para": PAIRS}
    expected = {task: logits(model, task, some) for task, some in texts.items()}
    classes = model.predict("sst", TEXTS)

    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    loaded = MultitaskBERT.load("../saved")
    merged = export(Path("../saved"), Path("merged"))
    assert not merged.options.lora and merged.options.word_tags == ("pos", "ner")
    again = MultitaskBERT.load("merged")
    for task, some in texts.items():
        assert torch.equal(logits(loaded, task, some), expected[task])
        close = logits(again, task, some)
        torch.testing.assert_close(close, expected[task], rtol=1e-4, atol=1e-4)
    assert loaded.predict("sst", [text[0] for text in TEXTS]) == classes


def test_a_run_is_resumed_scored_and_started_from(tagged: Options, pipeline: Path) -> None:
    options = replace(tagged, lora=True, epochs=2, tasks=("sst", "sts"))
    folder = Path(train(options)["folder"])
    shutil.copytree(pipeline, "copy")
    dev = json.loads((folder / "run.json").read_text())["best"]["scores"]["sst"]
    assert predict_with(str(folder), {"data_dir": tagged.data_dir})["sst_dev"]["score"] == dev
    resumed = train(Options(resume=str(folder), epochs=3))
    assert weights(resumed["folder"]).keys() == weights(folder).keys()
    started = replace(options, model="auto", init=str(folder), word_tags_model=f"{pipeline}/")
    first = losses(train(replace(started, name="next"))["folder"])
    assert first != losses(folder)


def test_another_pipeline_is_refused(tagged: Options, pipeline: Path) -> None:
    shutil.copytree(pipeline, "pipe")
    model = learned(replace(tagged, word_tags_model="pipe"))
    Path("saved").mkdir()
    model.save(Path("saved"))
    Path("pipe").rename("before")
    with pytest.raises(UserError, match="^--word_tags_model .*pipe: no such folder"):
        MultitaskBERT.load("saved")
    shutil.copytree(pipeline, "pipe")
    Path("pipe", "vocab", "more").write_text("x")
    # Another place, since a process loads a folder once.
    text = Path("saved", "options.json").read_text().replace('"../pipe"', '"../pipe2"')
    Path("pipe").rename("pipe2")
    Path("saved", "options.json").write_text(text)
    write_manifest(Path("saved"))
    with pytest.raises(UserError) as caught:
        MultitaskBERT.load("saved")
    expected = f"--word_tags_model {Path('pipe2').resolve()} (en_pipeline 0.0.0): not the spaCy"
    assert str(caught.value).startswith(expected)


def test_token_ids_alone_are_refused(tagged: Options) -> None:
    """The course's padded batches: their words can't be tagged any more."""
    model = build(replace(tagged, word_tags=("ner",)))
    batch = padded(model.tokenizer, ["A film ."])
    with pytest.raises(UserError, match="^--word_tags ner: this model needs texts, and got token"):
        model.predict_sentiment(*batch)
    assert isinstance(model.embedding_terms["word_tags"], TagEmbeddings)


def test_it_trains_beside_a_frozen_encoder(tagged: Options) -> None:
    before = build(replace(tagged, option="pretrain"))
    after = weights(train(replace(tagged, option="pretrain"))["folder"])
    frozen = {name: x for name, x in before.state_dict().items() if name.startswith("bert.")}
    assert same(frozen, {name: after[name] for name in frozen})
    assert after["embedding_terms.word_tags.tables.pos.weight"].any()
