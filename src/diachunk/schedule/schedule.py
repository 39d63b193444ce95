"""Which chunk, from which source, when. Decides without IO, sleep or randomness of its own.

A lane that becomes free asks `claim`; the fast are asked more often, so load follows speed with no estimate.
The caller serialises every call (one lock), moves the bytes, and tells what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.schedule.board import Candidate
from diachunk.schedule.claims import Claim, Ended, Pause
from diachunk.schedule.crowd import overdue, rank, ready_sources, spared
from diachunk.schedule.health import Concurrency, Health, Rng, Tier
from diachunk.schedule.hedge import pick_hedge
from diachunk.schedule.pace import comes_last, request_bytes
from diachunk.schedule.sharing import Sharing
from diachunk.schedule.swarm import Swarm
from diachunk.schedule.work import WorkList

__all__ = ["Claim", "Ended", "Pause", "Schedule"]

_OTHERS_COUNT = 9
_IDLE_CHECK_S = 0.25
_MEETING_S = 5.0
"""Machines that begin at the same moment need so long to find each other, at most."""


class Schedule(Sharing):
    """The policy of one session. See docs/design.md, "Scheduling"."""

    def __init__(
        self, work: WorkList, limits: Limits, clock: Callable[[], float], rng: Rng, *, key: bytes = b""
    ) -> None:
        """`key` is what the members of a swarm have in common: the manifest's id."""
        super().__init__(work, limits, clock, rng, key=key)
        self._ended: Ended | None = None
        self._began_at = clock()

    # --- sources -------------------------------------------------------------------------------------------

    def add(self, label: str, tier: Tier, *, has: Bitmap | None = None, at_once: int | None = None) -> int:
        """Adds a source that holds the items in `has` (None: it may hold anything); returns its number."""
        start = at_once or self.limits.per_origin_start
        highest = at_once or max(self.limits.per_origin_max, start)
        health = Health(label, tier, self.limits, Concurrency(start, highest))
        self._progress_at = self._clock()
        return self._board.add(Candidate(health, has))

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
        if self._swarm is not None and not self._swarm.flight.alone:
            return self._claim_in_turn(self._swarm, now)
        ready = ready_sources(self._board, self.limits, self._free_items(), now)
        if self._is_meeting(now):
            ready = [each for each in ready if not self._is_first_request(each)]
        return (
            self._first_of(self._among_peers(ready, now), now)
            or self._hedge(self._among_peers(ready, now), now)
            or self._wait(now)
        )

    def _among_peers(self, ready: list[int], now: float) -> Iterator[int]:
        """These and the peers, in one order (`rank`): looked at only as far as one is needed."""
        at = 0
        for peer in self._swarm.ready(now) if self._swarm is not None else ():
            while at < len(ready) and rank(self.health(ready[at])) < rank(self.health(peer)):
                yield ready[at]
                at += 1
            yield peer
        yield from ready[at:]

    def _is_meeting(self, now: float) -> bool:
        """Whether others may have begun at the same moment, and are not known yet.

        Until then each of them asks an origin for little, and for something else than the others: what they all
        ask for crosses its line once for each, and what they bring is what they have to give when they meet.
        """
        return self.expects_more and now - self._began_at < _MEETING_S

    def _is_first_request(self, number: int) -> bool:
        """Whether an origin is busy with the first request of all, so that nothing is known of its line."""
        health = self.health(number)
        return health.tier is Tier.NETWORK and bool(health.in_flight) and not health.verified_bytes

    def _anywhere(self, candidate: Candidate) -> int | None:
        """An item from an origin, from any place."""
        return self._board.item_from(candidate, int(self._rng.random() * len(self.work)))

    def _first_of(self, ready: Iterable[int], now: float) -> Claim | None:
        for number in ready:
            claim = self._assign(number, now)
            if claim is not None:
                return claim
        return None

    def _claim_in_turn(self, swarm: Swarm, now: float) -> Claim | Pause | Ended:
        """While others fetch the same: what is here, what this node owes the others, then what they have."""
        under_way = [self.health(claim.source) for claim in self._claims]
        feeding = any(not each.peer and each.tier is Tier.NETWORK for each in under_way)
        full = sum(each.peer for each in under_way) >= self.limits.swarm_lanes - feeding
        ready = ready_sources(self._board, self.limits, self._free_items(), now)
        network = [number for number in ready if self.health(number).tier is Tier.NETWORK]
        claim = self._first_of((number for number in ready if number not in network), now)
        for number in () if feeding or claim else network:
            claim = claim or self._feed(swarm, number, now)
        if claim or full:
            return claim or Pause(now + _IDLE_CHECK_S)
        claim = self._first_of(swarm.ready(now), now)
        return (
            claim or self._hedge(chain(swarm.ready(now), () if feeding else network), now) or self._wait(now)
        )

    def _feed(self, swarm: Swarm, number: int, now: float) -> Claim | None:
        """What this node owes the others: one request to an origin."""
        candidate = self._board.sources[number]
        stuck = now - self._progress_at > self.limits.takeover_s
        first = swarm.origin_item(candidate, now, stuck)
        if first is None or spared(self._board, candidate.health, first, now):
            return None
        if candidate.health.sequential:
            return self._stream(number, self.work.blob_of(first), now)
        count, size = self._board.take_run(candidate, first, also=swarm.belongs_with(first))
        return self._start(Claim(number, self.work.run(first, count), size, now))

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
        first = None
        if candidate.held is None and candidate.health.tier is Tier.NETWORK and self._is_meeting(now):
            first = self._anywhere(candidate)
        if first is None:
            first = self._board.next_item(candidate)
        if first is None or spared(self._board, candidate.health, first, now):
            return None
        if candidate.health.sequential:
            return self._stream(number, self.work.blob_of(first), now)
        most = CHUNK_BYTES
        swarming = self._swarm is not None and not self._swarm.flight.alone
        if swarming and candidate.health.peer:
            most = request_bytes(self._free_bytes(), self.limits.swarm_lanes)
        elif candidate.health.tier is Tier.NETWORK and self._rates.sources > 1:
            free = self._free_bytes()
            most = request_bytes(free, self.limits.lanes)
            if comes_last(self._board, self._claims, self._rates, number, first, free, most, now):
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
        health = self.health(claim.source)
        health.started(claim.started_at)
        if health.peer and self._swarm is not None:
            self._swarm.reorder(claim.source)
        return claim

    def _hedge(self, ready: Iterable[int], now: float) -> Claim | None:
        if not self._board.all_assigned:
            return None
        least = self.limits.hedge_chunks_min * CHUNK_BYTES
        budget = max(self.limits.hedge_fraction * self.work.total_bytes, least) - self.hedged_bytes
        may = self._swarm.may_double if self._swarm is not None else None
        hedge = pick_hedge(self._board, self._claims, ready, budget, now, may)
        if hedge is None:
            return None
        self.hedged_bytes += hedge.size
        run = self.work.run(hedge.first, hedge.last - hedge.first + 1)
        return self._start(Claim(hedge.source, run, hedge.size, now, hedge=True))

    def _wait(self, now: float) -> Claim | Pause | Ended:
        """Nothing to hand out: until when, or why never again."""
        if self._swarm is not None and any(not claim.cancelled for claim in self._claims):
            return Pause(now + _IDLE_CHECK_S)
        servable = {
            number: each.health
            for number, each in enumerate(self._board.sources)
            if not each.health.out and self._board.has_work(each)
        }
        resumes = [each.resume_at for each in servable.values() if each.resume_at > now]
        if any(not claim.cancelled for claim in self._claims):
            return Pause(min([*resumes, now + _IDLE_CHECK_S]))
        if not servable and self.expects_more:
            return Pause(min(now + _IDLE_CHECK_S, self._patience_ends_at))
        if not servable:
            self._ended = Ended("no source has what is left")
            return self._ended
        if any(each.usable(now) for each in servable.values()):
            return Pause(min([*resumes, now + _IDLE_CHECK_S]))
        deadline = self._patience_ends_at
        return self._retry(servable, now) or Pause(
            min([*(each.retry_at for each in servable.values()), deadline])
        )

    @property
    def _patience_ends_at(self) -> float:
        """What others get done counts as well, but not for ever: whoever waits for his turn is no worse off."""
        others_at = self._swarm.flight.moved_at if self._swarm is not None else 0.0
        patience_s = self.limits.patience_s
        return (
            max(self._progress_at, min(others_at, self._progress_at + _OTHERS_COUNT * patience_s))
            + patience_s
        )

    def _lost_patience(self, now: float) -> bool:
        """Whether nothing came for too long, also while dead sources keep the lanes busy.

        Not while a source is left that may be alive and has something to give, or to be asked for.
        """
        return now >= self._patience_ends_at and not any(
            each.health.usable(now) and (each.health.in_flight > 0 or self._board.has_work(each))
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
