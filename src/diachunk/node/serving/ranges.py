"""The Range header, RFC 9110 section 14.2. Pure."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))\s*", re.ASCII | re.IGNORECASE)


class Unsatisfiable(Exception):
    """No byte of the range exists: 416."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range asked for of so many bytes; None: all of them, also where several ranges are asked for or
    the header makes no sense (RFC 9110: then it is ignored).

    Raises:
        Unsatisfiable: it lies past the end, or is empty.
    """
    match = _ONE.fullmatch(header) if header else None
    if match is None:
        return None
    if match[3] is not None:
        length = int(match[3])
        if length == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - length), size
    start = int(match[1])
    last = size - 1 if match[2] is None else int(match[2])
    if match[2] is not None and last < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(last, size - 1) + 1
