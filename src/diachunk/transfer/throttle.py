"""`--max-down`: a token bucket shared by all lanes. Pure; the lane does the waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Throttle:
    """Lets `rate_bps` bytes a second pass on average, with bursts of at most a quarter of a second."""

    _BURST_S = 0.25

    def __init__(self, rate_bps: int, clock: Callable[[], float]) -> None:
        self.rate_bps = rate_bps
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def book(self, size_bytes: int) -> float:
        """Books bytes that just arrived; returns for how many seconds the caller should read no more."""
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - self._BURST_S)
            self._free_at = start + size_bytes / self.rate_bps
            return max(0.0, self._free_at - now)
