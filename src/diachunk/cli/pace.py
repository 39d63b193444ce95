"""Remembers how fast the last fetch was: all that an estimate can go by before the first byte."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

_FILE = ".last-rate"
_PEERS = ".peer-rates"
_PEERS_MAX = 256
_PEERS_BYTES_MAX = 64 * 1024
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


def remember_peers(home: Path, rates_bps: Mapping[str, int]) -> None:
    """Notes how fast other machines gave, beside what is known of others. Best effort."""
    if not rates_bps:
        return
    known = {address: rate for address, rate in recall_peers(home).items() if address not in rates_bps}
    kept = dict([*rates_bps.items(), *known.items()][:_PEERS_MAX])
    temporary = home / f"{_PEERS}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(kept), "ascii")
        temporary.replace(home / _PEERS)
    except OSError:
        return


def recall_peers(home: Path) -> dict[str, int]:
    """Bytes a second that other machines gave when last asked, by HOST:PORT."""
    try:
        with open(home / _PEERS, "rb") as file:
            found = json.loads(file.read(_PEERS_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {each: rate for each, rate in items if type(rate) is int and 0 < rate < _MOST_BPS}
