"""A simulated machine that fetches: a real Schedule, and news to and from its neighbours."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from diachunk.bitmap import Bitmap
from diachunk.limits import Limits
from diachunk.schedule.claims import Claim, Ended, Pause
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.members import Member
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import WorkList
from diachunk.simulate.flows import Events, Line, Network
from diachunk.simulate.uploads import Request, Server

_WATCH_S = 0.1
_TAKING_EVERY_S = 1.0
_PROGRESS_S = 0.1
_MISSING_S = 10.0
"""When neighbours notice a machine that went without a word."""


class Machine:
    """One node. Others know it by `address`; it knows them as peers of its schedule.

    Attributes:
        ended_at: when its schedule ended, -1 before; `why`: "" if with everything.
        gone: it left or was killed.
    """

    def __init__(
        self,
        address: str,
        work: WorkList,
        limits: Limits,
        events: Events,
        network: Network,
        line: Line,
        latency_s: float,
        seed: int,
        key: bytes,
    ) -> None:
        self.address = address
        self.work = work
        self.limits = limits
        self.events = events
        self.latency_s = latency_s
        self.started_at = events.now
        self.ended_at = -1.0
        self.why: str | None = None
        self.gone = False
        self.feeds = False
        self.hedged_bytes = 0
        self.has = Bitmap(len(work))
        self.shares = True
        self.on_end: Callable[[Machine], None] = lambda machine: None
        self.schedule = Schedule(work, limits, lambda: events.now, random.Random(seed), key=key)
        self.schedule.expects_more = True
        self.server = Server(events, network, line, self.holds, limits.upload_slots)
        self.listeners: dict[Machine, int] = {}
        self.known: dict[str, Member] = {}
        self._rng = random.Random(seed + 1)
        self._network = network
        self._servers: dict[int, Server] = {}
        self._requests: dict[Claim, Request] = {}
        self._wake_at = float("inf")
        self._gained: list[int] = []
        self._heard_taking: dict[str, bool] = {}
        self._progress_told_at = -1.0
        self._told_at = self._told_taking_at = -1e9
        self._tell_at = float("inf")
        self.heard: dict[str, int] = {}

    def holds(self, item: int) -> bool:
        return item in self.has

    @property
    def fetching(self) -> bool:
        return self.why is None and not self.gone

    def as_member(self) -> Member:
        return Member(self.address, frozenset({"model"}), self.feeds)

    # --- sources -------------------------------------------------------------------------------------------

    def begin(self, origins: Mapping[str, Server]) -> None:
        for name, server in origins.items():
            self._servers[self.schedule.add(name, Tier.NETWORK)] = server
            self.feeds = True
        self.events.after(_WATCH_S, self._watch)
        self.ask()

    def listen_to(self, other: Machine) -> None:
        """Long-polls another machine from now on, and knows it as a member while it fetches."""
        if self in other.listeners or not self.fetching or other.gone:
            return
        if other.address in self.heard:
            number = self.heard[other.address]
            self.schedule.peer_returns(number, other.has)
        else:
            number = self.schedule.add_peer(other.address, other.has)
            self.heard[other.address] = number
            self._servers[number] = other.server
        other.listeners[self] = number
        self.knows(other)
        self.hears(other.address, number, [], other.taking())

    def knows(self, other: Machine) -> None:
        if other.fetching and other.shares:
            self.known[other.address] = other.as_member()
            self._tell_members()

    def forgets(self, address: str) -> None:
        if self.known.pop(address, None) is not None and self.fetching:
            self._tell_members()

    def _tell_members(self) -> None:
        self.schedule.members(self.address if self.shares else "", list(self.known.values()))
        self._drop_losers()
        self.ask()

    def loses(self, address: str) -> None:
        """A peer was found to be gone."""
        if self.fetching:
            if address in self.heard:
                self.schedule.peer_leaves(self.heard[address])
            self.forgets(address)

    # --- lanes ---------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Every free lane asks for work."""
        if not self.fetching or len(self._requests) >= self.limits.lanes:
            return
        if self.events.now - self._progress_told_at > _PROGRESS_S:
            self._tell_progress()
        while len(self._requests) < self.limits.lanes:
            step = self.schedule.claim()
            if isinstance(step, Claim):
                self._start(step)
                continue
            if isinstance(step, Ended):
                self._end(step.why)
            elif isinstance(step, Pause):
                self._wake(max(step.until, self.events.now + 0.001))
            return

    def _wake(self, at: float) -> None:
        if at < self._wake_at:
            self._wake_at = at

            def wake() -> None:
                if self._wake_at == at:
                    self._wake_at = float("inf")
                    self.ask()

            self.events.at(at, wake)

    def _start(self, claim: Claim) -> None:
        server = self._servers[claim.source]
        request = Request(claim, self.address, self.server.line, server, self._ended)
        self._requests[claim] = request
        self.events.after(2 * self.latency_s, lambda: server.arrives(request))
        if server.slots is None:
            self._news()

    def _tell_progress(self) -> None:
        now = self._progress_told_at = self.events.now
        for request in self._requests.values():
            if request.flow is not None:
                size = int(request.flow.at(now)) - request.told
                if size > 0:
                    request.told += size
                    self.schedule.received(request.claim, size, now)

    def _ended(self, request: Request, fault: Fault | None, retry_after_s: float) -> None:
        """A request is over, well or not."""
        if self._requests.pop(request.claim, None) is None:
            return
        if not self.fetching:
            return
        now, claim = self.events.now, request.claim
        size = int(request.flow.at(now)) - request.told if request.flow is not None else 0
        if size > 0:
            self.schedule.received(claim, size, now)
        if fault is None:
            for item in claim.run.items:
                if self.schedule.verified(claim, item):
                    self.has.add(item)
                    self._gained.append(item)
        self.schedule.finish(claim, fault, "simulated" if fault else "", retry_after_s)
        self._drop_losers()
        self._news()
        self.ask()

    def _drop_losers(self) -> None:
        for claim in [each for each in self._requests if each.cancelled]:
            if claim in self._requests:
                self._give_up(self._requests[claim], Fault.CANCELLED)

    def _give_up(self, request: Request, fault: Fault) -> None:
        request.server.drop(request)
        request.end(fault)

    def _watch(self) -> None:
        """As the session's watchdog: what gives nothing is stopped."""
        if not self.fetching:
            return
        now = self.events.now
        for claim, request in list(self._requests.items()):
            if claim in self._requests and request.flow is None:
                stalled = now - claim.started_at > self.limits.stall_s
                if stalled or self.schedule.overdue(claim, now):
                    self._give_up(request, Fault.STALLED)
            elif request.flow is not None and request.server.mute:
                self._give_up(request, Fault.STALLED)
        self.events.after(_WATCH_S, self._watch)

    # --- news ----------------------------------------------------------------------------------------------

    def _news(self) -> None:
        """Something is new: it is told as often as rule P5 allows."""
        now = self.events.now
        due = now if self._gained else self._told_taking_at + _TAKING_EVERY_S
        due = max(now, due, self._told_at + self.limits.have_interval_s)
        if due < self._tell_at:
            self._tell_at = due

            def tell() -> None:
                if self._tell_at == due:
                    self._tell_at = float("inf")
                    self._tell()

            self.events.at(due, tell)

    def _tell(self) -> None:
        if self.gone:
            return
        now = self.events.now
        self._told_at = self._told_taking_at = now
        gained, self._gained = self._gained, []
        self._tell_progress()
        taking = self.taking()
        self.events.after(self.latency_s, lambda: self._deliver(gained, taking))
        if taking:
            self._news()

    def taking(self) -> dict[int, int]:
        return self.schedule.taking() if self.fetching else {}

    def _deliver(self, gained: list[int], taking: dict[int, int]) -> None:
        for listener, number in list(self.listeners.items()):
            if listener.fetching:
                listener.hears(self.address, number, gained, taking)

    def hears(self, address: str, number: int, gained: list[int], taking: Mapping[int, int]) -> None:
        if gained:
            self.schedule.peer_gains(number, gained)
        if taking or self._heard_taking.get(address):
            self._heard_taking[address] = bool(taking)
            self.schedule.member_takes(address, taking)
            self._drop_losers()
        if gained:
            self.ask()

    # --- the end -------------------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        self._stop(why)
        for listener in list(self.listeners):
            self.events.after(self.latency_s, lambda each=listener: each.forgets(self.address))  # type: ignore[misc]
        self.on_end(self)

    def _stop(self, why: str | None) -> None:
        self.hedged_bytes = self.schedule.hedged_bytes
        requests = list(self._requests.values())
        self._requests.clear()
        if why is not None:
            self.why, self.ended_at = why, self.events.now
        for request in requests:
            request.over = True
            request.server.drop(request)
        self._news()

    def leave(self, *, mute: bool = False) -> None:
        """It is gone for good: killed, or switched off (`mute`)."""
        if self.gone:
            return
        fetching = self.fetching
        self.gone = True
        if fetching:
            self._stop(None)
        self.server.die(mute=mute)
        noticed_s = _MISSING_S if mute else self.latency_s
        for listener in list(self.listeners):
            self.events.after(noticed_s, lambda each=listener: each.loses(self.address))  # type: ignore[misc]
