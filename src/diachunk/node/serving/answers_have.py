"""P5 and P6 of docs/protocol.md: what is here of a checkpoint, now and as it grows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Iterator

from aiohttp import web

from diachunk.digest import parse_digest
from diachunk.node.serving.replies import Refused, answer, body, digest_in, encoded, failure, full
from diachunk.node.serving.state import STATE, State
from diachunk.node.stock.feed import Feed

LISTENERS_MAX = 128
COME_AGAIN_S = 5
"""For those beyond: two hundred machines that are refused each second cost a node more than its listeners do."""
DIGESTS_MAX = 8192
_SINCE = re.compile(r"([0-9a-f]{16}):(\d{1,15})", re.ASCII)
LINES = "application/x-ndjson"
_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)


async def have(request: web.Request) -> web.StreamResponse:
    """P5."""
    state = request.app[STATE]
    manifest_id = digest_in(request, "id")
    feed = state.shelf.feed(manifest_id)
    if feed is None:
        return failure(404, "no such manifest here")
    feed.want(state.wants.of(manifest_id))
    match = _SINCE.fullmatch(request.query.get("since", ""))
    epoch, version = (match[1], int(match[2])) if match else ("", -1)
    follow_s = _seconds(request, state, "follow")
    wait_s = _seconds(request, state, "wait")
    if follow_s and request.method == "GET":
        return await _follow(request, feed, epoch, version, follow_s)
    if wait_s and epoch == feed.epoch and version == feed.version:
        if state.listeners >= LISTENERS_MAX:
            return full(COME_AGAIN_S)
        with _listening(state):
            await feed.told.wait(wait_s)
        if state.shelf.feed(manifest_id) is not feed:
            return failure(404, "no such manifest here any more")
    return encoded(feed.answer(epoch, version))


def _seconds(request: web.Request, state: State, name: str) -> float:
    text = request.query.get(name, "0")
    if not _SECONDS.fullmatch(text):
        raise Refused(400, f"{name}: not a number of seconds")
    return min(float(text), state.limits.have_wait_s)


@contextlib.contextmanager
def _listening(state: State) -> Iterator[None]:
    state.listeners += 1
    try:
        yield
    finally:
        state.listeners -= 1


async def _follow(
    request: web.Request, feed: Feed, epoch: str, version: int, follow_s: float
) -> web.StreamResponse:
    """Answer after answer, a line each, with what is new since the one before; one at least.

    A question costs both sides twenty times what a line does, and a swarm asks for news all the time.
    """
    state = request.app[STATE]
    every_s = max(_seconds(request, state, "every"), state.limits.have_interval_s)
    if state.listeners >= LISTENERS_MAX:
        return full(COME_AGAIN_S)
    now = asyncio.get_running_loop().time
    response = web.StreamResponse(headers={"Content-Type": LINES})
    ends_at = now() + follow_s
    with _listening(state):
        try:
            async with asyncio.timeout(follow_s + state.limits.stall_s):  # who does not read is let go
                await response.prepare(request)
                told = False
                while not told or now() < ends_at:
                    if (epoch, version) == (feed.epoch, feed.version):
                        rang = await feed.told.wait(max(0.0, ends_at - now()))
                        if rang and (epoch, version) == (feed.epoch, feed.version):
                            break  # the node is closing
                    if state.shelf.feed(feed.entry.id) is not feed:
                        break  # it is here no more, or not for everybody: asked again, the answer is 404
                    text = feed.answer(epoch, version)
                    epoch, version, told = feed.epoch, feed.version, True
                    await response.write(text + b"\n")
                    await asyncio.sleep(min(every_s, max(0.0, ends_at - now())))
                await response.write_eof()
        except (TimeoutError, ConnectionError):  # or is gone: there is nobody to tell, and nothing to log
            if request.transport is not None:
                request.transport.abort()
    return response


async def have_digests(request: web.Request) -> web.Response:
    """P6."""
    state = request.app[STATE]
    given = (await body(request)).get("digests")
    if not isinstance(given, list):
        raise Refused(400, "digests: not a list")
    if len(given) > DIGESTS_MAX:
        raise Refused(413, f"at most {DIGESTS_MAX} digests")
    try:
        digests = [parse_digest(each) for each in given]
    except ValueError:
        raise Refused(400, "digests: not all are 64 lower-case hex digits") from None
    bits = state.shelf.have_digests(digests)
    return answer({"bits": bits.length, "full": base64.b64encode(bits.to_bytes()).decode("ascii")})
