"""Machines that are not like the others, simulated: liars among the members, complete ones, fast lines and slow."""

from __future__ import annotations

import pytest

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, DEFAULT, KiB
from diachunk.simulate.flows import Line
from diachunk.simulate.machine import Machine
from diachunk.simulate.world import MBIT, Setup, World

BELIEVED_S = 6 * DEFAULT.takeover_s
"""For how long a member may keep the others from a chunk."""
OWN_BPS = 1000 * MBIT
"""A line that is never what anybody waits for."""


class Hoarder(Machine):
    """A member that says it takes everything from the origin, takes nothing, and never has anything."""

    advances = True

    def ask(self) -> None:
        return

    def taking(self) -> dict[int, int]:
        far = int((self.events.now - self.started_at) * 64 * KiB) if self.advances else 1
        return dict.fromkeys(range(len(self.work)), far % CHUNK_BYTES)


class Staller(Hoarder):
    """The same, and what it says it has of it never grows."""

    advances = False


def _machine(world: World, number: int, kind: type[Machine] = Machine) -> Machine:
    """One more machine, which the world has not sent for."""
    setup = world.setup
    line = Line(setup.link_bps, setup.link_bps)
    address, seed = f"10.1.0.{number}:8420", 7_000 + number
    return kind(
        address, world.work, setup.limits, world.events, world.network, line, setup.latency_s, seed, world.key
    )


def _beside(kind: type[Machine], setup: Setup) -> tuple[World, Machine]:
    """A world in which one such member comes first and goes when the others are done."""
    world = World(setup)
    odd = _machine(world, 1, kind)
    odd.feeds = True

    def comes(world: World) -> None:
        world.machines.append(odd)
        for machine in world.machines[:-1]:
            machine.listen_to(odd)
            odd.listen_to(machine)
        odd._news()

    def goes(world: World) -> bool:
        if not any(each.fetching for each in world.machines if each is not odd):
            odd.leave()
        return odd.gone

    world.at(0.0, comes)
    world.every(0.25, goes)
    return world, odd


@pytest.mark.parametrize(("kind", "costs_s"), [(Staller, DEFAULT.takeover_s), (Hoarder, BELIEVED_S)])
def test_a_member_that_claims_everything_and_delivers_nothing_costs_a_bounded_time(
    kind: type[Machine], costs_s: float
) -> None:
    setup = Setup(nodes=8, chunks=64)
    world, _ = _beside(kind, setup)
    result = world.run()
    assert len(result.took_s) == 8
    assert max(result.took_s) <= max(World(setup).run().took_s) + costs_s + 3.0
    assert result.egress <= 1.1


# --- one machine beside complete ones ----------------------------------------------------------------------------


def _complete(world: World, number: int) -> Machine:
    """One that has everything, and does nothing but serve."""
    machine = _machine(world, number)
    machine.has = Bitmap.full(len(world.work))
    machine.why = ""
    return machine


def _alone(chunks: int, origin_bps: float) -> World:
    """One machine whose own line never is the narrowest, and an origin."""
    return World(Setup(nodes=1, chunks=chunks, origin_bps=origin_bps, lines={0: (OWN_BPS, OWN_BPS)}))


def _sent_bytes(machine: Machine, now: float) -> float:
    line = machine.server.line
    return line.sent_bytes + sum(flow.at(now) for flow in line.out)


@pytest.mark.parametrize("chunks", [64, 128])
def test_an_origin_of_20_mbit_and_three_complete_peers_of_100_add_up(chunks: int) -> None:
    world = _alone(chunks, 20 * MBIT)
    peers = [_complete(world, number) for number in range(3)]

    def meet(world: World) -> None:
        for peer in peers:
            world.machines[0].listen_to(peer)

    world.at(0.0, meet)
    (took_s,) = world.run().took_s
    assert world.setup.total_bytes / took_s >= 0.95 * 320 * MBIT


def test_a_complete_peer_that_comes_half_way_is_used_at_once() -> None:
    world = _alone(64, 20 * MBIT)
    late = _complete(world, 1)
    world.at(20.0, lambda world: world.machines[0].listen_to(late))
    sent: list[float] = []
    world.at(23.0, lambda world: sent.append(_sent_bytes(late, world.events.now)))
    world.run()
    assert sent[0] >= 0.9 * 3.0 * 100 * MBIT


@pytest.mark.parametrize("mute", [False, True])
def test_a_peer_that_vanishes_costs_its_requests_under_way_and_nothing_else(mute: bool) -> None:
    world = _alone(64, 20 * MBIT)
    stays, goes = _complete(world, 1), _complete(world, 2)

    def meet(world: World) -> None:
        world.machines[0].listen_to(stays)
        world.machines[0].listen_to(goes)

    world.at(0.0, meet)
    world.at(5.0, lambda world: goes.leave(mute=mute))
    result = world.run()
    assert len(result.took_s) == 1
    assert result.wasted_bytes <= DEFAULT.per_peer * CHUNK_BYTES
    left_bytes = world.setup.total_bytes - 5.0 * 220 * MBIT
    stalled_s = DEFAULT.stall_s if mute else 0.0
    assert result.took_s[0] <= max(5.0 + (left_bytes + 2 * CHUNK_BYTES) / (120 * MBIT), 5.0 + stalled_s) + 1.0
