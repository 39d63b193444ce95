"""The misbehaving server: correct when told nothing, and each fault is the one that curl reports."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.testing.bad_server import BadServer, refused_port
from diachunk.testing.faults import (
    ChangeFile,
    Chunked,
    Close,
    Drip,
    Fault,
    Flip,
    FlipInFile,
    Gzip,
    Html,
    IgnoreRange,
    LongBody,
    NotFound,
    Redirect,
    RedirectLoop,
    Reset,
    RetryAfter,
    ShortBody,
    StallAfter,
    StallBeforeHeader,
    Status,
    Unauthorized,
    WrongContentLength,
    WrongContentRange,
    after,
    always,
    every,
    first,
)

DATA = bytes(range(256)) * 400
SIZE = len(DATA)
RANGE = ("-r", "1000-50999")
WANTED = DATA[1000:51000]
OK, TOO_MANY_REDIRECTS, PARTIAL, TIMED_OUT, EMPTY, RECV_ERROR = 0, 47, 18, 28, 52, 56


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BadServer]:
    (tmp_path / "file").write_bytes(DATA)
    with BadServer(tmp_path) as server:
        yield server


def curl(server: BadServer, *options: str, path: str = "/file") -> tuple[int, bytes]:
    """Returns curl's exit code and what it wrote; `-i` adds the headers."""
    done = subprocess.run(["curl", "-s", "-m", "20", *options, server.url + path], capture_output=True)
    return done.returncode, done.stdout


def fetch(server: BadServer, fault: Fault, *options: str) -> tuple[int, str, bytes]:
    """One faulty Range request: curl's exit code, the headers in lower case, the body."""
    server.script = always(fault)
    code, output = curl(server, "-i", *RANGE, *options)
    head, _, body = output.partition(b"\r\n\r\n")
    return code, head.decode().lower(), body


def test_whole_file_head_and_ranges_are_served_as_http_says(server: BadServer) -> None:
    assert curl(server) == (OK, DATA)
    assert curl(server, *RANGE) == (OK, WANTED)
    assert curl(server, "-r", "102000-") == (OK, DATA[102000:])
    assert curl(server, "-r", "-5") == (OK, DATA[-5:])
    assert curl(server, "-r", "0-999999999") == (OK, DATA)
    assert curl(server, "-r", "9-3") == (OK, DATA)
    code, head = curl(server, "-I")
    assert code == OK
    assert f"Content-Length: {SIZE}\r\n".encode() in head
    assert b"Accept-Ranges: bytes" in head
    _, past_the_end = curl(server, "-i", "-r", f"{SIZE}-")
    assert past_the_end.startswith(b"HTTP/1.1 416")
    assert f"Content-Range: bytes */{SIZE}".encode() in past_the_end


def test_if_range_gives_the_range_only_while_the_file_is_the_same(server: BadServer) -> None:
    _, head = curl(server, "-I")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    for validator in (fields["ETag"], fields["Last-Modified"]):
        assert curl(server, *RANGE, "-H", f"If-Range: {validator}") == (OK, WANTED)
    assert curl(server, *RANGE, "-H", 'If-Range: "other"') == (OK, DATA)


def test_nothing_outside_the_root_is_served(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("secret")
    with BadServer(tmp_path / "root") as server:
        for path in ("/../secret", "/%2e%2e/secret", "/", "//secret", "/missing", "/%00"):
            _, output = curl(server, "--path-as-is", "-i", path=path)
            assert output.startswith(b"HTTP/1.1 404"), path


def test_one_connection_carries_many_requests_and_all_are_recorded(server: BadServer) -> None:
    curl(server, "-A", "me", *RANGE, server.url + "/file?q=1", server.url + "/nothing")
    seen = server.exchanges
    assert [exchange.number for exchange in seen] == [1, 2, 3]
    assert {exchange.connection for exchange in seen} == {1}
    assert [exchange.request.path for exchange in seen] == ["/file?q=1", "/nothing", "/file"]
    assert [exchange.status for exchange in seen] == [206, 404, 206]
    assert seen[0].request.range == "bytes=1000-50999"
    assert seen[0].request.headers["user-agent"] == "me"
    assert server.body_bytes == 2 * len(WANTED) + seen[1].body_bytes


def test_a_method_with_a_body_is_refused_and_its_body_is_no_request(server: BadServer) -> None:
    _, output = curl(server, "-i", "-d", "GET /file HTTP/1.1")
    assert output.startswith(b"HTTP/1.1 405")
    assert len(server.exchanges) == 1


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        (NotFound(), 404, ""),
        (Status(503, {"Retry-After": "7"}), 503, "retry-after: 7"),
        (Unauthorized(), 401, "www-authenticate"),
        (RetryAfter(3), 429, "retry-after: 3"),
        (Redirect("http://127.0.0.1:1/x", 307), 307, "location: http://127.0.0.1:1/x"),
        (Html(), 200, "content-type: text/html"),
        (IgnoreRange(), 200, f"content-length: {SIZE}"),
    ],
)
def test_status_faults(server: BadServer, fault: Fault, status: int, header: str) -> None:
    code, head, body = fetch(server, fault)
    assert code == OK
    assert head.startswith(f"http/1.1 {status} ")
    assert header in head
    assert body != WANTED


def test_a_reset_before_the_header_leaves_nothing(server: BadServer) -> None:
    assert fetch(server, Reset()) == (RECV_ERROR, "", b"")


def test_a_reset_in_the_body_is_seen_as_one(server: BadServer) -> None:
    code, head, body = fetch(server, Reset(after_bytes=100))
    assert code == RECV_ERROR
    assert len(body) <= 100
    assert head == "" or "content-length: 50000" in head


def test_a_close_before_the_header_is_an_empty_reply(server: BadServer) -> None:
    assert fetch(server, Close()) == (EMPTY, "", b"")


@pytest.mark.parametrize(("fault", "kept"), [(Close(100), 100), (ShortBody(7), 49_993)])
def test_a_body_that_ends_early_keeps_its_true_content_length(
    server: BadServer, fault: Fault, kept: int
) -> None:
    code, head, body = fetch(server, fault)
    assert (code, body) == (PARTIAL, WANTED[:kept])
    assert "content-length: 50000" in head


def test_a_stall_ends_only_by_the_clients_patience(server: BadServer) -> None:
    assert fetch(server, StallBeforeHeader(), "-m", "0.3") == (TIMED_OUT, "", b"")
    code, _, body = fetch(server, StallAfter(100), "-m", "0.3")
    assert (code, body) == (TIMED_OUT, WANTED[:100])


def test_a_drip_gives_the_right_bytes_at_its_rate(server: BadServer) -> None:
    started_s = time.monotonic()
    code, _, body = fetch(server, Drip(100_000))
    assert (code, body) == (OK, WANTED)
    assert time.monotonic() - started_s > 0.4


def test_a_long_body_has_more_than_was_asked_for(server: BadServer) -> None:
    code, head, body = fetch(server, LongBody(5))
    assert (code, body) == (OK, WANTED + bytes(5))
    assert "content-length: 50005" in head
    assert "content-range: bytes 1000-50999/" in head


def test_html_can_pose_as_the_range(server: BadServer) -> None:
    code, head, body = fetch(server, Html(206))
    assert code == OK
    assert head.startswith("http/1.1 206 ")
    assert "content-range: bytes 1000-50999/" in head
    assert len(body) == len(WANTED)
    assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("fault", "changed"), [(Flip(3), [3]), (Flip(-1), [49_999]), (FlipInFile(1003), [3]), (FlipInFile(5), [])]
)
def test_a_flip_changes_that_byte_alone(server: BadServer, fault: Fault, changed: list[int]) -> None:
    _, _, body = fetch(server, fault)
    assert len(body) == len(WANTED)
    assert [i for i in range(len(WANTED)) if body[i] != WANTED[i]] == changed


def test_wrong_labels_are_wrong(server: BadServer) -> None:
    _, head, body = fetch(server, WrongContentRange(10))
    assert body == WANTED
    assert f"content-range: bytes 1010-51009/{SIZE}" in head
    code, head, body = fetch(server, WrongContentLength(10))
    assert (code, body) == (PARTIAL, WANTED)
    assert "content-length: 50010" in head
    _, head, body = fetch(server, WrongContentLength(-10))
    assert body == WANTED[:-10]


def test_codings_carry_the_right_bytes(server: BadServer) -> None:
    code, head, body = fetch(server, Chunked(999))
    assert (code, body) == (OK, WANTED)
    assert "transfer-encoding: chunked" in head
    assert "content-length" not in head
    code, head, body = fetch(server, Gzip())
    assert "content-encoding: gzip" in head
    assert body[:2] == b"\x1f\x8b"
    assert fetch(server, Gzip(), "--compressed")[2] == WANTED


def test_a_redirect_loop_never_arrives(server: BadServer) -> None:
    server.script = always(RedirectLoop())
    code, _ = curl(server, "-L", "--max-redirs", "4")
    assert code == TOO_MANY_REDIRECTS
    assert len(server.exchanges) == 5


def test_a_changed_file_has_other_bytes_and_validators(server: BadServer) -> None:
    server.script = after(1, ChangeFile(b"n" * SIZE))
    _, before = curl(server, "-i", *RANGE)
    _, now = curl(server, "-i", *RANGE)
    etags = [text.split(b"ETag: ")[1].split(b"\r\n")[0] for text in (before, now)]
    assert etags[0] != etags[1]
    assert now.endswith(b"n" * 50_000)
    assert curl(server, *RANGE, "-H", f"If-Range: {etags[0].decode()}") == (OK, b"n" * SIZE)


def test_helpers_choose_the_requests_they_say(server: BadServer) -> None:
    for script, expected in (
        (first(2, NotFound()), [404, 404, 200, 200]),
        (after(2, NotFound()), [200, 200, 404, 404]),
        (every(2, NotFound()), [200, 404, 200, 404]),
        (always(NotFound()), [404, 404, 404, 404]),
    ):
        with BadServer(server._root, script) as scripted:
            url = scripted.url + "/file"
            curl(scripted, url, url, url)
            assert [exchange.status for exchange in scripted.exchanges] == expected


@pytest.mark.parametrize("fault", [StallBeforeHeader(), StallAfter(10), Drip(10)])
def test_close_wakes_everything_at_once(tmp_path: Path, fault: Fault) -> None:
    (tmp_path / "file").write_bytes(DATA)
    server = BadServer(tmp_path, always(fault))
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    for client in clients:
        client.sendall(b"GET /file HTTP/1.1\r\n\r\n")
    server.wait_for_requests(5)
    threads_before = threading.active_count()
    started_s = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - started_s < 1.0
    assert threads_before - threading.active_count() == 6
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    for client in clients:
        client.close()


def test_waiting_for_requests_that_do_not_come_says_how_many_did(server: BadServer) -> None:
    curl(server)
    with pytest.raises(TimeoutError, match="1 of 2"):
        server.wait_for_requests(2, timeout_s=0.01)


def test_a_refused_port_refuses_and_cannot_be_taken() -> None:
    port = refused_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    assert refused_port() != port
