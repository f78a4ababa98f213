"""What stands in results/ and presets/, and README.md's tables of it."""

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

import ablate
from ablation import readme
from ablation.compare import NAME as COMPARISONS
from ablation.compare import read_comparisons
from ablation.picture import mark
from ablation.record import append_line, changes, read_lines
from ablation.rows import BUDGET, PRESETS, Row, options_of_row, read_row
from ablation.table import source_of
from errors import UserError
from options import Options

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
TABLES = sorted(path.parent for path in RESULTS.glob("*/runs.jsonl"))
PUBLISHED = sorted((PRESETS / "published").glob("*.txt"))
OF_FOLDERS = [path for path in sorted(PRESETS.rglob("*.txt")) if path.parent.name != "tables"]

README = (ROOT / "README.md").read_text(encoding="utf-8")


# ---- README.md


def test_readme_is_what_the_records_say() -> None:
    """Otherwise: python ablate.py --readme."""
    assert readme.fill(README, ROOT) == README
    assert README.count("<!-- table ") == README.count(readme.END) >= 3
    for page in readme.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert readme.fill(text, ROOT, page) == text


def test_every_table_of_numbers_in_readme_is_generated() -> None:
    """None was typed by hand."""
    generated = re.sub(r"<!-- table .*?<!-- end of table -->", "", README, flags=re.DOTALL)
    for line in generated.splitlines():
        assert not (line.startswith("|") and re.search(r"\| \.\d{3}|\d MiB", line)), line


@pytest.mark.parametrize(
    "number", ["| .481 ± .007 |", "| .748 ± .001 |", "| 1.89x |", "Quora 61,993"]
)
def test_a_changed_digit_in_readme_is_found(number: str) -> None:
    digit = re.search(r"\d", number)
    assert digit and number in README
    other = number.replace(digit[0], str((int(digit[0]) + 1) % 10), 1)
    assert readme.fill(README.replace(number, other, 1), ROOT) == README


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a record of two rows, and a race's."""
    (line, *_) = [line for line in read_lines(RESULTS / "three-epochs") if line.row == "lora"]
    for row, seed, overall in ("default", 1, 0.7), ("lora", 1, 0.6), ("lora", 2, 0.8):
        best = replace(line.best, overall=overall, scores={"sst": overall, "para": 0.5, "sts": 0.5})
        flags = {"lora": True} if row == "lora" else {}
        one = replace(line, row=row, seed=seed, flags=flags, best=best)
        append_line(tmp_path / "results" / "mine", one)
    sides = {
        "ours": {"title": "ours", "tokens_per_s": 500.0, "ours_faster": 1.0, "peak_mib": 10.4},
        "other": {"title": "other", "tokens_per_s": 250.0, "ours_faster": 2.0, "peak_mib": 20.0},
    }
    (tmp_path / "speed.json").write_text(json.dumps({"sides": sides}))
    return tmp_path


def test_tables_are_filled_in(small: Path) -> None:
    """By hand; what stands around them stays."""
    text = "a\n<!-- table results/mine -->\nold\n<!-- end of table -->\nb\n"
    filled = readme.fill(text, small).splitlines()
    source = source_of(read_lines(small / "results" / "mine"))
    assert source.startswith("The course's data (training and dev examples: SST 8,544 and 1,101,")
    assert " ".join(filled[2:4]) == source
    assert filled[5:] == [
        "| flags | seeds | SST accuracy | Quora accuracy | STS Pearson | overall |",
        "| --- | --- | --- | --- | --- | --- |",
        "| default flags | 1 | .700 | .500 | .500 | .700 |",
        "| `--lora` | 2 | .700 ± .141 | .500 ± .000 | .500 ± .000 | .700 ± .141 |",
        "<!-- end of table -->",
        "b",
    ]
    assert readme.fill("\n".join(filled), small) == "\n".join(filled)


def test_rows_are_chosen_and_ordered(small: Path) -> None:
    text = "<!-- table results/mine rows lora default -->\n<!-- end of table -->"
    first_cells = [line.split("|")[1] for line in readme.fill(text, small).splitlines()[6:8]]
    assert first_cells == [" `--lora` ", " default flags "]
    text = "<!-- table results/mine rows lora -->\n<!-- end of table -->"
    assert "default flags" not in readme.fill(text, small)


def test_a_race_is_a_table(small: Path) -> None:
    text = "<!-- table speed.json -->\n<!-- end of table -->"
    assert readme.fill(text, small).splitlines()[3:5] == [
        "| ours | 500 | 2000 |  | 10 MiB |",
        "| other | 250 | 4000 | 2.00x | 20 MiB |",
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<!-- table results/none -->\n<!-- end of table -->", r":2: .*no runs in its record"),
        ("<!-- table none.json -->\n<!-- end of table -->", r":2: .*none\.json"),
        ("<!-- table damaged.json -->\n<!-- end of table -->", r":2: .*damaged\.json"),
        ("<!-- table results/mine rows default x -->\n<!-- end of table -->", ":2: .*no row x"),
        ("<!-- table results/mine -->\n\n", ":2: no <!-- end of table"),
        ("<!-- table results/mine -->\n<!-- table speed.json -->", ":2: no <!-- end of table"),
        ("<!-- end of table -->", ":2: the end of a table that has no beginning"),
    ],
)
def test_a_wrong_marker_is_named(text: str, expected: str, small: Path) -> None:
    (small / "damaged.json").write_text("{}")
    with pytest.raises(UserError, match="README.md" + expected):
        readme.fill(f"title\n{text}", small)


def test_readme_is_written(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once; then it says that nothing changed."""
    path = small / "README.md"
    path.write_text("<!-- table speed.json -->\n<!-- end of table -->\n")
    readme.write_readme(small)
    assert "| ours | 500 |" in capsys.readouterr().out and "| ours | 500 |" in path.read_text()
    written = path.read_bytes()
    readme.write_readme(small)
    assert "all tables are those of the records" in capsys.readouterr().out
    assert path.read_bytes() == written


def test_sentences_in_readme_hold_numbers_of_the_record() -> None:
    """Those of the paragraphs around the tables of scores."""
    text = " ".join(README.split())
    default = [line for line in read_lines(RESULTS / "three-epochs") if line.row == "default"]
    steps = default[0].steps
    assert f"all of Quora's pairs ({steps} updates)" in text
    minutes = statistics.mean(line.seconds for line in default) / 60
    assert f"({steps} updates), all-MiniLM-L6-v2, {minutes:.0f} minutes on one thread" in text

    # Standard errors by the dev sets' sizes.
    size = {task: default[0].data[f"{task}_dev"].examples for task in default[0].best.scores}
    of = {task: statistics.mean(line.best.scores[task] for line in default) for task in size}
    sst, para = ((of[task] * (1 - of[task]) / size[task]) ** 0.5 for task in ("sst", "para"))
    sts = (1 - of["sts"] ** 2) / size["sts"] ** 0.5
    together = (sst**2 + para**2 + (sts / 2) ** 2) ** 0.5 / 3
    said = f"error is {sst:.3f} on SST and {para:.4f} on Quora (√(p(1 - p)/n)), {sts:.3f} on STS"
    assert said.replace("0.", ".") in text
    assert f"and so {together:.3f} overall".replace("0.", ".") in text


def test_readme_says_of_source_000_what_the_intervals_say() -> None:
    """Which of its rows differ from the default, and which is the lowest."""
    table = RESULTS / "row-budget"
    lines = read_lines(table)
    assert f"{lines[0].steps} updates" in README
    found = read_comparisons(table, lines, "default")
    of_source = ("rmsnorm", "swiglu", "lora", "all-three")
    low = {row: found[row].low["overall"] for row in of_source}
    high = {row: found[row].high["overall"] for row in of_source}
    assert all(low[row] < 0 < high[row] for row in ("rmsnorm", "swiglu"))
    assert all(high[row] < 0 for row in ("lora", "all-three"))
    assert min(of_source, key=lambda row: found[row].difference["overall"]) == "all-three"
    seeds = {row: len({line.seed for line in lines if line.row == row}) for row in of_source}
    assert seeds == {"rmsnorm": 3, "swiglu": 3, "lora": 3, "all-three": 2}


# ---- results/


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_are_those_of_their_records(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise: python ablate.py --out results/NAME --tables."""
    copy = tmp_path / table.name
    copy.mkdir()
    for path in table.iterdir():
        if path.suffix in (".json", ".jsonl"):
            (copy / path.name).write_bytes(path.read_bytes())
    ablate.main(["--out", str(copy), "--tables"])
    for name in "table.md", "table.csv":
        assert (copy / name).read_text() == (table / name).read_text(), name


def test_a_table_without_comparison_has_no_column_of_dashes() -> None:
    """Nor a word about it."""
    page = (RESULTS / "three-epochs" / "table.md").read_text()
    for absent in "minus the base row", "time of a step", "training loss", "peak memory":
        assert absent not in page
    assert "| last epoch |" in page and "*last epoch*: its overall score" in " ".join(page.split())


def test_old_runs_count_as_recorded() -> None:
    """Their options are today's defaults, or those of their presets: nothing runs again."""
    table = RESULTS / "three-epochs"
    lines = read_lines(table)
    assert len(lines) == 20
    for line in lines:
        row = Row(line.row, line.what, line.flags or {})
        if line.row not in ("transformers", "round-robin-1020"):
            row = read_row(line.row)
            assert (row.flags, row.what) == (line.flags, line.what)
        shared = {**ablate.WITHOUT_TEST, **line.shared, "model": "all-MiniLM-L6-v2"}
        if line.row == "round-robin-1020":
            shared["steps_per_epoch"] = 340
        options = options_of_row(row, shared, line.seed)
        assert changes(line, options, {}) == []
        assert changes(line, replace(options, clip=2.0), {}) == ["--clip 1.0, not 2.0"]


# ---- presets/


@pytest.mark.parametrize("path", OF_FOLDERS, ids=lambda path: path.stem)
def test_every_preset_is_a_row(path: Path) -> None:
    """Its first line describes it, and its flags go together, whatever budget a table has."""
    row = read_row(str(path))
    assert len(row.what) > 8
    own = {name: getattr(Options(**row.flags), name) for name in row.flags if name in BUDGET}
    if path.parent == PRESETS:
        assert not own
    options_of_row(row, own, 1)
    options_of_row(row, {**own, "epochs": 2, "samples_per_epoch": "all para=8000"}, 1)


def test_no_two_rows_are_the_same() -> None:
    """Of those that a table runs when none is named."""
    rows = ablate.all_rows()
    assert len(rows) > 15
    names: dict[Options, str] = {}
    for row in rows:
        options = options_of_row(row, {}, 1)
        assert options not in names, f"{row.name} is {names[options]}"
        names[options] = row.name


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_presets_say_what_they_repeat(path: Path) -> None:
    """The source, its numbers or that it has none, and what differs or is not stated."""
    text = path.read_text()
    assert re.match(r"# source 00\d: ", text)
    assert path.stem[:3] == text.split()[2].rstrip(":")
    said = [line for line in text.splitlines() if line.startswith("# ")]
    assert any(line.startswith("# Published: ") for line in said), "no numbers"
    assert any(line.startswith("# Not stated: ") for line in said) or any(
        line.startswith("# Differs: ") for line in said
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_pictures_are_of_these_numbers(table: Path) -> None:
    """Otherwise: python ablate.py --out results/NAME --tables."""
    numbers = (table / "table.csv").read_text()
    for theme in ("light", "dark"):
        assert (table / f"overall-{theme}.svg").read_text().endswith(mark(numbers))
    assert mark(numbers) != mark(numbers.replace("1", "2", 1))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_comparisons_are_of_these_runs(table: Path) -> None:
    """None is older than a run, and their differences are those of the scores."""
    if not (table / COMPARISONS).exists():
        pytest.skip("never compared")
    lines = read_lines(table)
    found = read_comparisons(table, lines, "default")
    assert len(found) == len(json.loads((table / COMPARISONS).read_text()))
    overall = {(line.row, line.seed): line.best.overall for line in lines}
    for row, comparison in found.items():
        if "overall" in comparison.difference:
            differences = [overall[row, x] - overall["default", x] for x in comparison.seeds]
            assert comparison.difference["overall"] == pytest.approx(
                statistics.mean(differences), abs=2e-6
            )
