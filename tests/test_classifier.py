"""Part 1, end to end on a tiny random BERT."""

from pathlib import Path

import pytest

import classifier
from options import Options
from tests.test_train import flags

MODES = [(["--option", "pretrain"], "pretrain"), (["--fine-tune-mode", "full-model"], "full-model")]


@pytest.mark.parametrize(("mode", "name"), MODES)
def test_writes_the_course_files(options: Options, mode: list[str], name: str) -> None:
    classifier.main([*flags(options), *mode])
    for task, rows in (("sst", 12), ("cfimdb", 12)):
        for split in ("dev", "test"):
            lines = Path(f"predictions/{name}-{task}-{split}-out.csv").read_text().splitlines()
            assert lines[0] == "id \t Predicted_Sentiment " and len(lines) == rows + 1
    assert len(list(Path("runs").glob("*-classifier"))) == 2
