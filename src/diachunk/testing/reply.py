"""What a correct static file server answers, as values: `faults` bends them, `bad_server` sends them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower-case; `path` is as sent, with its query."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Ending(Enum):
    """What the server does once it has sent what it will."""

    KEEP = "keep the connection for the next request"
    CLOSE = "close it"
    RESET = "reset it (RST)"
    STALL = "say nothing more until the client hangs up"


@dataclass(frozen=True, slots=True)
class Resource:
    """What lies at a path: its whole bytes and its validators."""

    content: bytes
    etag: str
    modified: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to be sent.

    Attributes:
        sent_bytes: how much of the body goes out before `ending`; None is all of it.
        header_sent: False if `ending` comes before the status line.
        bytes_per_s: rate of the body; None is as fast as it goes.
        first: offset of the body's first byte in the resource.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    resource: Resource | None = None
    first: int = 0
    sent_bytes: int | None = None
    header_sent: bool = True
    bytes_per_s: int | None = None
    ending: Ending = Ending.KEEP

    def with_headers(self, **headers: str | None) -> Reply:
        """Sets headers (underscores stand for hyphens); None takes one out."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        merged = {name: value for name, value in {**self.headers, **changed}.items() if value is not None}
        return replace(self, headers=merged)

    def with_body(self, body: bytes) -> Reply:
        """Another body, with the Content-Length that is true of it."""
        return replace(self, body=body).with_headers(Content_Length=str(len(body)))


def plain(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
    """An answer that is not a resource."""
    return Reply(status, {"Content-Length": str(len(body)), **(headers or {})}, body)


def honest(request: Request, resource: Resource | None) -> Reply:
    """The answer of a correct static file server (RFC 9110, sections 13.1.5, 14.2, 15.3.7 and 15.5.17)."""
    if request.method not in ("GET", "HEAD"):
        return plain(405, b"", {"Allow": "GET, HEAD"})
    if resource is None:
        return plain(404, b"not found\n", {"Content-Type": "text/plain"})
    size = len(resource.content)
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": resource.etag,
        "Last-Modified": resource.modified,
    }
    span = _span(request, resource)
    if span is None:
        return Reply(200, {**headers, "Content-Length": str(size)}, resource.content, resource)
    first, end = span
    if first >= end:
        return replace(plain(416, b"", {"Content-Range": f"bytes */{size}"}), resource=resource)
    headers |= {"Content-Length": str(end - first), "Content-Range": f"bytes {first}-{end - 1}/{size}"}
    return Reply(206, headers, resource.content[first:end], resource, first)


def _span(request: Request, resource: Resource) -> tuple[int, int] | None:
    """The half-open range asked for, empty if it cannot be satisfied; None for the whole resource."""
    match = _RANGE.fullmatch(request.range or "")
    validator = request.headers.get("if-range", resource.etag)
    if request.method != "GET" or match is None or validator not in (resource.etag, resource.modified):
        return None
    size, (first, last) = len(resource.content), match.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
