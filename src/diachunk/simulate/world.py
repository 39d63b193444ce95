"""A lab of simulated machines: when they come, whom they know, what happens to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES, DEFAULT, Limits
from diachunk.manifest.model import ChunkList
from diachunk.schedule.feeders import hash_of
from diachunk.schedule.health import Tier
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.simulate.flows import Events, Line, Network
from diachunk.simulate.machine import Machine
from diachunk.simulate.uploads import Server

MBIT = 125_000.0
_LISTENERS_MAX = 128


@dataclass(frozen=True, slots=True)
class Setup:
    """What is simulated. Rates in bytes a second, times in seconds.

    Attributes:
        views_lag_s: machines hear of each other this long after the later one came, at most.
        join_s: when each comes; shorter than `nodes`: the rest at 0.
        lines: (up, down) of single machines that differ.
        flow_bps: what one connection reaches at most.
        lingers: a machine that is done stays (at most `limits.linger_s`) until those it knows are done.
    """

    nodes: int = 16
    chunks: int = 128
    chunk_bytes: int = CHUNK_BYTES
    link_bps: float = 100 * MBIT
    origin_bps: float = 100 * MBIT
    flow_bps: float = float("inf")
    latency_s: float = 0.001
    views_lag_s: float = 0.3
    seed: int = 1
    join_s: Sequence[float] = ()
    lines: dict[int, tuple[float, float]] = field(default_factory=dict)
    lingers: bool = True
    limits: Limits = DEFAULT

    @property
    def total_bytes(self) -> int:
        return self.chunks * self.chunk_bytes

    @property
    def ideal_s(self) -> float:
        """How long one machine alone takes at the rate of its own line."""
        return self.total_bytes / min(self.link_bps, self.origin_bps)


@dataclass(frozen=True, slots=True)
class Result:
    """How it went. Seconds are counted from when each machine came.

    Attributes:
        took_s: of every machine that ended with everything.
        failed: (address, why) of those that ended without.
        never: machines that neither ended nor were killed.
    """

    took_s: tuple[float, ...]
    failed: tuple[tuple[str, str], ...]
    never: int
    origin_bytes: float
    hedged_bytes: int
    wasted_bytes: int
    refused: int
    ended_at: float
    setup: Setup

    @property
    def slowest(self) -> float:
        """Over the ideal."""
        return max(self.took_s, default=float("inf")) / self.setup.ideal_s

    @property
    def median(self) -> float:
        return median(self.took_s) / self.setup.ideal_s if self.took_s else float("inf")

    @property
    def egress(self) -> float:
        """What the origin sent over the size."""
        return self.origin_bytes / self.setup.total_bytes


class World:
    """Machines around one origin."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.events = Events()
        self.network = Network(self.events, setup.flow_bps)
        self.rng = random.Random(setup.seed)
        self.key = digest_of(b"manifest %d" % setup.seed)
        self.work = WorkList([_blob(setup)])
        origin = Line(setup.origin_bps, setup.origin_bps)
        self.origin = Server(self.events, self.network, origin, lambda item: True, None)
        self.machines: list[Machine] = []
        self._pending = setup.nodes
        for number in range(setup.nodes):
            at = setup.join_s[number] if number < len(setup.join_s) else 0.0
            self.events.at(at, lambda number=number: self._join(number))  # type: ignore[misc]

    def at(self, time: float, happen: Callable[[World], None]) -> None:
        """Something a scenario wants to happen."""
        self.events.at(time, lambda: happen(self))

    def every(self, seconds: float, happen: Callable[[World], bool]) -> None:
        """Again and again, until it answers True."""

        def again() -> None:
            if not happen(self):
                self.events.after(seconds, again)

        self.events.after(seconds, again)

    def run(self, until_s: float = 3600.0) -> Result:
        self.events.run(until_s, lambda: not self._pending and not any(m.fetching for m in self._open()))
        return self._result()

    def _open(self) -> list[Machine]:
        self.machines_open = [each for each in getattr(self, "machines_open", self.machines) if each.fetching]
        return self.machines_open

    # --- who comes, who is known ---------------------------------------------------------------------------

    def _join(self, number: int) -> None:
        setup = self.setup
        up_bps, down_bps = setup.lines.get(number, (setup.link_bps, setup.link_bps))
        machine = Machine(
            f"10.0.{number >> 8}.{number & 255}:8420",
            self.work,
            setup.limits,
            self.events,
            self.network,
            Line(up_bps, down_bps),
            setup.latency_s,
            setup.seed * 100_003 + number,
            self.key,
        )
        machine.on_end = self._ended
        self._pending -= 1
        self.machines.append(machine)
        machine.begin({"origin": self.origin})
        self.meet(machine)

    def meet(self, machine: Machine) -> None:
        """It is told of those with the lowest hashes, and of as many others as it may listen to."""
        others = [each for each in self.machines if each is not machine and not each.gone]
        others.sort(key=lambda each: hash_of(self.key, each.address))
        feeders = others[: self.setup.limits.feeders]
        rest = others[self.setup.limits.feeders :]
        self.rng.shuffle(rest)
        most = self.setup.limits.neighbours_max
        for other in [*feeders, *rest[: most - len(feeders)]]:
            for one, two in ((machine, other), (other, machine)):
                lag_s = self.rng.random() * self.setup.views_lag_s + self.setup.latency_s
                self.events.after(lag_s, lambda one=one, two=two: self._introduce(one, two))  # type: ignore[misc]

    def _introduce(self, one: Machine, two: Machine) -> None:
        full = len(one.heard) >= self.setup.limits.neighbours_max or len(two.listeners) >= _LISTENERS_MAX
        if one.fetching and not two.gone:
            if full:
                one.knows(two)
            else:
                one.listen_to(two)

    def _ended(self, machine: Machine) -> None:
        if not self.setup.lingers:
            machine.leave()
            return
        gone_at = self.events.now + self.setup.limits.linger_s

        def look() -> None:
            waiting = any(each.address in machine.heard and each.fetching for each in self.machines)
            if self.events.now >= gone_at or not waiting:
                machine.leave()
            else:
                self.events.after(1.0, look)

        self.events.after(1.0, look)

    # --- what came of it -----------------------------------------------------------------------------------

    def _result(self) -> Result:
        flows = sum(flow.at(self.events.now) for flow in self.origin.line.out)
        ended = [each for each in self.machines if each.why is not None]
        return Result(
            took_s=tuple(each.ended_at - each.started_at for each in ended if each.why == ""),
            failed=tuple((each.address, each.why or "") for each in ended if each.why),
            never=sum(each.fetching for each in self.machines),
            origin_bytes=self.origin.line.sent_bytes + flows,
            hedged_bytes=sum(each.schedule.hedged_bytes for each in self.machines),
            wasted_bytes=sum(
                health.wasted_bytes
                for each in self.machines
                for health in each.schedule.healths()
                if health.tier is Tier.NETWORK
            ),
            refused=sum(each.server.refused for each in self.machines),
            ended_at=self.events.now,
            setup=self.setup,
        )


def _blob(setup: Setup) -> BlobFacts:
    names = b"".join(digest_of(b"%d/%d" % (setup.seed, number)) for number in range(setup.chunks))
    sizes = [setup.chunk_bytes] * setup.chunks
    chunks = ChunkList.of((size, names[32 * n : 32 * n + 32]) for n, size in enumerate(sizes))
    return BlobFacts(digest_of(names), sum(sizes), chunks, "model", "weights.bin")


def simulate(setup: Setup, **changes: object) -> Result:
    """Runs one world to its end."""
    return World(replace(setup, **changes)).run()  # type: ignore[arg-type]
