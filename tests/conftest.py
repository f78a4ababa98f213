"""Fixtures that several test files share."""

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from base_bert import BertConfig
from bert import BertModel
from errors import UserError
from options import Options
from pretrained import find_embedded
from text import data_files
from tokenizer import BertTokenizer


def pytest_addoption(parser: pytest.Parser) -> None:
    """The folder with the course's real files, for the tests marked real_data."""
    parser.addoption(
        "--data_dir",
        default=None,
        help="folder with the course's CSV files (tests marked real_data)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have all tests find the same surroundings, however pytest was started."""
    # Tests interrupt themselves, even where the suite runs behind a `&`, which ignores Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    # Workers side by side (pytest -n 2) have a core each, and so have the processes they start.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_data_beside_the_scripts(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A developer's own data/ changes no test."""
    nowhere = tmp_path_factory.getbasetemp() / "nowhere"
    monkeypatch.setattr(data_files, "BESIDE", nowhere)


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The folder of the embedded model (all-MiniLM-L6-v2, 6 layers, 384 wide)."""
    try:
        return find_embedded()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random tiny BERT and the embedded model's vocabulary, as save_pretrained
    writes it.
    """
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    model.name_or_path = str(embedded)  # where save_pretrained finds the vocabulary
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder under the real names: 40 training and 12 dev and test rows a task, cut from the
    built-in corpus.
    """
    folder = tmp_path_factory.mktemp("data")
    for source in (Path(__file__).parents[1] / "data" / "builtin").glob("*.csv"):
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / source.name).write_text(
            "".join(lines[: 41 if "train" in source.name else 13]), encoding="utf-8"
        )
    return folder


@pytest.fixture
def options(
    tiny: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Options:
    """Three small steps on the tiny model, in an empty folder; last/ is kept."""
    monkeypatch.chdir(tmp_path)
    return Options(
        model=str(tiny),
        data_dir=str(small_data),
        epochs=1,
        steps_per_epoch=3,
        batch_size=13,
        log_every=1,
        precision="fp32",
        lr=1e-3,
        keep_last=True,
    )


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a spaCy pipeline that tags a few words; without spaCy the test is skipped.

    Of its labels SPACE is no universal part of speech, and SONG no entity of OntoNotes.
    """
    spacy = pytest.importorskip("spacy")
    english = spacy.blank("en")
    words = {
        "NOUN": ["film", "question", "embroideries"],
        "DET": ["a", "the"],
        "VERB": ["do", "is"],
        "PUNCT": [".", "?"],
        "SPACE": ["zyzzyva"],
    }
    rules = english.add_pipe("attribute_ruler")
    for pos, some in words.items():
        rules.add(patterns=[[{"LOWER": {"IN": some}}]], attrs={"POS": pos})
    entities = [
        ("GPE", "New Haven"),
        ("PERSON", "Ada"),
        ("SONG", "Yesterday"),
        ("WORK_OF_ART", "film"),
    ]
    ruler = english.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": text} for label, text in entities])
    folder = tmp_path_factory.mktemp("spacy") / "pipeline"
    english.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def one_tokenizer() -> Iterator[None]:
    """Models of one name share a tokenizer: reading it takes most of a small model's time."""
    with pytest.MonkeyPatch.context() as patch:
        read_once = functools.cache(BertTokenizer.from_pretrained)
        patch.setattr(BertTokenizer, "from_pretrained", read_once)
        yield
