"""Origins, redirects and manifests that mean harm: bounded, named, and without a wrong byte in the store."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import diachunk
from diachunk.digest import digest_of
from diachunk.errors import DiachunkError, ManifestError, TransferIncomplete, UsageError
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Redirect, always
from diachunk.testing.reply import Reply, Request
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    published,
    tree,
)
from fixtures.raw_server import Answer, RawServer
from fixtures.settings import QUICK, write_config
from fixtures.watch import Told, failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 4
SECRET = "hunter2-hunter2"


# --- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("liars", [1, 3])
def test_liars_are_put_out_and_named_and_no_wrong_byte_stays(
    small: Checkpoint, home: Path, liars: int
) -> None:
    servers = [BadServer(small.root, always(faults.Flip(-1))) for _ in range(liars)]
    try:
        with Nginx(small.root, rate_bps=12 * MIB) as good:
            done = fetch(small, *(each.url for each in servers), good.url, home=home)
        told = {each.label: each for each in done.report.sources}
        for server in servers:
            health = told[f"127.0.0.1:{server.port}"]
            assert health.verified_bytes == 0
            assert "wrong bytes for" in health.last_fault
            assert len(server.exchanges) <= 3 + QUICK.get("per_origin_start", 2)
    finally:
        for server in servers:
            server.close()
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)


def test_an_origin_that_is_wrong_in_one_place_only_is_still_used(small: Checkpoint, home: Path) -> None:
    def script(request: Request, number: int) -> faults.Fault | None:
        return faults.FlipInFile(9 * MIB) if request.path.endswith("00001-of-00003.safetensors") else None

    with BadServer(small.root, script) as mostly, Nginx(small.root, rate_bps=3 * MIB) as slow:
        done = fetch(small, mostly.url, slow.url, home=home)
        told = {each.label: each for each in done.report.sources}
        health = told[f"127.0.0.1:{mostly.port}"]
    assert health.verified_bytes > small.total_bytes / 2
    assert health.out == ""
    assert_same_files(done.snapshot.directory, small)


def test_an_origin_that_is_wrong_in_one_place_leaves_just_that_missing(small: Checkpoint, home: Path) -> None:
    with BadServer(small.root, always(faults.FlipInFile(9 * MIB))) as mostly:
        error = failed_fetch(small, mostly.url, home=home)
    assert "wrong bytes for model/model-0000" in error.message
    with Nginx(small.root) as good:
        fetch(small, good.url, home=home)
        assert good.bytes_sent() <= 3 * 4 * MIB


@dataclass(frozen=True, slots=True)
class Unannounced:
    """More than was asked for, without a Content-Length: the connection's end is the body's."""

    extra_bytes: int

    def apply(self, request: Request, reply: Reply) -> Reply:
        longer = reply.with_body(reply.body + bytes(self.extra_bytes)).with_headers(Content_Length=None)
        return faults.Close(len(longer.body)).apply(request, longer)


@pytest.mark.parametrize("extra_bytes", [1, 40 * MIB])
def test_bytes_after_the_range_are_refused_however_many(
    small: Checkpoint, home: Path, extra_bytes: int
) -> None:
    with BadServer(small.root, always(Unannounced(extra_bytes))) as origin:
        error = failed_fetch(small, origin.url, home=home)
    assert "more bytes than were asked for" in error.message
    assert blobs_of(home) == []


# --- HTTP ----------------------------------------------------------------------------------------------------


def endless_header(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\n")
    while not closing.is_set():
        connection.sendall(b"X-More: " + b"x" * 4000 + b"\r\n")


def endless_line(connection: socket.socket, closing: threading.Event) -> None:
    while not closing.is_set():
        connection.sendall(b"HTTP/1.1 206 " + b"x" * 100_000)


def header_byte_by_byte(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
    while not closing.wait(0.1):
        connection.sendall(b"x")


def many_interim_replies(connection: socket.socket, closing: threading.Event) -> None:
    while not closing.is_set():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def binary(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(bytes(range(256)) * 100)


def nothing_of_http(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def endless_chunk_size(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not closing.is_set():
        connection.sendall(b"0" * 10_000)


def negative_lengths(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: -5\r\nContent-Range: bytes -3--1/9\r\n\r\nabc")


def huge_numbers(connection: socket.socket, closing: threading.Event) -> None:
    number = b"9" * 5000
    connection.sendall(
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: %b\r\nContent-Range: bytes 0-%b/%b\r\n"
        b"Retry-After: %b\r\n\r\nabc" % (number, number, number, number)
    )


RAW: list[Answer] = [
    endless_header,
    endless_line,
    header_byte_by_byte,
    many_interim_replies,
    binary,
    nothing_of_http,
    endless_chunk_size,
    negative_lengths,
    huge_numbers,
]


@pytest.mark.parametrize("answer", RAW, ids=lambda each: each.__name__)
def test_an_answer_that_is_no_http_ends_in_time_and_is_named(
    small: Checkpoint, home: Path, answer: Answer
) -> None:
    with RawServer(answer) as origin:
        started_at = time.monotonic()
        error = failed_fetch(small, origin.url, home=home)
        assert time.monotonic() - started_at < BOUND_S
        assert f"127.0.0.1:{origin.port}: " in error.message
        assert len(error.message) < 500
    assert blobs_of(home) == []


@pytest.mark.parametrize("answer", RAW, ids=lambda each: each.__name__)
def test_an_answer_that_is_no_http_does_not_stop_a_good_origin(
    small: Checkpoint, home: Path, answer: Answer
) -> None:
    with RawServer(answer) as origin, Nginx(small.root) as good:
        started_at = time.monotonic()
        done = fetch(small, origin.url, good.url, home=home)
        assert time.monotonic() - started_at < BOUND_S
    assert_same_files(done.snapshot.directory, small)


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://[bad]/x",
        "http://127.0.0.1:99999999/x",
        "http://127.0.0.1:port/x",
        "http:///x",
        "http://",
        "//",
        "ftp://127.0.0.1/x",
        "javascript:alert(1)",
        "gopher://127.0.0.1/x",
        "data:text/plain,x",
        "http://\x7f\x80/",
        "http://" + "a" * 300 + ".invalid/",
        "http://a..b.invalid/",
        "http://xn--\xfc/",
    ],
)
def test_a_redirect_to_nonsense_is_a_fault_of_that_origin(
    small: Checkpoint, home: Path, location: str
) -> None:
    with BadServer(small.root, always(Redirect(location))) as origin:
        error = failed_fetch(small, origin.url, home=home)
        assert f"127.0.0.1:{origin.port}: " in error.message
        assert error.message.isprintable()


# --- where a manifest may lead -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001"]
)
def test_no_spelling_of_a_private_address_lets_a_manifest_reach_it(
    small: Checkpoint, home: Path, tmp_path: Path, host: str
) -> None:
    with BadServer(small.root) as inner:
        pointing = published(
            small.root, origins=[f"http://{host}:{inner.port}"], out=tmp_path / "pointing.json"
        )
        failed_fetch(pointing, home=home)
        assert inner.exchanges == []


@pytest.mark.parametrize("origin", ["file:///etc", "/etc", "ftp://example.org", "../x", "http://u:p@example.org"])
def test_a_manifest_that_names_another_kind_of_origin_is_refused(
    small: Checkpoint, home: Path, tmp_path: Path, origin: str
) -> None:
    document = json.loads(small.manifest_file.read_bytes())
    document.setdefault("hints", {})["origins"] = [origin]
    out = tmp_path / "pointing.json"
    out.write_text(json.dumps(document))
    with pytest.raises((ManifestError, UsageError)):
        diachunk.fetch(out, home=home)


def test_secrets_in_an_origin_stay_out_of_everything_that_is_said(small: Checkpoint, home: Path) -> None:
    told = Told()
    with BadServer(small.root, always(faults.Status(500))) as origin:
        error = None
        try:
            diachunk.fetch(
                small.target,
                origins=[f"{origin.url}/{{component}}/{{path}}?token={SECRET}"],
                home=home,
                progress=told,
            )
        except TransferIncomplete as caught:
            error = caught
        assert SECRET in origin.exchanges[0].request.path
    assert error is not None
    assert SECRET not in f"{error} {error!r} {error.args} {error.hint}"
    assert SECRET not in repr(told.events)
    assert not any(SECRET.encode() in each.read_bytes() for each in home.rglob("*") if each.is_file())


def test_a_login_in_an_origins_url_is_refused_without_repeating_it(small: Checkpoint, home: Path) -> None:
    with pytest.raises(UsageError, match="netrc") as caught:
        diachunk.fetch(small.target, origins=[f"http://ada:{SECRET}@127.0.0.1/"], home=home)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("origin", ["", "no/such/directory", "http://", "https:///x", "nosuch://x", "http://x/{component}"])
def test_an_origin_that_is_none_is_refused_before_anything_else(
    small: Checkpoint, home: Path, origin: str
) -> None:
    with pytest.raises(UsageError) as caught:
        diachunk.fetch(small.target, origins=[origin], home=home)
    assert caught.value.exit_code == 2


# --- manifests from a URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (faults.NotFound(), TransferIncomplete, "404"),
        (faults.Html(), ManifestError, None),
        (faults.Gzip(), DiachunkError, None),
        (faults.RedirectLoop(), TransferIncomplete, "redirects"),
        (faults.StallBeforeHeader(), TransferIncomplete, "no answer"),
        (faults.StallAfter(100), TransferIncomplete, None),
        (faults.ShortBody(10), TransferIncomplete, "early"),
        (faults.Reset(100), TransferIncomplete, None),
        (Redirect("http://[::1"), TransferIncomplete, None),
        (faults.ChangeFile(b"[" * 100_000), ManifestError, None),
        (faults.ChangeFile(b"{}"), ManifestError, None),
    ],
    ids=lambda each: type(each).__name__ if hasattr(each, "apply") else "",
)
def test_a_manifest_that_does_not_come_is_one_clear_line(
    small: Checkpoint, home: Path, fault: faults.Fault, kind: type[DiachunkError], words: str | None
) -> None:
    with BadServer(small.root.parent, always(fault)) as site:
        started_at = time.monotonic()
        with pytest.raises(kind, match=words) as caught:
            diachunk.fetch(f"{site.url}/{small.manifest_file.name}", home=home)
        assert time.monotonic() - started_at < BOUND_S + 4 * QUICK["patience_s"]
    assert str(caught.value).isprintable()
    assert f"127.0.0.1:{site.port}" in str(caught.value)


def body_byte_by_byte(connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not closing.wait(0.1):
        connection.sendall(b"{")


@pytest.mark.parametrize("answer", [*RAW, body_byte_by_byte], ids=lambda each: each.__name__)
def test_a_site_that_never_ends_its_manifest_is_given_up_in_time(
    home: Path, base: Path, answer: Answer
) -> None:
    write_config(base, {**QUICK, "patience_s": 0.3})
    with RawServer(answer) as site:
        started_at = time.monotonic()
        with pytest.raises(DiachunkError) as caught:
            diachunk.fetch(f"{site.url}/manifest.json", home=home)
        assert time.monotonic() - started_at < 6
    assert f"127.0.0.1:{site.port}" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_manifest_over_the_cap_is_not_read_to_its_end(small: Checkpoint, home: Path, base: Path) -> None:
    write_config(base, {**QUICK, "manifest_bytes_max": 2000})
    with BadServer(small.root.parent, always(faults.ChangeFile(bytes(50 * MIB)))) as site:
        with pytest.raises(ManifestError, match="over 2,000 bytes"):
            diachunk.fetch(f"{site.url}/{small.manifest_file.name}", home=home)
        assert site.body_bytes < 20 * MIB


# --- manifests that contradict each other --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rivals:
    """Two manifests that name one blob: what it is, and what somebody claims that it is."""

    honest: Checkpoint
    liar: Checkpoint


@pytest.fixture
def rivals(tmp_path: Path) -> Rivals:
    true, false = os.urandom(9 * MIB), os.urandom(9 * MIB)
    honest = published(tree(tmp_path / "honest", {"w.bin": true}), "lab/honest")
    lying = published(tree(tmp_path / "lying", {"w.bin": false}), "lab/liar")
    document = json.loads(lying.manifest_file.read_bytes())
    file = document["content"]["components"][0]["files"][0]
    file["blake3"] = digest_of(true).hex()
    file.pop("sha256")
    lying.manifest_file.write_text(json.dumps(document))
    return Rivals(honest, lying)


def test_a_liars_manifest_is_refused_where_the_true_blob_is(rivals: Rivals, home: Path) -> None:
    fetch(rivals.honest, str(rivals.honest.root), home=home)
    with pytest.raises(ManifestError, match="do not use this manifest"):
        diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    assert_store_is_right(home)
    assert_same_files(fetch(rivals.honest, home=home).snapshot.directory, rivals.honest)


def test_a_true_manifest_wins_where_a_liar_was_first(rivals: Rivals, home: Path) -> None:
    diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    done = diachunk.fetch(rivals.honest.target, origins=[str(rivals.honest.root)], home=home)
    assert_same_files(done.directory, rivals.honest)
    assert_store_is_right(home)
    with pytest.raises(ManifestError, match="do not use this manifest"):
        diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    assert_same_files(done.directory, rivals.honest)


def test_a_liars_unfinished_partial_does_no_harm(rivals: Rivals, home: Path) -> None:
    class Enough(Exception):
        pass

    def stop(event: diachunk.Event) -> None:
        if event.bytes:
            raise Enough

    with Nginx(rivals.liar.root, rate_bps=2 * MIB) as origin, pytest.raises(Enough):
        diachunk.fetch(rivals.liar.target, origins=[origin.url], home=home, progress=stop)
    done = diachunk.fetch(rivals.honest.target, origins=[str(rivals.honest.root)], home=home)
    assert_same_files(done.directory, rivals.honest)
    with pytest.raises(ManifestError, match="do not use this manifest"):
        diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    assert [each.name for each in blobs_of(home)] == [digest_of((done.directory / "w.bin").read_bytes()).hex()]
