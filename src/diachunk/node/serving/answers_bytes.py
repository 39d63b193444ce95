"""P7 and P8 of docs/protocol.md: bytes of files and chunks. P3: the text of a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from aiohttp import web

from diachunk.manifest.model import ChunkList
from diachunk.node.guard import asker
from diachunk.node.serving.ranges import Unsatisfiable, parse_range
from diachunk.node.serving.replies import digest_in, failure, full
from diachunk.node.serving.sending import Changed, Cut, Sender, opened
from diachunk.node.serving.state import STATE, State
from diachunk.node.serving.uploads import PIECE_BYTES, Full
from diachunk.node.stock.disk import identity_of
from diachunk.node.stock.holdings import FileHere
from diachunk.node.stock.stock import Piece

_BYTES = "application/octet-stream"
_NO_FILE = FileHere((b"", b""), 0, ChunkList.of(()))


async def blob(request: web.Request) -> web.StreamResponse:
    """P7."""
    state, digest = request.app[STATE], digest_in(request, "digest")
    size = state.shelf.blob_size(digest)
    if size is None:
        return failure(404, "no such file here")
    return await give_range(request, size, lambda start, end: state.shelf.blob(digest, start, end))


async def give_range(
    request: web.Request, size: int, find: Callable[[int, int], list[Piece] | None]
) -> web.StreamResponse:
    """What a request asks of a file of that size. `find`: where bytes of it lie; None if not all are here."""
    try:
        asked = parse_range(request.headers.get("Range"), size)
    except Unsatisfiable:
        refusal = failure(416, f"the file has {size} bytes")
        refusal.headers["Content-Range"] = f"bytes */{size}"
        return refusal
    start, end = asked or (0, size)
    pieces = find(start, end)
    if pieces is None:
        return failure(404, "not all of that is here")
    headers = {"Content-Type": _BYTES, "Accept-Ranges": "bytes"}
    if asked:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return await _give(
        request, request.app[STATE], pieces, web.StreamResponse(status=206 if asked else 200, headers=headers)
    )


async def chunk(request: web.Request) -> web.StreamResponse:
    """P8."""
    state = request.app[STATE]
    piece = state.shelf.chunk(digest_in(request, "digest"))
    if piece is None:
        return failure(404, "no such chunk here")
    return await _give(request, state, [piece], web.StreamResponse(headers={"Content-Type": _BYTES}))


async def _give(
    request: web.Request, state: State, pieces: Sequence[Piece], response: web.StreamResponse
) -> web.StreamResponse:
    response.content_length = sum(piece.size for piece in pieces)
    if request.method == "HEAD" or not response.content_length:
        await response.prepare(request)
        return response
    try:
        with await state.uploads.begin(asker(request)) as upload, opened(pieces[0]) as first:
            sender = Sender(request, response, state.limits.stall_s)
            await sender.head()
            await sender.send(pieces, first, upload, state.uploads)
            await response.write_eof()
    except Full as error:
        return full(error.retry_after_s)
    except Changed:
        for piece in pieces:
            state.shelf.suspect(piece)
        if not response.prepared:
            return failure(404, "it was here, and changed")
        _cut(request)
    except (Cut, OSError):
        _cut(request)
    return response


async def manifest(request: web.Request) -> web.StreamResponse:
    """P3."""
    state = request.app[STATE]
    path = state.shelf.manifest_text(digest_in(request, "id"))
    if path is None:
        return failure(404, "no such manifest here")
    try:
        status = os.stat(path)
    except OSError:
        return failure(404, "no such manifest here")
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = status.st_size
    if request.method == "HEAD":
        return response
    whole = Piece(_NO_FILE, (path,), identity_of(status), 0, status.st_size)
    try:
        with opened(whole) as file:
            sender = Sender(request, response, state.limits.stall_s)
            await sender.head()
            for offset in range(0, status.st_size, PIECE_BYTES):
                await sender.send_part(file, offset, min(PIECE_BYTES, status.st_size - offset), None)
            await response.write_eof()
    except Changed:
        return failure(404, "no such manifest here")
    except (Cut, OSError):
        _cut(request)
    return response


def _cut(request: web.Request) -> None:
    """What was sent is not what was promised: the connection must not look as if it were."""
    if request.transport is not None:
        request.transport.abort()
