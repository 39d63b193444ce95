"""The policy of a swarm, in a simulated lab: nobody waits long, and the origin gives everything about once."""

from __future__ import annotations

import pytest

from diachunk.simulate.world import MBIT, Setup, World


@pytest.mark.parametrize("seed", range(3))
def test_sixteen_cold_machines_take_everything_once_from_the_origin(seed: int) -> None:
    result = World(Setup(seed=seed)).run()
    assert len(result.took_s) == 16
    assert result.slowest <= 1.25
    assert result.egress <= 1.1


@pytest.mark.parametrize(("nodes", "slowest"), [(1, 1.02), (2, 1.3), (8, 1.6)])
def test_a_few_machines_and_a_small_checkpoint(nodes: int, slowest: float) -> None:
    result = World(Setup(nodes=nodes, chunks=32)).run()
    assert len(result.took_s) == nodes
    assert result.slowest <= slowest
    assert result.egress <= 1.1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("chunks", "slowest", "egress"), [(1, 11.0, 2.5), (4, 4.2, 2.3), (8, 3.0, 1.5)])
def test_more_machines_than_chunks(chunks: int, slowest: float, egress: float, seed: int) -> None:
    """Each chunk crosses one line after the other; nobody idles beside machines that hold what is missing."""
    result = World(Setup(chunks=chunks, seed=seed)).run()
    assert len(result.took_s) == 16
    assert result.slowest <= slowest
    assert result.egress <= egress


@pytest.mark.parametrize("mute", [False, True])
def test_half_of_the_machines_die_half_way(mute: bool) -> None:
    world = World(Setup())

    def kill(world: World) -> None:
        for machine in world.machines[::2]:
            machine.leave(mute=mute)

    world.at(0.6 * world.setup.ideal_s, kill)
    result = world.run()
    assert len(result.took_s) == 8
    assert not result.never
    assert result.slowest <= 1.5


def test_the_origin_dies_once_a_copy_exists_among_the_machines() -> None:
    world = World(Setup())

    def look(world: World) -> bool:
        have = 0
        for machine in world.machines:
            have |= int.from_bytes(machine.has.to_bytes(), "little")
        if have.bit_count() == world.setup.chunks:
            world.origin.die(mute=False)
        return world.origin.gone

    world.every(0.1, look)
    assert len(world.run().took_s) == 16


def test_machines_that_come_late_take_from_the_others() -> None:
    result = World(Setup(join_s=[0.0] * 8 + [20.0 + 3 * number for number in range(8)])).run()
    assert len(result.took_s) == 16
    assert result.egress <= 1.1


@pytest.mark.parametrize("seed", range(4))
def test_one_slow_line_does_not_hold_up_the_others(seed: int) -> None:
    world = World(Setup(lines={3: (10 * MBIT, 10 * MBIT)}, seed=seed))
    others = sorted(world.run().took_s)[:-1]
    assert others[-1] <= 1.5 * world.setup.ideal_s


def test_views_that_differ_for_seconds_cost_little() -> None:
    result = World(Setup(views_lag_s=4.0)).run()
    assert len(result.took_s) == 16
    assert result.slowest <= 1.4
    assert result.egress <= 1.1


def test_machines_that_come_and_go_all_the_time_are_done_in_time() -> None:
    """Those who leave when they are done take away what others would have had from them: the origin gives more."""
    world = World(Setup(nodes=24, chunks=64, join_s=[1.5 * number for number in range(24)], lingers=False))

    def kill(world: World) -> None:
        for machine in world.machines[5::6]:
            machine.leave(mute=True)

    world.at(20.0, kill)
    result = world.run()
    assert not result.never
    assert result.slowest <= 1.6
    assert result.egress <= 1.5


def test_a_hundred_cold_machines() -> None:
    result = World(Setup(nodes=100, chunks=32)).run()
    assert len(result.took_s) == 100
    assert result.slowest <= 2.1
    assert result.egress <= 1.5
