"""Turns a desk's books into events: deltas by component, and the status line's numbers."""

from __future__ import annotations

from collections import Counter

from diachunk.schedule.health import Health, Tier
from diachunk.transfer.desk import Desk
from diachunk.transfer.meter import Spent
from diachunk.transfer.progress import How, Listener, Progress, SourceStatus, SourceTrouble, Status

_STATUS_S = 0.25


class Reporter:
    """Compares the books with what was told last and tells the difference."""

    def __init__(self, desk: Desk, listener: Listener) -> None:
        self._desk = desk
        self._listener = listener
        self._told: Counter[tuple[str, How]] = Counter()
        self._troubles: dict[str, str] = {}
        self._status_at = 0.0
        self._total = desk.expected_bytes

    def tick(self, *, last: bool = False) -> None:
        counts = self._desk.counts()
        for key in counts.keys() | self._told.keys():
            delta = counts[key] - self._told[key]
            if delta:
                self._listener(Progress(delta, key[0], key[1]))
        self._told = counts
        for health in self._desk.schedule.healths():
            self._tell_trouble(health)
        now = self._desk.clock()
        if last or now - self._status_at >= _STATUS_S:
            self._status_at = now
            self._listener(self._status(now, sum(counts.values())))

    def _tell_trouble(self, health: Health) -> None:
        if health.tier is Tier.LOCAL:
            return
        text = health.out or (health.last_fault if health.last_fault else "")
        if text and self._troubles.get(health.label) != text:
            self._troubles[health.label] = text
            self._listener(SourceTrouble(health.label, text))

    def _status(self, now: float, done_bytes: int) -> Status:
        desk = self._desk
        healths = list(desk.schedule.healths())
        desk.meter.sample(now, done_bytes, healths)
        rate = desk.meter.rate_bps
        rates = desk.meter.source_rates_bps()
        left = self._total - done_bytes
        return Status(
            left,
            rate,
            left / rate if rate > 0 else None,
            self._limited_by(rate),
            tuple(
                SourceStatus(
                    each.label,
                    rates.get(each.label, 0.0),
                    each.in_flight,
                    each.verified_bytes,
                    state_of(each, now),
                    each.peer,
                )
                for each in healths
                if each.tier is Tier.NETWORK
            ),
        )

    def _limited_by(self, rate_bps: float) -> str:
        what, name = self._desk.meter.limited_by()
        if not rate_bps or not name or what is not Spent.NETWORK:
            return name if rate_bps else ""
        peers = {each.label for each in self._desk.schedule.healths() if each.peer}
        return f"{'peer' if name.partition(' ')[0] in peers else 'origin'} {name}"


def state_of(health: Health, now: float) -> str:
    """What is wrong with a source, for a person; "" while all is well."""
    if health.out:
        return f"put out: {health.out}"
    next_at = min(health.resume_at, health.retry_at or health.resume_at)
    if health.faults_in_a_row and now < next_at:
        wait_s = next_at - now
        return f"{health.last_fault}; next try in {wait_s:.0f} s (try {health.faults_in_a_row + 1})"
    if health.faults_in_a_row:
        return f"{health.last_fault}; trying again"
    return health.last_fault if health.missing_blobs else ""
