"""What a simulated machine gives to others: slots and a queue, as rule P17 of docs/protocol.md says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Fault
from diachunk.simulate.flows import Events, Flow, Line, Network

_WAITING_EACH = 2
_WAITING_MAX = 256
RETRY_AFTER_S = 1.0


@dataclass(slots=True, eq=False)
class Request:
    """One claim on its way between two machines.

    Attributes:
        client: the address of who asked.
        told: bytes that the client's schedule was told of.
        ended: calls the client back, once: how it ended, and when it may ask again.
    """

    claim: Claim
    client: str
    line: Line
    server: Server
    ended: Callable[[Request, Fault | None, float], None]
    flow: Flow | None = None
    told: int = 0
    over: bool = False

    def end(self, fault: Fault | None, retry_after_s: float = 0.0) -> None:
        if not self.over:
            self.over = True
            self.ended(self, fault, retry_after_s)


@dataclass(slots=True, eq=False)
class Server:
    """The giving side of a machine. `slots`: uploads at once; None: as many as come (an origin).

    Attributes:
        gone: its connections are refused; `mute`: they hang.
    """

    events: Events
    network: Network
    line: Line
    holds: Callable[[int], bool]
    slots: int | None
    gone: bool = False
    mute: bool = False
    refused: int = 0
    active: dict[Request, None] = field(default_factory=dict)
    waiting: dict[str, list[Request]] = field(default_factory=dict)
    served_at: dict[str, float] = field(default_factory=dict)

    def arrives(self, request: Request) -> None:
        """A request has reached this machine."""
        if request.over or self.mute:
            return
        if self.gone:
            request.end(Fault.FAILED)
        elif not all(self.holds(item) for item in request.claim.run.items):
            request.end(Fault.MISSING)
        elif self.slots is None or len(self.active) < self.slots:
            self._serve(request)
        else:
            queue = self.waiting.setdefault(request.client, [])
            if len(queue) >= _WAITING_EACH or sum(map(len, self.waiting.values())) >= _WAITING_MAX:
                self.refused += 1
                request.end(Fault.BUSY, RETRY_AFTER_S)
            else:
                queue.append(request)

    def _serve(self, request: Request) -> None:
        self.active[request] = None
        self.served_at[request.client] = self.events.now

        def done() -> None:
            self._free(request)
            request.end(None)

        request.flow = Flow(self.line, request.line, float(request.claim.size), done)
        self.network.start(request.flow)

    def drop(self, request: Request) -> None:
        """The client gave up."""
        queue = self.waiting.get(request.client, [])
        if request in queue:
            queue.remove(request)
        if request.flow is not None:
            self.network.stop(request.flow)
        self._free(request)

    def _free(self, request: Request) -> None:
        if self.active.pop(request, request) is None:
            waits = [name for name, queue in self.waiting.items() if queue]
            if waits and not self.gone:
                name = min(waits, key=lambda each: self.served_at.get(each, -1.0))
                self._serve(self.waiting[name].pop(0))

    def die(self, *, mute: bool) -> None:
        """The machine is gone: with a reset of every connection, or without a word."""
        self.gone, self.mute = True, mute
        everyone = [*self.active, *(each for queue in self.waiting.values() for each in queue)]
        self.active.clear()
        self.waiting.clear()
        for request in everyone:
            if request.flow is not None:
                self.network.stop(request.flow)
            if not mute:
                request.end(Fault.FAILED)
