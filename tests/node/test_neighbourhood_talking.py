"""One request to another node, and its bounds. P14 and P15 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from diachunk.limits import Limits
from diachunk.node.around.talking import Reply, Talker, Unreached
from diachunk.node.guard import Guard
from diachunk.node.model import Address
from diachunk.sources.secret import Secret
from diachunk.store.store import Store
from fixtures.served import Served

LIMITS = Limits(stall_s=0.5, connect_timeout_s=0.5, patience_s=5.0)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def ask(handler: Handler, *, limit_bytes: int = 1000, grows: bool = False, wait_s: float = 0.0) -> Reply:
    async def asking() -> Reply:
        app = web.Application()
        app.router.add_get("/{any:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        talker = Talker(LIMITS)
        talker.start()
        address = Address("127.0.0.1", runner.addresses[0][1])
        try:
            return await talker.ask(address, "/x?y", limit_bytes=limit_bytes, grows=grows, wait_s=wait_s)
        finally:
            await talker.close()
            await runner.cleanup()

    return asyncio.run(asking())


def refusal(handler: Handler, *, limit_bytes: int = 1000, grows: bool = False) -> Unreached:
    began_at = time.monotonic()
    with pytest.raises(Unreached) as caught:
        ask(handler, limit_bytes=limit_bytes, grows=grows)
    assert time.monotonic() - began_at < 4.0
    return caught.value


async def good(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x" * 1000)


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(300):
        await response.write(b"x")
        await asyncio.sleep(0.05)
    return response


def test_an_answer_within_its_bounds_is_read() -> None:
    reply = ask(good)
    assert (reply.status, len(reply.body)) == (200, 1000)


def test_one_byte_more_is_refused_announced_or_not() -> None:
    async def announced(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 1001)

    async def unannounced(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 1001)
        return response

    assert "announces 1,001 bytes" in refusal(announced).detail
    assert refusal(unannounced).lies


def test_headers_are_16_kib_at_most() -> None:
    async def many(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x", headers={f"X-{number}": "x" * 1000 for number in range(17)})

    error = refusal(many)
    assert error.lies
    assert "headers" in error.detail


@pytest.mark.parametrize("grows", [False, True])
def test_one_byte_after_the_other_is_too_slow_also_for_a_body_that_may_be_large(grows: bool) -> None:
    refusal(dripping, limit_bytes=10**9, grows=grows)


def test_an_answer_may_take_as_long_to_begin_as_was_asked_for() -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.8)
        return web.Response(body=b"x")

    assert refusal(late).detail == "no answer in time"
    assert ask(late, wait_s=1.0).body == b"x"


def test_nobody_there_is_said_in_words() -> None:
    async def asking() -> None:
        talker = Talker(LIMITS)
        talker.start()
        try:
            await talker.ask(Address("127.0.0.1", 1), "/", limit_bytes=10)
        finally:
            await talker.close()

    with pytest.raises(Unreached, match="connection refused") as caught:
        asyncio.run(asking())
    assert not caught.value.lies


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(good).status == 200


@pytest.mark.parametrize(
    ("value", "ahead_s", "seen_there", "seen_here"),
    [
        (b"a secret of the lab", 1800, "its clock is 30 min ahead", ", and its clock is 30 min behind"),
        (b"a secret of the lab", -7200, "its clock is 120 min behind", ", and its clock is 120 min ahead"),
        (b"the secret of others", 0, "it knows another secret", "; this machine has another"),
        (b"the secret of others", 1800, "it knows another secret", ", and its clock is 30 min behind"),
        (None, 0, "it shows none", "; this machine has none"),
    ],
)
def test_both_ends_say_why_a_secret_is_not_taken(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    value: bytes | None,
    ahead_s: int,
    seen_there: str,
    seen_here: str,
) -> None:
    caplog.set_level("INFO", "diachunk")
    store = Store.open(tmp_path / "store")
    with Served(store, guard=Guard(secret=Secret(b"a secret of the lab"))) as served:
        talker = Talker(LIMITS, None if value is None else Secret(value), lambda: time.time() + ahead_s)

        async def ask() -> Reply:
            talker.start()
            try:
                return await talker.ask(Address("127.0.0.1", served.port), "/v1/node", limit_bytes=4096)
            finally:
                await talker.close()

        reply = asyncio.run(ask())
    assert reply.refusal == f"wants the lab's secret{seen_here}"
    assert f"the lab's secret is needed ({seen_there})" in caplog.text
