"""data/download.py against a server on this machine that drops, lies and is busy. No network."""

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data import download
from data import fetch as fetching
from data.download import main
from data.fetch import Limits, fetch
from errors import UserError

HEADER = b"\tid\tsentence1\tsentence2\tis_duplicate\n"
ROW = b"%d\t%024x\tWhat is %d?\tHow much is %d?\t0.0\n"
BODY = HEADER + b"".join(ROW % (n, n, n, n) for n in range(4000))
NAME = "quora-train.csv"
ODD = 1000  # bytes that a lying server leaves out
QUICK = ["--backoff", "0.001", "--retries", "1"]


class Server(ThreadingHTTPServer):
    """Serves `body` under any path.

    `plan` lists what to do with the next requests; `seen` keeps their headers.
    """

    body: bytes
    etag: str | None
    plan: list[str]
    seen: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Does what the server's plan says next; "serve" is to behave."""

    server: Server
    protocol_version = "HTTP/1.1"  # which has chunks

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        act = self.server.plan.pop(0) if self.server.plan else "serve"
        self.server.seen.append(dict(self.headers))
        status, _, wait = act.partition(" after ")
        if status.isdigit():
            self.answer_only(int(status), wait)
        elif act == "silence":
            time.sleep(0.5)
        elif act == "hang up":
            self.connection.close()
        elif act.startswith("announce "):
            self.announce(act.removeprefix("announce "))
        elif act in ("flood", "drip", "drip headers"):
            self.never_end(act)
        else:
            self.answer_with_the_file(act)

    def answer_only(self, status: int, wait: str) -> None:
        """A status without the file, and how long to wait before asking again."""
        self.send_response(status)
        if wait:
            self.send_header("Retry-After", wait)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"busy")

    def announce(self, size: str) -> None:
        """A size, and a few bytes."""
        self.send_response(200)
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(b"x" * 100)

    def never_end(self, act: str) -> None:
        """Chunks as fast as they go, or a byte now and then, until nobody listens."""
        self.send_response(200)
        if act == "flood":
            self.send_header("ETag", '"first"')
        if act != "drip headers":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        self.flush_headers()
        with contextlib.suppress(OSError):
            while True:
                block = {"flood": chunk(b"x" * 9999), "drip": chunk(b"x"), "drip headers": b"x"}
                self.wfile.write(block[act])
                self.wfile.flush()
                if "drip" in act:
                    time.sleep(0.02)

    def answer_with_the_file(self, act: str) -> None:
        """The file or the part asked for, as the plan spoils it."""
        server = self.server
        if "change" in act:
            server.body = server.body.replace(b"How much", b"How wide")
            server.etag = '"second"'
        rest = server.body[self.begin(act) :]
        if "smaller" in act and "Range" in self.headers:
            rest = rest[:-ODD]
        if server.etag:
            self.send_header("ETag", server.etag)
        if "compressed" in act:
            rest = gzip.compress(rest)
            self.send_header("Content-Encoding", "gzip")

        # Half of it where the connection is to break; "short" says that half is all.
        broken = "drop" in act or "short" in act
        sent = rest[: len(rest) // 2] if broken else rest
        if "chunked" in act:
            self.send_header("Transfer-Encoding", "chunked")
            sent = chunk(sent[:100]) + chunk(sent[100:])
            if not broken:
                sent += chunk(b"")
        elif "short" in act:
            self.send_header("Content-Length", str(len(sent)))
        elif "no length" not in act:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(sent)

    def begin(self, act: str) -> int:
        """Send the status, and return where what is sent begins."""
        size = len(self.server.body)
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, self.server.etag)
        if act == "unasked part":
            asked = f"bytes={size // 2}-"
        if not asked or act == "no range" or not (same or "careless" in act):
            self.send_response(200)
            return 0
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if act == "whole file as part":
            start = 0
        shown = start + 1 if act == "wrong part" else start
        last = size + 4 if act == "beyond the end" else size - 1
        total = "*" if act == "total not said" else str(size)
        if "smaller" in act:  # all agrees but with what was said before
            last, total = last - ODD, str(size - ODD)
        self.send_response(206)
        if act != "part not said":
            self.send_header("Content-Range", f"bytes {shown}-{last}/{total}")
        return start


def chunk(data: bytes) -> bytes:
    """One chunk as HTTP frames it; an empty one is the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def server() -> Iterator[Server]:
    web = Server(("127.0.0.1", 0), Handler)
    web.body = BODY
    web.etag = '"first"'
    web.plan = []
    web.seen = []
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()


def get(web: Server, path: Path, sha256: str | None = None, **how: float) -> None:
    quick: dict[str, Any] = {"backoff": 0.001, "timeout": 5.0, "retries": 3}

    def check(part: Path) -> None:
        if sha256 and hashlib.sha256(part.read_bytes()).hexdigest() != sha256:
            raise UserError("another checksum")

    fetch(f"{web.url}/{path.name}", path, check, Limits(**(quick | how)))


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
    first, second, third = (offset(headers) for headers in server.seen)
    assert first == 0
    # The block that was under way is lost, no more.
    broke_at = len(BODY) // 2
    assert 0 <= broke_at - second < fetching.CHUNK
    broke_at = second + (len(BODY) - second) // 2
    assert 0 <= broke_at - third < fetching.CHUNK
    assert names(tmp_path) == ["a.csv"]


def test_the_next_run_goes_on_where_the_last_gave_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop"]
    with pytest.raises(UserError, match="gave up after 1 attempts"):
        get(server, tmp_path / "a.csv", retries=0)
    assert names(tmp_path) == ["a.csv.part", "a.csv.part.etag"]
    mark = json.loads((tmp_path / "a.csv.part.etag").read_text())
    assert mark == {"etag": '"first"', "total": len(BODY)}
    get(server, tmp_path / "a.csv", retries=0)
    assert 0 <= len(BODY) // 2 - offset(server.seen[-1]) < fetching.CHUNK
    assert (tmp_path / "a.csv").read_bytes() == BODY


@pytest.mark.parametrize("etag", ['"first"', 'W/"weak"', None])
def test_a_server_without_ranges_starts_anew(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.etag = etag
    server.plan = ["drop", "no range"]
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
    assert names(tmp_path) == []
    assert len(server.seen) == 1


def test_a_compressed_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.plan = ["compressed"]
    with pytest.raises(UserError, match=r"compressed \(gzip\)"):
        get(server, tmp_path / "a.csv")
    assert names(tmp_path) == []
    assert len(server.seen) == 1


USELESS = [
    "wrong part",
    "beyond the end",
    "part not said",
    "total not said",
    "smaller",
    "whole file as part",
    "416",
]


@pytest.mark.parametrize("plan", [["drop", act] for act in USELESS])
def test_a_useless_answer_to_a_range_starts_anew(
    server: Server, tmp_path: Path, plan: list[str]
) -> None:
    server.plan = plan
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert "Range" not in server.seen[2]


def test_a_part_that_was_not_asked_for_is_not_the_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.csv.part").write_bytes(BODY[: len(BODY) // 2])  # whose, nobody knows
    server.plan = ["unasked part"]
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert len(server.seen) == 2


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
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
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
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
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
    mark = {"etag": '"first"', "total": len(BODY)}
    (tmp_path / "a.csv.part.etag").write_text(json.dumps(mark))
    get(server, tmp_path / "a.csv", sha256=hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert [headers.get("Range") for headers in server.seen] == ["bytes=1000-", None]


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"a.csv: can't be written \(Not a directory\)"):
        get(server, tmp_path / "file" / "a.csv")


BAD_MARKS = [b"", b'"first"', b"{", b'{"etag": 3, "total": 3}', b"\xff", b'{"etag": "\\n"}']
BAD_MARKS += [b'{"etag": "%s", "total": 3}' % etag for etag in (b'\\"\\u20ac\\"', b"W/x", b"\\n")]


@pytest.mark.parametrize("mark", BAD_MARKS)
def test_a_damaged_mark_is_none(server: Server, tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "a.csv.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.csv.part.etag").write_bytes(mark)
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert "Range" not in server.seen[0] and names(tmp_path) == ["a.csv"]


# Too much, too slow, no room


@pytest.mark.parametrize("size", [str(2**20 + 1), "9" * 20, "9" * 6000])
def test_an_announced_size_beyond_the_largest(server: Server, tmp_path: Path, size: str) -> None:
    server.plan = [f"announce {size}"]
    with pytest.raises(UserError, match=r"announces [0-9]+ bytes, over 1 MiB; no such file"):
        get(server, tmp_path / "a.csv", largest=2**20)
    assert names(tmp_path) == [] and len(server.seen) == 1


@pytest.mark.parametrize("size", ["-5", "1e3", "0x10", "\u00b2"])
def test_a_size_that_is_none(server: Server, tmp_path: Path, size: str) -> None:
    server.plan = [f"announce {size}"] * 9
    with pytest.raises(UserError, match="a.csv: "):
        get(server, tmp_path / "a.csv", retries=0)
    assert names(tmp_path) == []


def test_a_stream_beyond_the_largest_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.plan = ["flood"]
    with pytest.raises(UserError, match="over 1 MiB came; no such file was expected"):
        get(server, tmp_path / "a.csv", largest=2**20)
    assert names(tmp_path) == [] and len(server.seen) == 1


@pytest.mark.parametrize("act", ["drip", "drip headers"])
def test_a_server_that_drips_is_not_waited_for(server: Server, tmp_path: Path, act: str) -> None:
    server.plan = [act]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"not whole after 0.3 s; run it again to go on, or with"):
        get(server, tmp_path / "a.csv", deadline=0.3)
    assert time.monotonic() - began < 3
    get(server, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_deadline_is_for_all_attempts_together(server: Server, tmp_path: Path) -> None:
    server.plan = ["503"] * 99
    with pytest.raises(UserError, match="not whole after 0.3 s"):
        get(server, tmp_path / "a.csv", deadline=0.3, backoff=0.1, retries=50)
    assert len(server.seen) <= 3


def test_a_file_that_the_disk_has_no_room_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, len(BODY) - 1)
    )
    with pytest.raises(UserError, match=r"0 MiB free, .*/a.csv takes 1; make room"):
        get(server, tmp_path / "a.csv")
    assert names(tmp_path) == []
    # What is here already needs no room.
    monkeypatch.undo()
    server.plan = ["drop"]
    with pytest.raises(UserError):
        get(server, tmp_path / "a.csv", retries=0)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, len(BODY) - 1)
    )
    get(server, tmp_path / "a.csv")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.part", "a.csv.part.etag"])
def test_what_is_no_file_is_not_written(
    server: Server, tmp_path: Path, name: str, kind: str
) -> None:
    place = tmp_path / name
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/null")
    with pytest.raises(UserError, match=rf"{name}: a (folder|device)"):
        get(server, tmp_path / "a.csv")
    assert names(tmp_path) == [name] and server.seen == []


ODD_ADDRESSES = ["", "nowhere", "file:///etc/passwd", "http://", "http://[", "http://\0"]
ODD_ADDRESSES += ["http://a\udcff/", f"http://{'a' * 70}.b/", "http://user:\udcff@a/"]


@pytest.mark.parametrize("url", ODD_ADDRESSES, ids=ascii)
def test_an_odd_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="check the address$") as failure:
        fetch(f"{url}/a.csv" if url else "", tmp_path / "a.csv", lambda _: None, Limits(retries=0))
    assert len(str(failure.value)) <= 300 and names(tmp_path) == []


# The command
# --------------------------------------------------------------------------------------------------


def command(web: Server, folder: Path, *more: str) -> None:
    """The command line for one file, with one short wait."""
    where = ["--out", str(folder), "--base-url", web.url]
    main([*where, *QUICK, "--only", NAME, *more])


def test_the_command_downloads_records_and_then_skips(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(server, tmp_path)
    recorded = json.loads((tmp_path / "checksums.json").read_text())
    assert recorded == {NAME: hashlib.sha256(BODY).hexdigest()}
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
        main(["--out", str(tmp_path), "--base-url", "http://127.0.0.1:9", *QUICK])
    assert "\n" not in str(failure.value)
    assert "more:" not in str(failure.value)
    assert f"0 of 12 course files in {tmp_path}: none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "values", "expected"),
    [
        ("--retries", ["-1", "2000"], "0 to 1000"),
        ("--timeout", ["0", "-1", "nan", "inf"], "0.001 to 86400"),
        ("--backoff", ["-1", "nan"], "0 to 86400"),
        ("--deadline", ["0", "-1", "nan", "inf"], "0.001 to 86400"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    server: Server, tmp_path: Path, flag: str, values: list[str], expected: str
) -> None:
    for value in values:
        message = rf"^{flag} {value}(\.0)?: expected {re.escape(expected)}$"
        with pytest.raises(UserError, match=message):
            command(server, tmp_path, flag, value)
    assert server.seen == []


def test_a_folder_that_cannot_be_looked_into(server: Server, tmp_path: Path) -> None:
    # Root may look into every folder, but not into one whose name is too long.
    folder = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match="File name too long") as failure:
        command(server, folder)
    assert "\n" not in str(failure.value)


RECORDS = ["{", "[]", "", "\0", '{"a": 3}', '{"a": "b"}', '{"a": "%s"}' % ("F" * 64), "[" * 10**5]
RECORDS += [json.dumps({"a": "0" * 64})[:-1] + ', "a": ""}']


@pytest.mark.parametrize("text", RECORDS, ids=lambda text: text[:20])
def test_a_broken_record_is_named(server: Server, tmp_path: Path, text: str) -> None:
    (tmp_path / "checksums.json").write_text(text)
    with pytest.raises(UserError, match="checksums.json.*; delete it to start anew$"):
        command(server, tmp_path)
    assert server.seen == []


@pytest.mark.parametrize("name", [NAME, "checksums.json"])
def test_a_pipe_in_the_folder_is_not_waited_for(server: Server, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: a pipe or a device"):
        command(server, tmp_path)


def test_two_downloads_into_one_folder(server: Server, tmp_path: Path) -> None:
    with download.sole_writer(tmp_path), pytest.raises(UserError, match="another download into"):
        command(server, tmp_path)
    assert server.seen == [] and names(tmp_path) == []
    command(server, tmp_path)


def test_what_a_kill_left_is_cleared(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".minbert-0123.new").write_text("half")
    command(server, tmp_path)
    assert names(tmp_path) == ["checksums.json", NAME]


@pytest.mark.parametrize("words", ["--only some.csv", "--retries x", "--nonesuch", "stray"])
def test_a_wrong_flag_is_one_line(words: str) -> None:
    with pytest.raises(UserError, match="; --help lists the flags$"):
        main(words.split())


def test_a_folder_s_name_that_is_no_utf_8(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(server, tmp_path / "\udcff")
    assert r"/\udcff: quora-train.csv" in capsys.readouterr().out
