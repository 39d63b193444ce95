"""Paths inside a component: what may be written below a directory on any file system (rules M10 and M11)."""

from __future__ import annotations

import unicodedata

from diachunk.limits import Limits

_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (bidirectional, zero-width), surrogate, private use, unassigned; line separators."""


def path_fault(path: str, limits: Limits) -> str:
    """What is wrong with a relative POSIX path, to follow "the path ...", or "" for a good one."""
    if not path:
        return "is empty"
    # In characters first: what follows is linear in them.
    if len(path) > limits.path_bytes_max:
        return f"has more than {limits.path_bytes_max} bytes"
    if path.startswith("/"):
        return "is absolute"
    if "\\" in path or ":" in path:
        return "holds a backslash or colon"
    if not path.isprintable() and any(unicodedata.category(char) in _FORBIDDEN for char in path):
        return "holds an invisible, control or unassigned character"
    if not unicodedata.is_normalized("NFC", path):
        return "is not in Unicode normal form C"
    if len(path.encode("utf-8")) > limits.path_bytes_max:
        return f"has more than {limits.path_bytes_max} bytes"
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            return f"has the segment {segment!r}"
        if len(segment.encode("utf-8")) > limits.segment_bytes_max:
            return f"has a segment of more than {limits.segment_bytes_max} bytes"
    return ""


def fold(path: str) -> str:
    """Two paths that some file system takes for one have equal folds (Unicode 3.13, D145)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
