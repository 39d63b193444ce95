"""One request as its lane sees it: progress, pace, and the two ways it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from diachunk.limits import Limits
from diachunk.schedule.health import Fault
from diachunk.schedule.schedule import Claim, Schedule
from diachunk.sources.base import SourceFault
from diachunk.transfer.throttle import Throttle

_GRACE_S = 2.0


class LaneFlow:
    """`sources.base.Flow` for one claim. Written by its lane; stopped by the session's watchdog."""

    def __init__(
        self,
        claim: Claim,
        schedule: Schedule,
        limits: Limits,
        clock: Callable[[], float],
        throttle: Throttle | None,
        stopping: threading.Event,
    ) -> None:
        self.claim = claim
        self.capped_s = 0.0
        self.slice_started_at = clock()
        self.reading = False
        self._window_at = clock()
        self._window_bytes = 0
        self._schedule = schedule
        self._limits = limits
        self._clock = clock
        self._throttle = throttle
        self._stopping = stopping
        self._stop: Fault | None = None
        self._stopped_at = 0.0
        self._detail = ""
        self._wake: Callable[[], None] | None = None
        self._slice = limits.slice_min_bytes * 4
        self._lock = threading.Lock()

    @property
    def stopped(self) -> Fault | None:
        """Why it must not go on, or None."""
        if self._stop:
            return self._stop
        return Fault.CANCELLED if self.claim.cancelled or self._stopping.is_set() else None

    def slice_bytes(self) -> int:
        self.check()
        return self._slice

    def advance(self, size_bytes: int) -> None:
        now = self._clock()
        elapsed = now - self.slice_started_at
        self._schedule.received(self.claim, size_bytes, now)
        self._window_bytes += size_bytes
        wanted = int(size_bytes / max(elapsed, 1e-6) * self._limits.slice_s)
        self._slice = min(
            max(wanted, self._limits.slice_min_bytes), self._slice * 4, self._limits.slice_max_bytes
        )
        self.check()
        if self._throttle:
            self._slice = min(self._slice, max(4096, int(self._throttle.rate_bps * self._limits.slice_s / 2)))
            self._pause(self._throttle.book(size_bytes))
        self.slice_started_at = self._clock()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.slice_started_at = self._window_at = self._clock() + left
            self._stopping.wait(min(left, 0.2))
            self.check()
        self.capped_s += seconds

    def check(self) -> None:
        """Raises if this request was stopped."""
        stopped = self.stopped
        if stopped:
            raise SourceFault(stopped, self._detail)

    def on_cancel(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._wake = wake
        if self.stopped:
            wake()

    def stop(self, why: Fault, detail: str = "") -> None:
        """Ends the request from another thread: marks it, then wakes its blocked read."""
        with self._lock:
            if self._stop is None:
                self._stop, self._detail, self._stopped_at = why, detail, self._clock()
            wake = self._wake
        if wake:
            wake()

    def too_slow(self, now: float) -> bool:
        """Whether this request gave next to nothing for the stall time. Asked by the watchdog."""
        if not self.reading:
            return False
        if now - self.slice_started_at > self._limits.stall_s:
            return True
        if now - self._window_at < self._limits.stall_s:
            return False
        dripping = self._window_bytes < self._limits.min_rate_bps * self._limits.stall_s
        self._window_at, self._window_bytes = now, 0
        return dripping

    def unwakeable(self, now: float) -> bool:
        """Whether its lane did not even notice that it was stopped: it connects, or looks up a name."""
        return self._stop is not None and self.reading and now - self._stopped_at > _GRACE_S

    def begin_read(self) -> None:
        """From here on silence counts: the watchdog looks only at requests that are reading."""
        self.slice_started_at = self._window_at = self._clock()
        self._window_bytes = 0
        self.reading = True

    def end_read(self) -> None:
        self.reading = False

    def detach(self) -> None:
        """The request is over; nothing is left to wake."""
        self.reading = False
        with self._lock:
            self._wake = None
