"""The model card of a run: what the hub reads of it (oracle: huggingface_hub), and a reader."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from multitask_classifier import MultitaskBERT, train
from options import Options
from storage.files import sha256_of


def leaky(options: Options) -> Options:
    """SST's dev file with two examples of train."""
    folder = Path(options.data_dir)
    train_rows = (folder / "ids-sst-train.csv").read_text().splitlines(keepends=True)
    dev = (folder / "ids-sst-dev.csv").read_text()
    Path("leaky|dev.csv").write_text(dev + "".join(train_rows[1:3]))
    return replace(options, files={"sst_dev": "leaky|dev.csv"}, tasks=("sst", "sts"))


def test_the_card_of_a_run(options: Options) -> None:
    facts = train(leaky(options))
    best = Path(facts["folder"]) / "best"
    card = ModelCard.load(best / "README.md")

    # The hub's metadata, as the hub's own library reads it.
    data = card.data
    assert data.language == "en" and data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity" and {"minbert", "sst"} <= set(data.tags)
    found = {result.dataset_type: result for result in data.eval_results}
    for task, metric in (("sst", "accuracy"), ("sts", "pearson")):
        assert found[task].metric_type == metric
        assert found[task].metric_value == pytest.approx(facts["best"]["scores"][task], abs=1e-4)

    # For a reader: the data, what leaked, the scores, the command, and that it is one that loads.
    row = f"| `leaky\\|dev.csv` | 14 | {sha256_of(Path('leaky|dev.csv'))[:12]} | 2 |"
    assert row in card.content
    assert f"| SST | accuracy | {facts['best']['scores']['sst']:.3f} |" in card.content
    assert facts["commands"][0] in card.content and facts["commit"] in card.content
    assert 'MultitaskBERT.load("FOLDER")' in card.content

    # People edit it, on the hub too: the model is still the one that was saved.
    (best / "README.md").write_text("my best model")
    assert MultitaskBERT.load(facts["folder"]).predict("sst", ["A lovely film ."])


@pytest.mark.parametrize(
    ("change", "library"),
    [
        ({"lora": True}, "peft"),
        ({"lora": True, "lora_merge": True}, "sentence-transformers"),
        ({"rmsnorm": "encoder"}, "minbert"),
        ({"option": "pretrain"}, "minbert"),
    ],
)
def test_the_card_says_who_loads_it(options: Options, change: dict, library: str) -> None:
    options = replace(options, steps_per_epoch=1, tasks=("sst",), **change)
    folder = Path(train(options)["folder"])
    card = ModelCard.load(folder / "best" / "README.md")
    assert card.data.library_name == library
    assert ("PeftModel" in card.content) == (library == "peft")


def test_the_card_says_what_was_left_out_and_what_is_not_known(options: Options) -> None:
    options = replace(options, steps_per_epoch=1, tasks=("sst",))
    first = Path(train(options)["folder"])
    less = replace(options, model="auto", init=str(first), limit=20, train_fraction=0.5)
    cards = [(Path(x) / "best" / "README.md").read_text() for x in (first, train(less)["folder"])]
    for line in (
        "Only the first 20 rows of each file were read (`--limit`).",
        "A random 0.5 of the training rows was trained on (`--train_fraction`).",
        f"It started from `{first.name}` (`--init`)",
    ):
        assert [line in card for card in cards] == [False, True]
    assert "| `ids-sst-train.csv` | 10 |" in cards[1]


def test_the_card_of_the_embedded_model_and_the_built_in_corpus(tmp_path: Path) -> None:
    from training.model_card import write_card

    facts = {
        "built_in_corpus": True,
        "data": {},
        "commands": ["python multitask_classifier.py"],
        "commit": "abc",
        "device": "a CPU",
        "python": "3.11",
        "versions": {"torch": "2.13.0"},
    }
    scores = {"sst": 0.5, "para": 0.75, "sts": 0.25}
    best = {"epoch": 2, "step": 6, "overall": 0.625, "scores": scores}
    write_card(tmp_path, Options(model="all-MiniLM-L6-v2"), facts, best)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert "Quora duplicates" in card.content and "built-in corpus" in card.content
    assert json.loads(json.dumps(card.data.to_dict()))["model-index"][0]["name"] == "multitask"
