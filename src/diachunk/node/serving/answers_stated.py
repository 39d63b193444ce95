"""P19 and P20 of docs/protocol.md: what is here of files of which only the whole is stated."""

from __future__ import annotations

from aiohttp import web

from diachunk.node.serving.answers_bytes import give_range
from diachunk.node.serving.replies import answer, digest_in, failure
from diachunk.node.serving.state import STATE

FOUND_MAX = 16


async def manifests(request: web.Request) -> web.Response:
    """P20."""
    found = request.app[STATE].shelf.found_by(digest_in(request, "id"))
    return answer({"manifests": [each.id.hex() for each in found[:FOUND_MAX]]})


async def pieces(request: web.Request) -> web.StreamResponse:
    """P19."""
    stated, key = request.app[STATE].shelf.stated, digest_in(request, "key")
    size = stated.size(key)
    if size is None:
        return failure(404, "no such file here")
    return await give_range(request, size, lambda start, end: stated.pieces(key, start, end))
