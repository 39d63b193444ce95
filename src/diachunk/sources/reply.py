"""Is this HTTP reply the bytes that were asked for? RFC 9110 sections 14 and 15, for untrusted servers."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping

from diachunk.schedule.health import Fault
from diachunk.sources.base import SourceFault

_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\s*", re.ASCII | re.IGNORECASE)
_REASONS = {
    401: "401 Unauthorized: it wants a login (put one for this host into ~/.netrc)",
    403: "403 Forbidden",
    404: "404 Not Found",
    407: "407: the proxy wants a login",
    410: "410 Gone",
    416: "416: the file there is shorter",
    429: "429 Too Many Requests",
    503: "503 Service Unavailable",
}
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def parse_content_range(text: str) -> tuple[int, int, int | None]:
    """Reads `bytes first-last/total` (RFC 9110, 14.4); total None for "*".

    Raises:
        ValueError: anything else, or numbers that contradict each other.
    """
    match = _CONTENT_RANGE.fullmatch(text)
    if not match:
        raise ValueError(f"not a Content-Range: {text!r:.60}")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if first > last or (total is not None and last >= total):
        raise ValueError(f"contradicts itself: {text!r:.60}")
    return first, last, total


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float:
    """Retry-After in seconds (RFC 9110, 10.2.3): delay or date; 0.0 when absent or unreadable."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 10**6))
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return max(0.0, when - (time.time() if now is None else now))


def reason_of(status: int) -> str:
    """A status in words."""
    return _REASONS.get(status, f"status {status}")


def check_status(status: int, headers: Mapping[str, str]) -> None:
    """Raises the fault that a status other than 200, 206 or a redirect stands for."""
    reason = reason_of(status)
    if status in (404, 410):
        raise SourceFault(Fault.MISSING, reason)
    if status in (401, 403, 407):
        raise SourceFault(Fault.DENIED, reason)
    if status in (429, 503):
        raise SourceFault(Fault.BUSY, reason, retry_after_s=retry_after_s(headers))
    if status == 416:
        raise SourceFault(Fault.GARBLED, reason)
    if status not in (200, 206):
        raise SourceFault(Fault.FAILED, reason)


def content_length(headers: Mapping[str, str]) -> int | None:
    """Content-Length in bytes (RFC 9110, 8.6); None when absent or no length of anything real."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def is_page(headers: Mapping[str, str]) -> bool:
    """Whether a reply says of itself that it is an HTML page."""
    return headers.get("Content-Type", "").lower().startswith("text/html")


def check_range(status: int, headers: Mapping[str, str], first: int, size: int, file_size: int) -> None:
    """Whether the body that follows is bytes [first, first + size) of a file of `file_size` bytes.

    Raises:
        SourceFault: GARBLED when it is something else, NO_RANGES when it is the whole file instead.
    """
    check_status(status, headers)
    encoding = headers.get("Content-Encoding", "identity").strip().lower() or "identity"
    if encoding != "identity":
        raise SourceFault(Fault.GARBLED, f"sent it {encoding}-encoded although identity was asked")
    length = content_length(headers)
    if status == 200:
        _check_whole(headers, length, file_size)
        if (first, size) != (0, file_size):
            raise SourceFault(Fault.NO_RANGES, "ignores Range")
        return
    try:
        got_first, got_last, total = parse_content_range(headers.get("Content-Range", ""))
    except ValueError as error:
        # One that cannot be read is no lie but a reply that broke off, or a confused server: worth another try.
        readable = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        fault = Fault.GARBLED if readable else Fault.FAILED
        raise SourceFault(fault, f"206 with a bad Content-Range ({error})") from error
    if total is not None and total != file_size:
        raise SourceFault(Fault.GARBLED, f"the file there has {total:,} bytes, not {file_size:,}")
    if (got_first, got_last) != (first, first + size - 1):
        raise SourceFault(Fault.GARBLED, f"sent bytes {got_first}-{got_last}, not {first}-{first + size - 1}")
    if length is not None and length != size:
        raise SourceFault(Fault.GARBLED, f"announces {length:,} bytes for a range of {size:,}")


def check_stream(status: int, headers: Mapping[str, str], file_size: int) -> None:
    """Whether the body that follows is a whole file of `file_size` bytes."""
    check_range(status, headers, 0, file_size, file_size)


def _check_whole(headers: Mapping[str, str], length: int | None, file_size: int) -> None:
    if length is not None and length != file_size:
        what = "an HTML page" if is_page(headers) else "something else"
        raise SourceFault(Fault.GARBLED, f"sent {what} of {length:,} bytes, not the file of {file_size:,}")
    if length is None and is_page(headers):
        raise SourceFault(Fault.GARBLED, "sent an HTML page, not the file")
