"""What a run shows where there is no terminal: some lines, and a table of straight columns."""

import pytest

from options import Options
from tasks import tasks_of
from training.console import Console


def record(step: int) -> dict:
    return {"step": step, "loss": 1.0, "lr": 1e-3, "tokens_per_s": 100}


@pytest.mark.parametrize("done", [0, 40])
@pytest.mark.parametrize("total, log_every", [(95, 1), (95, 10), (7, 1), (1000, 10)])
def test_about_ten_lines_a_run_and_the_last_step(
    total: int, log_every: int, done: int, capsys: pytest.CaptureFixture
) -> None:
    console = Console(done, total, log_every, tasks_of(Options()))
    for step in range(done + 1, total + 1):
        console.step()
        if step % log_every == 0 or step == total:
            console.show(record(step))
    console.close()
    lines = capsys.readouterr().out.splitlines()
    shown = [int(line.split()[1].split("/")[0]) for line in lines]
    assert len(lines) <= 12
    if done < total:
        assert shown[-1] == total and shown == sorted(set(shown))
    if done == 0:
        assert len(lines) >= min(10, total // log_every)
    assert all(line.endswith("s left") for line in lines)


def test_the_table_has_one_head_and_straight_columns(capsys: pytest.CaptureFixture) -> None:
    tasks = tasks_of(Options(tasks=("sst", "sts")))
    console = Console(0, 2000, 10, tasks)
    for epoch, best in (1, True), (2, False), (13, True):
        scores = {"sst": {"score": 0.5}, "sts": {"score": -0.25}, "overall": 0.4375}
        console.score_row(epoch, 1000 * epoch, scores, 12345.6, best)
    console.close()
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "epoch    step  SST accuracy  STS Pearson  overall  seconds"
    assert [row.endswith("  best") for row in rows] == [True, False, True]
    for row in rows:
        assert len(row.removesuffix("  best")) == len(head)
        assert row[: len(head)].split()[2:] == ["0.500", "-0.250", "0.438", "12346"]
        assert row.index("-0.250") + 6 == head.index("STS Pearson") + len("STS Pearson")
