"""What can be wrong with a line between a client and a server, as values: `fault_proxy` carries bytes by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class How(Enum):
    """How a connection breaks."""

    CLOSE = "an orderly end (FIN)"
    RESET = "RST"
    HANG = "nothing more either way, and the connection stays open"


@dataclass(frozen=True, slots=True)
class Break:
    """A connection breaks once it has carried so many bytes down: drawn for each, from `after_bytes` (low, high)."""

    how: How
    after_bytes: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """What a line is like.

    Attributes:
        down_bps, up_bps: bytes a second over all connections together; None is no cap.
        latency_s: added to every piece, each way.
        jitter_s: at most so much more, drawn for each piece. Order is kept.
        breaks: what becomes of connections; None: nothing.
    """

    down_bps: float | None = None
    up_bps: float | None = None
    latency_s: float = 0.0
    jitter_s: float = 0.0
    breaks: Break | None = None


GOOD = Line()
DEAD = Line(breaks=Break(How.RESET))
"""Connections are reset, new ones as soon as they are made."""
SILENT = Line(breaks=Break(How.HANG))
"""Connections are accepted, and nothing is carried until the line changes."""

Script: TypeAlias = Callable[[float], Line]
"""Seconds since the proxy started -> the line at that moment."""


def steady(line: Line) -> Script:
    """Always the same line."""
    return lambda elapsed_s: line


def flapping(alive: Line, dead: Line, alive_s: float = 1.0, dead_s: float = 1.0) -> Script:
    """In turns: `alive` for so long, then `dead`."""
    return lambda elapsed_s: alive if elapsed_s % (alive_s + dead_s) < alive_s else dead
