"""How one source is doing: its rate, how many requests it bears, and when to leave it alone. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from diachunk.limits import Limits

_TRIES_WITHIN_PATIENCE = 6
"""How often, at least, a parked source is tried before giving up when no other is left."""
_SAMPLE_S = 0.05
_BUSY_S = 0.2


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

    Goodput is the limit times the mean rate of a request (Little's law): with a few requests in a window,
    counting those that end in it would be noise. The limit is raised by one on trial; without a gain it goes
    back to what was enough, and holds there for a while.
    """

    limit: int
    highest: int
    _on_trial: bool = False
    _base_bps: float = 0.0
    _window_start: float = -1.0
    _window_bytes: int = 0
    _window_seconds: float = 0.0
    _window_requests: int = 0
    _passed_over: int = 0
    _hold: int = 0

    _WINDOW_S = 0.3
    _WINDOW_REQUESTS = 4
    _GAIN = 1.08
    _HOLD_WINDOWS = 12

    def finished(self, size_bytes: int, seconds: float, in_flight: int, now: float) -> None:
        """A request ended well after so many seconds; `in_flight` counts it."""
        if in_flight < self.limit or self._window_start < 0:
            self._open_window(now)
            return
        if self._passed_over:
            # It started before the limit was reached, so its rate says nothing about this limit.
            self._passed_over -= 1
            self._window_start = now
            return
        self._window_bytes += size_bytes
        self._window_seconds += seconds
        self._window_requests += 1
        long = now - self._window_start >= self._WINDOW_S
        if not long or self._window_requests < max(self._WINDOW_REQUESTS, self.limit):
            return
        goodput = self.limit * self._window_bytes / max(self._window_seconds, 1e-6)
        if self._hold:
            self._hold -= 1
        elif self._on_trial and goodput <= self._base_bps * self._GAIN:
            self.limit = max(1, self.limit - 1)
            self._on_trial, self._hold = False, self._HOLD_WINDOWS
        else:
            self._base_bps = goodput
            self._on_trial = self.limit < self.highest
            self.limit += self._on_trial
        self._open_window(now)

    def _open_window(self, now: float) -> None:
        self._window_start, self._window_bytes = now, 0
        self._window_seconds, self._window_requests = 0.0, 0
        self._passed_over = self.limit

    def busy(self) -> None:
        self.limit = max(1, self.limit // 2)
        self._on_trial, self._hold = False, self._HOLD_WINDOWS
        self._window_start = -1.0


@dataclass(slots=True)
class Health:
    """One source as the schedule sees it. Times are the schedule's clock, rates bytes a second.

    Attributes:
        resume_at: when it may be asked again.
        retry_at: the same while no other source is alive: then it is not parked.
        failed_at: when its latest fault was booked that was not part of one before.
        requests: how many were ever started.
        request_bps: how fast one request goes, beside whatever others there are; goodput_bps: all together.
        peer: a node that says what it holds and may be full; `away`: it is gone, or not listened to any more.
        busy_in_a_row: how often it was full since it last gave something.
    """

    label: str
    tier: Tier
    limits: Limits
    concurrency: Concurrency
    in_flight: int = 0
    requests: int = 0
    faults_in_a_row: int = 0
    faults: int = 0
    bad_chunks: int = 0
    out: str = ""
    last_fault: str = ""
    resume_at: float = 0.0
    retry_at: float = 0.0
    failed_at: float = -1.0
    received_bytes: int = 0
    verified_bytes: int = 0
    wasted_bytes: int = 0
    request_bps: float = 0.0
    goodput_bps: float = 0.0
    _sampled_at: float = 0.0
    _sampled_bytes: int = 0
    sequential: bool = False
    last_byte_at: float = -1.0
    missing_blobs: set[int] = field(default_factory=set)
    denials: dict[int, int] = field(default_factory=dict)
    peer: bool = False
    away: bool = False
    busy_in_a_row: int = 0

    @property
    def parked(self) -> bool:
        return self.faults_in_a_row >= self.limits.park_after_faults

    def started(self, now: float) -> None:
        """Books a request that starts."""
        if not self.in_flight:
            self._sampled_at, self._sampled_bytes = now, self.received_bytes
        self.in_flight += 1
        self.requests += 1

    def _sample(self, now: float) -> None:
        """What all its requests together brought a second, since one last ended well."""
        seconds, size = now - self._sampled_at, self.received_bytes - self._sampled_bytes
        if seconds > _SAMPLE_S and size > 0:
            bps = size / seconds
            self.goodput_bps = bps if not self.goodput_bps else 0.6 * self.goodput_bps + 0.4 * bps
            self._sampled_at, self._sampled_bytes = now, self.received_bytes

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
        return flowing or not (self.faults_in_a_row or self.busy_in_a_row)

    def succeeded(self, size_bytes: int, started_at: float, now: float) -> None:
        """Books a request that brought what was asked. Made after a fault, it ends the waiting for that."""
        self.faults_in_a_row = self.busy_in_a_row = 0
        if started_at >= self.failed_at:
            self.resume_at = self.retry_at = min(self.resume_at, now)
        self._sample(now)
        seconds = now - started_at
        rate = size_bytes / max(seconds, 1e-6)
        self.request_bps = rate if not self.request_bps else 0.7 * self.request_bps + 0.3 * rate
        self.concurrency.finished(size_bytes, seconds, self.in_flight, now)

    def failed(
        self,
        fault: Fault,
        detail: str,
        started_at: float,
        now: float,
        rng: Rng,
        retry_after_s: float = 0.0,
    ) -> None:
        """Books a fault of the source as a whole: back off with full jitter, then park.

        Requests that were under way together and fail together are one fault in a row: a server that restarts
        resets eight connections at once, and is no worse for that.
        """
        self.faults += 1
        self.last_fault = detail or fault.value
        if self.faults_in_a_row == 0 or started_at >= self.failed_at:
            self.faults_in_a_row += 1
            self.failed_at = now
            self._back_off(now, rng)
            if fault is Fault.BUSY:
                self.concurrency.busy()
        asked_until = now + min(retry_after_s, self.limits.retry_after_max_s)
        self.retry_at = max(self.retry_at, asked_until)
        self.resume_at = max(self.resume_at, asked_until)

    def put_off(self, now: float, rng: Rng, retry_after_s: float) -> None:
        """A peer is full, which is no fault: it is asked again when it said, or in a moment."""
        wait_s = min(retry_after_s, self.limits.retry_after_max_s) or _BUSY_S * 2 ** min(
            self.busy_in_a_row, 5
        )
        self.busy_in_a_row += 1
        # Not all of those it sent away at the same moment.
        self.resume_at = self.retry_at = max(self.resume_at, now + wait_s * (1 + rng.random() / 2))

    def _back_off(self, now: float, rng: Rng) -> None:
        ceiling = min(
            self.limits.backoff_first_s * 2 ** min(self.faults_in_a_row - 1, 32), self.limits.backoff_max_s
        )
        if self.parked:
            ceiling = min(ceiling, self.limits.patience_s / _TRIES_WITHIN_PATIENCE)
        self.retry_at = max(self.retry_at, now + rng.random() * ceiling)
        self.resume_at = max(self.resume_at, now + self.limits.park_s if self.parked else self.retry_at)

    def lied(self, detail: str) -> None:
        """Books bad bytes; three such chunks and the source is out."""
        self.bad_chunks += 1
        self.last_fault = detail
        if self.bad_chunks >= self.limits.bad_chunks_max and self.tier is Tier.NETWORK:
            self.out = f"{detail}; wrong {self.bad_chunks} times"
