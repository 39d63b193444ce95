"""Where the time goes, measured lane by lane: network, hashing, disk, cap. Says what limits a transfer."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from diachunk.schedule.health import Health, Tier


class Spent(enum.Enum):
    """What a lane was doing."""

    NETWORK = "network"
    READING = "reading the disk"
    HASHING = "hashing"
    WRITING = "disk"
    CAP = "the cap"


class Meter:
    """Seconds that the lanes spent on each thing, and rates over the last few seconds.

    Lanes add without a lock: a lost float addition now and then does not change which one is largest.
    """

    _WINDOW_S = 5.0

    def __init__(self) -> None:
        self.spent_s: dict[Spent, float] = dict.fromkeys(Spent, 0.0)
        self._window: list[tuple[float, dict[Spent, float], int, dict[str, int]]] = []

    def add(self, what: Spent, seconds: float) -> None:
        self.spent_s[what] += seconds

    def sample(self, now: float, done_bytes: int, healths: Iterable[Health]) -> None:
        """Notes the totals; call about four times a second."""
        by_source = {each.label: each.received_bytes for each in healths if each.tier is Tier.NETWORK}
        self._window.append((now, dict(self.spent_s), done_bytes, by_source))
        while len(self._window) > 2 and now - self._window[1][0] > self._WINDOW_S:
            self._window.pop(0)

    @property
    def rate_bps(self) -> float:
        """Verified bytes a second over the window."""
        if len(self._window) < 2:
            return 0.0
        (start, _, bytes_then, _), (end, _, bytes_now, _) = self._window[0], self._window[-1]
        return (bytes_now - bytes_then) / (end - start) if end > start else 0.0

    def source_rates_bps(self) -> dict[str, float]:
        """Bytes received a second over the window, by source."""
        if len(self._window) < 2:
            return {}
        (start, _, _, then), (end, _, _, now) = self._window[0], self._window[-1]
        span = max(end - start, 1e-9)
        return {label: (total - then.get(label, 0)) / span for label, total in now.items()}

    def limited_by(self) -> tuple[Spent, str]:
        """What took most of the lanes' time in the window; for the network, which source gave most of it."""
        if len(self._window) < 2:
            return Spent.NETWORK, ""
        then, now = self._window[0][1], self._window[-1][1]
        largest = max(Spent, key=lambda each: now[each] - then[each])
        if largest is not Spent.NETWORK:
            return largest, largest.value
        rates = {label: rate for label, rate in self.source_rates_bps().items() if rate > 0}
        if not rates:
            return largest, ""
        names = sorted(rates, key=lambda label: -rates[label])
        return largest, names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
