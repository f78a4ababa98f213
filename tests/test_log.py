"""log.jsonl on resuming, and TensorBoard beside it (test_train.py)."""

from pathlib import Path

from training.log import Log


def test_the_log_drops_torn_lines_and_those_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    log = Log(tmp_path, step=2, tensorboard=False)
    log.write({"step": 3, "loss": 0.5})
    log.close()
    assert (tmp_path / "log.jsonl").read_text().splitlines() == [
        '{"step": 1}',
        '{"step": 2}',
        '{"step": 3, "loss": 0.5}',
    ]
