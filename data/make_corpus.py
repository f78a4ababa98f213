"""Write the built-in corpus in the course's file formats.

    python data/make_corpus.py [--out data/builtin] [--seed 11711]

It has sentiment, question pairs, similarity pairs and film reviews. Everything is composed here
from the words and frames of `corpus_words.py`; no sentence is taken from anywhere. The labels
follow from meaning, not from words: the same words stand in all five grades, exchanged roles make a
different question, and a synonym leaves a similarity at 5.0. The same seed gives the same bytes.
Left out on purpose: spelling mistakes, names, and everything else that makes the real files hard;
scores on this corpus say that a model learns, not how good it is.
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

from errors import UserError, run_main  # noqa: E402

SPLITS = ("train", "dev", "test")


class Example(NamedTuple):
    """One or two texts, the label as the file spells it, and how the example is counted.

    Each split holds a set share of every `group`; `combination` is the frame and words used.
    """

    texts: tuple[str, ...]
    label: str
    group: str
    combination: str


# Text
# --------------------------------------------------------------------------------------------------


def tidy(text: str) -> str:
    """Right article, no doubled spaces, a capital first."""
    text = " ".join(text.split())
    text = re.sub(r"\b([Aa]) (?=[aeio]|ugly|unw|unb|unf|MP3|HTML|XLSX)", r"\1n ", text)
    text = text.replace(" ,", ",").replace(" .", ".")
    text = text.replace("my an ", "my ").replace("my a ", "my ")
    return text[0].upper() + text[1:]


# Sentiment: five grades
# --------------------------------------------------------------------------------------------------


def sign(grade: int) -> int:
    """Which way a grade leans: 1 for 3 and 4, -1 for 0 and 1, 0 for the middle."""
    if grade > 2:
        return 1
    if grade < 2:
        return -1
    return 0


def adjective(rng: random.Random, classes: str) -> str:
    """A positive (`P`) or negative (`N`) adjective, mild or strong."""
    strength = rng.choice("12")
    return rng.choice(W.ADJECTIVES[classes + strength])


def fill(rng: random.Random, frame: str, **known: str) -> str:
    """Fill a frame of the sentiment part; two aspects, two genres are never the same."""
    aspects = rng.sample(W.ASPECTS, 2)
    genres = rng.sample(W.GENRES, 2)
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
    adjectives, grade = rng.choice(list(W.PREDICATES[frame].items()))
    word = rng.choice(W.ADJECTIVES[adjectives])
    return frame.format(x=word), grade, f"{frame}|{word}"


def opposed(rng: random.Random) -> tuple[str, str, int, str]:
    """Two predicates that lean differently; grade and combination are those of the second."""
    while True:
        first, weak, _ = predicate(rng)
        second, grade, combination = predicate(rng)
        if sign(weak) != sign(grade):
            return first, second, grade, combination


def whole_sentence(rng: random.Random) -> tuple[str, int, str]:
    """A sentence from a frame of its own, with its grade and combination."""
    frame = rng.choice(list(W.WHOLE))
    adjectives, grade = rng.choice(list(W.WHOLE[frame].items()))
    word = rng.choice(W.ADJECTIVES[adjectives])
    opposite = "N" if adjectives.startswith("P") else "P"
    text = fill(rng, frame, x=word, z=adjective(rng, opposite))
    return text, grade, f"{frame}|{word}"


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
        text, grade, combination = whole_sentence(rng)
    else:
        frame = rng.choice(W.NEUTRAL)
        text = fill(rng, frame)
        grade = 2
        combination = frame
    return Example((tidy(text),), str(grade), str(grade), combination)


def review(rng: random.Random) -> Example:
    """Four to six sentences; the last one and all but one or two agree with the label."""
    label = rng.randrange(2)
    leaning = 1 if label == 1 else -1
    agreements = [1, 1, -1] + rng.choice([[], [1], [1, -1]])
    rng.shuffle(agreements)
    sentences = []
    for agreement in agreements:
        example = sentiment(rng)
        while sign(int(example.label)) != agreement * leaning:
            example = sentiment(rng)
        sentences.append(example.texts[0])
    sentences.append(rng.choice(W.VERDICTS[label]))
    return Example((" ".join(sentences),), str(label), str(label), "")


# Pairs
# --------------------------------------------------------------------------------------------------


def distinct(slots: dict[str, str], meaning: dict[str, int]) -> bool:
    """Whether no two slots of one list mean the same."""
    fillers = {(slots[slot], row) for slot, row in meaning.items()}
    return len(fillers) == len(meaning)


def draw(rng: random.Random, slots: dict[str, str]) -> dict[str, int]:
    """A meaning for each slot, as its row in the slot's list; two slots of one list differ."""
    while True:
        meaning = {slot: rng.randrange(len(W.LISTS[name])) for slot, name in slots.items()}
        if distinct(slots, meaning):
            return meaning


def say(rng: random.Random, form: str, slots: dict[str, str], meaning: dict[str, int]) -> str:
    """Fill a form with a random synonym of each meaning; verb and participle are of the same."""
    chosen = {}
    for slot, name in slots.items():
        synonym = rng.choice(W.LISTS[name][meaning[slot]])
        word, _, participle = synonym.partition(":")
        chosen[slot] = word
        chosen[slot + "_"] = participle
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
        if other[slot] != meaning[slot] and distinct(slots, other):
            return other


def exchanged(meaning: dict[str, int], pair: list[str]) -> dict[str, int]:
    """The same meaning with the fillers of two slots in each other's place."""
    first, second = pair
    return meaning | {first: meaning[second], second: meaning[first]}


def another_row(rng: random.Random, row: int, rows: int) -> int:
    """A row of a table other than this one."""
    return (row + rng.randrange(1, rows)) % rows


def quarter(meaning: dict[str, int]) -> int:
    """0 to 3, from what the first slot means: it tells combinations of the same forms apart."""
    first = next(iter(meaning.values()))
    return first % 4


# Question pairs
# --------------------------------------------------------------------------------------------------

LEADS = [""] * 5 + [
    "Does anyone know: ",
    "Just curious: ",
    "Please help: ",
    "Serious question: ",
    "I wonder: ",
]


def lead_in(rng: random.Random, question: str) -> str:
    """Small changes that never matter, so that a differing word says nothing of the label."""
    if rng.random() < 0.4:
        if "How do I " in question:
            question = question.replace("How do I ", "How can I ")
        else:
            question = question.replace("How can I ", "How do I ")
    lead = rng.choice(LEADS)
    if lead and not question.startswith("I "):
        question = question[0].lower() + question[1:]
    return lead + question


def question_slots(spec: str) -> dict[str, str]:
    """`x:city y:job` becomes `{"x": "city", "y": "job"}`: each slot's list."""
    slots = {}
    for part in spec.split():
        slot, name = part.split(":")
        slots[slot] = name
    return slots


def another_question(
    rng: random.Random, row: int, form: str, meaning: dict[str, int]
) -> tuple[str, dict[str, str], dict[str, int]]:
    """Form, slots and meaning of a question with another answer than `form` has with `meaning`.

    The two may differ in who does what to whom, in a form near by, in one slot, or in everything.
    """
    spec, same, near = W.QUESTIONS[row]
    slots = question_slots(spec)
    pair = twins(slots)
    weights = {
        "roles": 1.5 if pair else 0.0,
        "near": 4.0 if near else 0.0,
        "slot": 1.8,
        "far": 0.8,
    }
    kind = rng.choices(list(weights), list(weights.values()))[0]
    if kind == "roles":
        return form, slots, exchanged(meaning, pair)
    if kind == "near":
        # The form that stands in the same place of the other list.
        counterpart = near[same.index(form)] if form in same else same[near.index(form)]
        return counterpart, slots, meaning
    if kind == "slot":
        return form, slots, changed(rng, slots, meaning, rng.choice(list(slots)))
    # Far: a question from another row.
    spec, forms, _ = W.QUESTIONS[another_row(rng, row, len(W.QUESTIONS))]
    slots = question_slots(spec)
    meaning = draw(rng, slots)
    return rng.choice(forms), slots, meaning


def question_pair(rng: random.Random) -> Example:
    """Two questions and whether one answer serves both."""
    row = rng.randrange(len(W.QUESTIONS))
    spec, same, near = W.QUESTIONS[row]
    slots = question_slots(spec)
    meaning = draw(rng, slots)

    # Half of all second questions keep the phrasing whatever the label: overlap must not give the
    # label away.
    forms = rng.choice([same, near]) if near else same
    first = rng.choice(forms)
    second = first
    if rng.random() >= 0.45:
        second = rng.choice([form for form in forms if form != first])

    # Other words for the same question, or another question.
    duplicate = rng.random() < 0.4
    other_slots = slots
    other = meaning
    if not duplicate:
        second, other_slots, other = another_question(rng, row, second, meaning)

    one = lead_in(rng, say(rng, first, slots, meaning))
    two = lead_in(rng, say(rng, second, other_slots, other))
    label = "1.0" if duplicate else "0.0"
    combination = f"{first}|{second}|{duplicate}|{quarter(meaning)}"
    return Example((one, two), label, label, combination)


# Similarity pairs
# --------------------------------------------------------------------------------------------------

DROPPABLE = {"place", "look", "when"}
SWAP = 2.2  # what exchanged roles take off the score
NEGATION = 2.6  # what a `not` takes off
FAR = 0.8  # the least score of two sentences of one scene


class Scene(NamedTuple):
    """A row of SCENES: topic, each slot's list and what a change of it costs, forms."""

    topic: str
    slots: dict[str, str]
    cost: dict[str, float]
    forms: list[str]
    negated: list[str]


def read_scene(row: int) -> Scene:
    """A row of SCENES, its `a:animal:1.8 b:animal:1.8` taken apart."""
    topic, spec, forms, negated = W.SCENES[row]
    slots = {}
    cost = {}
    for part in spec.split():
        slot, name, weight = part.split(":")
        slots[slot] = name
        cost[slot] = float(weight)
    return Scene(topic, slots, cost, forms, negated)


def without(form: str, slot: str) -> str:
    """The form without a detail and the comma or space that came with it."""
    form = form.replace(f"{{{slot}}}, ", "").replace(f" {{{slot}}}", "").replace(f"{{{slot}}} ", "")
    if form.startswith("{"):
        return form
    return form[0].upper() + form[1:]


def details(scene: Scene) -> list[str]:
    """The slots that a sentence can do without."""
    return [slot for slot, name in scene.slots.items() if name in DROPPABLE]


def pick_change(rng: random.Random, scene: Scene) -> str:
    """What is to differ between two sentences of a scene; only what this scene allows."""
    weights = {
        "same": 22,
        "drop": 6 if details(scene) else 0,
        "minor": 10,
        "one": 12,
        "swap": 6 if twins(scene.slots) else 0,
        "not": 11 if scene.negated else 0,
        "two": 12,
        "scene": 7,
        "topic": 7,
    }
    return rng.choices(list(weights), list(weights.values()))[0]


def scenes_apart(rng: random.Random, row: int, first: str, meaning: dict[str, int]) -> Example:
    """A sentence of one scene, one of another; 0.5 where both scenes are of one topic, else 0.0."""
    scene = read_scene(row)
    other = read_scene(another_row(rng, row, len(W.SCENES)))
    one = say(rng, first, scene.slots, meaning)
    second = rng.choice(other.forms)
    two = say(rng, second, other.slots, draw(rng, other.slots))
    return Example((one, two), "0.5" if other.topic == scene.topic else "0.0", "", "")


def similarity(rng: random.Random) -> Example:
    """Two sentences and how much of what they say is the same, 0.0 to 5.0."""
    row = rng.randrange(len(W.SCENES))
    scene = read_scene(row)
    slots = scene.slots
    meaning = draw(rng, slots)
    first = rng.choice(scene.forms)
    second = rng.choice(scene.forms)
    change = pick_change(rng, scene)
    if change == "topic":
        return scenes_apart(rng, row, first, meaning)

    # What the second sentence means, and what is lost by the wording alone.
    other = meaning
    lost = 0.0
    if change == "drop":
        detail = rng.choice(details(scene))
        first = without(first, detail)
        lost = 0.5 * scene.cost[detail]
    elif change == "minor":
        cheapest = min(slots, key=lambda slot: scene.cost[slot])
        other = changed(rng, slots, meaning, cheapest)
    elif change == "one":
        other = changed(rng, slots, meaning, rng.choice(list(slots)))
    elif change == "swap":
        other = exchanged(meaning, twins(slots))
    elif change == "not":
        second = rng.choice(scene.negated)
        lost = NEGATION
    elif change == "two":
        for slot in rng.sample(list(slots), 2):
            other = changed(rng, slots, other, slot)
    elif change == "scene":
        other = draw(rng, slots)

    # Exchanged roles have a price of their own: every filler is still there.
    if change == "swap":
        lost = SWAP
    else:
        lost += sum(scene.cost[slot] for slot in slots if meaning[slot] != other[slot])

    texts = (say(rng, first, slots, meaning), say(rng, second, slots, other))
    if rng.random() < 0.5:
        texts = (texts[1], texts[0])
    label = f"{max(5.0 - lost, FAR):.1f}"
    return Example(texts, label, "", f"{first}|{second}|{change}|{quarter(meaning)}")


# Splits and files
# --------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A task's files and how they are filled.

    `file` has `{}` for the split, `sizes` are the examples in train, dev and test, and `shares` is
    how much of each goes to a group.
    """

    file: str
    columns: tuple[str, ...]
    make: Callable[[random.Random], Example]
    sizes: tuple[int, int, int]
    shares: dict[str, float]


GRADES = {str(grade): 0.2 for grade in range(5)}
DUPLICATES = {"1.0": 0.4, "0.0": 0.6}
ANY = {"": 1.0}
HALVES = {"0": 0.5, "1": 0.5}

ONE_SENTENCE = ("sentence", "sentiment")
TWO_QUESTIONS = ("sentence1", "sentence2", "is_duplicate")
TWO_SENTENCES = ("sentence1", "sentence2", "similarity")

TASKS = (
    Task("ids-sst-{}.csv", ONE_SENTENCE, sentiment, (2400, 400, 400), GRADES),
    Task("quora-{}.csv", TWO_QUESTIONS, question_pair, (2400, 400, 400), DUPLICATES),
    Task("sts-{}.csv", TWO_SENTENCES, similarity, (1500, 300, 300), ANY),
    Task("ids-cfimdb-{}.csv", ONE_SENTENCE, review, (320, 80, 80), HALVES),
)


def held_out(combination: str) -> bool:
    """One frame-and-words combination in twelve is met first in dev or test."""
    return bool(combination) and zlib.crc32(combination.encode()) % 12 == 0


def compose(task: Task, rng: random.Random) -> dict[str, list[Example]]:
    """Draw examples until every split is full; no text is in two splits, no example comes twice."""
    # How many examples of each group every split still takes.
    room = {}
    for split, size in zip(SPLITS, task.sizes, strict=True):
        for group, share in task.shares.items():
            room[split, group] = round(size * share)

    rows: dict[str, list[Example]] = {split: [] for split in SPLITS}
    home: dict[str, str] = {}  # the split that a text belongs to
    seen: set[tuple[str, ...]] = set()
    while any(room.values()):
        example = task.make(rng)
        split = rng.choices(SPLITS, task.sizes)[0]
        if split == "train" and held_out(example.combination):
            split = rng.choice(SPLITS[1:])

        # Refuse what comes again, in either order, what pairs a text with itself, and what leaks.
        key = tuple(sorted(example.texts))
        if key in seen or len(set(key)) < len(key):
            continue
        if any(home.get(text, split) != split for text in example.texts):
            continue
        if room[split, example.group] == 0:
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
    single = "sentence" in task.columns
    written = 0
    for split in SPLITS:
        # The course's test files of single sentences carry an old index as a second unnamed column.
        labelled = split != "test"
        old_index = single and not labelled
        header = ["0", "", "id"] if old_index else ["", "id"]
        header += task.columns if labelled else task.columns[:-1]
        lines = [header]

        # Pairs are numbered through all three files, single sentences from 0 in each.
        for at, example in enumerate(rows[split]):
            if old_index:
                cells = [str(at + 1), f"{at}.0"]
            elif single:
                cells = [str(at)]
            else:
                cells = [str(written)]
            named = "\t".join([task.file, *example.texts])
            cells.append(hashlib.sha256(named.encode()).hexdigest()[:25])
            cells += example.texts
            if labelled:
                cells.append(example.label)
            lines.append(cells)
            written += 1

        path = folder / task.file.format(split if labelled else "test-student")
        text = "".join("\t".join(cells) + "\n" for cells in lines)
        path.write_bytes(text.encode())


def main(argv: list[str]) -> None:
    """The command line: compose and write every task's files, and say how many rows each has."""
    parser = argparse.ArgumentParser(description="Write the built-in corpus.")
    out_help = "folder for the CSV files"
    parser.add_argument("--out", type=Path, default=HERE / "builtin", help=out_help)
    seed_help = "the committed files come from 11711"
    parser.add_argument("--seed", type=int, default=11711, help=seed_help)
    args = parser.parse_args(argv)

    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for task in TASKS:
            rows = compose(task, random.Random(f"{args.seed} {task.file}"))
            write(task, rows, args.out)
            counts = [f"{split} {len(rows[split])}" for split in SPLITS]
            print(f"{task.file.format('*'):20}", *counts)
    except OSError as error:
        place = error.filename or args.out
        raise UserError(f"{place}: can't be written ({error.strerror})") from None


if __name__ == "__main__":
    run_main(main)
