"""One session: lanes move what the schedule hands out until everything is present or nothing can bring it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from diachunk.bitmap import Bitmap
from diachunk.errors import Interrupted
from diachunk.limits import Limits
from diachunk.schedule.claims import Ended
from diachunk.schedule.health import Fault, Health, Tier
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Source
from diachunk.store.partial import Partial
from diachunk.transfer.company import Company, Swarm
from diachunk.transfer.desk import Desk, Seat
from diachunk.transfer.flow import LaneFlow
from diachunk.transfer.lane import Lane
from diachunk.transfer.progress import FileDone, How, Listener, silent
from diachunk.transfer.report import Reporter
from diachunk.transfer.sink import Sink

_TICK_S = 0.2
_LAST_TICK_S = 0.002
BEAT_S = 3.0
"""How often a session says to its neighbours that it is alive."""
_GRACE_S = 2.0
_LANES_ALIVE_MAX = 128
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
        swarm: Swarm | None = None,
        joins: bool = True,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Args:
        swarm: the other machines; every sink is then a `Partial`.
        joins: whether it takes from them, or they are only shown what is here.
        """
        sources = [offer.source for offer in offers]
        self.desk = Desk(
            work,
            sinks,
            sources,
            limits,
            clock,
            rng or random.Random(),
            max_down_bps=max_down_bps,
            local_how=local_how,
            key=swarm.manifest_id if swarm else b"",
        )
        self._listener = listener
        self._swarm = swarm
        self._joins = joins
        self._company: Company | None = None
        self.desk.schedule.expects_more = swarm is not None and joins
        self._lanes: list[Lane] = []
        self._beat_at = 0.0
        for offer in offers:
            local = offer.source.tier is Tier.LOCAL
            self.desk.schedule.add(
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
        started_at = self.desk.clock()
        reporter = Reporter(self.desk, self._listener)
        self.desk.complete_empty()
        try:
            self._start_lanes()
            self._meet()
            while not self._over():
                # Once it is over, the last lanes are on their way out: no spinning meanwhile.
                if self.desk.over.wait(_TICK_S):
                    time.sleep(_LAST_TICK_S)
                self._watch()
                reporter.tick()
                self._tell_done_files()
        except KeyboardInterrupt:
            stopped = Interrupted("stopped", hint="what is verified is kept: run the same again to resume")
            self.desk.error = self.desk.error or stopped
            raise stopped from None
        finally:
            self._shut_down()
        reporter.tick(last=True)
        self._tell_done_files()
        if self.desk.error:
            raise self.desk.error
        return self._outcome(self.desk.clock() - started_at)

    def _start_lanes(self) -> None:
        if self.desk.schedule.complete:
            return
        for _ in range(min(self.desk.limits.lanes, len(self.desk.work))):
            self._add_lane()

    def _meet(self) -> None:
        """Once lanes are at work: whoever is asked for company has a lot to import first."""
        if self._swarm and self._lanes:
            files = [sink for sink in self.desk.sinks if isinstance(sink, Partial)]
            self._company = Company(self.desk, files, joins=self._joins)
            self._swarm.began(self._company)

    def _part(self) -> None:
        company, self._company = self._company, None
        if self._swarm and company:
            company.close()
            self._swarm.ended(company)

    def _add_lane(self) -> None:
        lane = Lane(self.desk)
        self._lanes.append(lane)
        lane.start()

    def _replace_lane(self) -> None:
        """A lane hangs where nothing can wake it; it ends by itself some time. Another takes its place."""
        self._lanes = [lane for lane in self._lanes if lane.is_alive()]
        if len(self._lanes) < _LANES_ALIVE_MAX:
            self._add_lane()

    def _over(self) -> bool:
        working = any(lane.is_alive() and not lane.seat.abandoned for lane in self._lanes)
        return self.desk.error is not None or not working

    def _watch(self) -> None:
        """Stops requests that give nothing; replaces lanes that cannot even be woken (a DNS lookup, say)."""
        now = self.desk.clock()
        with self.desk.changed:
            active = list(self.desk.active.items())
            overdue = [flow for flow, _ in active if self.desk.schedule.overdue(flow.claim, now)]
        for flow in overdue:
            flow.stop(Fault.STALLED, f"no answer in {self.desk.limits.first_byte_s:g} s")
        for flow, seat in active:
            if flow.stopped is None:
                if flow.too_slow(now):
                    flow.stop(Fault.STALLED, f"no data for {self.desk.limits.stall_s:g} s")
            elif flow.unwakeable(now) and not seat.abandoned:
                self._abandon(flow, seat)
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            for sink in self.desk.sinks:
                sink.beat()

    def _abandon(self, flow: LaneFlow, seat: Seat) -> None:
        with self.desk.changed:
            if flow not in self.desk.active:
                return
            seat.abandoned = True
            silent_s = self.desk.clock() - flow.slice_started_at
            self.desk.end(flow, flow.stopped, f"no answer for {silent_s:.0f} s")
        self._replace_lane()

    def _shut_down(self) -> None:
        self._part()
        self.desk.stopping.set()
        with self.desk.changed:
            active = list(self.desk.active)
            self.desk.changed.notify_all()
        for flow in active:
            flow.stop(Fault.CANCELLED)
        until = time.monotonic() + _GRACE_S
        for lane in self._lanes:
            if not lane.seat.abandoned:
                lane.join(max(0.0, until - time.monotonic()))
        for source in self.desk.sources:
            source.close()
        for sink in self.desk.sinks:
            sink.abandon()
        self.desk.flusher.close()

    def hasten(self, blob: int, start: int, end: int) -> None:
        """Somebody waits for the bytes [start, end) of a blob: they are fetched before all others."""
        work = self.desk.work
        self.hasten_items(
            item
            for item in work.items_of(blob)
            if work.offset(item) < end and start < work.offset(item) + work.size(item)
        )

    def hasten_items(self, items: Iterable[int]) -> None:
        """The same, item by item."""
        with self.desk.changed:
            self.desk.schedule.hasten(items)

    def _tell_done_files(self) -> None:
        while self.desk.done_files:
            facts = self.desk.work.blobs[self.desk.done_files.pop(0)]
            self._listener(FileDone(facts.component, facts.path, facts.size))

    def _outcome(self, elapsed_s: float) -> Outcome:
        ended = self.desk.schedule.claim()
        healths = tuple(self.desk.schedule.healths())
        fetched = sum(each.verified_bytes for each in healths if each.tier is Tier.NETWORK)
        reused = sum(each.verified_bytes for each in healths if each.tier is Tier.LOCAL)
        return Outcome(
            ended.why if isinstance(ended, Ended) else "stopped",
            tuple(self.desk.schedule.missing()),
            fetched,
            reused,
            sum(each.wasted_bytes for each in healths),
            elapsed_s,
            healths,
        )
