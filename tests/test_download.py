"""data/download.py against a server on this machine that drops, lies and is busy. No network."""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import download
from data.download import main
from errors import UserError

HEADER = b"\tid\tsentence1\tsentence2\tis_duplicate\n"
ROW = b"%d\t%024x\tWhat is %d?\tHow much is %d?\t0.0\n"
BODY = HEADER + b"".join(ROW % (n, n, n, n) for n in range(4000))
CHANGED = BODY.replace(b"How much", b"How wide")
NAME = "quora-train.csv"  # whose checksum is not known beforehand


class Server(ThreadingHTTPServer):
    """Serves `body` under any path.

    `plan` lists what to do with the next requests; `seen` keeps their paths.
    """

    body: bytes
    plan: list[str]
    seen: list[str]

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
        self.server.seen.append(self.path)
        body = self.server.body
        # Half of it where the connection is to break.
        sent = body[: len(body) // 2] if "drop" in act else body
        with contextlib.suppress(OSError):
            if act.isdigit():
                self.answer(int(act), {"Content-Length": "4"}, b"busy")
            elif act == "silence":
                time.sleep(0.5)
            elif act == "drip":
                self.answer(200, {"Content-Length": str(len(body))}, b"")
                self.drip(body)
            elif act == "drip of headers":
                self.drip(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000)
            elif act == "hang up":
                self.connection.close()
            elif act == "flood":
                self.answer(200, {"Transfer-Encoding": "chunked"}, chunk(b"x" * 9999) * 1000)
            elif "chunked" in act:
                end = b"" if "drop" in act else chunk(b"")
                framed = chunk(sent[:100]) + chunk(sent[100:]) + end
                self.answer(200, {"Transfer-Encoding": "chunked"}, framed)
            elif "no length" in act:
                self.answer(200, {}, sent)
            else:
                self.answer(200, {"Content-Length": str(len(body))}, sent)

    def drip(self, content: bytes) -> None:
        """Byte by byte, until nobody listens."""
        for i in range(len(content)):
            self.wfile.write(content[i : i + 1])
            time.sleep(0.02)

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def chunk(data: bytes) -> bytes:
    """One chunk as HTTP frames it; an empty one is the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def server() -> Iterator[Server]:
    web = Server(("127.0.0.1", 0), Handler)
    web.body = BODY
    web.plan = []
    web.seen = []
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that are waited between attempts, which take none here."""
    found: list[float] = []
    monkeypatch.setattr(download, "time", type("Clock", (), {"sleep": found.append}))
    return found


def command(web: Server, folder: Path, *more: str) -> None:
    """The command line for one file."""
    main(["--out", str(folder), "--base-url", web.url, "--only", NAME, *more])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Over the network
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [[], ["chunked"], ["drop", "drop"], ["chunked drop"], ["503", "500"], ["429"], ["hang up"] * 3],
)
def test_what_is_cut_off_or_busy_is_asked_for_again(
    server: Server, tmp_path: Path, plan: list[str]
) -> None:
    server.plan = list(plan)
    command(server, tmp_path / "new")
    assert (tmp_path / "new" / NAME).read_bytes() == BODY
    assert names(tmp_path / "new") == ["checksums.json", NAME]
    assert len(server.seen) == 1 + len([act for act in plan if act != "chunked"])


def test_the_attempts_are_counted_and_the_waits_double(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.plan = ["503"] * 9
    message = f"{server.url}/{NAME}: the server answers 503; gave up after 8 attempts, run it again"
    with pytest.raises(UserError, match=message):
        command(server, tmp_path, "--retries", "7")
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert len(server.seen) == 8 and names(tmp_path) == []


def test_a_cut_file_is_noticed_where_the_library_passes_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """urllib3 1 does."""

    class Cut:
        status_code = 200
        headers = {"Content-Length": str(len(BODY))}

        def iter_content(self, size: int) -> Iterator[bytes]:
            yield BODY[:-1]

    monkeypatch.setattr(download.requests, "get", lambda *_, **__: contextlib.nullcontext(Cut()))
    with pytest.raises(UserError, match="the connection broke; gave up after 2 attempts"):
        main(["--out", str(tmp_path), "--only", NAME, "--retries", "1"])
    assert names(tmp_path) == []


def test_silence_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    server.plan = ["silence"]
    with pytest.raises(UserError, match="the server fell silent; gave up after 1 attempts"):
        command(server, tmp_path, "--timeout", "0.1", "--retries", "0")


@pytest.mark.parametrize("act", ["drip", "drip of headers"])
def test_a_server_that_drips_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr(download, "LONGEST_TIME", 0.3)
    server.plan = [act] * 9
    with pytest.raises(UserError, match=f"/{NAME}: not there after 0.3 seconds; run it again"):
        command(server, tmp_path, NAME.replace("train", "dev"))
    assert len(server.seen) == 1 and names(tmp_path) == []


@pytest.mark.parametrize("status", ["404", "403", "206"])
def test_a_missing_file_is_not_asked_for_again(server: Server, tmp_path: Path, status: str) -> None:
    server.plan = [status]
    with pytest.raises(UserError, match=f"answers {status}; check the address or give --base-url"):
        command(server, tmp_path)
    assert len(server.seen) == 1 and names(tmp_path) == []


@pytest.mark.parametrize("act", ["no length", "no length drop"])
def test_a_file_whose_end_is_not_said_is_refused(server: Server, tmp_path: Path, act: str) -> None:
    server.plan = [act]
    with pytest.raises(UserError, match="does not say where the file ends"):
        command(server, tmp_path)
    assert len(server.seen) == 1 and names(tmp_path) == []


def test_a_stream_beyond_the_largest_is_cut_off(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST", 2**20)
    server.plan = ["flood"]
    with pytest.raises(UserError, match="over 1 MiB came; check the address"):
        command(server, tmp_path)
    assert len(server.seen) == 1 and names(tmp_path) == []


def test_no_server_ends_after_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = f"^http://127.0.0.1:9/{next(iter(download.FILES))}: no connection; gave up after 2 "
    with pytest.raises(UserError, match=message) as failure:
        main(["--out", str(tmp_path), "--base-url", "http://127.0.0.1:9", "--retries", "1"])
    assert "\n" not in str(failure.value) and "more:" not in str(failure.value)
    assert f"0 of 12 course files in {tmp_path}: none" in capsys.readouterr().out


ODD_ADDRESSES = ["", "nowhere", "file:///etc/passwd", "http://", "http://[", "http://\0"]
ODD_ADDRESSES += ["http://a\udcff/", f"http://{'a' * 70}.b/", "http://user:\udcff@a/"]


@pytest.mark.parametrize("url", ODD_ADDRESSES, ids=ascii)
def test_an_odd_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="; check the address$") as failure:
        main(["--out", str(tmp_path), "--base-url", url, "--only", NAME])
    assert len(str(failure.value)) <= 300 and names(tmp_path) == []


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:port", "[", "\0"], ids=ascii)
@pytest.mark.parametrize("scheme", ["http://", "HTTP://", "", "ftp://"])
@pytest.mark.parametrize("password", ["secret", "s@secret", "s/secret", "\nsecret", "%secret"])
def test_a_password_is_never_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], scheme: str, password: str, address: str
) -> None:
    url = f"{scheme}me:{password}@{address}"
    with pytest.raises(UserError) as failure:
        main(["--out", str(tmp_path), "--base-url", url, "--retries", "0", "--only", NAME])
    assert "secret" not in str(failure.value) + "".join(capfd.readouterr())


def test_a_password_is_used_and_not_shown_where_the_file_is_wrong(
    server: Server, tmp_path: Path
) -> None:
    server.body = b"<html>"
    url = server.url.replace("//", "//me:secret@")
    with pytest.raises(UserError, match=f"^{server.url}/{NAME}: .* an HTML page") as failure:
        main(["--out", str(tmp_path), "--base-url", url, "--only", NAME])
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("flag", ["--baseurl {}", "--base={0} --b-url={0}", "--retries {}", "{}"])
def test_a_password_behind_a_wrong_flag_is_not_shown(flag: str) -> None:
    with pytest.raises(UserError, match="host/data.*; --help lists the flags$") as failure:
        main(flag.format("https://me:secret@host/data").split())
    assert "secret" not in str(failure.value)


# Into the folder
# --------------------------------------------------------------------------------------------------


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
    assert server.seen == [f"/{NAME}"]


def test_a_recorded_checksum_holds_for_the_next_download(server: Server, tmp_path: Path) -> None:
    command(server, tmp_path)
    (tmp_path / NAME).unlink()
    server.body = CHANGED
    with pytest.raises(UserError, match="checksum"):
        command(server, tmp_path)
    assert names(tmp_path) == ["checksums.json"]
    command(server, tmp_path, "--force")
    assert (tmp_path / NAME).read_bytes() == CHANGED
    command(server, tmp_path)


def test_a_different_file_is_left_alone_without_force(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("my notes\n")
    with pytest.raises(UserError, match="left alone, --force replaces it"):
        command(server, tmp_path)
    assert (tmp_path / NAME).read_text() == "my notes\n" and server.seen == []
    command(server, tmp_path, "--force")
    assert (tmp_path / NAME).read_bytes() == BODY


@pytest.mark.parametrize("body", [b"<!DOCTYPE html>\n<p>Sign in</p>\n", b" <HTML>"])
def test_an_html_page_is_no_csv(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    with pytest.raises(UserError, match="an HTML page"):
        command(server, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", BODY.replace(b"is_duplicate", b"label")])
def test_another_header_is_refused(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    (tmp_path / NAME).write_bytes(b"old")
    with pytest.raises(UserError, match="expected the header"):
        command(server, tmp_path, "--force")
    assert (tmp_path / NAME).read_bytes() == b"old" and names(tmp_path) == [NAME]


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


@pytest.mark.parametrize("text", ["{", "[]", "", "\0", '{"a": 3}', "[" * 10**5], ids=ascii)
def test_a_broken_record_is_named(server: Server, tmp_path: Path, text: str) -> None:
    (tmp_path / "checksums.json").write_text(text)
    with pytest.raises(UserError, match=r"checksums.json.*; delete it to start anew$"):
        command(server, tmp_path)
    assert server.seen == []


@pytest.mark.parametrize("name", [NAME, "checksums.json"])
def test_what_is_no_file_is_not_waited_for(server: Server, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: a pipe or a device"):
        command(server, tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}: a folder, expected a file"):
        command(server, tmp_path, *["--force"] * (name == NAME))


def test_folders_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    # Root may look into every folder, but not into one whose name is too long.
    (tmp_path / "file").write_text("not a folder")
    for folder, reason in (("file/below", "Not a directory"), ("x" * 300, "File name too long")):
        with pytest.raises(UserError, match=reason) as failure:
            command(server, tmp_path / folder, "--retries", "0")
        assert "\n" not in str(failure.value)


def test_what_a_kill_left_is_cleared(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".minbert-0123.new").write_text("half")
    command(server, tmp_path)
    assert names(tmp_path) == ["checksums.json", NAME]


def test_a_folder_s_name_that_is_no_utf_8(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(server, tmp_path / "\udcff")
    assert r"/\udcff: quora-train.csv" in capsys.readouterr().out


WRONG = {
    "--only some.csv": "--help lists the flags$",
    "--nonesuch": "--help lists the flags$",
    "--retries x": "--help lists the flags$",
    "--retries -1": "expected 0 to 1000$",
    "--retries 2000": "expected 0 to 1000$",
    "--timeout 0": "expected 0.001 to 86400$",
    "--timeout nan": "expected 0.001 to 86400$",
}


@pytest.mark.parametrize(("words", "message"), WRONG.items())
def test_a_wrong_flag_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(words.split())
