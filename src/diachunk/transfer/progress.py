"""What a transfer tells while it runs. Byte counts are deltas: `bar.update(event.bytes)` simply works."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


class How(enum.Enum):
    """Where bytes that became present came from."""

    FETCHED = "fetched"
    REUSED = "reused"
    HASHED = "hashed"


@dataclass(frozen=True, slots=True)
class Progress:
    """More bytes are here. Negative when bytes in flight are thrown away; the sum is the plan's total."""

    bytes: int
    component: str
    how: How


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source now.

    Attributes:
        label: its name for people, such as its host.
        rate_bps: of the last seconds, bytes a second.
        in_flight: requests under way.
        verified_bytes: that it gave since the start.
        state: "" while all is well, else what is wrong, for a person.
        peer: whether it is another machine that runs diachunk.
    """

    label: str
    rate_bps: float
    in_flight: int
    verified_bytes: int
    state: str
    peer: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """The transfer as a whole, about four times a second.

    Attributes:
        left_bytes: still to come; `rate_bps`: of the last seconds, bytes a second.
        eta_s: seconds until all is here at that rate; None if nobody can tell.
        limited_by: for people; "" while too little is measured.
        bytes: 0, so that every event may be added up.
    """

    left_bytes: int
    rate_bps: float
    eta_s: float | None
    limited_by: str
    sources: tuple[SourceStatus, ...]
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SourceTrouble:
    """A source failed once, was put out or came back; said once for each change."""

    label: str
    detail: str
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class FileDone:
    """A file is complete, durable and under its name."""

    component: str
    path: str
    size: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know that is no error."""

    text: str
    bytes: int = 0


Event: TypeAlias = Progress | Status | SourceTrouble | FileDone | Notice
Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that does nothing."""


def words_only(listener: Listener) -> Listener:
    """A listener that passes on all but bytes and files: for a step whose bytes were counted before it."""

    def listen(event: Event) -> None:
        if not isinstance(event, Progress | FileDone):
            listener(event)

    return listen


class Retractable:
    """A listener in front of another, that can take back the bytes it passed on: what came has vanished."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._told: Counter[tuple[str, How]] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._told[event.component, event.how] += event.bytes
        self._listener(event)

    def retract(self) -> None:
        for (component, how), size_bytes in self._told.items():
            self._listener(Progress(-size_bytes, component, how))
        self._told.clear()
