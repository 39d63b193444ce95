"""What a server says in its header: status, ranges, lengths, waits and redirects."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from diachunk.sources.base import SourceFault
from diachunk.sources.context import SourceContext
from diachunk.sources.http import HttpOrigin
from diachunk.sources.reply import (
    check_range,
    check_stream,
    content_length,
    is_page,
    parse_content_range,
    retry_after_s,
)
from fuzz.checks import Reader, bounded

DICTIONARY = (
    b"bytes 0-9/10", b"bytes */10", b"/*", b"Mon, 01 Jan 2024 00:00:00 GMT", b"-0000", b"gzip", b"text/html",
    b"identity", b"https://", b"http://", b"//[", b"]", b"@", b"99999999999999999999", b":99999", b"\xb2",
)  # fmt: skip
_STATUSES = (200, 206, 301, 401, 403, 404, 407, 410, 416, 429, 500, 503)
_HEADERS = ("Content-Range", "Retry-After", "Content-Length", "Content-Encoding", "Content-Type")
_HERE = "https://mirror.example/a/b"
_ORIGIN = HttpOrigin("https://mirror.example/a", SourceContext(named_by_user=False))


def fuzz_one(data: bytes) -> None:
    """Four bytes (status, first, size, file size), then a line for each header, then a Location."""
    reader = Reader(data)
    status, first, size, extra = (reader.byte() for _ in range(4))
    status = _STATUSES[status % len(_STATUSES)]
    # As http.client hands them on.
    headers = {name: reader.line().decode("latin-1") for name in _HEADERS}
    _check_parts(headers, len(data))
    size, file_size = size + 1, first + size + 1 + extra
    _, refused = bounded(
        lambda: check_range(status, headers, first, size, file_size), len(data), errors=(SourceFault,)
    )
    if refused is None:
        assert status in (200, 206)
        _check_passed(status, headers, first, size, file_size)
    bounded(lambda: check_stream(status, headers, file_size), len(data), errors=(SourceFault,))
    _redirect(reader.rest().decode("latin-1"))


def _check_parts(headers: dict[str, str], size: int) -> None:
    text = headers["Content-Range"]
    found, _ = bounded(lambda: parse_content_range(text), size, errors=(ValueError,))
    if found is not None:
        first, last, total = found
        assert 0 <= first <= last
        assert total is None or last < total
        assert parse_content_range(f"bytes {first}-{last}/{'*' if total is None else total}") == found
    wait, _ = bounded(lambda: retry_after_s(headers, now=0.0), size)
    assert wait is not None
    assert wait >= 0
    assert math.isfinite(wait)
    length, _ = bounded(lambda: content_length(headers), size)
    assert length is None or 0 <= length < 10**19
    bounded(lambda: is_page(headers), size)


def _check_passed(status: int, headers: dict[str, str], first: int, size: int, file_size: int) -> None:
    assert content_length(headers) in (None, size)
    assert headers["Content-Encoding"].strip().lower() in ("", "identity")
    if status == 200:
        assert (first, size) == (0, file_size)
        return
    got_first, got_last, total = parse_content_range(headers["Content-Range"])
    assert (got_first, got_last + 1 - got_first) == (first, size)
    assert total in (None, file_size)


def _redirect(location: str) -> None:
    stop, _ = bounded(lambda: _ORIGIN._next_stop(_HERE, location), len(location), errors=(SourceFault,))
    if stop is not None:
        split = urlsplit(stop)
        assert split.scheme == "https", "no downgrade"
        assert split.hostname


def seeds() -> list[bytes]:
    good = b"\1\0\x09\0bytes 0-9/10\n120\n10\nidentity\napplication/octet-stream\n/elsewhere"
    return [
        good,
        b"\0\0\x09\0\nMon, 01 Jan 2024 00:00:00 GMT\n10\n\ntext/html; charset=x\nhttps://cdn.example/x?token=1",
        b"\x0b\0\0\0bytes 5-9/*\n99999999999\n99999999999999999999\ngzip\n\nhttp://plain.example/",
        b"\1\1\1\1bytes 1-2/4\n\n2\n\n\n//[::1",
        b"\1\0\0\0\n\n\n\n\n//[" + b"a" * 1900,
    ]
