"""Remembers how fast the last fetch was: all that an estimate can go by before the first byte."""

from __future__ import annotations

import os
from pathlib import Path

_FILE = ".last-rate"
_WORTH_BYTES = 1_000_000
_MOST_BPS = 10**12


def remember(home: Path, fetched_bytes: int, elapsed_s: float) -> None:
    """Notes a fetch's mean rate. Best effort: a store that cannot take it is no error."""
    if fetched_bytes < _WORTH_BYTES or elapsed_s <= 0:
        return
    temporary = home / f"{_FILE}.{os.getpid()}.tmp"
    try:
        temporary.write_text(f"{int(fetched_bytes / elapsed_s)}\n", "ascii")
        temporary.replace(home / _FILE)
    except OSError:
        return


def recall(home: Path) -> int | None:
    """Bytes a second of the last fetch; None if there was none, or what lies there is no rate."""
    try:
        with open(home / _FILE, "rb") as file:
            text = file.read(32).strip()
    except OSError:
        return None
    # isdigit() of bytes takes ASCII digits only
    if not text.isdigit():
        return None
    rate_bps = int(text)
    return rate_bps if 0 < rate_bps < _MOST_BPS else None
