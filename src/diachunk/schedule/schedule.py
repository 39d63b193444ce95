"""Which chunk, from which source, when. Decides without IO, sleep or randomness of its own.

A lane that becomes free asks `claim`; the fast are asked more often, so load follows speed with no estimate.
The caller serialises every call (one lock), moves the bytes, and tells what came of it.

An item is in one of four states, a byte each, so that looking for work is a memchr:

    FREE    nobody works on it; network sources may take it
    LOCAL   a local source claims to hold it and has not been tried yet
    FLIGHT  at least one claim covers it
    DONE    verified
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.schedule.health import Concurrency, Fault, Health, Rng, Tier
from diachunk.schedule.work import Run, WorkList

FREE, LOCAL, FLIGHT, DONE = range(4)
_HEDGE_MARGIN_S = 0.1
_STREAMS_A_BLOB = 3
_DENIALS_A_BLOB = 2
_IDLE_CHECK_S = 0.25


@dataclass(slots=True, eq=False)
class Claim:
    """One request under way: a run of items from one source. `run` covers a whole blob when `stream`."""

    source: int
    run: Run
    size: int
    started_at: float
    hedge: bool = False
    stream: bool = False
    received_bytes: int = 0
    verified_bytes: int = 0
    settled_bytes: int = 0
    bad_items: int = 0
    last_byte_at: float = 0.0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do before `until`, or before another claim ends."""

    until: float


@dataclass(frozen=True, slots=True)
class Ended:
    """No claim will ever follow: everything is DONE, or (`why`) nothing can bring the rest."""

    why: str = ""


@dataclass(slots=True)
class _Candidate:
    health: Health
    has: Bitmap | None
    cursor: int = 0
    barred: set[int] = field(default_factory=set)
    streams: dict[int, int] = field(default_factory=dict)
    streaming: set[int] = field(default_factory=set)


class Schedule:
    """The policy of one session. See docs/design.md, "Scheduling"."""

    def __init__(self, work: WorkList, limits: Limits, clock: Callable[[], float], rng: Rng) -> None:
        self.work = work
        self.limits = limits
        self._clock = clock
        self._rng = rng
        self._state = bytearray(len(work))
        self._sources: list[_Candidate] = []
        self._claims: list[Claim] = []
        self._done_items = 0
        self.done_bytes = 0
        self.hedged_bytes = 0
        self._progress_at = clock()
        self._ended: Ended | None = None

    # --- sources -------------------------------------------------------------------------------------------

    def add(self, label: str, tier: Tier, *, has: Bitmap | None = None, at_once: int | None = None) -> int:
        """Adds a source that holds the items in `has` (None: it may hold anything); returns its number."""
        start = at_once or self.limits.per_origin_start
        highest = at_once or max(self.limits.per_origin_max, start)
        self._sources.append(_Candidate(Health(label, tier, self.limits, Concurrency(start, highest)), has))
        if tier is Tier.LOCAL and has is not None:
            for item in has:
                if self._state[item] == FREE:
                    self._state[item] = LOCAL
        self._progress_at = max(self._progress_at, self._clock())
        return len(self._sources) - 1

    def health(self, source: int) -> Health:
        return self._sources[source].health

    def healths(self) -> Iterator[Health]:
        return (each.health for each in self._sources)

    def mark_done(self, items: Iterable[int]) -> None:
        """Items that are known to be present before anything starts."""
        for item in items:
            self._complete(item)

    # --- asking for work -----------------------------------------------------------------------------------

    def claim(self) -> Claim | Pause | Ended:
        """What the calling lane should do next."""
        if self._ended:
            return self._ended
        if self._done_items == len(self._state):
            self._ended = Ended()
            return self._ended
        now = self._clock()
        for number in self._ready(now):
            claim = self._assign(number, now)
            if claim:
                return claim
        return self._hedge(now) or self._wait(now)

    def _ready(self, now: float) -> list[int]:
        """Sources that may start a request, local ones first, then those with the fewest under way, then fastest.

        While a proven source exists, unproven ones take at most a quarter of the lanes: a crowd of dead
        origins must not keep the good one waiting.
        """
        ready = [n for n, each in enumerate(self._sources) if each.health.ready(now)]
        proven = any(
            each.health.request_bps and not each.health.out for each in self._sources if each.health.tier
        )
        if proven:
            probing = sum(each.health.in_flight for each in self._sources if not each.health.request_bps)
            if probing >= max(1, self.limits.lanes // 4):
                ready = [
                    n
                    for n in ready
                    if self._sources[n].health.request_bps or not self._sources[n].health.tier
                ]

        def rank(number: int) -> tuple[int, int, float]:
            health = self._sources[number].health
            return health.tier, health.in_flight, -(health.request_bps or float("inf"))

        return sorted(ready, key=rank)

    def _next_item(self, candidate: _Candidate) -> int | None:
        """The first item this source could take now, or None. Moves its cursor past what it never can."""
        wanted = LOCAL if candidate.health.tier is Tier.LOCAL else FREE
        item = self._state.find(wanted, candidate.cursor)
        while item >= 0:
            blob = self.work.blob_of(item)
            if blob in candidate.health.missing_blobs or blob in candidate.streaming:
                item = self._state.find(wanted, self.work.items_of(blob).stop)
            elif item in candidate.barred or (candidate.has is not None and item not in candidate.has):
                item = self._state.find(wanted, item + 1)
            else:
                candidate.cursor = item
                return item
        if not candidate.streaming:
            candidate.cursor = len(self._state)
        return None

    def _assign(self, number: int, now: float) -> Claim | None:
        candidate = self._sources[number]
        first = self._next_item(candidate)
        if first is None:
            return None
        if candidate.health.sequential:
            return self._stream(number, self.work.blob_of(first), now)
        wanted = self._state[first]
        last, size = first, self.work.size(first)
        while (
            self.work.adjacent(last)
            and self._state[last + 1] == wanted
            and last + 1 not in candidate.barred
            and (candidate.has is None or last + 1 in candidate.has)
            and size + self.work.size(last + 1) <= CHUNK_BYTES
        ):
            last += 1
            size += self.work.size(last)
        count = last - first + 1
        self._state[first : last + 1] = bytes([FLIGHT]) * count
        return self._start(Claim(number, self.work.run(first, count), size, now))

    def _stream(self, number: int, blob: int, now: float) -> Claim:
        candidate = self._sources[number]
        candidate.streaming.add(blob)
        candidate.streams[blob] = candidate.streams.get(blob, 0) + 1
        items = self.work.items_of(blob)
        run = self.work.run(items.start, len(items))
        return self._start(Claim(number, run, self.work.blobs[blob].size, now, stream=True))

    def _start(self, claim: Claim) -> Claim:
        claim.last_byte_at = claim.started_at
        self._claims.append(claim)
        self._sources[claim.source].health.in_flight += 1
        return claim

    def _hedge(self, now: float) -> Claim | None:
        """A bounded duplicate of the request that would finish last, once nothing is unassigned."""
        if self._state.find(FREE) >= 0 or self._state.find(LOCAL) >= 0:
            return None
        budget = max(
            self.limits.hedge_fraction * self.work.total_bytes, self.limits.hedge_chunks_min * CHUNK_BYTES
        )
        worst: tuple[float, Claim, list[int]] | None = None
        for claim in self._claims:
            tier = self._sources[claim.source].health.tier
            left = [item for item in claim.run.items if self._state[item] == FLIGHT]
            if (
                claim.stream
                or claim.cancelled
                or not left
                or tier is Tier.LOCAL
                or self._covered(left, claim)
            ):
                continue
            elapsed = now - claim.started_at
            rate = claim.received_bytes / elapsed if elapsed > 0 else 0.0
            remaining_s = (
                (claim.size - claim.received_bytes) / rate if rate else (1e9 if elapsed > 1.0 else 0.0)
            )
            if worst is None or remaining_s > worst[0]:
                worst = remaining_s, claim, left
        if worst is None:
            return None
        remaining_s, slow, left = worst
        first, last = left[0], left[-1]
        size = sum(self.work.size(item) for item in range(first, last + 1))
        if self.hedged_bytes + size > budget:
            return None
        for number in self._ready(now):
            candidate = self._sources[number]
            if not self._can_hedge(candidate, range(first, last + 1)):
                continue
            if remaining_s > 2 * size / candidate.health.request_bps + _HEDGE_MARGIN_S:
                self.hedged_bytes += size
                return self._start(
                    Claim(number, self.work.run(first, last - first + 1), size, now, hedge=True)
                )
        return None

    def _can_hedge(self, candidate: _Candidate, items: range) -> bool:
        health = candidate.health
        return (
            health.tier is Tier.NETWORK
            and health.request_bps > 0
            and not health.sequential
            and self.work.blob_of(items.start) not in health.missing_blobs
            and not any(item in candidate.barred for item in items)
            and (candidate.has is None or all(item in candidate.has for item in items))
        )

    def _covered(self, items: Iterable[int], but: Claim) -> bool:
        """Whether another live claim covers one of these items already."""
        wanted = set(items)
        return any(
            wanted.intersection(claim.run.items)
            for claim in self._claims
            if claim is not but and not claim.stream and not claim.cancelled
        )

    def _wait(self, now: float) -> Pause | Ended:
        """Nothing to hand out: until when, or why never again."""
        until = now + self.limits.park_s
        servable = usable = False
        for candidate in self._sources:
            if candidate.health.out or self._next_item(candidate) is None:
                continue
            servable = True
            usable = usable or candidate.health.usable(now)
            if candidate.health.resume_at > now:
                until = min(until, candidate.health.resume_at)
        busy = [claim for claim in self._claims if not claim.cancelled]
        if busy:
            return Pause(min(until, now + _IDLE_CHECK_S))
        if not servable:
            self._ended = Ended("no source has what is left")
            return self._ended
        deadline = self._progress_at + self.limits.patience_s
        if not usable and now >= deadline:
            self._ended = Ended(f"no source gave anything for {self.limits.patience_s:g} s")
            return self._ended
        return Pause(min(until, deadline) if not usable else min(until, now + _IDLE_CHECK_S))

    # --- telling what came of it ---------------------------------------------------------------------------

    def received(self, claim: Claim, size_bytes: int, now: float) -> None:
        """Bytes arrived. May be called without the lock: each claim has one writer."""
        claim.received_bytes += size_bytes
        claim.last_byte_at = now
        self._sources[claim.source].health.last_byte_at = now

    def take(self, claim: Claim, item: int) -> bool:
        """For a stream that has reached `item`: whether it should keep those bytes."""
        if self._state[item] in (FREE, LOCAL) and item not in self._sources[claim.source].barred:
            self._state[item] = FLIGHT
            return True
        return False

    def verified(self, claim: Claim, item: int) -> bool:
        """`item` arrived and matches its digest. True when it is the first copy, which then gets written."""
        size = self.work.size(item)
        if not self._complete(item):
            self._sources[claim.source].health.wasted_bytes += size
            return False
        claim.verified_bytes += size
        self._progress_at = self._clock()
        for other in self._claims:
            if other is not claim and not other.stream and item in other.run.items:
                other.cancelled = other.cancelled or all(
                    self._state[each] == DONE for each in other.run.items
                )
        return True

    def bad(self, claim: Claim, item: int) -> None:
        """The bytes for `item` were wrong: this source is not asked for it again."""
        candidate = self._sources[claim.source]
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
        candidate = self._sources[claim.source]
        health = candidate.health
        health.in_flight -= 1
        blob = self.work.blob_of(claim.run.first)
        if claim.stream:
            candidate.streaming.discard(blob)
            if candidate.streams[blob] >= _STREAMS_A_BLOB:
                health.missing_blobs.add(blob)
        if fault is None and not claim.bad_items:
            health.succeeded(claim.verified_bytes, now - claim.started_at, now)
        elif fault is Fault.NO_RANGES:
            health.sequential = True
        elif fault not in (None, Fault.CANCELLED):
            self._book(candidate, claim, blob, fault, detail, retry_after_s)
        for item in claim.run.items:
            if self._state[item] == FLIGHT and not self._covered((item,), claim):
                self._give_back(item)
        if candidate.cursor > claim.run.first:
            candidate.cursor = claim.run.first

    def _book(
        self, candidate: _Candidate, claim: Claim, blob: int, fault: Fault, detail: str, retry_after_s: float
    ) -> None:
        health = candidate.health
        if health.tier is Tier.LOCAL:
            candidate.barred.update(item for item in claim.run.items if self._state[item] == FLIGHT)
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
            health.failed(fault, detail, self._clock(), self._rng, retry_after_s)

    def _give_back(self, item: int) -> None:
        claimed = any(
            each.health.tier is Tier.LOCAL
            and each.has is not None
            and item in each.has
            and item not in each.barred
            and not each.health.out
            for each in self._sources
        )
        self._state[item] = LOCAL if claimed else FREE
        for each in self._sources:
            each.cursor = min(each.cursor, item)

    def _complete(self, item: int) -> bool:
        if self._state[item] == DONE:
            return False
        self._state[item] = DONE
        self._done_items += 1
        self.done_bytes += self.work.size(item)
        return True

    # --- what is left --------------------------------------------------------------------------------------

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(self._claims)

    @property
    def complete(self) -> bool:
        return self._done_items == len(self._state)

    def is_done(self, item: int) -> bool:
        return self._state[item] == DONE

    def missing(self) -> Iterator[int]:
        """Items that are not DONE."""
        return (item for item, state in enumerate(self._state) if state != DONE)
