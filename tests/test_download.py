"""data/download.py against a server on this machine that drops, lies, changes its mind and is busy.
No network.
"""

import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import download
from data.download import fetch, main
from errors import UserError

HEADER = b"\tid\tsentence1\tsentence2\tis_duplicate\n"
ROWS = b"".join(
    b"%d\t%024x\tWhat is %d?\tHow much is %d?\t0.0\n" % (n, n, n, n) for n in range(4000)
)
BODY = HEADER + ROWS
NAME = "quora-train.csv"


class Server(ThreadingHTTPServer):
    """Serves `body` under any path. `plan` lists what to do with the next requests; `seen` keeps
    their headers.
    """

    body: bytes
    etag: str | None
    plan: list[str]
    seen: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # which has chunks

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        self.close_connection = True
        act = server.plan.pop(0) if server.plan else "serve"
        server.seen.append(dict(self.headers))
        status, _, wait = act.partition(" after ")
        if status.isdigit():
            self.send_response(int(status))
            if wait:
                self.send_header("Retry-After", wait)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"busy")
            return
        if act == "silence":
            time.sleep(0.5)
            return
        if act == "hang up":
            self.connection.close()
            return
        if "change" in act:
            server.body, server.etag = server.body.replace(b"How much", b"How wide"), '"second"'
        start = 0
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, server.etag)
        if asked and (same or "careless" in act) and act != "no range":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            shown = start + 1 if act == "wrong part" else start
            self.send_header(
                "Content-Range", f"bytes {shown}-{len(server.body) - 1}/{len(server.body)}"
            )
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        rest = server.body[start:]
        if "compressed" in act:
            rest = gzip.compress(rest)
            self.send_header("Content-Encoding", "gzip")
        sent = rest[: len(rest) // 2] if "drop" in act or "short" in act else rest
        if "chunked" in act:
            self.send_header("Transfer-Encoding", "chunked")
            sent = b"".join(
                b"%x\r\n%s\r\n" % (len(x), x) for x in (sent[:100], sent[100:])
            ) + b"0\r\n\r\n" * (sent is rest)
        elif "no length" not in act:
            self.send_header("Content-Length", str(len(sent if "short" in act else rest)))
        self.end_headers()
        self.wfile.write(sent)


@pytest.fixture
def server() -> Iterator[Server]:
    web = Server(("127.0.0.1", 0), Handler)
    web.body, web.etag, web.plan, web.seen = BODY, '"first"', [], []
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()


def get(web: Server, path: Path, **how: object) -> None:
    fetch(
        f"{web.url}/{path.name}", path, **({"backoff": 0.001, "timeout": 5.0, "retries": 3} | how)
    )  # type: ignore[arg-type]


def offset(headers: dict[str, str]) -> int:
    """Where a request starts."""
    return int(headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_plain(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "new" / "a.csv", sha256=hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "new" / "a.csv").read_bytes() == BODY
    assert names(tmp_path / "new") == ["a.csv"]


def test_a_dropped_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "drop"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    half = len(BODY) // 2
    starts = [offset(headers) for headers in server.seen]
    assert starts[0] == 0
    # The block that was under way is lost, no more.
    assert 0 <= half - starts[1] < download.CHUNK
    assert 0 <= starts[1] + (len(BODY) - starts[1]) // 2 - starts[2] < download.CHUNK
    assert names(tmp_path) == ["a.csv"]


def test_the_next_run_goes_on_where_the_last_gave_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop"]
    with pytest.raises(UserError, match="gave up after 1 attempts"):
        get(server, tmp_path / "a.csv", retries=0)
    assert names(tmp_path) == ["a.csv.part", "a.csv.part.etag"]
    get(server, tmp_path / "a.csv", retries=0)
    assert 0 <= len(BODY) // 2 - offset(server.seen[-1]) < download.CHUNK
    assert (tmp_path / "a.csv").read_bytes() == BODY


@pytest.mark.parametrize("etag", ['"first"', 'W/"weak"', None])
def test_a_server_without_ranges_starts_anew(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.etag, server.plan = etag, ["drop", "no range"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert ("Range" in server.seen[1]) == (etag == '"first"')


def test_a_file_that_changed_between_attempts_is_not_glued_together(
    server: Server, tmp_path: Path
) -> None:
    server.plan = ["drop", "change"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY.replace(b"How much", b"How wide")


def test_a_change_and_a_drop_at_once_keep_the_new_mark(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "change drop"]
    get(server, tmp_path / "a.csv")
    assert server.seen[2]["If-Range"] == '"second"'
    assert (tmp_path / "a.csv").read_bytes() == BODY.replace(b"How much", b"How wide")


def test_a_part_of_another_file_is_not_glued_on(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "careless change"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY.replace(b"How much", b"How wide")
    assert [offset(headers) > 0 for headers in server.seen] == [False, True, False]


def test_a_part_that_ends_too_early_is_not_the_rest(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "short", "serve"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert len(server.seen) == 3


def test_chunks_say_where_the_file_ends(server: Server, tmp_path: Path) -> None:
    server.plan = ["chunked drop", "chunked"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert len(server.seen) == 2


@pytest.mark.parametrize("act", ["no length", "no length drop"])
def test_a_file_whose_end_is_not_said_is_refused(server: Server, tmp_path: Path, act: str) -> None:
    server.plan = [act]
    with pytest.raises(UserError, match="does not say where the file ends"):
        command(server, tmp_path)
    assert names(tmp_path) == [] and len(server.seen) == 1


def test_a_compressed_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.plan = ["compressed"]
    with pytest.raises(UserError, match=r"compressed \(gzip\)"):
        get(server, tmp_path / "a.csv")
    assert names(tmp_path) == [] and len(server.seen) == 1


@pytest.mark.parametrize("plan", [["drop", "wrong part"], ["drop", "416"]])
def test_a_useless_answer_to_a_range_starts_anew(
    server: Server, tmp_path: Path, plan: list[str]
) -> None:
    server.plan = plan
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert "Range" not in server.seen[2]


@pytest.mark.parametrize("plan", [["503", "500"], ["429"], ["hang up", "hang up", "hang up"]])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, plan: list[str]) -> None:
    server.plan = list(plan)
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert len(server.seen) == len(plan) + 1


def test_the_attempts_are_counted_and_the_waits_double(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.plan = ["503"] * 9
    with pytest.raises(UserError, match="the server answers 503; gave up after 4 attempts"):
        get(server, tmp_path / "a.csv", backoff=0.5)
    assert waits == [0.5, 1.0, 2.0]
    assert len(server.seen) == 4
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("asked", "wait"), [("7", 7.0), ("0", 0.5), ("3600", 30.0), ("²", 0.5), ("soon", 0.5)]
)
def test_the_server_may_ask_for_a_longer_wait(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, wait: float
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.plan = [f"503 after {asked}"]
    get(server, tmp_path / "a.csv", backoff=0.5)
    assert waits == [wait]


def test_silence_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    server.plan = ["silence"]
    with pytest.raises(UserError, match="the server fell silent"):
        get(server, tmp_path / "a.csv", timeout=0.1, retries=0)
    get(server, tmp_path / "a.csv")


def test_a_missing_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["404"]
    with pytest.raises(UserError, match="404"):
        get(server, tmp_path / "a.csv")
    assert len(server.seen) == 1
    assert names(tmp_path) == []


def test_wrong_bytes_are_refused_and_the_old_file_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"old")
    with pytest.raises(UserError, match="checksum"):
        get(server, tmp_path / "a.csv", sha256="0" * 64)
    assert (tmp_path / "a.csv").read_bytes() == b"old"
    assert names(tmp_path) == ["a.csv"]


def test_a_damaged_part_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.csv.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.csv.part.etag").write_text('"first"')
    get(server, tmp_path / "a.csv", sha256=hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert [headers.get("Range") for headers in server.seen] == ["bytes=1000-", None]


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        get(server, tmp_path / "file" / "a.csv")


# The command
# ----------------------------------------------------------------------------------------------------


def command(web: Server, folder: Path, *more: str) -> None:
    main(
        [
            "--out",
            str(folder),
            "--base-url",
            web.url,
            "--backoff",
            "0.001",
            "--retries",
            "1",
            "--only",
            NAME,
            *more,
        ]
    )


def test_the_command_downloads_records_and_then_skips(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(server, tmp_path)
    assert json.loads((tmp_path / "checksums.json").read_text()) == {
        NAME: hashlib.sha256(BODY).hexdigest()
    }
    command(server, tmp_path)
    printed = capsys.readouterr()
    assert f"{NAME}: downloaded" in printed.out
    assert f"{NAME}: was there already" in printed.out
    assert f"1 of 12 course files in {tmp_path}: {NAME}" in printed.out
    assert printed.err == ""  # no progress bar off a terminal
    assert len(server.seen) == 1


def test_a_recorded_checksum_holds_for_the_next_download(server: Server, tmp_path: Path) -> None:
    command(server, tmp_path)
    (tmp_path / NAME).unlink()
    server.plan = ["change"]
    with pytest.raises(UserError, match="checksum"):
        command(server, tmp_path)
    assert names(tmp_path) == ["checksums.json"]
    command(server, tmp_path, "--force")
    assert b"How wide" in (tmp_path / NAME).read_bytes()
    command(server, tmp_path)


def test_a_different_file_is_left_alone_without_force(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("my notes\n")
    with pytest.raises(UserError, match="left alone, --force replaces it"):
        command(server, tmp_path)
    assert (tmp_path / NAME).read_text() == "my notes\n"
    command(server, tmp_path, "--force")
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_folder_in_the_place_of_a_file_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(UserError, match=NAME):
        command(server, tmp_path)


def test_an_html_page_is_no_csv(server: Server, tmp_path: Path) -> None:
    server.body = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"
    with pytest.raises(UserError, match="an HTML page"):
        command(server, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", BODY.replace(b"is_duplicate", b"label")])
def test_another_header_is_refused(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    with pytest.raises(UserError, match="expected the header"):
        command(server, tmp_path)
    assert names(tmp_path) == []


def test_a_pinned_checksum_ignores_the_kind_of_line_ends_only(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = download.CourseFile(HEADER.decode().rstrip("\n"), hashlib.sha256(BODY).hexdigest())
    monkeypatch.setitem(download.FILES, NAME, pinned)
    server.body = BODY.replace(b"\n", b"\r\n")
    command(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == server.body
    assert names(tmp_path) == [NAME]
    server.body = BODY + b"one row more\n"
    with pytest.raises(UserError, match="checksum"):
        command(server, tmp_path, "--force")
    assert (tmp_path / NAME).read_bytes() == BODY.replace(b"\n", b"\r\n")


def test_no_server_ends_after_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no connection; gave up after 2 attempts") as failure:
        main(
            [
                "--out",
                str(tmp_path),
                "--base-url",
                "http://127.0.0.1:9",
                "--backoff",
                "0.001",
                "--retries",
                "1",
            ]
        )
    assert "\n" not in str(failure.value) and "more:" not in str(failure.value)
    assert f"0 of 12 course files in {tmp_path}: none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "values", "expected"),
    [
        ("--retries", ["-1", "2000"], "0 to 1000"),
        ("--timeout", ["0", "-1", "nan", "inf"], "0.001 to 86400"),
        ("--backoff", ["-1", "nan"], "0 to 86400"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    server: Server, tmp_path: Path, flag: str, values: list[str], expected: str
) -> None:
    for value in values:
        with pytest.raises(
            UserError, match=rf"^{flag} {value}(\.0)?: expected {re.escape(expected)}$"
        ):
            command(server, tmp_path, flag, value)
    assert server.seen == []


def test_a_folder_that_cannot_be_looked_into(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / (
        "x" * 300
    )  # root may look into every folder, but not into one whose name is too long
    with pytest.raises(UserError, match="File name too long") as failure:
        command(server, folder)
    assert "\n" not in str(failure.value)


def test_a_broken_record_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(UserError, match="checksums.json: cannot be read as JSON"):
        command(server, tmp_path)
