"""Write the built-in corpus: sentiment, question pairs, similarity pairs and film reviews in the
course's file formats.

    python data/make_corpus.py [--out data/builtin] [--seed 11711]

Everything is composed here from the words and frames of `corpus_words.py`; no sentence is taken
from anywhere. The labels follow from meaning, not from words: the same words stand in all five
grades, exchanged roles make a different question, and a synonym leaves a similarity at 5.0. The
same seed gives the same bytes. Left out on purpose: spelling mistakes, names, and everything else
that makes the real files hard; scores on this corpus say that a model learns, not how good it is.
"""

import argparse
import hashlib
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpus_words as W  # noqa: E402

from errors import UserError, run  # noqa: E402

SPLITS = ("train", "dev", "test")


class Example(NamedTuple):
    """One or two texts, the label as the file spells it, the group it is counted in, and the frame
    and words used.
    """

    texts: tuple[str, ...]
    label: str
    group: str
    combination: str


# Text
# --------------------------------------------------------------------------------------------------------------


def tidy(text: str) -> str:
    """Right article, no doubled spaces, a capital first."""
    text = re.sub(
        r"\b([Aa]) (?=[aeio]|ugly|unw|unb|unf|MP3|HTML|XLSX)", r"\1n ", " ".join(text.split())
    )
    text = (
        text.replace(" ,", ",").replace(" .", ".").replace("my an ", "my ").replace("my a ", "my ")
    )
    return text[0].upper() + text[1:]


def sign(grade: int) -> int:
    return (grade > 2) - (grade < 2)


# Sentiment: five grades
# --------------------------------------------------------------------------------------------


def adjective(rng: random.Random, classes: str) -> str:
    """A positive (`P`) or negative (`N`) adjective, mild or strong."""
    return rng.choice(W.ADJECTIVES[classes + rng.choice("12")])


def fill(rng: random.Random, frame: str, **known: str) -> str:
    """Fill a frame of the sentiment part; two aspects, two genres are never the same."""
    aspects, genres = rng.sample(W.ASPECTS, 2), rng.sample(W.GENRES, 2)
    slots = {
        "a": aspects[0],
        "b": aspects[1],
        "genre": genres[0],
        "other": genres[1],
        "topic": rng.choice(W.TOPICS),
        "p": adjective(rng, "P"),
        "n": adjective(rng, "N"),
        "minutes": str(rng.randrange(78, 175)),
    }
    return frame.format(**(slots | known))


def predicate(rng: random.Random) -> tuple[str, int, str]:
    """`is anything but dull` with its grade 4 and the combination `is anything but {x}|dull`."""
    if rng.random() < 0.12:
        frame = rng.choice(W.MIXED_PREDICATES)
        return fill(rng, frame), 2, frame
    frame = rng.choice(list(W.PREDICATES))
    kind, grade = rng.choice(list(W.PREDICATES[frame].items()))
    word = rng.choice(W.ADJECTIVES[kind])
    return frame.format(x=word), grade, f"{frame}|{word}"


def opposed(rng: random.Random) -> tuple[str, str, int, str]:
    """Two predicates that do not lean the same way; the grade and the combination are those of the
    second.
    """
    while True:
        (first, weak, _), (second, grade, combination) = predicate(rng), predicate(rng)
        if sign(weak) != sign(grade):
            return first, second, grade, combination


def sentiment(rng: random.Random) -> Example:
    """One sentence of a film review, graded 0 (dreadful) to 4 (superb)."""
    kind = rng.choices(["plain", "contrast", "whole", "neutral"], [12, 60, 28, 6])[0]
    if kind == "plain":
        words, grade, combination = predicate(rng)
        tail = rng.choice(W.TAILS)
        text = fill(rng, f"The {{a}} {words} {tail}.")
    elif kind == "contrast":
        first, second, grade, combination = opposed(rng)
        text = fill(rng, rng.choice(W.CONTRASTS), X=first, Y=second)
    elif kind == "whole":
        frame = rng.choice(list(W.WHOLE))
        adjectives, grade = rng.choice(list(W.WHOLE[frame].items()))
        word = rng.choice(W.ADJECTIVES[adjectives])
        combination = f"{frame}|{word}"
        text = fill(rng, frame, x=word, z=adjective(rng, "N" if adjectives[0] == "P" else "P"))
    else:
        frame, grade = rng.choice(W.NEUTRAL), 2
        text, combination = fill(rng, frame), frame
    return Example((tidy(text),), str(grade), str(grade), combination)


def review(rng: random.Random) -> Example:
    """Four to six sentences; most of them and the last one agree with the label, one or two do
    not.
    """
    label = rng.randrange(2)
    sentences, wanted = [], [1, 1, -1] + rng.choice([[], [1], [1, -1]])
    rng.shuffle(wanted)
    for agrees in wanted:
        while True:
            example = sentiment(rng)
            if sign(int(example.label)) == agrees * (2 * label - 1):
                break
        sentences.append(example.texts[0])
    sentences.append(rng.choice(W.VERDICTS[label]))
    return Example((" ".join(sentences),), str(label), str(label), "")


# Pairs
# -------------------------------------------------------------------------------------------------------------


def draw(rng: random.Random, slots: dict[str, str]) -> dict[str, int]:
    """A meaning for each slot, as its row in the slot's list; two slots of one list differ."""
    while True:
        meaning = {slot: rng.randrange(len(W.LISTS[name])) for slot, name in slots.items()}
        if len({(slots[slot], row) for slot, row in meaning.items()}) == len(meaning):
            return meaning


def say(rng: random.Random, form: str, slots: dict[str, str], meaning: dict[str, int]) -> str:
    """Fill a form with a random synonym of each meaning (a verb and its participle come from the
    same synonym).
    """
    chosen = {}
    for slot, name in slots.items():
        chosen[slot], _, chosen[slot + "_"] = rng.choice(W.LISTS[name][meaning[slot]]).partition(
            ":"
        )
    return tidy(form.format(**chosen))


def twins(slots: dict[str, str]) -> list[str]:
    """The two slots that draw on one list, or none."""
    count = Counter(slots.values())
    return [slot for slot, name in slots.items() if count[name] == 2]


def changed(
    rng: random.Random, slots: dict[str, str], meaning: dict[str, int], slot: str
) -> dict[str, int]:
    """The same meaning with another filler in one slot."""
    while True:
        other = meaning | {slot: draw(rng, slots)[slot]}
        if other[slot] != meaning[slot] and len(
            {(slots[s], row) for s, row in other.items()}
        ) == len(other):
            return other


def exchanged(meaning: dict[str, int], pair: list[str]) -> dict[str, int]:
    return meaning | {pair[0]: meaning[pair[1]], pair[1]: meaning[pair[0]]}


LEADS = [
    "",
    "",
    "",
    "",
    "",
    "Does anyone know: ",
    "Just curious: ",
    "Please help: ",
    "Serious question: ",
    "I wonder: ",
]


def lead_in(rng: random.Random, question: str) -> str:
    """Small changes that never matter, so that a few differing words say nothing about the
    label.
    """
    old, new = (
        ("How do I ", "How can I ") if "How do I " in question else ("How can I ", "How do I ")
    )
    if rng.random() < 0.4:
        question = question.replace(old, new)
    lead = rng.choice(LEADS)
    if lead and not question.startswith("I "):
        question = question[0].lower() + question[1:]
    return lead + question


def question_pair(rng: random.Random) -> Example:
    """Two questions and whether one answer serves both."""
    row = rng.randrange(len(W.QUESTIONS))
    spec, same, near = W.QUESTIONS[row]
    slots = dict(part.split(":") for part in spec.split())
    meaning = draw(rng, slots)
    forms = rng.choice([same, near]) if near else same
    first = rng.choice(forms)
    # Half of all second questions keep the phrasing whatever the label: overlap must not give the
    # label away.
    second = first if rng.random() < 0.45 else rng.choice([form for form in forms if form != first])
    duplicate = rng.random() < 0.4
    other, other_slots = meaning, slots
    if not duplicate:
        pair = twins(slots)
        kind = rng.choices(
            ["roles", "near", "slot", "far"], [1.5 * bool(pair), 4 * bool(near), 1.8, 0.8]
        )[0]
        if kind == "roles":
            other = exchanged(meaning, pair)
        elif kind == "near":
            second = (near if forms is same else same)[forms.index(second)]
        elif kind == "slot":
            other = changed(rng, slots, meaning, rng.choice(list(slots)))
        else:
            spec, more, _ = W.QUESTIONS[
                (row + rng.randrange(1, len(W.QUESTIONS))) % len(W.QUESTIONS)
            ]
            other_slots = dict(part.split(":") for part in spec.split())
            other, second = draw(rng, other_slots), rng.choice(more)
    texts = (
        lead_in(rng, say(rng, first, slots, meaning)),
        lead_in(rng, say(rng, second, other_slots, other)),
    )
    label = f"{float(duplicate):.1f}"
    return Example(
        texts, label, label, f"{first}|{second}|{duplicate}|{meaning[next(iter(slots))] % 4}"
    )


DROPPABLE = {"place", "look", "when"}
SWAP, NEGATION, FAR = (
    2.2,
    2.6,
    0.8,
)  # what exchanged roles and a `not` take off; the score of two scenes with nothing in common


def without(form: str, slot: str) -> str:
    """The form without a detail and the comma or space that came with it."""
    form = form.replace(f"{{{slot}}}, ", "").replace(f" {{{slot}}}", "").replace(f"{{{slot}}} ", "")
    return form[0].upper() + form[1:] if form[0] != "{" else form


def similarity(rng: random.Random) -> Example:
    """Two sentences and how much of what they say is the same, 0.0 to 5.0."""
    row = rng.randrange(len(W.SCENES))
    topic, spec, forms, negated = W.SCENES[row]
    parts = [part.split(":") for part in spec.split()]
    slots, cost = (
        {slot: name for slot, name, _ in parts},
        {slot: float(weight) for slot, _, weight in parts},
    )
    meaning = other = draw(rng, slots)
    first, second, lost = rng.choice(forms), rng.choice(forms), 0.0
    details = [slot for slot in slots if slots[slot] in DROPPABLE]
    weights = {
        "same": 22,
        "drop": 6 * bool(details),
        "minor": 10,
        "one": 12,
        "swap": 6 * bool(twins(slots)),
    }
    weights |= {"not": 11 * bool(negated), "two": 12, "scene": 7, "topic": 7}
    kind = rng.choices(list(weights), list(weights.values()))[0]
    if kind == "topic":
        topic2, spec, forms, _ = W.SCENES[(row + rng.randrange(1, len(W.SCENES))) % len(W.SCENES)]
        slots2 = {part.split(":")[0]: part.split(":")[1] for part in spec.split()}
        texts = (
            say(rng, first, slots, meaning),
            say(rng, rng.choice(forms), slots2, draw(rng, slots2)),
        )
        return Example(texts, "0.5" if topic2 == topic else "0.0", "", "")
    match kind:
        case "drop":
            detail = rng.choice(details)
            first, lost = without(first, detail), 0.5 * cost[detail]
        case "minor":
            other = changed(rng, slots, meaning, min(cost, key=lambda slot: cost[slot]))
        case "one":
            other = changed(rng, slots, meaning, rng.choice(list(slots)))
        case "swap":
            other, lost = exchanged(meaning, twins(slots)), SWAP
        case "not":
            second, lost = rng.choice(negated), NEGATION
        case "two":
            for slot in rng.sample(list(slots), 2):
                other = changed(rng, slots, other, slot)
        case "scene":
            other = draw(rng, slots)
    if kind != "swap":
        lost += sum(cost[slot] for slot in slots if meaning[slot] != other[slot])
    texts = (say(rng, first, slots, meaning), say(rng, second, slots, other))
    if rng.random() < 0.5:
        texts = texts[::-1]
    return Example(
        texts,
        f"{max(5.0 - lost, FAR):.1f}",
        "",
        f"{first}|{second}|{kind}|{meaning[next(iter(slots))] % 4}",
    )


# Splits and files
# --------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """File names with `{}` for the split, columns, examples in train, dev and test, the share of
    each label group.
    """

    file: str
    columns: tuple[str, ...]
    make: Callable[[random.Random], Example]
    sizes: tuple[int, int, int]
    shares: dict[str, float]


GRADES = {str(grade): 0.2 for grade in range(5)}
HALVES = {"0": 0.5, "1": 0.5}
DUPLICATES = {"1.0": 0.4, "0.0": 0.6}
TASKS = (
    Task("ids-sst-{}.csv", ("sentence", "sentiment"), sentiment, (2400, 400, 400), GRADES),
    Task(
        "quora-{}.csv",
        ("sentence1", "sentence2", "is_duplicate"),
        question_pair,
        (2400, 400, 400),
        DUPLICATES,
    ),
    Task(
        "sts-{}.csv",
        ("sentence1", "sentence2", "similarity"),
        similarity,
        (1500, 300, 300),
        {"": 1.0},
    ),
    Task("ids-cfimdb-{}.csv", ("sentence", "sentiment"), review, (320, 80, 80), HALVES),
)


def held_out(combination: str) -> bool:
    """One frame-and-words combination in twelve is met first in dev or test."""
    return bool(combination) and zlib.crc32(combination.encode()) % 12 == 0


def compose(task: Task, rng: random.Random) -> dict[str, list[Example]]:
    """Draw examples until every split is full. A text belongs to one split for good; a text or pair
    comes once.
    """
    room = {
        (split, group): round(size * share)
        for split, size in zip(SPLITS, task.sizes, strict=True)
        for group, share in task.shares.items()
    }
    rows: dict[str, list[Example]] = {split: [] for split in SPLITS}
    home: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    while any(room.values()):
        example = task.make(rng)
        split = rng.choices(SPLITS, task.sizes)[0]
        if split == "train" and held_out(example.combination):
            split = rng.choice(SPLITS[1:])
        key = tuple(sorted(example.texts))
        homes = {home.get(text, split) for text in example.texts}
        if (
            homes != {split}
            or key in seen
            or len(set(key)) < len(key)
            or not room[split, example.group]
        ):
            continue
        room[split, example.group] -= 1
        seen.add(key)
        home |= dict.fromkeys(example.texts, split)
        rows[split].append(example)
    for split in SPLITS:
        rng.shuffle(rows[split])
    return rows


def write(task: Task, rows: dict[str, list[Example]], folder: Path) -> None:
    """Write the three files of a task, tab-separated as the course's; test files carry no label."""
    single, number = "sentence" in task.columns, 0
    for split in SPLITS:
        test = split == "test"
        # The course's test files of single sentences carry an old index as a second unnamed column.
        lines = [["0", ""] if test and single else [""]]
        lines[0] += ["id", *(task.columns[:-1] if test else task.columns)]
        for at, (texts, label, _, _) in enumerate(rows[split]):
            name = hashlib.sha256("\t".join([task.file, *texts]).encode()).hexdigest()[:25]
            index = [str(at + 1), f"{at}.0"] if test and single else [str(at if single else number)]
            lines.append([*index, name, *texts] + [label] * (not test))
            number += 1
        path = folder / task.file.format("test-student" if test else split)
        path.write_bytes("".join("\t".join(line) + "\n" for line in lines).encode())


def main(argv: list[str]) -> None:
    """The command line: compose and write every task's files, and say how many rows each has."""
    parser = argparse.ArgumentParser(description="Write the built-in corpus.")
    parser.add_argument(
        "--out", type=Path, default=HERE / "builtin", help="folder for the CSV files"
    )
    parser.add_argument(
        "--seed", type=int, default=11711, help="the committed files come from 11711"
    )
    args = parser.parse_args(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for task in TASKS:
            rows = compose(task, random.Random(f"{args.seed} {task.file}"))
            write(task, rows, args.out)
            print(
                f"{task.file.format('*'):20}", *(f"{split} {len(rows[split])}" for split in SPLITS)
            )
    except OSError as error:
        raise UserError(
            f"{error.filename or args.out}: can't be written ({error.strerror})"
        ) from None


if __name__ == "__main__":
    run(main)
