"""Small JSON answers. P1 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from diachunk.digest import Digest, parse_digest
from diachunk.limits import MiB

BODY_BYTES_MAX = MiB
ARRIVES_S = 10.0


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def answer(value: object) -> web.Response:
    return encoded(json.dumps(value, separators=(",", ":")).encode())


def encoded(text: bytes, status: int = 200) -> web.Response:
    return web.Response(body=text, status=status, content_type="application/json")


def failure(status: int, message: str) -> web.Response:
    return encoded(json.dumps({"error": message}).encode(), status)


def full(retry_after_s: int = 1) -> web.Response:
    reply = failure(503, "full; come again")
    reply.headers["Retry-After"] = str(retry_after_s)
    return reply


def digest_in(request: web.Request, name: str) -> Digest:
    """A digest of the path.

    Raises:
        Refused: 400.
    """
    try:
        return parse_digest(request.match_info[name])
    except ValueError:
        raise Refused(400, "not a digest: 64 lower-case hex digits") from None


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request, bounded in size and time.

    Raises:
        Refused: 400, 408, 413.
    """
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise Refused(413, "a body is at most 1 MiB")
    try:
        async with asyncio.timeout(ARRIVES_S):
            text = await request.read()
    except TimeoutError:
        raise Refused(408, "the body did not come in time") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "not a JSON object")
    return value
