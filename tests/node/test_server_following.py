"""P5 with `follow`: one answer that goes on, a line for each news."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError, web

from diachunk.bitmap import Bitmap
from diachunk.limits import Limits
from diachunk.manifest import Manifest
from diachunk.node.model import Want
from diachunk.store.store import Store
from fixtures.hostile_peer import Answer, HostilePeer
from fixtures.neighbour import Around
from fixtures.served import Served, until

LINES = "application/x-ndjson"


class _Lines:
    """An answer in lines, as anybody would read it."""

    def __init__(self, node: Served, path: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
        self._connection.request("GET", path)
        self.reply = self._connection.getresponse()
        assert (self.reply.status, self.reply.getheader("content-type")) == (200, LINES)

    def next(self) -> Any:
        line = self.reply.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._connection.close()


@contextmanager
def following(node: Served, manifest: Manifest, query: str = "follow=20&every=0.25") -> Iterator[_Lines]:
    lines = _Lines(node, f"/v1/manifests/{manifest.hex_id}/have?{query}")
    try:
        yield lines
    finally:
        lines.close()


def put(node: Served, manifest: Manifest, taken: int) -> None:
    node.call(lambda: node.state.wants.put(Want(manifest.id, ("model",), True, ((1, taken),))))


def test_everything_comes_first_and_then_what_is_new_as_it_comes(store: Store, manifest: Manifest) -> None:
    with Served(store) as node, following(node, manifest) as lines:
        first = lines.next()
        bits = Bitmap.from_bytes(base64.b64decode(first["full"]), first["bits"])
        assert (list(bits), first["wants"]) == ([0, 1, 2, 3], None)
        put(node, manifest, 1)
        second = lines.next()
        assert (second["gained"], second["wants"], second["taking"]) == ([], ["model"], [[1, 1]])
        assert second["version"] > first["version"]
        put(node, manifest, 2)
        assert lines.next()["taking"] == [[1, 2]]


def test_lines_are_as_far_apart_as_was_asked_for(store: Store, manifest: Manifest) -> None:
    with Served(store) as node, following(node, manifest, "follow=20&every=1.5") as lines:
        lines.next()
        started_at = time.monotonic()
        put(node, manifest, 1)
        assert lines.next()["taking"] == [[1, 1]]
        assert 1.0 < time.monotonic() - started_at < 10


def test_it_ends_when_its_time_is_up_with_one_line_at_least(store: Store, manifest: Manifest) -> None:
    with Served(store) as node:
        said = node.json(f"/v1/manifests/{manifest.hex_id}/have")
        since = f"{said['epoch']}:{said['version']}"
        started_at = time.monotonic()
        with following(node, manifest, f"since={since}&follow=0.5") as lines:
            assert lines.next()["gained"] == []
            assert lines.next() is None
        assert 0.4 < time.monotonic() - started_at < 5
        assert node.call(lambda: node.state.listeners) == 0


def test_who_leaves_frees_a_place_and_too_many_are_told_to_come_again(
    served: Served, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diachunk.node.serving.answers_have.LISTENERS_MAX", 1)
    with following(served, manifest) as lines:
        lines.next()
        assert served.ask(f"/v1/manifests/{manifest.hex_id}/have?follow=5")[0] == 503
    until(lambda: served.call(lambda: served.state.listeners) == 0)


def test_who_is_gone_before_the_next_line_is_no_error(
    served: Served, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a person who only fetches would see a traceback of the server's."""

    async def gone(self: web.StreamResponse, data: bytes) -> None:
        raise ClientConnectionResetError("Cannot write to closing transport")

    with monkeypatch.context() as patched:
        patched.setattr(web.StreamResponse, "write", gone)
        with following(served, manifest) as lines, suppress(http.client.HTTPException, ConnectionError):
            assert lines.next() is None
        until(lambda: served.call(lambda: served.state.listeners) == 0)
    with following(served, manifest) as lines:
        assert lines.next()
    assert [each.getMessage() for each in caplog.records if each.name.startswith("aiohttp")] == []


def test_who_does_not_read_is_let_go(
    store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diachunk.node.stock.feed.Feed.answer", lambda *given: bytes(8_000_000))
    limits = Limits(have_wait_s=0.5, stall_s=0.5)
    with Served(store, limits=limits) as node, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", node.port))
        path = f"/v1/manifests/{manifest.hex_id}/have?follow=20"
        deaf.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: node.call(lambda: node.state.listeners) == 1)
        until(lambda: node.call(lambda: node.state.listeners) == 0)
        until(lambda: not node.call(lambda: node.state.metrics.connections))


def test_nothing_more_is_said_of_a_checkpoint_that_is_not_here_any_more(
    store: Store, manifest: Manifest
) -> None:
    with Served(store) as node, following(node, manifest, "follow=3") as lines:
        assert "full" in lines.next()
        store.catalog.remove(manifest.id)
        until(lambda: node.ask(f"/v1/manifests/{manifest.hex_id}/have")[0] == 404)
        assert lines.next() is None


def test_a_node_that_closes_ends_it_at_once(store: Store, manifest: Manifest) -> None:
    with Served(store) as node:
        lines = _Lines(node, f"/v1/manifests/{manifest.hex_id}/have?follow=20")
        lines.next()
        started_at = time.monotonic()
    assert time.monotonic() - started_at < 3
    lines.close()


def test_head_and_nonsense(served: Served, manifest: Manifest) -> None:
    path = f"/v1/manifests/{manifest.hex_id}/have"
    assert served.ask(f"{path}?follow=20", method="HEAD")[1]["content-type"] == "application/json"
    for query in ("follow=x", "follow=-1", "follow=1&every=nan"):
        assert served.ask(f"{path}?{query}")[0] == 400


# --- the asking side ---------------------------------------------------------------------------------------


def in_lines(*texts: bytes, cut: bool = False, stays: bool = False) -> Answer:
    """Sends an honest line, and these. `{}` in one of them stands for an honest line."""

    async def answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": LINES})
        await response.prepare(request)
        for text in (b"{}", *texts):
            honest = json.dumps(peer.have()).encode() + b"\n"
            await response.write(honest if text == b"{}" else text)
        if stays:
            await peer.news(20)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return answer


@pytest.mark.parametrize(
    ("script", "lie"),
    [
        (in_lines(b"[" * 300_000), "sends more than"),
        (in_lines(b"x" * 300_000 + b"\n"), "sends more than"),
        (in_lines(*[b"{}"] * 200), "news all the time"),
        (in_lines(b"nonsense\n"), "no JSON"),
        (in_lines(b'{"epoch": 7}\n'), "epoch"),
    ],
    ids=["endless", "huge", "flood", "nonsense", "malformed"],
)
def test_hostile_lines_cost_their_sender_its_place(manifest: Manifest, script: Answer, lie: str) -> None:
    with HostilePeer(manifest, script={"have": script}) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        until(lambda: around.call(lambda: any(lie in each.lie for each in around.it.neighbours.values())))
        until(lambda: peer.address not in told.held)


def test_a_machine_that_goes_in_the_middle_is_gone_and_no_liar(manifest: Manifest) -> None:
    with HostilePeer(manifest, script={"have": in_lines(cut=True)}) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        until(lambda: ("leaves", peer.address) in told.log and ("returns", peer.address) in told.log)
        assert around.call(lambda: [each.lie for each in around.it.neighbours.values()]) == [""]


def test_an_answer_without_a_line_is_no_answer(manifest: Manifest) -> None:
    async def empty(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        return web.Response(body=b"", content_type="application/json")

    with HostilePeer(manifest, script={"have": empty}) as peer, Around(peer.address) as around:
        around.began(manifest)
        until(lambda: around.call(lambda: any(each.lie for each in around.it.neighbours.values())))
