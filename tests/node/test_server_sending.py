"""How bytes get into the socket: at once where it takes them, held back by nothing, in turn with other work."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import socket
import time
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.limits import MiB
from diachunk.node.serving import sending
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import BLOCK, DATA, DIGEST, keep, manifest_of

BLOB = f"/v1/blobs/{DIGEST.hex()}"
LARGE = tuple(bytes([number]) * (4 * MiB) for number in range(4))


@pytest.fixture
def large(tmp_path: Path) -> str:
    """The path of 16 MiB in a store at `tmp_path / "store"`."""
    store = Store.open(tmp_path / "store")
    keep(store, manifest_of("lab/large", {"model/a.bin": LARGE}), {"model/a.bin": LARGE})
    return f"/v1/blobs/{digest_of(b''.join(LARGE)).hex()}"


def test_a_reader_that_keeps_up_does_not_keep_the_loop_from_others(
    large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[int] = []
    seen: list[int] = []

    def taken_at_once(self: sending.Sender, transport: object, file: object, offset: int, size: int) -> int:
        seen.append(len(others))
        asyncio.get_running_loop().call_soon(others.append, offset)
        return size

    monkeypatch.setattr(sending.Sender, "_push", taken_at_once)
    with (
        Served(Store.open(tmp_path / "store")) as node,
        socket.create_connection(("127.0.0.1", node.port)) as reader,
    ):
        reader.sendall(f"GET {large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: len(seen) == len(LARGE))
    assert seen == [0, 1, 2, 3]


def test_a_reader_slower_than_the_node_gets_it_all(
    large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket takes some at once, and the loop sends the rest."""
    rest: list[int] = []
    send_rest = sending.Sender._send_rest

    async def noted(
        self: sending.Sender, transport: object, file: object, offset: int, *others: object
    ) -> None:
        rest.append(offset)
        await send_rest(self, transport, file, offset, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(sending.Sender, "_send_rest", noted)
    with Served(Store.open(tmp_path / "store")) as node, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        reader.connect(("127.0.0.1", node.port))
        reader.sendall(f"GET {large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: rest)
        with reader.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            assert digest_of(stream.read(16 * MiB)) == digest_of(b"".join(LARGE))
        assert rest[0] % (4 * MiB) != 0


def test_nothing_is_held_back_once_it_was_sent(served: Served) -> None:
    """A socket that stays corked keeps the last bytes for 200 ms: tcp(7)."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    started_at = time.monotonic()
    for method in ("GET", "HEAD") * 10:
        connection.request(method, BLOB, headers={"Range": "bytes=0-9"})
        assert connection.getresponse().read() == (DATA[:10] if method == "GET" else b"")
    connection.close()
    assert time.monotonic() - started_at < 1.5


def test_where_the_file_system_has_no_sendfile_the_bytes_are_copied(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **how: object) -> int:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "sendfile", refused)
    monkeypatch.setattr(os, "splice", refused, raising=False)
    assert served.ask(BLOB, headers={"Range": f"bytes=7-{BLOCK}"})[2] == DATA[7 : BLOCK + 1]


def test_a_file_that_becomes_shorter_ends_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sendfile", lambda *arguments: 0)
    monkeypatch.setattr(os, "splice", lambda *arguments, **how: 0, raising=False)
    with pytest.raises(http.client.IncompleteRead):
        served.ask(BLOB)
    assert served.call(lambda: served.state.uploads.turns.active) == 0


def test_what_one_reader_did_not_take_reaches_no_other(large: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    wanted = digest_of(b"".join(LARGE))
    with Served(store) as node, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        slow.connect(("127.0.0.1", node.port))
        slow.sendall(f"GET {large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: node.call(lambda: node.state.uploads.turns.active) == 1)
        for start in range(0, 16 * MiB, 4 * MiB):
            data = node.ask(large, headers={"Range": f"bytes={start + 5}-{start + MiB}"})[2]
            assert data == LARGE[start // (4 * MiB)][: MiB - 4]
        with slow.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            assert digest_of(stream.read(16 * MiB)) == wanted


def test_pipes_that_were_not_emptied_are_closed(large: str, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = 0
    with Served(Store.open(tmp_path / "store")) as node:
        for number in range(12):
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
                slow.connect(("127.0.0.1", node.port))
                slow.sendall(f"GET {large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                until(lambda: node.call(lambda: node.state.uploads.turns.active) == 1)
            until(lambda: node.call(lambda: node.state.uploads.turns.active) == 0)
            if number == 2:
                before = descriptors()
        until(lambda: descriptors() <= before + 2, 5.0)


@pytest.mark.skipif(not hasattr(os, "splice"), reason="Linux alone has splice")
def test_without_descriptors_for_a_pipe_bytes_are_sent_all_the_same(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pipe2", refused)
    assert served.ask(BLOB)[2] == DATA


def test_behind_tls_nothing_is_given_to_the_socket_itself() -> None:
    class Secure(asyncio.Transport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return {"socket": object(), "sslcontext": object()}[name]

    assert sending._plain_socket(Secure()) is None
