"""What came of the claims that a schedule handed out: the half that lanes tell. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from diachunk.limits import Limits
from diachunk.schedule.board import Board, Candidate
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Fault, Health, Rng, Tier
from diachunk.schedule.hedge import covered
from diachunk.schedule.pace import Rates
from diachunk.schedule.swarm import Swarm
from diachunk.schedule.work import WorkList

_STREAMS_A_BLOB = 3
_DENIALS_A_BLOB = 2


class Ledger:
    """The claims under way, and what is booked when they end."""

    def __init__(self, work: WorkList, limits: Limits, clock: Callable[[], float], rng: Rng) -> None:
        self.work = work
        self.limits = limits
        self.hedged_bytes = 0
        self._board = Board(work)
        self._clock = clock
        self._rng = rng
        self._claims: list[Claim] = []
        self._rates = Rates()
        self._progress_at = clock()
        self._swarm: Swarm | None = None

    def health(self, source: int) -> Health:
        return self._board.sources[source].health

    def healths(self) -> Iterator[Health]:
        return (each.health for each in self._board.sources)

    # --- telling what came of it ---------------------------------------------------------------------------

    def received(self, claim: Claim, size_bytes: int, now: float) -> None:
        """Bytes arrived. May be called without the lock: each claim has one writer."""
        claim.received_bytes += size_bytes
        claim.last_byte_at = now
        health = self.health(claim.source)
        health.received_bytes += size_bytes
        health.last_byte_at = now

    def take(self, claim: Claim, item: int) -> bool:
        """For a stream that has reached `item`: whether it should keep those bytes.

        Also what another request is to bring: it may fail, and the stream does not come by here again.
        """
        if item in self._board.sources[claim.source].barred or self._board.is_done(item):
            return False
        self._board.take(item)
        return True

    def verified(self, claim: Claim, item: int) -> bool:
        """`item` arrived and matches its digest. True when it is the first copy, which then gets written."""
        size = self.work.size(item)
        if not self._board.complete_item(item):
            return False
        claim.verified_bytes += size
        self.health(claim.source).verified_bytes += size
        self._progress_at = self._clock()
        for other in self._claims:
            if other is not claim and not other.stream and item in other.run.items:
                other.cancelled = all(self._board.is_done(each) for each in other.run.items)
        return True

    def bad(self, claim: Claim, item: int) -> None:
        """The bytes for `item` were wrong: this source is not asked for it again."""
        candidate = self._board.sources[claim.source]
        claim.bad_items += 1
        if item not in candidate.barred:
            candidate.barred.add(item)
            ref = self.work.ref(item)
            name = self.work.blobs[self.work.blob_of(item)].label
            candidate.health.lied(f"wrong bytes for {name} at {ref.offset} (chunk {ref.digest.hex()[:12]})")

    def finish(
        self, claim: Claim, fault: Fault | None = None, detail: str = "", retry_after_s: float = 0.0
    ) -> None:
        """The request is over. What it did not bring goes back to be taken by others."""
        now = self._clock()
        self._claims.remove(claim)
        candidate = self._board.sources[claim.source]
        health = candidate.health
        if health.tier is Tier.NETWORK:
            health.wasted_bytes += max(0, claim.received_bytes - claim.verified_bytes)
        blob = self.work.blob_of(claim.run.first)
        if claim.stream:
            candidate.streaming.discard(blob)
            if candidate.streams[blob] >= _STREAMS_A_BLOB:
                health.missing_blobs.add(blob)
        if fault is None and not claim.bad_items:
            before_bps = health.goodput_bps
            health.succeeded(claim.verified_bytes, claim.started_at, now)
            self._rates.changed(before_bps, health.goodput_bps)
        elif fault is Fault.NO_RANGES:
            health.sequential = True
        elif fault is not None and fault is not Fault.CANCELLED:
            self._book(candidate, claim, blob, fault, detail, retry_after_s)
        health.in_flight -= 1
        for item in claim.run.items:
            if self._board.is_in_flight(item) and not covered(self._claims, (item,), claim):
                self._board.give_back(item)
        candidate.cursor = min(candidate.cursor, claim.run.first)
        if self._swarm is not None:
            if health.peer:
                self._swarm.reorder(claim.source)
            if fault is not None or claim.bad_items:
                self._swarm.settle(candidate)

    def _left_a_queue(self, claim: Claim, fault: Fault) -> bool:
        """Whether a request was stopped because its peer had others to serve first."""
        waited_s = self._clock() - claim.started_at
        return fault is Fault.STALLED and not claim.received_bytes and waited_s < self.limits.stall_s

    def _book(
        self, candidate: Candidate, claim: Claim, blob: int, fault: Fault, detail: str, retry_after_s: float
    ) -> None:
        """What a fault means for the source that had it."""
        health = candidate.health
        if health.tier is Tier.LOCAL:
            candidate.barred.update(item for item in claim.run.items if self._board.is_in_flight(item))
            health.last_fault = detail
        elif fault is Fault.MISSING and self._swarm is not None and health.peer:
            self._swarm.missed(candidate, claim.run.items)
            health.last_fault = detail
        elif health.peer and (fault is Fault.BUSY or self._left_a_queue(claim, fault)):
            health.put_off(self._clock(), self._rng, retry_after_s)
        elif fault is Fault.MISSING:
            health.missing_blobs.add(blob)
            health.last_fault = detail
        elif fault is Fault.DENIED:
            health.denials[blob] = health.denials.get(blob, 0) + 1
            health.last_fault = detail
            if health.denials[blob] >= _DENIALS_A_BLOB:
                health.missing_blobs.add(blob)
        elif fault is Fault.GARBLED:
            candidate.barred.update(claim.run.items)
            health.lied(detail)
        else:
            health.failed(fault, detail, claim.started_at, self._clock(), self._rng, retry_after_s)

    # --- what is left --------------------------------------------------------------------------------------

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(self._claims)

    @property
    def done_bytes(self) -> int:
        return self._board.done_bytes

    @property
    def complete(self) -> bool:
        return self._board.complete

    def is_done(self, item: int) -> bool:
        return self._board.is_done(item)

    def missing(self) -> Iterator[int]:
        """Items that are not DONE."""
        return self._board.missing()
