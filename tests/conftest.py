"""Fixtures that several test files share."""

from pathlib import Path

import pytest
import torch

from base_bert import BertConfig, find_embedded
from bert import BertModel
from errors import UserError


def pytest_addoption(parser: pytest.Parser) -> None:
    """The folder with the course's real files, for the tests marked real_data."""
    parser.addoption("--data_dir", default=None, help="folder with the course's CSV files (tests marked real_data)")


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The folder of the embedded model (all-MiniLM-L6-v2, 6 layers, 384 wide)."""
    try:
        return find_embedded()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random tiny BERT and the embedded model's vocabulary, as save_pretrained writes it."""
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    model.name_or_path = str(embedded)  # where save_pretrained finds the vocabulary
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return folder
