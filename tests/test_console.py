"""What a run shows: on a terminal a bar that nothing lands on, elsewhere some lines and a table."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import warnings
from dataclasses import replace

import pytest

import training.run
from datasets import count_tokens
from errors import UserError
from multitask_bert import build
from multitask_classifier import train
from options import Options
from tasks import tasks_of
from tests.test_train import ROOT, flags
from training.console import Console, has_width
from training.inputs import load_data
from training.time_left import TimeLeft, time_left_of


def console_of(done: int, total: int, log_every: int) -> Console:
    return Console(
        done, total, log_every, tasks_of(Options()), TimeLeft(total, total, {"dev": 0, "test": 0})
    )


def record(step: int) -> dict:
    return {"step": step, "loss": 1.0, "lr": 1e-3, "tokens_per_s": 100}


@pytest.mark.parametrize("done", [0, 40])
@pytest.mark.parametrize("total, log_every", [(95, 1), (95, 10), (7, 1), (1000, 10)])
def test_about_ten_lines_a_run_and_the_last_step(
    total: int, log_every: int, done: int, capsys: pytest.CaptureFixture
) -> None:
    console = console_of(done, total, log_every)
    for step in range(done + 1, total + 1):
        console.step(100)
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
    assert all(line.endswith(":00 left") and len(line) <= 80 for line in lines)


def test_the_table_has_one_head_and_straight_columns(capsys: pytest.CaptureFixture) -> None:
    console = console_of(0, 2000, 10)
    for epoch, best in (1, True), (2, False), (13, True):
        scores = {"sst": {"score": 0.5}, "para": {"score": 1.0}, "sts": {"score": -0.25}}
        console.score_row(epoch, 1000 * epoch, {**scores, "overall": 0.4375}, 12345.6, best)
    console.close()
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "epoch    step  SST accuracy  Quora accuracy  STS Pearson  overall seconds"
    assert [row.endswith("  best") for row in rows] == [True, False, True]
    for row in rows:
        assert len(row) <= 80
        assert len(row.removesuffix("  best")) == len(head)
        assert row[: len(head)].split()[2:] == ["0.500", "1.000", "-0.250", "0.438", "12346"]
        assert row.index("-0.250") + 6 == head.index("STS Pearson") + len("STS Pearson")


def test_scores_on_train_stand_below_those_on_dev(capsys: pytest.CaptureFixture) -> None:
    console = console_of(0, 2000, 10)
    scores = {"sst": {"score": 0.5}, "para": {"score": 1.0}, "sts": {"score": -0.25}}
    console.score_row(13, 2000, {**scores, "overall": 0.4375}, 12345.6, False)
    console.train_row({**scores, "overall": 0.4375})
    console.close()
    _, dev, train = capsys.readouterr().out.splitlines()
    assert train.startswith("     of train  ")
    assert dev[13 : len(train)] == train[13:] and train.endswith("0.438")


# ---- the time left


def test_the_time_left_counts_scores_on_train(options: Options) -> None:
    """As many examples of each task as dev has, so about twice the tokens."""
    model = build(options)
    plain, _ = load_data(options, model)
    scored, _ = load_data(replace(options, train_scores=True), model)
    left, longer = (time_left_of(data, 10, 5).tokens for data in (plain, scored))
    assert set(longer) == {"dev", "test"} and longer["test"] == left["test"]
    first = [split.first(len(plain["dev"][task])) for task, split in plain["train"].items()]
    assert [len(split) for split in first] == [12, 12, 12]
    assert longer["dev"] == left["dev"] + count_tokens(first) > 1.5 * left["dev"]


def test_the_time_left_counts_evaluations_and_test() -> None:
    """Steps of 2 s, 10 tokens each; predictions at 100 tokens a second."""
    left = TimeLeft(steps=6, epoch=3, tokens={"dev": 500, "test": 700})
    left.trained(10, 2.0)
    left.trained(10, 2.0)
    assert left.after(2) == pytest.approx(4 * 2 + 0.25 * 0.2 * (2 * 500 + 700))
    left.trained(10, 2.0)
    left.predicted(1000, 10.0)
    assert left.after(3) == pytest.approx(3 * 2 + 0.01 * (2 * 500 + 700))  # before evaluating
    assert left.after(4) == pytest.approx(2 * 2 + 0.01 * (500 + 700))
    assert left.after(6) == pytest.approx(0.01 * (500 + 700))
    assert left.to_predict(700) == pytest.approx(7)


def test_steps_behind_the_last_whole_epoch_have_no_evaluation() -> None:
    left = TimeLeft(steps=5, epoch=3, tokens={"dev": 100, "test": 0})
    left.predicted(100, 1.0)
    assert left.after(3) == pytest.approx(1) and left.after(4) == 0


# ---- terminals


def terminal(columns: int) -> tuple[int, int]:
    """Both ends of a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return ours, theirs


@pytest.mark.parametrize(
    ("columns", "kind", "bar"),
    [(80, "xterm", True), (0, "xterm", False), (5, "xterm", False), (80, "dumb", False)],
)
def test_a_bar_needs_a_terminal_with_a_width(
    columns: int, kind: str, bar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", kind)
    ours, theirs = terminal(columns)
    with open(theirs, "w") as stream:
        assert has_width(stream) is bar
    os.close(ours)
    with open(os.devnull, "w") as nowhere:
        assert not has_width(nowhere)


def shown_on_a_terminal(options: Options, columns: int) -> str:
    """All that a run sends to a terminal."""
    command = [sys.executable, "-W", "always", str(ROOT / "multitask_classifier.py")]
    child, ours = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(command[0], [*command, *flags(options)])
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the run has ended
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return shown.decode()


def screen_after(shown: str) -> list[str]:
    """The lines that stand on an endless screen in the end: later text covers earlier text."""
    lines = [""]
    row = column = 0
    for part in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", shown):
        if part == "\x1b[A":
            row -= 1
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


@pytest.mark.slow
def test_a_run_on_a_terminal(options: Options) -> None:
    """Bars for the steps, for dev and for test, all gone in the end; tables and warnings have
    lines of their own.
    """
    shown = shown_on_a_terminal(replace(options, lr=1e-9), 80)  # learns nothing, so it warns
    for split in ("dev", "test"):
        assert re.search(rf"predicting {split} +\d+%\|.*\| \[00:\d\d<", shown)
    assert re.search(r"100%\|.*\| 3/3 \[00:\d\d<00:\d\d, loss .* tokens/s\]", shown)
    lines = screen_after(shown)
    assert not any("%|" in line for line in lines)
    warned = [line for line in lines if "warning: " in line]
    assert warned and all(line.startswith("warning: ") for line in warned)
    table = [line for line in lines if line.endswith("best")]
    assert len(table) == 1 and table[0].startswith("    1       3 ")
    own = [line for line in lines if options.model not in line]  # the user's own path
    assert max(map(len, own)) <= 80


@pytest.mark.slow
def test_a_terminal_without_a_width_gets_lines(options: Options) -> None:
    shown = shown_on_a_terminal(options, 0)
    assert "█" not in shown and "%|" not in shown
    assert re.search(r"step +3/3 .* left\r\n", shown)
    assert "predicting dev, about 00:0" in shown and "predicting test, about 00:0" in shown


def test_no_bar_is_begun_where_the_log_cannot_be_written(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("log.jsonl: can't be written")

    monkeypatch.setattr(training.run, "Log", full)
    monkeypatch.setattr(training.run, "Console", lambda *_: pytest.fail("a bar"))
    with pytest.raises(UserError, match="log.jsonl: can't"):
        train(options)


def test_warnings_are_shown_as_before_once_a_run_has_ended(options: Options) -> None:
    before = warnings.showwarning
    train(replace(options, steps_per_epoch=1))
    assert warnings.showwarning is before
