"""Time and lines: events in order, and bytes as a fluid that shares what lines can carry."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

_SAME_RATE = 1e-6


class Events:
    """A virtual clock. What is due at one moment happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, happen: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self._heap, (max(time, self.now), self.count, happen))

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        self.at(self.now + seconds, happen)

    def run(self, until_s: float, over: Callable[[], bool]) -> None:
        """Until `over`, or nothing is left to happen, or that time."""
        while self._heap and not over():
            time, _, happen = heapq.heappop(self._heap)
            if time > until_s:
                return
            self.now = time
            happen()


@dataclass(slots=True, eq=False)
class Line:
    """A machine's line; rates in bytes a second. `sent_bytes` counts what went out by flows that are over."""

    up_bps: float
    down_bps: float
    sent_bytes: float = 0.0
    out: dict[Flow, None] = field(default_factory=dict)
    into: dict[Flow, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Flow:
    """One body on its way."""

    sender: Line
    receiver: Line
    size: float
    done: Callable[[], None]
    moved: float = 0.0
    rate_bps: float = 0.0
    since: float = 0.0
    version: int = 0

    def at(self, now: float) -> float:
        """Bytes moved by then."""
        return min(self.size, self.moved + self.rate_bps * (now - self.since))


class Network:
    """Shares lines among flows.

    A receiver shares its line among its flows, each up to an even share of its sender's line; a sender shares its
    own up to what its receivers want; what one flow cannot use the others get. That is a little less than max-min
    fairness gives, never promises more than lines carry, and costs only the flows near the one that changed.

    Args:
        flow_bps: what one connection reaches at most, as over a long way.
    """

    def __init__(self, events: Events, flow_bps: float = float("inf")) -> None:
        self._events = events
        self._flow_bps = flow_bps

    def start(self, flow: Flow) -> None:
        flow.since = self._events.now
        flow.sender.out[flow] = None
        flow.receiver.into[flow] = None
        self._share(flow)

    def stop(self, flow: Flow) -> None:
        """Ends a flow where it is."""
        if flow not in flow.sender.out:
            return
        flow.moved = flow.at(self._events.now)
        flow.version += 1
        del flow.sender.out[flow]
        del flow.receiver.into[flow]
        flow.sender.sent_bytes += flow.moved
        self._share(flow)

    def _share(self, changed: Flow) -> None:
        senders = {changed.sender: None}
        for flow in changed.receiver.into:
            senders[flow.sender] = None
        wanted: dict[Line, dict[Flow, float]] = {}
        for sender in senders:
            for flow in sender.out:
                if flow.receiver not in wanted:
                    wanted[flow.receiver] = self._wanted(flow.receiver)
            caps = [(wanted[flow.receiver][flow], flow) for flow in sender.out]
            for flow, rate_bps in _filled(sender.up_bps, caps):
                if abs(rate_bps - flow.rate_bps) > _SAME_RATE * rate_bps:
                    self._set(flow, rate_bps)

    def _wanted(self, receiver: Line) -> dict[Flow, float]:
        """What a receiver takes of each of its flows, if every sender offers an even share."""
        offers = [
            (min(self._flow_bps, flow.sender.up_bps / len(flow.sender.out)), flow) for flow in receiver.into
        ]
        return dict(_filled(receiver.down_bps, offers))

    def _set(self, flow: Flow, rate_bps: float) -> None:
        now = self._events.now
        flow.moved, flow.since, flow.rate_bps = flow.at(now), now, rate_bps
        flow.version += 1
        version = flow.version

        def arrived() -> None:
            if flow.version == version:
                flow.moved, flow.since = flow.size, self._events.now
                self.stop(flow)
                flow.done()

        if rate_bps > 0:
            self._events.at(now + (flow.size - flow.moved) / rate_bps, arrived)


def _filled(line_bps: float, caps: list[tuple[float, Flow]]) -> list[tuple[Flow, float]]:
    """Water poured evenly into flows of limited depth."""
    left = len(caps)
    filled: list[tuple[Flow, float]] = []
    for cap_bps, flow in sorted(caps, key=_by_rate):
        rate_bps = min(cap_bps, line_bps / left)
        line_bps -= rate_bps
        left -= 1
        filled.append((flow, rate_bps))
    return filled


def _by_rate(cap: tuple[float, Flow]) -> float:
    return cap[0]
