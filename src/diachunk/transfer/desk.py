"""What lanes, watchdog and reporter share while a session runs: the schedule under a lock, the books."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diachunk.limits import Limits
from diachunk.schedule.claims import Claim, Ended, Pause
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Source
from diachunk.transfer.flow import LaneFlow
from diachunk.transfer.flusher import Flusher
from diachunk.transfer.meter import Meter
from diachunk.transfer.progress import How
from diachunk.transfer.sink import Sink
from diachunk.transfer.throttle import Throttle


@dataclass(slots=True, eq=False)
class Seat:
    """A lane's place at the desk. `abandoned` once the session gave up waiting for the lane."""

    abandoned: bool = False


class Desk:
    """Hands out claims, takes what came of them, keeps count.

    Attributes:
        changed: guards the schedule and the books; sleeping lanes wait on it.
        over: set when the session has nothing more to wait for.
        stopping: set when lanes must stop at once.
        local_how: what bytes from local sources are called.
        sources: by the schedule's numbers; peers are added while lanes run.
    """

    def __init__(
        self,
        work: WorkList,
        sinks: Sequence[Sink],
        sources: Sequence[Source],
        limits: Limits,
        clock: Callable[[], float],
        rng: random.Random,
        *,
        max_down_bps: int | None = None,
        local_how: How = How.REUSED,
        key: bytes = b"",
    ) -> None:
        self.work = work
        self.sinks = sinks
        self.sources = list(sources)
        self.limits = limits
        self.clock = clock
        self.meter = Meter()
        self.schedule = Schedule(work, limits, clock, rng, key=key)
        self.stopping = threading.Event()
        self.over = threading.Event()
        self.changed = threading.Condition()
        self.flusher = Flusher(limits.flush_bytes, self.fail)
        self.error: BaseException | None = None
        self.done_files: list[int] = []
        self.active: dict[LaneFlow, Seat] = {}
        self._throttle = Throttle(max_down_bps, clock) if max_down_bps else None
        self._local_how = local_how
        self._left_in = [work.places_in(number) for number in range(len(work.blobs))]
        self._written: Counter[tuple[str, How]] = Counter()

    def complete_empty(self) -> None:
        """Files of which nothing is left to do: empty ones, and those known to be whole."""
        for number, left in enumerate(self._left_in):
            if not left:
                self._complete(number)

    # --- what lanes call -----------------------------------------------------------------------------------

    def next_claim(self, seat: Seat) -> LaneFlow | None:
        """Blocks until there is something to do; None when the session ends."""
        with self.changed:
            while not self.stopping.is_set() and not seat.abandoned:
                step = self.schedule.claim()
                if isinstance(step, Ended):
                    self.over.set()
                    self.changed.notify_all()
                    for other in self.active if step.why else ():
                        other.stop(Fault.CANCELLED)  # What it waits for would come too late.
                    return None
                if isinstance(step, Pause):
                    self.changed.wait(max(0.001, step.until - self.clock()))
                    continue
                local = self.schedule.health(step.source).tier is Tier.LOCAL
                throttle = None if local else self._throttle
                flow = LaneFlow(step, self.schedule, self.limits, self.clock, throttle, self.stopping)
                self.active[flow] = seat
                return flow
        return None

    def end(self, flow: LaneFlow, fault: Fault | None, detail: str = "", retry_after_s: float = 0.0) -> None:
        """A request is over. Safe to call twice: the second is ignored."""
        flow.detach()
        with self.changed:
            if self.active.pop(flow, None) is not None:
                self.schedule.finish(flow.claim, fault, detail, retry_after_s)
                health = self.schedule.health(flow.claim.source)
                # The calling lane asks for more at once, so one that sleeps is woken only for more than that.
                if (
                    fault is not None
                    or flow.claim.bad_items
                    or health.in_flight + 1 < health.concurrency.limit
                ):
                    self.changed.notify()

    def accept(self, flow: LaneFlow, item: int) -> bool:
        """A verified chunk arrived; True if it is the first copy. Losers of a hedge are woken."""
        with self.changed:
            first = self.schedule.verified(flow.claim, item)
        self.wake_losers()
        return first

    def wake_losers(self) -> None:
        """Stops the requests whose claims were cancelled: one that gets no byte would never notice, and the watchdog
        takes it for stopped. Not to be called under the lock: waking may block.
        """
        with self.changed:
            losers = [each for each in self.active if each.claim.cancelled]
        for loser in losers:
            loser.stop(Fault.CANCELLED)

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
            self.error = self.error or error
            self.stopping.set()
            self.over.set()
            self.changed.notify_all()

    # --- books ---------------------------------------------------------------------------------------------

    def _book_place(self, blob: int, size_bytes: int, how: How) -> None:
        self._left_in[blob] -= 1
        self._written[self.work.blobs[blob].component, how] += size_bytes

    def _complete(self, blob: int) -> None:
        self.flusher.complete(self.sinks[blob], lambda: self.done_files.append(blob))

    @property
    def expected_bytes(self) -> int:
        """Bytes over all places that have to become present: what `counts` adds up to in the end."""
        work = self.work
        return sum(work.size(item) * sum(1 for _ in work.places(item)) for item in range(len(work)))

    def counts(self) -> Counter[tuple[str, How]]:
        """Bytes present or in flight, by component and kind, at this moment."""
        with self.changed:
            counts = Counter(self._written)
            for flow in self.active:
                claim = flow.claim
                local = self.schedule.health(claim.source).tier is Tier.LOCAL
                in_flight = claim.received_bytes - claim.settled_bytes
                if in_flight > 0 and not claim.hedge:
                    counts[claim.run.blob.component, self._local_how if local else How.FETCHED] += in_flight
        return counts
