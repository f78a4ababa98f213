"""What the sweeps of faults start from and compare with: a tiny model, data, and a run that nothing
disturbed.
"""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from base_bert import BertConfig
from bert import BertModel
from tests.faults_child import ROOT, Ending, Operations, command, run
from tokenizer import BertTokenizer

Case = tuple[str, Callable[[], list[str]]]  # a name, and what finds its problems

STEPS = 4
EPOCHS = 2
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'`-$%():;&/"


# ---- what the cases start from


def write_model(folder: Path) -> None:
    """A random BERT of two narrow layers, whose vocabulary is the characters."""
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    pieces += [f"##{letter}" for letter in LETTERS]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)


def write_data(folder: Path) -> None:
    """The first rows of the built-in corpus: 12 of each training set, 4 of the others."""
    folder.mkdir()
    for source in (ROOT / "data" / "builtin").glob("*.csv"):
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = 13 if "train" in source.name else 5
        (folder / source.name).write_text("".join(lines[:rows]), encoding="utf-8")


def prepare(root: Path) -> None:
    """Write model/ and data/ into a folder, in a child: the parent computes nothing."""

    def write() -> None:
        write_model(root / "model")
        write_data(root / "data")

    made = run(write, root)
    assert made.code == 0, made.errors


@dataclass
class Bench:
    """A model, data and a run that nothing disturbed; cases are folders beside them."""

    root: Path
    number: int = 0  # of cases so far
    name: str = "case"  # of their folders
    total: int = STEPS
    saved: tuple[int, ...] = (2, 3, 4)  # the steps after which a last/ is put in its place
    sample: int = 130  # operations that meet a fault in the test suite, each one

    def __post_init__(self) -> None:
        prepare(self.root)
        self.measure()

    def measure(self) -> None:
        """Run it undisturbed, and note what it does and leaves."""
        self.undisturbed = self.folder()
        operations = Operations()
        self.operations = self.counted(operations)
        self.saves = [n for n, name in enumerate(self.operations, 1) if is_save(name)]
        assert len(self.saves) == len(self.saved), self.saves
        self.wanted = results(self.undisturbed)
        assert len(self.wanted) > 6, self.wanted
        self.paths = paths_below(self.undisturbed)

    def argv(self, *more: str) -> tuple[str, ...]:
        """The command line of the run."""
        line = f"--model {self.root}/model --data_dir {self.root}/data --precision fp32 --lr 1e-3 "
        line += (
            f"--epochs {EPOCHS} --steps_per_epoch {STEPS // EPOCHS} --save_every 3 --tasks sst sts "
        )
        line += "--batch_size 6 --log_every 1 --max_length 48 --name x --keep_last"
        return (*line.split(), *more)

    def folder(self) -> Path:
        """An empty folder for a case."""
        self.number += 1
        folder = self.root / f"{self.name}-{self.number}"
        folder.mkdir()
        return folder

    def counted(self, operations: Operations) -> list[str]:
        """The names of the operations of a run without a fault, in the folder `undisturbed`."""
        record = self.root / "operations.json"

        def work() -> None:
            operations.install()
            try:
                command(*self.argv())()
            finally:
                held = list(operations.held)
                record.write_text(json.dumps(held))

        ending = run(work, self.undisturbed)
        assert ending.code == 0, ending.errors
        return json.loads(record.read_text())

    def resume(self, folder: Path) -> Ending:
        """Go on with the run in a case's folder, or begin anew where there is none."""
        begun = run_folders(folder)
        argv = ("--resume", str(begun[-1].relative_to(folder))) if begun else self.argv()
        return self.run_counted(folder, *argv)

    def run_counted(self, folder: Path, *argv: str) -> Ending:
        """Run a command line; `steps` says then how many steps it made."""
        count = self.root / "steps"
        count.write_bytes(b"")

        def work() -> None:
            at_each_step(lambda number: count.write_bytes(b"." * number))
            command(*argv)()

        ending = run(work, folder)
        self.steps = count.stat().st_size
        return ending

    def lost(self, folder: Path, operation: int) -> list[str]:
        """Whether run_counted() made steps anew that were saved before an operation."""
        pairs = zip(self.saves, self.saved, strict=True)
        saved = [step for number, step in pairs if number < operation]
        if saved and self.steps > self.total - saved[-1]:
            return [f"lost: {self.steps} steps anew, though {saved[-1]} of {self.total} were saved"]
        return []

    def differences(self, folder: Path) -> list[str]:
        """What is not as in the undisturbed run: results, the log's steps, files left over."""
        found = []
        here = results(folder)
        if here != self.wanted:
            names = sorted(name for name, digest in self.wanted.items() if here.get(name) != digest)
            found.append(f"differs: {', '.join(names[:4])}")
        if logged(folder) != logged(self.undisturbed):
            found.append(f"log has the steps {[line['step'] for line in logged(folder)]}")
        left = [path for path in sorted(paths_below(folder) - self.paths) if not is_kept(path)]
        if left:
            found.append(f"left over: {', '.join(left[:4])}")
        return found


class Extended(Bench):
    """Cases begin with a finished run, which has kept its best model only, and extend it."""

    def __init__(self, bench: Bench):
        self.finished = bench.folder()
        ending = run(command(*bench.argv("--no-keep_last")), self.finished)
        assert ending.code == 0, ending.errors
        # The first is the extension's own; with the last one last/ loses its tensors.
        self.root, self.number, self.name, self.sample = bench.root, 0, "extended", 50
        self.total, self.saved = STEPS + STEPS // EPOCHS, (STEPS, STEPS + STEPS // EPOCHS, 6)
        self.measure()

    def argv(self, *more: str) -> tuple[str, ...]:
        """The command line that extends the run."""
        (begun,) = run_folders(self.finished)
        folder = str(begun.relative_to(self.finished))
        return ("--resume", folder, "--epochs", str(EPOCHS + 1), *more)

    def folder(self) -> Path:
        """A case's folder, with the finished run in it."""
        folder = super().folder()
        shutil.copytree(self.finished, folder, dirs_exist_ok=True)
        return folder

    def resume(self, folder: Path) -> Ending:
        """The same command once more."""
        return self.run_counted(folder, *self.argv())


def is_save(operation: str) -> bool:
    """Whether an operation puts a new last/ in its place."""
    return operation.startswith(("rename ", "replace ")) and operation.endswith("/last")


def at_each_step(tell: Callable[[int], object]) -> None:
    """Call `tell` with 1, 2, ... at each optimizer step of this process."""
    clip = torch.nn.utils.clip_grad_norm_
    numbers = itertools.count(1)

    def telling(*args: Any, **more: Any) -> Any:
        tell(next(numbers))
        return clip(*args, **more)

    torch.nn.utils.clip_grad_norm_ = telling


def run_folders(folder: Path) -> list[Path]:
    """The run folders of a case that can be resumed."""
    return sorted(path.parent for path in folder.glob("runs/*/options.json"))


def results(folder: Path) -> dict[str, str]:
    """The checksum of every file that a case's run must have right in the end."""
    paths = {plain_name(path, folder): path for path in folder.rglob("*-output.csv")}
    for begun in run_folders(folder)[-1:]:
        for kept in ("best", "last"):
            for path in (begun / kept).glob("*.safetensors"):
                paths[f"{kept}/{path.name}"] = path
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a case's log.jsonl, without what is another in each run."""
    lines: list[dict[str, Any]] = []
    for begun in run_folders(folder)[-1:]:
        lines = [json.loads(line) for line in (begun / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_s")
    return [{name: x for name, x in line.items() if name not in timed} for line in lines]


def paths_below(folder: Path) -> set[str]:
    """Every file and folder of a case."""
    return {plain_name(path, folder) for path in folder.rglob("*")}


def plain_name(path: Path, folder: Path) -> str:
    """Where a path is in a case's folder, whatever its run folder is called."""
    parts = path.relative_to(folder).parts
    if parts[0] == "runs" and len(parts) > 1:
        parts = ("runs", "RUN", *parts[2:])
    return "/".join(parts)


def is_kept(path: str) -> bool:
    """Whether a path that the undisturbed run has not is meant to stay."""
    return path.rpartition("/")[2].endswith("lock")
