"""One session: lanes move what the schedule hands out until everything is present or nothing can bring it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diachunk.bitmap import Bitmap
from diachunk.errors import Interrupted
from diachunk.limits import Limits
from diachunk.schedule.health import Fault, Health, Tier
from diachunk.schedule.schedule import Claim, Ended, Pause, Schedule
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Source
from diachunk.transfer.flow import LaneFlow
from diachunk.transfer.flusher import Flusher
from diachunk.transfer.lane import Lane
from diachunk.transfer.meter import Meter
from diachunk.transfer.progress import FileDone, How, Listener, silent
from diachunk.transfer.report import Reporter
from diachunk.transfer.sink import Sink
from diachunk.transfer.throttle import Throttle

_TICK_S = 0.1
_GRACE_S = 2.0
_LOCAL_AT_ONCE = max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True)
class Offer:
    """A source and the items it is known to hold (None: it may hold any)."""

    source: Source
    has: Bitmap | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        why: "" when everything became present, else why not.
        missing: items that did not.
        fetched_bytes, reused_bytes: verified bytes by where they came from.
        wasted_bytes: verified duplicates and bytes thrown away.
        sources: the final health of each source, in the order they were offered.
    """

    why: str
    missing: tuple[int, ...]
    fetched_bytes: int
    reused_bytes: int
    wasted_bytes: int
    elapsed_s: float
    sources: tuple[Health, ...]


class Session:
    """Runs a WorkList to its end. Used for fetching, resuming, repairing and verifying alike.

    `sinks[n]` receives blob n.
    """

    def __init__(
        self,
        work: WorkList,
        sinks: Sequence[Sink],
        offers: Sequence[Offer],
        limits: Limits,
        *,
        max_down_bps: int | None = None,
        listener: Listener = silent,
        local_how: How = How.REUSED,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.work = work
        self.sinks = sinks
        self.limits = limits
        self.clock = clock
        self.meter = Meter()
        self.throttle = Throttle(max_down_bps, clock) if max_down_bps else None
        self.schedule = Schedule(work, limits, clock, rng or random.Random())
        self.sources = [offer.source for offer in offers]
        self.stopping = threading.Event()
        self.changed = threading.Condition()
        self.flusher = Flusher(limits.flush_bytes, self.fail)
        self._listener = listener
        self._local_how = local_how
        self._active: dict[LaneFlow, Lane] = {}
        self._lanes: list[Lane] = []
        self._error: BaseException | None = None
        self._done_files: list[int] = []
        self._left_in = [work.places_in(number) for number in range(len(work.blobs))]
        self._written: Counter[tuple[str, How]] = Counter()
        for offer in offers:
            local = offer.source.tier is Tier.LOCAL
            self.schedule.add(
                offer.source.label,
                offer.source.tier,
                has=offer.has,
                at_once=_LOCAL_AT_ONCE if local else None,
            )

    # --- running -------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Blocks until the end; events are told on the calling thread.

        Raises:
            StoreError: the disk refused.
            Interrupted: KeyboardInterrupt reached this thread. What is verified is on disk.
        """
        started_at = self.clock()
        reporter = Reporter(self, self._listener)
        for number, left in enumerate(self._left_in):
            if not left:
                self._complete(number)
        try:
            self._start_lanes()
            while not self._over():
                with self.changed:
                    self.changed.wait(_TICK_S)
                self._watch()
                reporter.tick()
                self._tell_done_files()
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped", hint="what is verified is kept: run the same again to resume"
            ) from None
        finally:
            self._shut_down()
        reporter.tick(last=True)
        self._tell_done_files()
        if self._error:
            raise self._error
        return self._outcome(self.clock() - started_at)

    def _start_lanes(self) -> None:
        if self.schedule.complete:
            return
        for _ in range(min(self.limits.lanes, len(self.work))):
            self._add_lane()

    def _add_lane(self) -> None:
        lane = Lane(self)
        self._lanes.append(lane)
        lane.start()

    def _over(self) -> bool:
        return self._error is not None or not any(lane.is_alive() for lane in self._lanes)

    def _watch(self) -> None:
        """Stops requests that give nothing, and replaces lanes that cannot even be woken (a DNS lookup, say)."""
        now = self.clock()
        with self.changed:
            active = list(self._active.items())
        for flow, lane in active:
            silent_s = now - flow.slice_started_at
            if flow.stopped is None:
                if flow.too_slow(now):
                    flow.stop(Fault.STALLED)
            elif flow.reading and silent_s > self.limits.stall_s + _GRACE_S and not lane.abandoned:
                with self.changed:
                    if flow not in self._active:
                        continue
                    lane.abandoned = True
                    self.end(flow, Fault.STALLED, f"no answer for {silent_s:.0f} s")
                if len(self._lanes) < self.limits.lanes_max:
                    self._add_lane()

    def _shut_down(self) -> None:
        self.stopping.set()
        with self.changed:
            active = list(self._active)
            self.changed.notify_all()
        for flow in active:
            flow.stop(Fault.CANCELLED)
        until = time.monotonic() + _GRACE_S
        for lane in self._lanes:
            if not lane.abandoned:
                lane.join(max(0.0, until - time.monotonic()))
        for source in self.sources:
            source.close()
        self.flusher.close()

    # --- what lanes call -----------------------------------------------------------------------------------

    def next_claim(self, lane: Lane) -> LaneFlow | None:
        """Blocks until there is something to do; None when the session ends."""
        with self.changed:
            while not self.stopping.is_set() and not lane.abandoned:
                step = self.schedule.claim()
                if isinstance(step, Ended):
                    self.changed.notify_all()
                    return None
                if isinstance(step, Pause):
                    self.changed.wait(max(0.001, step.until - self.clock()))
                    continue
                flow = LaneFlow(step, self.schedule, self.limits, self.clock, self.throttle, self.stopping)
                self._active[flow] = lane
                return flow
        return None

    def end(self, flow: LaneFlow, fault: Fault | None, detail: str = "", retry_after_s: float = 0.0) -> None:
        """A request is over. Safe to call twice: the second is ignored."""
        flow.detach()
        with self.changed:
            if self._active.pop(flow, None) is not None:
                self.schedule.finish(flow.claim, fault, detail, retry_after_s)
                self.changed.notify_all()

    def accept(self, flow: LaneFlow, item: int) -> bool:
        """A verified chunk arrived; True if it is the first copy. Losers of a hedge are woken."""
        with self.changed:
            first = self.schedule.verified(flow.claim, item)
            losers = [each for each in self._active if each is not flow and each.claim.cancelled]
        for loser in losers:
            loser.stop(Fault.CANCELLED)
        return first

    def wrote(self, claim: Claim, item: int) -> None:
        """The chunk stands in all of its places."""
        local = self.schedule.health(claim.source).tier is Tier.LOCAL
        how = self._local_how if local else How.FETCHED
        with self.changed:
            for place in self.work.places(item):
                self._book_place(place.blob, self.work.size(item), how)
                if not self._left_in[place.blob]:
                    self._complete(place.blob)

    def fail(self, error: BaseException) -> None:
        """Something no source can mend: the session ends with this."""
        with self.changed:
            self._error = self._error or error
            self.stopping.set()
            self.changed.notify_all()

    # --- books ---------------------------------------------------------------------------------------------

    def _book_place(self, blob: int, size_bytes: int, how: How) -> None:
        self._left_in[blob] -= 1
        self._written[self.work.blobs[blob].component, how] += size_bytes

    def _complete(self, blob: int) -> None:
        self.flusher.complete(self.sinks[blob], lambda: self._done_files.append(blob))

    def _tell_done_files(self) -> None:
        while self._done_files:
            facts = self.work.blobs[self._done_files.pop(0)]
            self._listener(FileDone(facts.component, facts.path, facts.size))

    @property
    def expected_bytes(self) -> int:
        """Bytes over all places that have to become present: what `counts` adds up to in the end."""
        work = self.work
        return sum(work.size(item) * sum(1 for _ in work.places(item)) for item in range(len(work)))

    def counts(self) -> Counter[tuple[str, How]]:
        """Bytes present or in flight, by component and kind, at this moment."""
        with self.changed:
            counts = Counter(self._written)
            for flow in self._active:
                claim = flow.claim
                local = self.schedule.health(claim.source).tier is Tier.LOCAL
                in_flight = claim.received_bytes - claim.settled_bytes
                if in_flight > 0 and not claim.hedge:
                    counts[claim.run.blob.component, self._local_how if local else How.FETCHED] += in_flight
        return counts

    def _outcome(self, elapsed_s: float) -> Outcome:
        ended = self.schedule.claim()
        healths = tuple(self.schedule.healths())
        fetched = sum(each.verified_bytes for each in healths if each.tier is Tier.NETWORK)
        reused = sum(each.verified_bytes for each in healths if each.tier is Tier.LOCAL)
        return Outcome(
            ended.why if isinstance(ended, Ended) else "stopped",
            tuple(self.schedule.missing()),
            fetched,
            reused,
            sum(each.wasted_bytes for each in healths),
            elapsed_s,
            healths,
        )
