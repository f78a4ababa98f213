"""Reading data files as the course's really are, and what is wrong in one line with its number."""

import hashlib
import os
from pathlib import Path

import pytest

from errors import UserError
from examples import Example, parse_label, read_examples
from tasks import TASKS

SST = TASKS["sst"]
PARA = TASKS["para"]
STS = TASKS["sts"]
CFIMDB = TASKS["cfimdb"]
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
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(f"{path.parent}/")


def test_plain(write):
    path = write(HEADER + "A1\tFine film .\t4\nb2\tBad\t0.0\n")
    assert read_examples(path, SST, "train") == [
        Example("a1", ("Fine film .",), 4.0),
        Example("b2", ("Bad",), 0.0),
    ]


def test_extra_index_columns(write):
    header = "\tid\tsentence1\tsentence2\tis_duplicate\n"
    train = write(header + "7\ta\tx ?\ty ?\t1.0\n8\tb\tz\tw\t0.0\n")
    assert read_examples(train, PARA, "dev") == [
        Example("a", ("x ?", "y ?"), 1.0),
        Example("b", ("z", "w"), 0.0),
    ]
    test = write("\tUnnamed: 0\t\tid\tsentence1\tsentence2\n0\t5\t9\ta\tx\ty\n")
    assert read_examples(test, STS, "test") == [Example("a", ("x", "y"), None)]


def test_other_order_of_columns(write):
    path = write("similarity\tsentence2\tmore\tsentence1\tid\n4.6\ty\t-\tx\ta\n")
    assert read_examples(path, STS, "train") == [Example("a", ("x", "y"), 4.6)]


def test_a_file_to_be_predicted(write, capsys):
    """Every row, the labels that are there, and numbers where it has no ids."""
    path = write("sentiment\tsentence\n\tx\n\n4\ty\n \tz\n")
    rows = [Example("1", ("x",), None), Example("2", ("y",), 4.0), Example("3", ("z",), None)]
    assert read_examples(path, SST, "new") == rows
    assert capsys.readouterr().out == f"{path}: has no column id: its rows are numbered from 1\n"
    assert read_examples(write("id\tsentence\nA\tx\n"), SST, "new") == [Example("a", ("x",), None)]
    assert capsys.readouterr().out == ""
    for text, message in (
        ("id\tsentence\n\tx\n", "some.csv:2: id is empty"),
        ("sentence\tsentiment\nx\t4.5\n", 'some.csv:2: sentiment is "4.5", expected a whole'),
        ("id\tsentiment\na\t4\n", "some.csv:1: no column sentence; found id, sentiment"),
        ("id\tid\tsentence\na\tb\tc\n", "some.csv:1: 2 columns have the name id"),
        ("sentence\n", "some.csv: no rows with text in it"),
    ):
        assert refusal(write(text), SST, "new").startswith(message)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_without_a_label_are_skipped_and_counted(write, split, capsys):
    # What is skipped is not checked further.
    path = write(HEADER + "a\tx\t1\nb\ty\t\nc\tz\t \nd\t\t\nd,\t\t\ne\tv\t3\n")
    assert [e.id for e in read_examples(path, SST, split)] == ["a", "e"]
    assert capsys.readouterr().out == f"{path}: skipped 4 rows without a label\n"


def test_no_test_row_is_dropped(write, capsys):
    rows = [Example("a", ("x",), None), Example("b", ("y",), None), Example("c", ("z",), None)]
    path = write("id\tsentence\na\tx\nb\ty\nc\tz\n")
    assert read_examples(path, SST, "test") == rows
    # Labels there are not looked at.
    path = write(HEADER + "a\tx\t1\nb\ty\t\nc\tz\tgood\n")
    assert read_examples(path, SST, "test") == rows
    assert capsys.readouterr().out == ""


def test_quotes(write):
    doubled = 'a\t"She said ""no"" , twice"\t1\n'
    inside = 'b\tthe "best" film\t2\n'
    around_a_tab = 'c\t"a\tb"\t3\n'
    single = "d\tit 's \" odd\t4\n"
    path = write(HEADER + doubled + inside + around_a_tab + single)
    texts = [example.texts[0] for example in read_examples(path, SST, "train")]
    assert texts == ['She said "no" , twice', 'the "best" film', "a\tb", "it 's \" odd"]


def test_crlf_and_byte_order_mark(write):
    plain = read_examples(write(HEADER + "a\tx é\t1\nb\ty\t2\n"), SST, "train")
    marked = "\ufeff" + HEADER + "a\tx é\t1\nb\ty\t2\n"
    unended = HEADER + "a\tx é\t1\nb\ty\t2"
    spaced = HEADER + "\na\tx é\t1\n\nb\ty\t2\n\n"
    for raw in (marked, marked.replace("\n", "\r\n"), unended, spaced):
        assert read_examples(write(raw), SST, "train") == plain


def test_line_numbers(write):
    """The line of the file, of which a quoted field may take several, and blank ones count."""
    text = HEADER + 'a\t"one\ntwo\nthree"\t1\n\nb\ty\t9\n'
    assert refusal(write(text)).startswith("some.csv:6: sentiment is")
    assert refusal(write(text.replace("\n", "\r\n"))).startswith("some.csv:6: sentiment is")
    first, _ = read_examples(write(text.replace("9", "3")), SST, "train")
    assert first.texts == ("one\ntwo\nthree",)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
def test_not_utf8(write, before):
    raw = before + HEADER.encode() + b"a\tx\t1\nb\tcaf\xe9\t2\nc\tz\t3\n"
    assert refusal(write(raw)) == "some.csv:3: not UTF-8 (byte 0xe9); save the file as UTF-8"
    first_in_line = raw.replace(b"b\tcaf\xe9", b"\xe8b\tcafe")
    assert refusal(write(first_in_line)).startswith("some.csv:3: not UTF-8 (byte 0xe8)")


def test_nul(write):
    assert refusal(write(HEADER + "a\tx\t1\nb\ty\0z\t2\n")).startswith("some.csv:3: ")


def test_endless_fields(write):
    """An open quote, which would swallow rows, and a file that is no table."""
    wrong = "not tab-separated text, or a quote that does not end"
    unended = HEADER + 'a\tx\t1\nb\t"y\t2\nc\tz\t3\n'
    ended_early = HEADER + 'a\tx\t1\nb\t"y" z\t2\n'
    for split in ("train", "test"):
        assert refusal(write(unended), split=split).startswith(f"some.csv:3: {wrong}")
        assert refusal(write(ended_early), split=split).startswith(f"some.csv:3: {wrong}")


def test_a_pair_of_stray_quotes_swallows_no_rows(write):
    """One opens a row's text, one ends that of a row below, and takes in the rows between."""
    text = '\tid\tsentence\n\n0\ta\t"Great film\n1\tb\tfine\n2\tc\tok"\n3\td\tx\n'
    message = "some.csv:3: sentence runs on to line 5, tabs and all; delete the stray quote"
    assert refusal(write(text), split="test") == message
    assert refusal(write(text.replace("\n", "\r\n")), split="test") == message


def test_stray_quotes_in_other_places(write):
    # In the first of two columns without a name.
    index = '\t\tid\tsentence\n"1\t0\ta\tGreat\n2"\t1\tb\tfine\n'
    message = refusal(write(index), split="test")
    assert message.startswith("some.csv:2: column 1 runs on to line 3")
    # Nor are the rows skipped as one row without a label.
    unlabelled = HEADER + 'a\t"Great film\t1\nb\tok"\t\nc\tx\t2\n'
    assert refusal(write(unlabelled)).startswith("some.csv:2: sentence runs on to line 3")
    header = '"x\ty\nz"\t' + HEADER + "0\ta\tx\t1\n"
    assert refusal(write(header)).startswith("some.csv:1: a column's name runs on to line 2")


def test_more_cells_than_columns(write):
    """A stray tab would cut a sentence short, and move a label."""
    message = "some.csv:3: more cells than the first line has; put texts with tabs in quotes"
    assert refusal(write("id\tsentence\na\tx\nb\tone\ttwo\n"), split="test") == message
    assert refusal(write(HEADER + "a\tx\t1\nb\tone\ttwo\t3\n")) == message
    # A tab behind the last cell does no harm.
    assert len(read_examples(write("id\tsentence\na\tx\t\nb\ty\n"), SST, "test")) == 2


@pytest.mark.parametrize(
    "text,task,split,lacking,found",
    [
        ("id\tsentence\na\tx\n", SST, "dev", "sentiment", "id, sentence"),
        ("\tid\tsentence\n0\ta\tx\n", SST, "train", "sentiment", "id, sentence"),
        ("id\tsentence\na\tx\n", STS, "test", "sentence1, sentence2", "id, sentence"),
        ("", SST, "train", "id, sentence, sentiment", "nothing"),
        ("\n\n", SST, "test", "id, sentence", "nothing"),
    ],
)
def test_missing_columns(write, text, task, split, lacking, found):
    message = refusal(write(text), task, split)
    expected = ["id", *task.columns]
    if split != "test":
        expected.append(task.label)
    assert message == (
        f"some.csv:1: no column {lacking}; found {found}; "
        f"expected tab-separated {', '.join(expected)}"
    )


@pytest.mark.parametrize(
    "header,advice",
    [
        ("id,sentence,sentiment", "it is separated by commas, expected tabs"),
        ("id;sentence;sentiment", "it is separated by semicolons, expected tabs"),
        ("id\tSentence\tSENTIMENT", "names are in small letters: sentence, sentiment"),
        ("id\ttext,more\tlabel", "expected tab-separated id, sentence, sentiment"),
    ],
)
def test_what_a_header_should_be(write, header, advice):
    assert refusal(write(header + "\n")).endswith(f"; {advice}")


def test_no_rows(write):
    assert refusal(write(HEADER), split="train") == "some.csv: no rows with a label in it"
    assert refusal(write(HEADER), split="test") == "some.csv: no rows with text in it"
    assert refusal(write(HEADER + "a\tx\t\n")) == "some.csv: no rows with a label in it"


@pytest.mark.parametrize(
    "text,task,kind",
    [
        ("5", SST, "a whole number from 0 to 4"),
        ("-1", SST, "a whole number from 0 to 4"),
        ("2.5", SST, "a whole number from 0 to 4"),
        ("nan", SST, "a whole number from 0 to 4"),
        ("good", SST, "a whole number from 0 to 4"),
        ("inf", SST, "a whole number from 0 to 4"),
        ("2", PARA, "a whole number from 0 to 1"),
        ("0.5", PARA, "a whole number from 0 to 1"),
        ("5.1", STS, "a number from 0 to 5"),
        ("-0.2", STS, "a number from 0 to 5"),
        ("NaN", STS, "a number from 0 to 5"),
        ("4,6", STS, "a number from 0 to 5"),
        ("2", CFIMDB, "a whole number from 0 to 1"),
        ("0_3", STS, "a number from 0 to 5"),
        ("\u0663", STS, "a number from 0 to 5"),
    ],
)
def test_labels(write, text, task, kind):
    sentences = "\t".join(task.columns)
    rows = f"id\t{sentences}\t{task.label}\na\t{sentences}\t1\nb\t{sentences}\t{text}\n"
    assert refusal(write(rows), task) == f'some.csv:3: {task.label} is "{text}", expected {kind}'


@pytest.mark.parametrize(
    "text,task,label",
    [
        ("0", STS, 0.0),
        ("5", STS, 5.0),
        ("4.6", STS, 4.6),
        (" 5.00 ", STS, 5.0),
        ("1e-1", STS, 0.1),
        ("0.0", PARA, 0.0),
        ("1.0", PARA, 1.0),
    ],
)
def test_labels_in_range(text, task, label):
    assert parse_label(text, task, "") == label


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
    message = f"some.csv:3: {empty} is empty; fill it in or delete the row"
    assert refusal(path, STS, split) == message


def test_duplicate_ids(write):
    """Ids are compared as the leaderboard sees them, in lower case."""
    path = write(HEADER + "a\tx\t1\nb\ty\t2\nA \tz\t3\n")
    message = "some.csv:4: id a stands in line 2 already; ids must differ"
    assert refusal(path) == message
    assert refusal(path, split="test") == message


def test_no_file(tmp_path):
    message = "absent.csv: No such file or directory; check the path"
    assert refusal(tmp_path / "absent.csv").startswith(message)
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder").startswith("folder: a folder, expected a file")


HOSTILE = {
    "two columns of one name": (
        "id\tsentence\tsentence\tsentiment\na\tx\ty\t1\n",
        "1: 2 columns have the name sentence; rename all but the one to read",
    ),
    "two columns of ids": (
        "id\tsentence\tsentiment\tid\na\tx\t1\tb\n",
        "1: 2 columns have the name id; rename",
    ),
    "a row cut off before its label": (
        HEADER + "a\tx\t1\n\nb\ty\nc\tz\t2\n",
        "4: 2 cells, expected 3; is the row cut off? An empty cell needs its tab too",
    ),
    "a row of one cell": (HEADER + "a\tx\t1\nb\n", "3: 1 cells, expected 3; is the row cut off?"),
    "a text broken over two lines": (
        HEADER + "a\tone\ntwo\t1\n",
        "2: 2 cells, expected 3; is the row cut off?",
    ),
    "a carriage return inside a text": (
        HEADER + "a\tx\t1\nb\tfine\rfilm\t2\n",
        "3: a carriage return inside a row; delete it, or save the file with line breaks of",
    ),
    "a carriage return behind a quoted text of two lines": (
        HEADER + 'a\t"x\ny"\r\t1\nb\tz\t2\n',
        "3: a carriage return inside a row",
    ),
    "line breaks of an old Mac": (
        HEADER.replace("\n", "\r") + "a\tx\t1\rb\ty\t2\r",
        "1: a carriage return inside a row",
    ),
    "a comma in an id": (
        HEADER + "a\tx\t1\nb,1\ty\t2\n",
        '3: id "b,1" has a comma, a line break or the like, which would break the prediction file',
    ),
    "a line break in an id": (HEADER + '"a\nb"\tx\t1\n', '3: id "a\\nb" has a comma'),
    "a tab in an id": (HEADER + '"a\tb"\tx\t1\n', '2: id "a\\tb" has a comma'),
    "an escape in an id": (HEADER + "a\x1b[2J\tx\t1\n", '2: id "a\\x1b[2j" has a comma'),
    "a byte order mark further down": (
        HEADER + "a\tx\t1\n\ufeffb\ty\t2\n",
        '3: id "\\ufeffb" has a comma',
    ),
    "a text over the limit": (
        HEADER + "a\tx\t1\nb\t" + "y" * 131_073 + "\t2\n",
        "3: a text of over 131,072 characters, or a quote that does not end; shorten the text",
    ),
    "a quote that does not end in a long file": (
        HEADER + 'a\tx\t1\nb\t"' + "y\n" * 70_000,
        "3: a text of over 131,072 characters, or a quote that does not end",
    ),
    "a long first line": ("x" * 140_000, "1: a text of over 131,072 characters"),
    "a line over the limit": (HEADER + "x\t" * 2**23 + "x", "2: a line of over 16 MiB"),
    "a NUL": (HEADER + "a\tx\t1\nb\ty\0\t2\n", "3: a NUL character"),
    "UTF-16": ((HEADER + "a\tx\t1\n").encode("utf-16"), "1: not UTF-8 (byte 0xff)"),
    "two bytes of a cut character": (
        HEADER.encode() + b"a\tx\t1\nb\t\xe2\x82\t2\n",
        "3: not UTF-8 (byte 0xe2)",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_line_with_its_number(write, case):
    content, message = HOSTILE[case]
    assert refusal(write(content)).startswith(f"some.csv:{message}")


@pytest.mark.parametrize("marks", [1, 2, 3])
def test_byte_order_marks(write, marks):
    path = write("\ufeff" * marks + HEADER + "a\tx\t1\n")
    assert read_examples(path, SST, "train") == [Example("a", ("x",), 1.0)]


def test_a_carriage_return_in_quotes_is_part_of_the_text(write):
    path = write(HEADER + 'a\t"x\ry"\t1\nb\tz\t9\n')
    assert refusal(path).startswith("some.csv:3: sentiment is")
    path = write(HEADER + 'a\t"x\ry"\t1\n')
    assert read_examples(path, SST, "train")[0].texts == ("x\ry",)


def test_columns_that_nobody_reads(write):
    """Two of one name are fine, and one without a name at the end may be left out of a row."""
    path = write("more\tid\tsentence\tsentiment\tmore\t\n-\ta\tx\t1\t-\n-\tb\ty\t2\t-\t7\n")
    assert [e.id for e in read_examples(path, SST, "train")] == ["a", "b"]
    message = refusal(write("more\tid\tsentence\tsentiment\tmore\t\n-\ta\tx\t1\n"))
    assert message.startswith("some.csv:2: 4 cells, expected 6")


def test_an_odd_id_of_the_test_split_is_refused_too(write):
    path = write("id\tsentence\na\tx\nb,c\ty\n")
    assert refusal(path, split="test").startswith('some.csv:3: id "b,c" has a comma')


def test_a_file_over_the_limit(tmp_path):
    path = tmp_path / "large.csv"
    with open(path, "wb") as file:
        file.truncate(2**31 + 1)  # a hole: nothing is written
    assert refusal(path).startswith("large.csv: over 2048 MiB")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").startswith(
        "pipe: a pipe or a device, expected a regular file"
    )


def test_the_digest_takes_the_bytes_that_are_read(write):
    path = write("\ufeff" + HEADER.replace("\n", "\r\n") + 'a\t"x\r\né"\t1\n\nb\ty\t\n\n')
    digest = hashlib.sha256()
    read_examples(path, SST, "train", digest)
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_messages_are_short_and_on_one_line(write):
    """However long and odd a cell or a header is."""
    for content in (
        "\t".join(f"\x1b[31m{i}" for i in range(9000)) + "\n",
        HEADER + "a\tx\t" + "\x1b[2J9" * 20_000 + "\n",
        HEADER + "\x1b," * 60_000 + "\tx\t1\n",
    ):
        message = refusal(write(content))
        assert len(message) <= 300 and message.isprintable()


@pytest.mark.parametrize("call", ["open", "fstat"])
def test_a_file_that_may_not_be_read(write, monkeypatch, call):
    path = write(HEADER + "a\tx\t1\n")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, denied)
        assert refusal(path) == "some.csv: Permission denied; check the path"
