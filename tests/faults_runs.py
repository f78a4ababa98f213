"""Damaged run folders, caches and outputs: refused in one line, or without any effect.

A damaged run may go on from an older checkpoint, but must then end with the bytes of the run that
nothing disturbed; a damaged model is refused by MultitaskBERT.load.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from errors import UserError
from multitask_bert import MultitaskBERT
from tests.faults_bench import STEPS, Bench, Case, at_each_step, results
from tests.faults_child import command, run
from tests.faults_damage import DAMAGES, GONE, Damage, damages_of, sampled, verdict
from training.manifest import names_in

RUN = "runs/x"  # in a case's folder


def stopped_run(bench: Bench, *more: str) -> Path:
    """A case with a run that Ctrl-C stopped in its third step."""
    case = bench.folder()

    def interrupt(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def work() -> None:
        at_each_step(interrupt)
        command(*bench.argv(*more))()

    ending = run(work, case)
    assert ending.code == 130, ending.errors
    next((case / "runs").iterdir()).rename(case / RUN)
    return case


def loaded(folder: str) -> None:
    """Load a model; standard error gets what its weights and its tokenizer give."""
    try:
        model = MultitaskBERT.load(folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    weights = [x.double().sum().item() for x in model.state_dict().values()]
    texts = ["It 's a lovely film .", "Nothing (at all) 2 see: 99%!"]
    ids = [ids.tolist() for ids, _ in model.tokenizer.encode_batch([(t,) for t in texts], 64)]
    print(weights, ids, model.predict("sst", texts), model.options.to_dict(), file=sys.stderr)


def damaged_run(
    bench: Bench, source: Path, name: str, damage: Damage, seed: str, load: bool
) -> list[str]:
    """The problems of resuming (or loading) a run of which one file is damaged."""
    case = bench.folder()
    shutil.copytree(source, case, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache"))
    read = partial(loaded, RUN)
    undamaged = run(read, case).errors if load else ""
    damage(case / RUN / name, random.Random(seed))
    ending = run(read, case) if load else bench.run_counted(case, "--resume", RUN)
    problems = verdict(ending, 0, 2)
    if ending.code == 0 and load and ending.errors != undamaged:
        problems.append("loaded another model")
    if ending.code == 0 and not load and results(case) != bench.wanted:
        problems.append("resumed to other results")
    if ending.code == 0 and not load and bench.steps == STEPS:
        problems.append("began anew, though checkpoints are there")
    shutil.rmtree(case)
    return problems


def take(theirs: Path, path: Path, rng: random.Random) -> None:
    """Copy a file over another."""
    shutil.copyfile(theirs, path)


def take_all(theirs: Path, path: Path, rng: random.Random) -> None:
    """Copy a folder in the place of another."""
    shutil.rmtree(path)
    shutil.copytree(theirs, path)


def run_cases(bench: Bench, seed: int, everything: bool) -> list[Case]:
    """Every damage to every file of a stopped run, of a finished run, of its model and cache."""
    stopped, finished = stopped_run(bench), bench.folder()
    shutil.copytree(bench.undisturbed, finished, dirs_exist_ok=True)
    next((finished / "runs").iterdir()).rename(finished / RUN)
    other = stopped_run(bench, "--seed", "12")

    cases: list[Case] = []

    def add(kind: str, source: Path, name: str, words: str, damage: Damage) -> None:
        label = f"{kind} {name} {words}"
        arguments = (bench, source, name, damage, f"{seed} {label}", kind == "model")
        cases.append((label, partial(damaged_run, *arguments)))

    # File by file; a lock's content is for messages only.
    for source, kind in ((stopped, "stopped"), (finished, "finished"), (stopped, "model")):
        below = source / RUN / "best" if kind == "model" else source / RUN
        for path in sorted(below.rglob("*")):
            name = str(path.relative_to(source / RUN))
            if not path.is_file() or name == "lock":
                continue
            for words, damage in damages_of(path):
                add(kind, source, name, words, damage)
            if (other / RUN / name).is_file():
                add(kind, source, name, "another run's", partial(take, other / RUN / name))

        # Whole folders: with them goes whatever vouches for their files.
        for path in sorted(below.iterdir() if kind != "model" else [below]):
            if path.is_dir():
                name = path.name
                add(kind, source, name, "deleted", lambda path, rng: shutil.rmtree(path))
                add(kind, source, name, "another run's", partial(take_all, other / RUN / name))
    return sampled(cases + file_cases(bench, seed), seed, everything)


# ---- what a manifest vouches for


def vouch(run_folder: Path, name: str) -> None:
    """Make the checksum of a file, wherever it is recorded, that of the file as it is now."""
    path = run_folder / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    of_run = path == run_folder / "options.json"
    folder, _, below = name.partition("/")
    record = run_folder / "run.json" if of_run else run_folder / folder / "manifest.json"
    held = json.loads(record.read_text())
    if of_run:
        held["options"] = digest
    else:
        held["files"][below] = digest
    record.write_text(json.dumps(held))


def vouched_run(
    bench: Bench, source: Path, name: str, damage: Damage, seed: str, load: bool
) -> list[str]:
    """The problems where a file is wrong and its checksum says that it is right."""
    case = bench.folder()
    shutil.copytree(source, case, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache"))
    damage(case / RUN / name, random.Random(seed))
    vouch(case / RUN, name)
    ending = run(partial(loaded, RUN) if load else command("--resume", RUN), case)
    shutil.rmtree(case)
    return verdict(ending, 0, 2)


def vouched_cases(bench: Bench, seed: int, everything: bool) -> list[Case]:
    """Wrong contents that no checksum tells: they may be taken, but never end in a traceback."""
    stopped = stopped_run(bench)
    cases: list[Case] = []
    names = [
        ("options.json", False),
        ("last/progress.json", False),
        ("last/random.safetensors", False),
    ]
    names += [("last/model.safetensors", False), ("last/optimizer.safetensors", False)]
    best = stopped / RUN / "best"
    names += [(f"best/{name}", True) for name in sorted(names_in(best))]
    for name, load in names:
        for words, damage in damages_of(stopped / RUN / name):
            if words in GONE:
                continue
            label = f"{name} {words}"
            arguments = (bench, stopped, name, damage, f"{seed} {label}", load)
            cases.append((label, partial(vouched_run, *arguments)))
    return sampled(cases, seed, everything)


# ---- other files


def damaged_file(bench: Bench, name: str, damage: Damage, seed: str) -> list[str]:
    """The problems of a new run where the undisturbed run's file stands already, damaged."""
    case = bench.folder()
    (case / name).parent.mkdir()
    shutil.copyfile(bench.undisturbed / name, case / name)
    damage(case / name, random.Random(seed))
    ending = run(command(*bench.argv()), case)
    problems = verdict(ending, 0, 2)
    if ending.code == 0 and results(case) != bench.wanted:
        problems.append("other results")
    shutil.rmtree(case)
    return problems


def file_cases(bench: Bench, seed: int) -> list[Case]:
    """Damage to the cache of token ids and to what stands where the predictions go."""
    cases: list[Case] = []
    caches = sorted((bench.undisturbed / ".cache").iterdir())[:2]
    outputs = sorted(bench.undisturbed.glob("predictions/*.csv"))[:1]
    for path in [*caches, *outputs]:
        name = str(path.relative_to(bench.undisturbed))
        for words, damage in DAMAGES.items():
            label = f"{name} {words}"
            cases.append((label, partial(damaged_file, bench, name, damage, f"{seed} {label}")))
    return cases
