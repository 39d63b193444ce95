"""What has come so far, added up from events: the one model behind screen, plain lines and JSON."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from diachunk.transfer.progress import (
    Event,
    FileDone,
    How,
    Notice,
    Progress,
    SourceStatus,
    SourceTrouble,
    Status,
)

_WINDOW_S = 5.0
_SAMPLE_S = 0.25


@dataclass(slots=True)
class Row:
    """One bar: a component of a fetch, or one pass over files."""

    name: str
    total_bytes: int
    by_how: dict[How, int] = field(default_factory=lambda: dict.fromkeys(How, 0))
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    @property
    def done_bytes(self) -> int:
        return sum(self.by_how.values())

    @property
    def left_bytes(self) -> int:
        return max(0, self.total_bytes - self.done_bytes)

    @property
    def finished(self) -> bool:
        return self.done_bytes >= self.total_bytes

    @property
    def rate_bps(self) -> float:
        """Bytes a second over the last few seconds; of what is fetched, as soon as anything is."""
        if len(self._samples) < 2:
            return 0.0
        (start, fetched, done), (end, fetched_now, done_now) = self._samples[0], self._samples[-1]
        # what is reused comes at once, and would promise an end that the network does not keep
        gained = fetched_now - fetched or done_now - done
        return max(0.0, gained / (end - start)) if end > start else 0.0

    @property
    def eta_s(self) -> float | None:
        return self.left_bytes / self.rate_bps if self.rate_bps > 0 else None

    def sample(self, now: float) -> None:
        self._samples.append((now, self.by_how[How.FETCHED], self.done_bytes))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()


class Tally:
    """Adds up events.

    Attributes:
        planned: whether the rows are a plan's components.

    Args:
        totals: bytes of each component, where a plan says so. Without, a row appears for each kind of pass
            (`PASSES`), its total taken from the transfer's own status.
    """

    PASSES: Mapping[How, str] = {How.HASHED: "reading", How.FETCHED: "repairing", How.REUSED: "repairing"}

    def __init__(
        self, totals: Mapping[str, int] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rows = {name: Row(name, total) for name, total in (totals or {}).items()}
        self.status: Status | None = None
        self.troubles: dict[str, str] = {}
        self.notice = ""
        self.files_done = 0
        self.clock = clock
        self.started_at = clock()
        self.gained_at = self.started_at
        self.planned = totals is not None
        self._current: Row | None = None
        self._sampled_at = self.started_at - _SAMPLE_S

    def take(self, event: Event) -> None:
        """Books one event."""
        now = self.clock()
        match event:
            case Progress():
                row = self._row(event)
                row.by_how[event.how] += event.bytes
                if event.bytes > 0:
                    self.gained_at = now
            case Status():
                self.status, self.notice = event, ""
                if not self.planned:
                    self._set_total(event)
            case SourceTrouble():
                self.troubles[event.label] = event.detail
            case FileDone():
                self.files_done += 1
            case Notice():
                self.notice = event.text
        if now - self._sampled_at >= _SAMPLE_S:
            self.sample(now)

    def sample(self, now: float) -> None:
        """Notes the rows' bytes for their rates."""
        self._sampled_at = now
        for row in self.rows.values():
            row.sample(now)

    def _row(self, event: Progress) -> Row:
        name = event.component if self.planned else self.PASSES[event.how]
        row = self.rows.get(name)
        if row is None:
            row = self.rows[name] = Row(name, 0)
            # a rate needs a start to count from
            row.sample(self.clock())
        self._current = row
        if not self.planned:
            row.total_bytes = max(row.total_bytes, row.done_bytes + event.bytes)
        return row

    def _set_total(self, status: Status) -> None:
        if self._current is None:
            self._current = self.rows.setdefault(self.PASSES[How.HASHED], Row(self.PASSES[How.HASHED], 0))
            self._current.sample(self.clock())
        self._current.total_bytes = self._current.done_bytes + status.left_bytes

    # --- the whole -----------------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        return sum(row.total_bytes for row in self.rows.values())

    @property
    def done_bytes(self) -> int:
        return sum(row.done_bytes for row in self.rows.values())

    @property
    def left_bytes(self) -> int:
        return sum(row.left_bytes for row in self.rows.values())

    def total(self, how: How) -> int:
        return sum(row.by_how[how] for row in self.rows.values())

    @property
    def rate_bps(self) -> float:
        """The transfer's own rate where it says one, else that of the rows."""
        if self.status is not None and self.status.rate_bps > 0:
            return self.status.rate_bps
        return sum(row.rate_bps for row in self.rows.values())

    @property
    def eta_s(self) -> float | None:
        return self.left_bytes / self.rate_bps if self.rate_bps > 0 else None

    @property
    def silent_s(self) -> float:
        """Seconds since bytes came last."""
        return self.clock() - self.gained_at

    @property
    def sources(self) -> tuple[SourceStatus, ...]:
        return self.status.sources if self.status is not None else ()

    @property
    def limited_by(self) -> str:
        """ "origin github.com 2.4 MB/s" without the rate: what takes the time; "" while nothing comes."""
        if self.status is None or self.status.rate_bps <= 0:
            return ""
        if self.status.limited_by:
            return self.status.limited_by
        # A slow source may not have finished a single chunk yet, but it is all that anybody waits for.
        busy = [each for each in self.sources if each.in_flight]
        if not busy:
            return ""
        first = f"{'peer' if busy[0].peer else 'origin'} {busy[0].label}"
        return first + (f" and {len(busy) - 1} more" if len(busy) > 1 else "")

    @property
    def waiting_for(self) -> str:
        """Why nothing comes; asked when nothing has come for some seconds."""
        if self.left_bytes == 0:
            return "flushing to disk"
        if self.notice:
            return self.notice
        if self.status is None:
            return "reading what is here already"
        if self._current is not None and self._current.name == self.PASSES[How.HASHED]:
            return "waiting for the disk"
        if asked := unanswered(self.sources):
            return asked
        if self.sources:
            return "nobody gives anything; add --origin or --peer, or wait"
        return "no origin is known; add --origin URL or --peer HOST"


def unanswered(sources: Sequence[SourceStatus]) -> str:
    """Who was asked and is silent; "" if nobody is being asked."""
    asked = [each.label for each in sources if each.in_flight and not each.state]
    if not asked:
        return ""
    return f"waiting for an answer from {asked[0]}{f' and {len(asked) - 1} more' if len(asked) > 1 else ''}"
