"""Signals that end a run: it is saved, says how to go on, and is resumed to the same weights."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import training.outputs
import training.run
from errors import Interrupted, run_main
from multitask_classifier import main, train
from options import Options
from tests.test_train import ROOT, flags, same, weights
from training.run import Run
from training.signals import ENDING, interrupted


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As they were before, afterwards; and no test depends on how the suite was started."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(numbers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next run get these signals in its second step."""
    log = Run.log

    def log_and_send(self: Run, step: int, *rest: object) -> None:
        log(self, step, *rest)  # type: ignore[arg-type]
        if step == 1:
            for number in numbers:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "log", log_and_send)


@pytest.mark.parametrize(
    "numbers",
    [
        *([number] for number in ENDING),
        [signal.SIGHUP, signal.SIGHUP],  # bash's and the kernel's
        [signal.SIGTERM, signal.SIGHUP],  # as systemd can be told to
        [signal.SIGUSR1, signal.SIGTERM],
    ],
    ids=str,
)
def test_a_signal_saves_and_the_run_goes_on(
    options: Options, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        send(numbers, patch)
        with pytest.raises(Interrupted, match="^stopped after step 2 of 3; go on with:\n") as stop:
            train(options)
    assert stop.value.code == 128 + numbers[0]
    folder = str(stop.value).split("--resume ")[1]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    if numbers == [signal.SIGHUP]:
        main(["--resume", folder])
        assert same(weights(folder), weights(train(options)["folder"]))


def interrupted_at(name: str, options: Options, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    """How a run ends that gets Ctrl-C right after a function of training.run, before any step."""
    function = getattr(training.run, name)

    def call_and_send(*rest: Any) -> Any:
        result = function(*rest)
        os.kill(os.getpid(), signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(training.run, name, call_and_send)
        with pytest.raises(Interrupted) as stopped:
            train(options)
    assert stopped.value.code == 130
    return stopped.value


@pytest.mark.parametrize("moment", ["new_folder", "write_text", "Console"])
def test_ctrl_c_before_the_first_step(
    moment: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the folder is begun, or the bar just shown: the run can be resumed from there."""
    stopped = interrupted_at(moment, options, monkeypatch)
    assert str(stopped).startswith("stopped after step 0 of 3; go on with:\n")
    folder = str(stopped).split("--resume ")[1]
    assert not list(Path(folder).rglob(".minbert-*"))
    main(["--resume", folder])
    assert same(weights(folder), weights(train(options)["folder"]))


@pytest.mark.parametrize("moment", ["changed_record", "load", "Console"])
def test_ctrl_c_while_a_run_is_extended(
    moment: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(options)["folder"]
    longer = replace(options, resume=folder, epochs=2)
    stopped = interrupted_at(moment, longer, monkeypatch)
    assert str(stopped).startswith("stopped after step 3 of 6; go on with:\n")
    main(["--resume", str(stopped).split("--resume ")[1]])
    facts = json.loads((Path(folder) / "run.json").read_text())
    assert facts["epochs"] == 2 and facts["best"]


def test_the_second_ctrl_c_stops_at_once(
    options: Options, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    send([signal.SIGINT, signal.SIGINT], monkeypatch)
    monkeypatch.setattr("sys.argv", ["multitask_classifier.py"])
    with pytest.raises(SystemExit) as ended:
        run_main(lambda _: train(options) and None)
    assert ended.value.code == 130
    assert capfd.readouterr().err.endswith("\ninterrupted\n")
    assert not list(Path().glob("runs/*/last"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_an_ignored_signal_stays_ignored(
    options: Options, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nohup` has SIGHUP ignored, and `&` in a script SIGINT."""
    signal.signal(number, signal.SIG_IGN)
    send([number], monkeypatch)
    assert train(options)["best"]
    assert signal.getsignal(number) is signal.SIG_IGN


def test_ctrl_c_after_the_last_step(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """While test is predicted, and when all is written but the run is not marked as complete."""

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    message = "^stopped after the last step, before the run's end; go on with:\n"
    with monkeypatch.context() as patch:
        patch.setattr(training.outputs, "predict", interrupt)
        with pytest.raises(Interrupted, match=message) as stopped:
            train(options)
    folder = str(stopped.value).split("--resume ")[1]
    assert stopped.value.code == 130 and not list(Path("predictions").iterdir())

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", interrupt)
        with pytest.raises(Interrupted, match=message):
            main(["--resume", folder])
    assert len(list(Path("predictions").iterdir())) == 6
    assert "best" not in json.loads((Path(folder) / "run.json").read_text())

    main(["--resume", folder])
    assert "best" in json.loads((Path(folder) / "run.json").read_text())


def test_the_command_to_go_on_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
    stopped = interrupted(Path("runs/2026-11-21-multitask"), "after step 10 of 20")
    first, command = str(stopped).splitlines()
    assert first == "stopped after step 10 of 20; go on with:"
    script = ".venv/bin/python multitask_classifier.py"
    assert command == f"{script} --resume runs/2026-11-21-multitask" and len(command) <= 80


def test_a_run_in_another_thread_leaves_signals_alone(options: Options) -> None:
    """Python allows handlers in the main thread only."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, replace(options, steps_per_epoch=1)).result()["best"]


@pytest.mark.slow
def test_a_terminal_that_is_closed(options: Options) -> None:
    """A real one: the kernel sends SIGHUP, and every write fails."""
    endless = replace(options, steps_per_epoch=100_000, save_every=100_000)
    command = [sys.executable, str(ROOT / "multitask_classifier.py"), *flags(endless)]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    shown = b""
    while not re.search(rb" [1-9]\d*/100000 ", shown):
        shown += os.read(terminal, 4096)  # OSError where the run has ended by itself
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    (progress,) = Path("runs").glob("*/last/progress.json")
    assert json.loads(progress.read_text())["step"] >= 1
