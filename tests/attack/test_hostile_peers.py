"""Peers that mean harm: the fetch ends well from the others, and says who lied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.errors import TransferIncomplete
from diachunk.limits import Limits
from diachunk.node.around.calling import IS_CALLED
from diachunk.schedule.health import Health
from diachunk.testing.servers import Nginx
from diachunk.transfer.progress import Notice
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.hostile_peer import Answer, HostilePeer
from fixtures.neighbour import Around, until
from fixtures.raw_answers import RAW, body_byte_by_byte
from fixtures.raw_server import RawServer
from fixtures.settings import QUICK, write_config
from fixtures.watch import Watched, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 8


@pytest.fixture(scope="module")
def blobs(small: Checkpoint) -> dict[Digest, bytes]:
    return {
        file.blake3: (small.root / component.name / file.path).read_bytes()
        for component, file in small.manifest.walk()
    }


@pytest.fixture
def honest(small: Checkpoint, blobs: dict[Digest, bytes]) -> Iterator[HostilePeer]:
    with HostilePeer(small.manifest, blobs, script={"blob": slowly}) as peer:
        yield peer


async def slowly(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    """Honest, but no faster than others can be tried meanwhile."""
    await asyncio.sleep(0.05)
    return await peer.honest("blob")(request, peer)


def fetch_from(small: Checkpoint, home: Path, *peers: HostilePeer, origin: str = "") -> Watched:
    began_at = time.monotonic()
    done = fetch(small, *([origin] if origin else []), home=home, peers=[each.address for each in peers])
    assert time.monotonic() - began_at < BOUND_S
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    return done


def health_of(done: Watched, peer: HostilePeer) -> Health:
    found: Health = next(each for each in done.report.sources if each.label == peer.address)
    return found


# --- bytes -----------------------------------------------------------------------------------------------------


def body(make: Callable[[bytes], bytes]) -> Answer:
    """The range that was asked for, bent."""

    async def answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        data = peer.blobs[bytes.fromhex(request.match_info["digest"])]
        span = request.http_range
        first, end = span.start or 0, span.stop or len(data)
        bent = make(data[first:end])
        response = web.StreamResponse(status=206)
        response.headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
        response.force_close()
        await response.prepare(request)
        await response.write(bent)
        return response

    return answer


async def no_answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def one_byte_a_second(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    data = peer.blobs[bytes.fromhex(request.match_info["digest"])]
    span = request.http_range
    first, end = span.start or 0, span.stop or len(data)
    response = web.StreamResponse(status=206)
    response.headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
    response.content_length = end - first
    await response.prepare(request)
    for at in range(first, end):
        await response.write(data[at : at + 1])
        await asyncio.sleep(1.0)
    return response


async def refuses(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    return web.json_response({"error": "not here"}, status=404)


async def redirects(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    raise web.HTTPFound("http://169.254.169.254/latest/meta-data")


def flipped(data: bytes) -> bytes:
    """Every chunk of it is wrong."""
    return data.translate(bytes(value ^ 1 for value in range(256)))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (body(flipped), "wrong bytes for"),
        (body(lambda data: data + b"more"), ""),
        (body(lambda data: data + bytes(40 * MIB)), ""),
        (body(lambda data: data[: len(data) // 2]), "early"),
        (body(lambda data: b""), "early"),
        (no_answer, ""),
        (one_byte_a_second, ""),
        (redirects, "redirects to 169.254.169.254"),
    ],
    ids=[
        "wrong",
        "too many",
        "far too many",
        "too few",
        "none",
        "no answer",
        "one byte a second",
        "redirect",
    ],
)
def test_bytes_that_are_not_what_was_asked_for_cost_a_retry_and_are_laid_at_the_liars_door(
    small: Checkpoint, blobs: dict[Digest, bytes], honest: HostilePeer, home: Path, answer: Answer, told: str
) -> None:
    with HostilePeer(small.manifest, blobs, script={"blob": answer, "chunk": answer}) as liar:
        done = fetch_from(small, home, liar, honest)
        if liar.asked["blob"]:
            health = health_of(done, liar)
            assert told == "early" or health.verified_bytes == 0
            assert told in f"{health.out} {health.last_fault}"
        # What came before a connection broke is kept, so one that always breaks off half-way still gets on.
        assert told == "early" or liar.asked["blob"] <= 8
    assert health_of(done, honest).verified_bytes > 0


def test_a_bitmap_that_lies_costs_requests_and_no_time(
    small: Checkpoint, blobs: dict[Digest, bytes], honest: HostilePeer, home: Path
) -> None:
    with HostilePeer(small.manifest, blobs, script={"blob": refuses, "chunk": refuses}) as liar:
        done = fetch_from(small, home, liar, honest)
        assert health_of(done, liar).verified_bytes == 0


def test_alone_with_a_liar_the_fetch_ends_in_time_and_names_it(
    small: Checkpoint, blobs: dict[Digest, bytes], home: Path
) -> None:
    with HostilePeer(small.manifest, blobs, script={"blob": body(flipped)}) as liar:
        with pytest.raises(TransferIncomplete) as caught:
            fetch(small, home=home, peers=[liar.address])
        assert liar.address in caught.value.message
        assert "wrong bytes" in caught.value.message


# --- what it says of itself --------------------------------------------------------------------------------------


def text(data: bytes, **headers: str) -> Answer:
    async def answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        return web.Response(body=data, headers=headers, content_type="application/json")

    return answer


def bent_have(**changes: object) -> Answer:
    async def answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        value = {**peer.have(), **changes}
        return web.json_response({key: each for key, each in value.items() if each != "gone"})

    return answer


def endless(first: bytes, piece: bytes) -> Answer:
    async def answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(first)
        while True:
            await response.write(piece)
            peer.asked["bytes"] += len(piece)

    return answer


async def dripping(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.1)


async def many_headers(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    return web.json_response({}, headers={f"X-{number}": "x" * 4000 for number in range(50)})


HAVES: dict[str, Answer] = {
    "endless": endless(b'{"full": "', b"A" * 65536),
    "one byte a second": dripping,
    "huge": bent_have(bits=2**60),
    "another size": bent_have(bits=3),
    "no base64": bent_have(full="=" * 8),
    "too long": bent_have(full="A" * 4000),
    "gained without asking": bent_have(full="gone", gained=[0]),
    "types": bent_have(epoch=7, version="x", wants=5),
    "wants no names": bent_have(wants=[{}]),
    "takes what is not there": bent_have(wants=["model"], taking=[[10**9, 1]]),
    "takes no numbers": bent_have(wants=["model"], taking=[["a", None], []]),
    "version": bent_have(version=-1),
    "no json": text(b"{" * 10),
    "nested": text(b"[" * 200_000),
    "a number without end": text(b'{"bits": ' + b"9" * 60_000 + b"}"),
    "no object": text(b"[]"),
    "not utf-8": text(b'{"\xff\xfe": 1}'),
    "packed": text(b"\x1f\x8b", **{"Content-Encoding": "gzip"}),
    "headers": many_headers,
    "redirect": redirects,
}


def test_bitmaps_that_are_none_are_refused_and_their_nodes_named(
    small: Checkpoint, blobs: dict[Digest, bytes], honest: HostilePeer, home: Path
) -> None:
    with ExitStack() as stack:
        liars = {
            name: stack.enter_context(HostilePeer(small.manifest, blobs, script={"have": have}))
            for name, have in HAVES.items()
        }
        honest.script["blob"] = until_asked("have", list(liars.values()))
        done = fetch_from(small, home, *liars.values(), honest)
        for name, liar in liars.items():
            assert not liar.asked["blob"], name
            assert 0 < liar.asked["have"] <= 4, name
            assert liar.asked["bytes"] < 32 * MIB, name  # what sockets buffer
    notices = " ".join(each.text for each in done.told.events if isinstance(each, Notice))
    silent = [name for name, liar in liars.items() if liar.address not in notices]
    assert silent in ([], ["one byte a second"])


def until_asked(kind: str, whom: Sequence[HostilePeer]) -> Answer:
    """Honest, once all of those were asked."""

    async def answer(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        for _ in range(150):
            if all(each.asked[kind] for each in whom):
                await asyncio.sleep(0.2)
                break
            await asyncio.sleep(0.02)
        return await peer.honest("blob")(request, peer)

    return answer


NODES: dict[str, Answer] = {
    "no json": text(b"<html>"),
    "nested": text(b'{"a":' * 100_000),
    "another kind": text(b'{"diachunk": 2}'),
    "types": text(b'{"diachunk": 1, "node": 7, "store": [], "manifests": 3}'),
    "endless": endless(b"{", b" " * 65536),
    "one byte a second": dripping,
    "redirect": redirects,
    "headers": many_headers,
}


def test_what_does_not_answer_as_a_node_is_none(
    small: Checkpoint, blobs: dict[Digest, bytes], honest: HostilePeer, home: Path
) -> None:
    with ExitStack() as stack:
        liars = {
            name: stack.enter_context(HostilePeer(small.manifest, blobs, script={"node": node}))
            for name, node in NODES.items()
        }
        honest.script["blob"] = until_asked("node", list(liars.values()))
        fetch_from(small, home, *liars.values(), honest)
        for name, liar in liars.items():
            assert liar.asked["node"], name
            assert not liar.asked["have"] + liar.asked["blob"] + liar.asked["peers"], name


def test_answers_that_are_no_http_end_in_time_and_are_no_nodes(
    small: Checkpoint, honest: HostilePeer
) -> None:
    limits = Limits(stall_s=0.6, connect_timeout_s=0.6)
    with ExitStack() as stack:
        servers = [stack.enter_context(RawServer(answer)) for answer in [*RAW, body_byte_by_byte]]
        names = [f"127.0.0.1:{server.port}" for server in servers]
        around = stack.enter_context(Around(*names, honest.address, limits=limits))
        told = around.began(small.manifest)
        until(lambda: honest.address in told.held, 5.0)
        until(lambda: all(around.states().get(name, IS_CALLED) != IS_CALLED for name in names), 10.0)
        states = around.states()
        assert all(
            state.isprintable() and 3 < len(state) < 200 for name, state in states.items() if name in names
        )
        assert list(told.held) == [honest.address]


# --- single flight ---------------------------------------------------------------------------------------------


def test_a_claim_to_take_chunks_that_never_come_is_taken_over(
    small: Checkpoint, blobs: dict[Digest, bytes], base: Path, home: Path
) -> None:
    write_config(base, {**QUICK, "takeover_s": 0.3})
    nothing = Bitmap(len({digest for _, file in small.manifest.walk() for _, digest in file.chunks}))
    with HostilePeer(small.manifest, blobs, has=nothing) as liar, Nginx(small.root) as origin:
        components = [each.name for each in small.manifest.components]
        liar.tell(wants=components, feeds=True, taking=[[0, 1000], [1, 1000]])
        began_at = time.monotonic()
        done = fetch(small, origin.url, home=home, peers=[liar.address], share=True, linger_s=0)
        assert time.monotonic() - began_at < 30
        assert_same_files(done.snapshot.directory, small)


# --- exchange ----------------------------------------------------------------------------------------------------


def test_thousands_of_fake_peers_by_exchange_do_not_make_us_call_a_victim(
    small: Checkpoint, blobs: dict[Digest, bytes], home: Path
) -> None:
    calls: list[int] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(1)
        writer.close()

    async def exchange(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        """Other addresses each time, all of the victim's machine, and of ones that P11 would not let in."""
        ports = [victim_port, 22, *range(20_000, 20_031)]
        listed = [{"host": "127.0.0.9", "port": port, "age_s": 0} for port in ports]
        listed += [{"host": f"8.8.8.{number}", "port": 8420, "age_s": 0} for number in range(31)]
        return web.json_response({"you": "203.0.113.5", "peers": listed})

    async def trickle(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        await asyncio.sleep(0.4)
        return await peer.honest("blob")(request, peer)

    script: dict[str, Answer] = {"peers": exchange, "blob": trickle}
    with HostilePeer(small.manifest, blobs, script=script) as liar:
        server = liar.run(asyncio.start_server(count, "127.0.0.9", 0))
        victim_port = server.sockets[0].getsockname()[1]
        fetch_from(small, home, liar)
        liar.run(_closed(server))
    # aiohttp asks once more where a connection is closed without a word.
    assert len(calls) <= 2, "the victim answered as no node once: it is left alone"


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
