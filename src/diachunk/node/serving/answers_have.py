"""P5 and P6 of docs/protocol.md: what is here of a checkpoint, now and as it grows."""

from __future__ import annotations

import base64
import re

from aiohttp import web

from diachunk.digest import parse_digest
from diachunk.node.serving.replies import Refused, answer, body, digest_in, encoded, failure, full
from diachunk.node.serving.state import STATE, State
from diachunk.node.stock.feed import Feed

LISTENERS_MAX = 64
DIGESTS_MAX = 8192
_SINCE = re.compile(r"([0-9a-f]{16}):(\d{1,15})", re.ASCII)
_WAIT = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)


async def have(request: web.Request) -> web.Response:
    """P5."""
    state = request.app[STATE]
    manifest_id = digest_in(request, "id")
    feed = state.shelf.feed(manifest_id)
    if feed is None:
        return failure(404, "no such manifest here")
    feed.want(state.wants.of(manifest_id))
    match = _SINCE.fullmatch(request.query.get("since", ""))
    epoch, version = (match[1], int(match[2])) if match else ("", -1)
    wait_s = _wait_s(request, state)
    if wait_s and epoch == feed.epoch and version == feed.version:
        if state.listeners >= LISTENERS_MAX:
            return full()
        await _until_told(state, feed, wait_s)
        if state.shelf.feed(manifest_id) is not feed:
            return failure(404, "no such manifest here any more")
    return encoded(feed.answer(epoch, version))


def _wait_s(request: web.Request, state: State) -> float:
    text = request.query.get("wait", "0")
    if not _WAIT.fullmatch(text):
        raise Refused(400, "wait: not a number of seconds")
    return min(float(text), state.limits.have_wait_s)


async def _until_told(state: State, feed: Feed, wait_s: float) -> None:
    state.listeners += 1
    try:
        await feed.told.wait(wait_s)
    finally:
        state.listeners -= 1


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
