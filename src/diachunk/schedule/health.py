"""How one source is doing: its rate, how many requests it bears, and when to leave it alone. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from diachunk.limits import Limits


class Tier(enum.IntEnum):
    """What a chunk from this source costs: local ones are asked before any byte crosses a network."""

    LOCAL = 0
    NETWORK = 1


class Fault(enum.Enum):
    """What went wrong with one request, as far as the schedule has to care."""

    MISSING = "does not have it"
    DENIED = "access denied"
    BUSY = "too busy"
    FAILED = "failed"
    STALLED = "stalled"
    NO_RANGES = "ignores Range"
    GARBLED = "sent something else"
    CANCELLED = "cancelled"


class Rng(Protocol):
    """The one thing the policy wants of randomness."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...


@dataclass(slots=True)
class Concurrency:
    """How many requests at once: grows while goodput grows, falls back when it does not or on BUSY.

    A window is closed after at least `_WINDOW_S` and `_WINDOW_REQUESTS` requests at the limit; hill climbing
    with a hold keeps it from oscillating on a noisy line.
    """

    limit: int
    highest: int
    _best_bps: float = 0.0
    _window_start: float = -1.0
    _window_bytes: int = 0
    _window_requests: int = 0
    _hold: int = 0

    _WINDOW_S = 0.3
    _WINDOW_REQUESTS = 4
    _GAIN = 1.08
    _HOLD_WINDOWS = 12

    def finished(self, size_bytes: int, in_flight: int, now: float) -> None:
        """A request ended well; `in_flight` counts it."""
        if in_flight < self.limit or self._window_start < 0:
            self._window_start, self._window_bytes, self._window_requests = now, 0, 0
            return
        self._window_bytes += size_bytes
        self._window_requests += 1
        elapsed = now - self._window_start
        if elapsed < self._WINDOW_S or self._window_requests < self._WINDOW_REQUESTS:
            return
        goodput = self._window_bytes / elapsed
        self._window_start, self._window_bytes, self._window_requests = now, 0, 0
        if self._hold:
            self._hold -= 1
            return
        if goodput > self._best_bps * self._GAIN:
            self._best_bps = goodput
            self.limit = min(self.limit + 1, self.highest)
        else:
            self._best_bps = goodput
            self.limit = max(1, self.limit - 1)
            self._hold = self._HOLD_WINDOWS

    def busy(self) -> None:
        self.limit = max(1, self.limit // 2)
        self._hold = self._HOLD_WINDOWS
        self._window_start = -1.0


@dataclass(slots=True)
class Health:
    """One source as the schedule sees it. Times are the schedule's clock, rates bytes a second."""

    label: str
    tier: Tier
    limits: Limits
    concurrency: Concurrency
    in_flight: int = 0
    faults_in_a_row: int = 0
    faults: int = 0
    bad_chunks: int = 0
    out: str = ""
    last_fault: str = ""
    resume_at: float = 0.0
    verified_bytes: int = 0
    wasted_bytes: int = 0
    request_bps: float = 0.0
    sequential: bool = False
    last_byte_at: float = -1.0
    missing_blobs: set[int] = field(default_factory=set)
    denials: dict[int, int] = field(default_factory=dict)

    @property
    def parked(self) -> bool:
        return self.faults_in_a_row >= self.limits.park_after_faults

    def ready(self, now: float) -> bool:
        """Whether a request may start now. After a fault one probe at a time, until it succeeds."""
        if self.out or now < self.resume_at:
            return False
        return self.in_flight < (1 if self.faults_in_a_row else self.concurrency.limit)

    def usable(self, now: float) -> bool:
        """Whether it is alive: no fault since its last success, or bytes are flowing right now."""
        if self.out:
            return False
        flowing = self.in_flight > 0 and 0 <= now - self.last_byte_at < self.limits.stall_s
        return self.faults_in_a_row == 0 or flowing

    def succeeded(self, size_bytes: int, seconds: float, now: float) -> None:
        self.faults_in_a_row = 0
        self.verified_bytes += size_bytes
        rate = size_bytes / max(seconds, 1e-6)
        self.request_bps = rate if not self.request_bps else 0.7 * self.request_bps + 0.3 * rate
        self.concurrency.finished(size_bytes, self.in_flight, now)

    def failed(self, fault: Fault, detail: str, now: float, rng: Rng, retry_after_s: float = 0.0) -> None:
        """Books a fault of the source as a whole: back off with full jitter, then park."""
        self.faults += 1
        self.faults_in_a_row += 1
        self.last_fault = detail or fault.value
        if fault is Fault.BUSY:
            self.concurrency.busy()
        if self.parked:
            wait = self.limits.park_s
        else:
            ceiling = min(
                self.limits.backoff_first_s * 2 ** (self.faults_in_a_row - 1), self.limits.backoff_max_s
            )
            wait = ceiling * rng.random()
        asked = min(retry_after_s, self.limits.retry_after_max_s)
        self.resume_at = max(self.resume_at, now + max(wait, asked))

    def lied(self, detail: str) -> None:
        """Books bad bytes; three such chunks and the source is out."""
        self.bad_chunks += 1
        self.last_fault = detail
        if self.bad_chunks >= self.limits.bad_chunks_max and self.tier is Tier.NETWORK:
            self.out = f"sent wrong bytes {self.bad_chunks} times"
