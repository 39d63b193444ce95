"""Which chunk, from which source, when. Decides without IO, sleep or randomness of its own.

A lane that becomes free asks `claim`; the fast are asked more often, so load follows speed with no estimate.
The caller serialises every call (one lock), moves the bytes, and tells what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.schedule.board import Board, Candidate
from diachunk.schedule.claims import Claim, Ended, Pause
from diachunk.schedule.crowd import has_company, overdue, ready_sources, spared
from diachunk.schedule.health import Concurrency, Fault, Health, Rng, Tier
from diachunk.schedule.hedge import covered, pick_hedge
from diachunk.schedule.pace import comes_last, request_bytes
from diachunk.schedule.work import WorkList

__all__ = ["Claim", "Ended", "Pause", "Schedule"]

_STREAMS_A_BLOB = 3
_DENIALS_A_BLOB = 2
_IDLE_CHECK_S = 0.25


class Schedule:
    """The policy of one session. See docs/design.md, "Scheduling"."""

    def __init__(self, work: WorkList, limits: Limits, clock: Callable[[], float], rng: Rng) -> None:
        self.work = work
        self.limits = limits
        self.hedged_bytes = 0
        self._board = Board(work)
        self._clock = clock
        self._rng = rng
        self._claims: list[Claim] = []
        self._progress_at = clock()
        self._ended: Ended | None = None

    # --- sources -------------------------------------------------------------------------------------------

    def add(self, label: str, tier: Tier, *, has: Bitmap | None = None, at_once: int | None = None) -> int:
        """Adds a source that holds the items in `has` (None: it may hold anything); returns its number."""
        start = at_once or self.limits.per_origin_start
        highest = at_once or max(self.limits.per_origin_max, start)
        health = Health(label, tier, self.limits, Concurrency(start, highest))
        self._progress_at = self._clock()
        return self._board.add(Candidate(health, has))

    def health(self, source: int) -> Health:
        return self._board.sources[source].health

    def healths(self) -> Iterator[Health]:
        return (each.health for each in self._board.sources)

    def mark_done(self, items: Iterable[int]) -> None:
        """Items that are known to be present before anything starts."""
        for item in items:
            self._board.complete_item(item)

    def hasten(self, items: Iterable[int]) -> None:
        """Somebody waits for these items: they are handed out before all others."""
        self._board.hasten(items)

    # --- asking for work -----------------------------------------------------------------------------------

    def claim(self) -> Claim | Pause | Ended:
        """What the calling lane should do next."""
        if self._ended is None and self._board.complete:
            self._ended = Ended()
        now = self._clock()
        if self._ended is None and self._lost_patience(now):
            self._ended = Ended(f"no source gave anything for {self.limits.patience_s:g} s")
        if self._ended is not None:
            return self._ended
        ready = ready_sources(self._board, self.limits, self._free_items(), now)
        for number in ready:
            claim = self._assign(number, now)
            if claim is not None:
                return claim
        return self._hedge(ready, now) or self._wait(now)

    def _free_bytes(self) -> int:
        """About how many bytes nobody works on yet."""
        taken = sum(claim.size for claim in self._claims if not claim.stream and not claim.hedge)
        return self.work.total_bytes - self._board.done_bytes - taken

    def _free_items(self) -> int:
        """About how many items nobody works on yet."""
        taken = sum(len(claim.run.items) for claim in self._claims if not claim.stream)
        return len(self.work) - self._board.done_items - taken

    def _assign(self, number: int, now: float) -> Claim | None:
        candidate = self._board.sources[number]
        first = self._board.next_item(candidate)
        if first is None or spared(self._board, candidate.health, first, now):
            return None
        if candidate.health.sequential:
            return self._stream(number, self.work.blob_of(first), now)
        most = CHUNK_BYTES
        if candidate.health.tier is Tier.NETWORK and has_company(self._board):
            free = self._free_bytes()
            most = request_bytes(free, self.limits.lanes)
            if comes_last(self._board, self._claims, number, first, free, most, now):
                return None
        count, size = self._board.take_run(candidate, first, most)
        return self._start(Claim(number, self.work.run(first, count), size, now))

    def _stream(self, number: int, blob: int, now: float) -> Claim:
        candidate = self._board.sources[number]
        candidate.streaming.add(blob)
        candidate.streams[blob] = candidate.streams.get(blob, 0) + 1
        items = self.work.items_of(blob)
        run = self.work.run(items.start, len(items))
        return self._start(Claim(number, run, self.work.blobs[blob].size, now, stream=True))

    def _start(self, claim: Claim) -> Claim:
        claim.last_byte_at = claim.started_at
        self._claims.append(claim)
        self.health(claim.source).started(claim.started_at)
        return claim

    def _hedge(self, ready: Iterable[int], now: float) -> Claim | None:
        if not self._board.all_assigned:
            return None
        least = self.limits.hedge_chunks_min * CHUNK_BYTES
        budget = max(self.limits.hedge_fraction * self.work.total_bytes, least) - self.hedged_bytes
        hedge = pick_hedge(self._board, self._claims, ready, budget, now)
        if hedge is None:
            return None
        self.hedged_bytes += hedge.size
        run = self.work.run(hedge.first, hedge.last - hedge.first + 1)
        return self._start(Claim(hedge.source, run, hedge.size, now, hedge=True))

    def _wait(self, now: float) -> Claim | Pause | Ended:
        """Nothing to hand out: until when, or why never again."""
        servable = {
            number: each.health
            for number, each in enumerate(self._board.sources)
            if not each.health.out and self._board.next_item(each) is not None
        }
        resumes = [each.resume_at for each in servable.values() if each.resume_at > now]
        if any(not claim.cancelled for claim in self._claims):
            return Pause(min([*resumes, now + _IDLE_CHECK_S]))
        if not servable:
            self._ended = Ended("no source has what is left")
            return self._ended
        if any(each.usable(now) for each in servable.values()):
            return Pause(min([*resumes, now + _IDLE_CHECK_S]))
        deadline = self._progress_at + self.limits.patience_s
        return self._retry(servable, now) or Pause(
            min([*(each.retry_at for each in servable.values()), deadline])
        )

    def _lost_patience(self, now: float) -> bool:
        """Whether nothing came for too long, also while dead sources keep the lanes busy.

        Not while a source is left that may be alive and has something to give, or to be asked for.
        """
        return now >= self._progress_at + self.limits.patience_s and not any(
            each.health.usable(now) and (each.health.in_flight > 0 or self._board.next_item(each) is not None)
            for each in self._board.sources
        )

    def _retry(self, servable: Mapping[int, Health], now: float) -> Claim | None:
        """Only sources that fail are left: parking spares nobody then, and would use up the patience."""
        for number in sorted(servable, key=lambda each: servable[each].retry_at):
            if servable[number].retry_at <= now:
                return self._assign(number, now)
        return None

    def overdue(self, claim: Claim, now: float) -> bool:
        """Whether this request keeps others waiting for its first byte: see schedule.crowd."""
        return overdue(self._board, self.limits, claim, now)

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
            health.succeeded(claim.verified_bytes, claim.started_at, now)
        elif fault is Fault.NO_RANGES:
            health.sequential = True
        elif fault is not None and fault is not Fault.CANCELLED:
            self._book(candidate, claim, blob, fault, detail, retry_after_s)
        health.in_flight -= 1
        for item in claim.run.items:
            if self._board.is_in_flight(item) and not covered(self._claims, (item,), claim):
                self._board.give_back(item)
        candidate.cursor = min(candidate.cursor, claim.run.first)

    def _book(
        self, candidate: Candidate, claim: Claim, blob: int, fault: Fault, detail: str, retry_after_s: float
    ) -> None:
        """What a fault means for the source that had it."""
        health = candidate.health
        if health.tier is Tier.LOCAL:
            candidate.barred.update(item for item in claim.run.items if self._board.is_in_flight(item))
            health.last_fault = detail
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
