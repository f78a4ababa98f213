"""Reading data files: as the course's really are, and each way of being wrong as one line with file
and line number.
"""

from pathlib import Path

import pytest

from errors import UserError
from examples import Example, parse_label, read_examples
from tasks import TASKS

SST, PARA, STS = TASKS["sst"], TASKS["para"], TASKS["sts"]
HEADER = "id\tsentence\tsentiment\n"


@pytest.fixture
def write(tmp_path):
    """write(text or bytes) -> the path of a file that holds just that."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "some.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path: Path, task=SST, split="train") -> str:
    """The message, without the folder."""
    with pytest.raises(UserError) as caught:
        read_examples(path, task, split)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(f"{path.parent}/")


def test_plain(write):
    assert read_examples(write(HEADER + "A1\tFine film .\t4\nb2\tBad\t0.0\n"), SST, "train") == [
        Example("a1", ("Fine film .",), 4.0),
        Example("b2", ("Bad",), 0.0),
    ]


def test_extra_index_columns(write):
    train = write(
        "\tid\tsentence1\tsentence2\tis_duplicate\n7\ta\tx ?\ty ?\t1.0\n8\tb\tz\tw\t0.0\n"
    )
    assert read_examples(train, PARA, "dev") == [
        Example("a", ("x ?", "y ?"), 1.0),
        Example("b", ("z", "w"), 0.0),
    ]
    test = write("\tUnnamed: 0\t\tid\tsentence1\tsentence2\n0\t5\t9\ta\tx\ty\n")
    assert read_examples(test, STS, "test") == [Example("a", ("x", "y"), None)]


def test_other_order_of_columns(write):
    path = write("similarity\tsentence2\tmore\tsentence1\tid\n4.6\ty\t-\tx\ta\n")
    assert read_examples(path, STS, "train") == [Example("a", ("x", "y"), 4.6)]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_without_a_label_are_skipped_and_counted(write, split, capsys):
    path = write(
        HEADER + "a\tx\t1\nb\ty\t\nc\tz\t \nd\tw\nd\t\t\ne\tv\t3\n"
    )  # what is skipped is not checked further
    assert [e.id for e in read_examples(path, SST, split)] == ["a", "e"]
    assert capsys.readouterr().out == f"{path}: skipped 4 rows without a label\n"


def test_no_test_row_is_dropped(write, capsys):
    rows = [Example("a", ("x",), None), Example("b", ("y",), None), Example("c", ("z",), None)]
    assert read_examples(write("id\tsentence\na\tx\nb\ty\nc\tz\n"), SST, "test") == rows
    assert (
        read_examples(write(HEADER + "a\tx\t1\nb\ty\t\nc\tz\n"), SST, "test") == rows
    )  # labels there are not looked at
    assert capsys.readouterr().out == ""


def test_quotes(write):
    rows = (
        'a\t"She said ""no"" , twice"\t1\nb\tthe "best" film\t2\nc\t"a\tb"\t3\nd\tit \'s " odd\t4\n'
    )
    texts = [e.texts[0] for e in read_examples(write(HEADER + rows), SST, "train")]
    assert texts == ['She said "no" , twice', 'the "best" film', "a\tb", "it 's \" odd"]


def test_crlf_and_byte_order_mark(write):
    plain = read_examples(write(HEADER + "a\tx é\t1\nb\ty\t2\n"), SST, "train")
    for raw in (
        "\ufeff" + HEADER + "a\tx é\t1\nb\ty\t2\n",
        HEADER + "a\tx é\t1\nb\ty\t2",
        ("\ufeff" + HEADER + "a\tx é\t1\nb\ty\t2\n").replace("\n", "\r\n"),
        (HEADER + "\na\tx é\t1\n\nb\ty\t2\n\n"),
    ):
        assert read_examples(write(raw), SST, "train") == plain


def test_line_numbers(write):
    """The line of the file, of which a quoted field may take several, and blank ones count."""
    text = HEADER + 'a\t"one\ntwo\nthree"\t1\n\nb\ty\t9\n'
    assert refusal(write(text)).startswith("some.csv:6: sentiment is")
    assert refusal(write(text.replace("\n", "\r\n"))).startswith("some.csv:6: sentiment is")
    assert read_examples(write(text.replace("9", "3")), SST, "train")[0].texts == (
        "one\ntwo\nthree",
    )


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
def test_not_utf8(write, before):
    raw = before + HEADER.encode() + b"a\tx\t1\nb\tcaf\xe9\t2\nc\tz\t3\n"
    assert refusal(write(raw)) == "some.csv:3: not UTF-8 (byte 0xe9); save the file as UTF-8"
    assert refusal(write(raw.replace(b"b\tcaf\xe9", b"\xe8b\tcafe"))).startswith(
        "some.csv:3: not UTF-8 (byte 0xe8)"
    )


def test_nul(write):
    assert refusal(write(HEADER + "a\tx\t1\nb\ty\0z\t2\n")).startswith("some.csv:3: ")


def test_endless_fields(write):
    """An open quote, which would swallow rows, and a file that is no table."""
    wrong = "not tab-separated text, or a quote that does not end"
    for split in ("train", "test"):
        assert refusal(write(HEADER + 'a\tx\t1\nb\t"y\t2\nc\tz\t3\n'), split=split).startswith(
            f"some.csv:3: {wrong}"
        )
        assert refusal(write(HEADER + 'a\tx\t1\nb\t"y" z\t2\n'), split=split).startswith(
            f"some.csv:3: {wrong}"
        )
    assert refusal(write(HEADER + 'a\tx\t1\nb\t"' + "y\n" * 70_000)).startswith(
        f"some.csv:3: {wrong}"
    )
    assert refusal(write("x" * 140_000)).startswith(f"some.csv:1: {wrong}")


def test_a_pair_of_stray_quotes_swallows_no_rows(write):
    """One opens a row's text, one ends that of a row below; the rows between would be part of the
    text.
    """
    text = '\tid\tsentence\n\n0\ta\t"Great film\n1\tb\tfine\n2\tc\tok"\n3\td\tx\n'
    message = "some.csv:3: sentence runs on to line 5, tabs and all; delete the stray quote"
    assert refusal(write(text), split="test") == message
    assert refusal(write(text.replace("\n", "\r\n")), split="test") == message
    index = '0\t\tid\tsentence\n"1\t0\ta\tGreat\n2"\t1\tb\tfine\n'  # in the first of two columns without a name
    assert refusal(write(index.replace("0", "", 1)), split="test").startswith(
        "some.csv:2: column 1 runs on to line 3"
    )
    unlabelled = (
        HEADER + 'a\t"Great film\t1\nb\tok"\t\nc\tx\t2\n'
    )  # nor are they skipped as one row without a label
    assert refusal(write(unlabelled)).startswith("some.csv:2: sentence runs on to line 3")
    header = write('"x\ty\nz"\t' + HEADER + "0\ta\tx\t1\n")
    assert refusal(header).startswith("some.csv:1: a column's name runs on to line 2")


def test_more_cells_than_columns(write):
    """A stray tab would cut a sentence short, and move a label."""
    message = "some.csv:3: more cells than the first line has; put texts with tabs in quotes"
    assert refusal(write("id\tsentence\na\tx\nb\tone\ttwo\n"), split="test") == message
    assert refusal(write(HEADER + "a\tx\t1\nb\tone\ttwo\t3\n")) == message
    assert (
        len(read_examples(write("id\tsentence\na\tx\t\nb\ty\n"), SST, "test")) == 2
    )  # a tab behind the last cell


@pytest.mark.parametrize(
    "header,task,split,message",
    [
        (
            "id\tsentence",
            SST,
            "dev",
            "no column sentiment; found id, sentence; expected tab-separated id, sentence, sentiment",
        ),
        ("\tid\tsentence", SST, "train", "no column sentiment; found id, sentence; expected"),
        (
            "id,sentence,sentiment",
            SST,
            "train",
            "no column id, sentence, sentiment; found id,sentence,sentiment; expected",
        ),
        (
            "id\tsentence",
            STS,
            "test",
            "no column sentence1, sentence2; found id, sentence; expected tab-separated id, sent",
        ),
        (
            "ID\tsentence",
            SST,
            "test",
            "no column id; found ID, sentence; expected tab-separated id, sentence",
        ),
    ],
)
def test_missing_columns(write, header, task, split, message):
    assert refusal(write(header + "\na\tx\t1\n"), task, split).startswith(f"some.csv:1: {message}")


@pytest.mark.parametrize("split", ["train", "test"])
def test_nothing_in_it(write, split):
    expected = "id, sentence" + ", sentiment" * (split == "train")
    message = f"some.csv:1: no column {expected}; found nothing; expected tab-separated {expected}"
    assert refusal(write(""), split=split) == refusal(write("\n\n"), split=split) == message
    what = "a label" if split == "train" else "text"
    assert refusal(write(HEADER), split=split) == f"some.csv: no rows with {what} in it"
    assert refusal(write(HEADER + "a\tx\t\n")) == "some.csv: no rows with a label in it"


@pytest.mark.parametrize(
    "text,task,kind",
    [
        *(
            (text, SST, "a whole number from 0 to 4")
            for text in ("5", "-1", "2.5", "nan", "good", "inf")
        ),
        ("2", PARA, "a whole number from 0 to 1"),
        ("0.5", PARA, "a whole number from 0 to 1"),
        ("5.1", STS, "a number from 0 to 5"),
        ("-0.2", STS, "a number from 0 to 5"),
        ("NaN", STS, "a number from 0 to 5"),
        ("4,6", STS, "a number from 0 to 5"),
        ("2", TASKS["cfimdb"], "a whole number from 0 to 1"),
    ],
)
def test_labels(write, text, task, kind):
    sentences = "\t".join(task.columns)
    rows = f"id\t{sentences}\t{task.label}\na\t{sentences}\t1\nb\t{sentences}\t{text}\n"
    assert refusal(write(rows), task) == f'some.csv:3: {task.label} is "{text}", expected {kind}'


def test_labels_in_range():
    assert [parse_label(x, STS, "") for x in ("0", "5", "4.6", " 5.00 ", "1e-1")] == [
        0.0,
        5.0,
        4.6,
        5.0,
        0.1,
    ]
    assert [parse_label(x, PARA, "") for x in ("0.0", "1.0")] == [0.0, 1.0]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "row,empty",
    [
        ("b\t\tx\t1", "sentence1"),
        ("b\tx\t \t1", "sentence2"),
        (" \tx\ty\t1", "id"),
        ("\t\t\t1", "id"),
    ],
)
def test_empty_cells(write, split, row, empty):
    path = write(f"id\tsentence1\tsentence2\tsimilarity\na\tx\ty\t1\n{row}\n")
    assert (
        refusal(path, STS, split) == f"some.csv:3: {empty} is empty; fill it in or delete the row"
    )


def test_duplicate_ids(write):
    rows = "a\tx\t1\nb\ty\t2\nA \tz\t3\n"  # ids are compared as the leaderboard sees them, in lower case
    assert (
        refusal(write(HEADER + rows))
        == "some.csv:4: id a stands in line 2 already; ids must differ"
    )
    assert refusal(write(HEADER + rows), split="test").startswith("some.csv:4: id a stands")


def test_no_file(tmp_path):
    assert refusal(tmp_path / "absent.csv").startswith(
        "absent.csv: No such file or directory; check the path"
    )
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder").startswith("folder: Is a directory; check the path")
