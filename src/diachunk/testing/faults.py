"""What a bad server can do to an answer: one small class a fault, and helpers that choose the requests.

Nothing here touches a socket. A fault turns the honest `Reply` into another; `bad_server` sends what it says.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from diachunk.testing.reply import Ending, Reply, Request, Resource, honest, plain

_HTML = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>\n"


class Fault(Protocol):
    """One thing that goes wrong with an answer."""

    def apply(self, request: Request, reply: Reply) -> Reply:
        """Returns what is sent instead of the honest `reply`."""
        ...


@dataclass(frozen=True, slots=True)
class Status:
    """Any status, with this body."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"fault\n"

    def apply(self, request: Request, reply: Reply) -> Reply:
        return plain(self.code, self.body, self.headers)


class NotFound(Status):
    """404."""

    def __init__(self) -> None:
        super().__init__(404)


class Unauthorized(Status):
    """401, as a presigned URL that has expired: use it with `after`."""

    def __init__(self) -> None:
        super().__init__(401, {"WWW-Authenticate": 'Basic realm="test"'})


class RetryAfter(Status):
    """429 (or 503) with Retry-After."""

    def __init__(self, seconds: int = 1, code: int = 429) -> None:
        super().__init__(code, {"Retry-After": str(seconds)})


class Redirect(Status):
    """A redirect to `to`."""

    def __init__(self, to: str, code: int = 302) -> None:
        super().__init__(code, {"Location": to}, b"")


@dataclass(frozen=True, slots=True)
class RedirectLoop:
    """302 to the path that was asked for."""

    def apply(self, request: Request, reply: Reply) -> Reply:
        return plain(302, b"", {"Location": request.path})


@dataclass(frozen=True, slots=True)
class Reset:
    """RST: before the header, or after so many bytes of the body (the client may lose the last of those)."""

    after_bytes: int | None = None

    def apply(self, request: Request, reply: Reply) -> Reply:
        sent = self.after_bytes
        return replace(reply, sent_bytes=sent or 0, header_sent=sent is not None, ending=Ending.RESET)


@dataclass(frozen=True, slots=True)
class Close:
    """An orderly close after so many bytes of the body; None is before the header."""

    after_bytes: int | None = None

    def apply(self, request: Request, reply: Reply) -> Reply:
        sent = self.after_bytes
        return replace(reply, sent_bytes=sent or 0, header_sent=sent is not None, ending=Ending.CLOSE)


@dataclass(frozen=True, slots=True)
class StallBeforeHeader:
    """The request is read, and nothing comes."""

    def apply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, sent_bytes=0, header_sent=False, ending=Ending.STALL)


@dataclass(frozen=True, slots=True)
class StallAfter:
    """Header and so many bytes of the body, then nothing."""

    after_bytes: int

    def apply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, sent_bytes=self.after_bytes, ending=Ending.STALL)


@dataclass(frozen=True, slots=True)
class Drip:
    """The right bytes, at this rate."""

    bytes_per_s: int

    def apply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, bytes_per_s=self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class IgnoreRange:
    """200 with the whole body, whatever was asked, and no Accept-Ranges."""

    def apply(self, request: Request, reply: Reply) -> Reply:
        return honest(Request(request.method, request.path), reply.resource).with_headers(Accept_Ranges=None)


@dataclass(frozen=True, slots=True)
class ShortBody:
    """The right Content-Length, but the connection closes this much earlier."""

    missing_bytes: int = 1

    def apply(self, request: Request, reply: Reply) -> Reply:
        return Close(max(0, len(reply.body) - self.missing_bytes)).apply(request, reply)


@dataclass(frozen=True, slots=True)
class LongBody:
    """More than was asked for, with a Content-Length that says so."""

    extra_bytes: int = 1

    def apply(self, request: Request, reply: Reply) -> Reply:
        return reply.with_body(reply.body + bytes(self.extra_bytes))


@dataclass(frozen=True, slots=True)
class Html:
    """An HTML page in place of the data: with 200, or with 206 and exactly the length asked for."""

    code: int = 200

    def apply(self, request: Request, reply: Reply) -> Reply:
        if self.code != 206:
            return plain(self.code, _HTML, {"Content-Type": "text/html"})
        page = (_HTML * (len(reply.body) // len(_HTML) + 1))[: len(reply.body)]
        return replace(reply, status=206, body=page).with_headers(Content_Type="text/html")


@dataclass(frozen=True, slots=True)
class Flip:
    """All bits of one byte of the body are inverted: at this index, from the end if negative."""

    index: int = 0

    def apply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=_flipped(reply.body, self.index))


@dataclass(frozen=True, slots=True)
class FlipInFile:
    """As a file that is damaged at this offset: only answers that cover it are wrong."""

    offset: int

    def apply(self, request: Request, reply: Reply) -> Reply:
        index = self.offset - reply.first
        return replace(reply, body=_flipped(reply.body, index)) if index >= 0 else reply


def _flipped(body: bytes, index: int) -> bytes:
    if not -len(body) <= index < len(body):
        return body
    changed = bytearray(body)
    changed[index] ^= 0xFF
    return bytes(changed)


@dataclass(frozen=True, slots=True)
class WrongContentRange:
    """206 with the bytes asked for, labelled as another range."""

    shift_bytes: int = 1

    def apply(self, request: Request, reply: Reply) -> Reply:
        size = len(reply.resource.content) if reply.resource else len(reply.body)
        first = reply.first + self.shift_bytes
        label = f"bytes {first}-{first + len(reply.body) - 1}/{size}"
        return replace(reply, status=206).with_headers(Content_Range=label)


@dataclass(frozen=True, slots=True)
class WrongContentLength:
    """The whole body, under a Content-Length that is off by this much; then the connection closes."""

    delta_bytes: int = 1

    def apply(self, request: Request, reply: Reply) -> Reply:
        claimed = max(0, len(reply.body) + self.delta_bytes)
        return replace(reply, ending=Ending.CLOSE).with_headers(Content_Length=str(claimed))


@dataclass(frozen=True, slots=True)
class Chunked:
    """The right bytes in chunked transfer coding (RFC 9112, section 7.1), without a Content-Length."""

    chunk_bytes: int = 65536

    def apply(self, request: Request, reply: Reply) -> Reply:
        pieces = []
        for first in range(0, len(reply.body), self.chunk_bytes):
            piece = reply.body[first : first + self.chunk_bytes]
            pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        coded = b"".join([*pieces, b"0\r\n\r\n"])
        return replace(reply, body=coded).with_headers(Content_Length=None, Transfer_Encoding="chunked")


@dataclass(frozen=True, slots=True)
class Gzip:
    """The right bytes under Content-Encoding: gzip, whether or not the client takes it."""

    def apply(self, request: Request, reply: Reply) -> Reply:
        return reply.with_body(gzip.compress(reply.body, 1, mtime=0)).with_headers(Content_Encoding="gzip")


@dataclass(frozen=True, slots=True)
class ChangeFile:
    """The file has become another, with validators of its own: use it with `after`."""

    content: bytes

    def apply(self, request: Request, reply: Reply) -> Reply:
        changed = Resource(self.content, '"changed"', "Thu, 01 Jan 2026 00:00:00 GMT")
        return honest(request, changed)


Script: TypeAlias = Callable[[Request, int], Fault | None]
"""(request, its number from 1 in order of arrival) -> what goes wrong with it, or None."""


def always(fault: Fault) -> Script:
    """Every request."""
    return lambda request, number: fault


def first(count: int, fault: Fault) -> Script:
    """The first `count` requests."""
    return lambda request, number: fault if number <= count else None


def after(count: int, fault: Fault) -> Script:
    """All but the first `count` requests."""
    return lambda request, number: fault if number > count else None


def every(count: int, fault: Fault) -> Script:
    """Each request whose number is a multiple of `count`."""
    return lambda request, number: fault if number % count == 0 else None
