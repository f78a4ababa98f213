"""Seeded fuzzing of everything that reads a file or a command line.

    python tests/fuzz.py --seconds 600 --seed 1     until the time is over
    python tests/fuzz.py --cases 2000 --seed 1      so many cases
    python tests/fuzz.py --seed 1 --case 17         one case, with its traceback

A case follows from its seed and number alone: one of TARGETS gets an input that was legal before
some bytes, JSON values or words of it were changed. UserError may come out, and nothing else: no
other exception, no crash, no more than 10 seconds, no more than 1 GiB of memory. The input of a
case that goes wrong is kept in /tmp/minbert-fuzz.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The project's folder, so that the file can be run from anywhere.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors.torch import load_file

from base_bert import BertConfig
from bert import BertModel
from choices.chosen import SECTIONS
from commandline.parser import file_flags
from errors import UserError
from examples import read_examples
from flags import parse
from options import Options
from tasks import TASKS
from tests.faults_bench import prepare
from tests.faults_child import innermost, run, scratch
from tokenizer import BertTokenizer

KEPT = Path("/tmp/minbert-fuzz")
BATCH = 200  # cases a child
CASE_LIMIT = 10  # seconds

# ---- mutators

PIECES = (
    *(b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b"\0", b",", b" ", b"'", b"#", b"=", b"@", b"\\"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x1b[31m"),
    *(text.encode() for text in ("é", "中文", "\u2028", "\u200f", "🙂", "İ", "\u0085")),
    *(b"nan", b"inf", b"-1", b"1e999", b"0x10", b"1_0", b"99999999999999999999", b"1.5", b"true"),
    *(b"id", b"sentence", b"sentiment", b"[PAD]", b"[UNK]", b"{}", b"[]", b"null", b"x" * 140_000),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 0.5, 10**6, 2**31, 2**63, 2**80, 1e308),
    *(float("inf"), float("nan"), "", "x", "gelu", "all", "1", "\0", "\x1b[2J\n", "é" * 400),
    *([], [1], ["x"], [[]], {}, {"x": 1}, {"sst_train": 3}, [["a", "b"]]),
)


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """A few changes to bytes, at random places."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, end = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
        end = min(end, at + rng.choice((1, 2, 20, 10**6)))
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end]
            case 3:
                changed[at:end] = rng.choice(PIECES)
            case 4:
                changed[at:at] = rng.choice(PIECES)
            case 5:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    return bytes(changed)


def mutated_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with a change somewhere inside."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {key: x for key, x in value.items() if key != name}
            case 1:
                return {**value, rng.choice(("x", "", "\0", "model", name + " ")): value[name]}
            case _:
                return {**value, name: mutated_value(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], mutated_value(value[at], rng), *value[at + 1 :]]
    return rng.choice(VALUES)


def mutated_json(text: str, rng: random.Random) -> bytes:
    """A JSON text with changed values, or changed bytes."""
    if rng.random() < 0.3:
        return mutated_bytes(text.encode(), rng)
    if rng.random() < 0.02:
        return rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1, "a": 2}', b"9" * 10_000))
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 2))):
        value = mutated_value(value, rng)
    return json.dumps(value).encode()


def mutated_safetensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a changed header of fitting length, or changed bytes."""
    if rng.random() < 0.4:
        return mutated_bytes(content, rng)
    (size,) = struct.unpack("<Q", content[:8])
    header = mutated_json(content[8 : 8 + size].decode(), rng)
    stated = rng.choice((len(header),) * 5 + (0, size, 2**63, len(header) + 8))
    return struct.pack("<Q", stated) + header + content[8 + size :]


def mutate(path: Path, rng: random.Random) -> None:
    """Change a file in the way that suits its kind."""
    content = path.read_bytes()
    if path.suffix == ".json":
        changed = mutated_json(content.decode(), rng)
    elif path.suffix == ".safetensors":
        changed = mutated_safetensors(content, rng)
    else:
        changed = mutated_bytes(content, rng)
    path.write_bytes(changed)


# ---- targets: each makes its input below the current folder and reads it


def read_data(base: Path, rng: random.Random) -> None:
    """A data file, as any task and split. What is read must make a sound prediction file."""
    source = rng.choice(sorted((base / "data").iterdir()))
    path = Path(shutil.copy(source, "."))
    mutate(path, rng)
    fitting = [task for task in TASKS.values() if source.name.startswith(task.files[:5])]
    task = rng.choice(fitting or list(TASKS.values()))
    split = "train" if rng.random() < 0.5 else rng.choice(("dev", "test"))
    examples = read_examples(path, task, split)
    broken = [e.id for e in examples if re.search(r"[,\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", e.id)]
    assert not broken, f"the id {broken[0][:40]!r} breaks a prediction file"
    assert len({e.id for e in examples}) == len(examples), "ids stand twice"


def read_options(base: Path, rng: random.Random) -> None:
    """A run's options.json, as an @file and by --resume."""
    path = Path("options.json")
    path.write_bytes(mutated_json(Options().to_json(), rng))
    for argv in ([f"@{path}"], ["--resume", "."]):
        try:
            parse(argv, "")
        except UserError:
            continue


def read_flags(base: Path, rng: random.Random) -> None:
    """Words of a command line, some of them in an @file."""
    names = [name for section in SECTIONS.values() for name in section.__dataclass_fields__]
    names += [*file_flags(), "help", "no-lora", "fine-tune-mode", "use-amp", "x"]
    words = []
    for _ in range(rng.randrange(1, 6)):
        name = rng.choice(names)
        value = str(rng.choice((*VALUES, "mlp sts=linear", "cls", "sst", "{task}", "{task:>9}")))
        words += [f"--{name}={value}"] if rng.random() < 0.5 else [f"--{name}", value]
    if rng.random() < 0.5:
        text = mutated_bytes(" ".join(words).encode("utf-8", "surrogateescape"), rng)
        Path("flags.txt").write_bytes(text)
        words = ["@flags.txt"]
    parse(words, "")


def read_model(base: Path, rng: random.Random, kinds: tuple[str, ...]) -> Path:
    """A copy of the model's folder with one file of these kinds changed."""
    folder = Path(shutil.copytree(base / "model", "model"))
    path = folder / rng.choice(kinds)
    if path.suffix == ".bin":
        torch.save(load_file(folder / "model.safetensors"), path)
        (folder / "model.safetensors").unlink()
    if path.name == "vocab.txt":
        (folder / "tokenizer.json").unlink()
    mutate(path, rng)
    return folder


def read_config(base: Path, rng: random.Random) -> None:
    """config.json."""
    BertConfig.from_pretrained(read_model(base, rng, ("config.json",)))


def read_tokenizer(base: Path, rng: random.Random) -> None:
    """The vocabulary and its settings; a tokenizer that is accepted works."""
    files = ("tokenizer.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json")
    tokenizer = BertTokenizer.from_pretrained(read_model(base, rng, files))
    tokenizer.encode_batch([("a film ,", "İ 🙂 [SEP] x"), ("", "b")], 12)


def read_weights(base: Path, rng: random.Random) -> None:
    """Weights, or a configuration that does not fit them."""
    kinds = ("model.safetensors", "model.safetensors", "pytorch_model.bin", "config.json")
    BertModel.from_pretrained(read_model(base, rng, kinds))


TARGETS: dict[str, Callable[[Path, random.Random], None]] = {
    "data": read_data,
    "options": read_options,
    "flags": read_flags,
    "config": read_config,
    "tokenizer": read_tokenizer,
    "weights": read_weights,
}


# ---- cases


def run_case(base: Path, seed: int, number: int) -> str:
    """Run a case in the current folder; its target's name. What is wrong comes out of it."""
    rng = random.Random(f"{seed} {number}")
    name = list(TARGETS)[number % len(TARGETS)]
    try:
        TARGETS[name](base, rng)
    except UserError as error:
        assert len(str(error)) <= 300 and str(error).isprintable(), f"message: {error!s:.400}"
    except SystemExit as stop:
        assert stop.code == 0, f"exit status {stop.code}"
    return name


def run_batch(folder: Path, seed: int, numbers: range) -> Callable[[], None]:
    """The work of a child: cases one by one, each in an empty folder, told on standard error."""

    def work() -> None:
        for number in numbers:
            print(f"case {number}", file=sys.stderr, flush=True)
            signal.alarm(CASE_LIMIT)
            shutil.rmtree(folder / "case", ignore_errors=True)
            (folder / "case").mkdir()
            os.chdir(folder / "case")
            try:
                run_case(folder, seed, number)
            except BaseException:
                text = traceback.format_exc()
                shutil.copytree(folder / "case", KEPT / f"{seed}-{number}", dirs_exist_ok=True)
                print(f"bad {number} {innermost(text)}", file=sys.stderr, flush=True)

    return work


def fuzz(seed: int, cases: int, seconds: float) -> Counter[str]:
    """Run so many cases, or so long; every problem is printed, and counted by what it was."""
    folder = scratch()
    problems: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    done = 0
    try:
        prepare(folder)
        while done < cases and time.monotonic() < ends:
            batch = range(done, min(done + BATCH, cases))
            ending = run(run_batch(folder, seed, batch), folder)
            found = re.findall(r"^bad (\d+) (.*)$", ending.errors, re.MULTILINE)
            done = batch.stop
            # A child that died did so in the last case that it began; the next begins behind it.
            if ending.code:
                last = int(re.findall(r"^case (\d+)$", ending.errors, re.MULTILINE)[-1])
                found.append((str(last), f"the process ended with {ending.code}"))
                done = last + 1
            for number, problem in found:
                target = list(TARGETS)[int(number) % len(TARGETS)]
                place = re.sub(r"(:[0-9]+ [A-Za-z_.]+).*", r"\1", problem)
                words = f"{target}: {place}"
                if words not in problems:
                    print(f"  --seed {seed} --case {number}: {target}: {problem}", flush=True)
                problems[words] += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {seed}: {done} cases, {problems.total()} bad, {len(problems)} kinds of problem")
    return problems


def main() -> None:
    """The command line; exit status 1 where a case went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--case", type=int, help="only this one, with its traceback")
    given = parser.parse_args()
    if given.case is None:
        sys.exit(int(bool(fuzz(given.seed, given.cases, given.seconds))))
    folder = scratch()
    prepare(folder)
    os.chdir(folder)
    print(folder, run_case(folder, given.seed, given.case))


if __name__ == "__main__":
    main()
