"""Eight machines fetch 128 MB at one moment, over cables of 100 Mbit/s: in time, and the origin gives it about once.

The bounds are looser than those of the benchmark (16 machines, 512 MB): 32 chunks are few for eight machines, and two
cores do everybody's work.
"""

from __future__ import annotations

import pytest

from fixtures import lab_scenarios as scenarios
from fixtures.checkpoints import blobs_of
from fixtures.lab import Lab
from fixtures.lab_scenarios import Result

pytestmark = pytest.mark.loopback
NODES = 8
SIZE = 128_000_000


def checked(bed: Lab, result: Result, nodes: int) -> Result:
    """All ended well, with everything, and nothing was printed that nobody asked for."""
    print(result)
    assert result.errors == []
    assert [each.bytes for each in result.outcomes] == [result.size] * nodes
    said = {machine.name: (machine.folder / "stderr.txt").read_text() for machine in scenarios.nodes_of(bed)}
    assert {name: text for name, text in said.items() if text} == {}
    return result


def test_a_cold_swarm_is_done_in_time_and_the_origin_gives_it_about_once() -> None:
    with scenarios.lab(NODES, SIZE) as bed:
        result = checked(bed, scenarios.cold(bed, scenarios.goods(bed.folder, SIZE)), NODES)
        assert_stores_are_right(bed)
    assert result.slowdown <= 2.0, result
    assert result.egress <= 1.3, result


def test_half_of_a_swarm_dies_and_the_others_hardly_notice() -> None:
    size = SIZE // 2
    with scenarios.lab(NODES, size) as bed:
        result = checked(bed, scenarios.half_killed(bed, scenarios.goods(bed.folder, size)), NODES // 2)
    assert result.slowdown <= 3.0, result


def test_a_swarm_that_holds_one_copy_ends_without_the_origin() -> None:
    size = SIZE // 2
    with scenarios.lab(NODES, size) as bed:
        checked(bed, scenarios.origin_killed(bed, scenarios.goods(bed.folder, size)), NODES)


def test_one_named_peer_is_enough_where_multicast_is_blocked() -> None:
    """The others are heard of through it."""
    size = SIZE // 4
    with scenarios.lab(6, size) as bed:
        bed.block_multicast()
        load = scenarios.goods(bed.folder, size)
        result = checked(bed, scenarios.cold(bed, load, peers=[bed["node0"].host]), 6)
    assert result.egress <= 2.0, result
    for number, outcome in enumerate(result.outcomes):
        others = {label for label in outcome.sources if label.endswith(":8420")}
        assert len(others) >= 2, f"node{number}: {outcome.sources}"


def test_mdns_alone_finds_everybody() -> None:
    size = SIZE // 4
    with scenarios.lab(4, size) as bed:
        result = checked(bed, scenarios.cold(bed, scenarios.goods(bed.folder, size)), 4)
    assert result.egress <= 2.0, result
    assert all(len(each.sources) >= 3 for each in result.outcomes), result.outcomes


def assert_stores_are_right(bed: Lab) -> None:
    """Byte for byte what the origin serves."""
    want = (bed.folder / "served" / "f.bin").read_bytes()
    for machine in scenarios.nodes_of(bed):
        (blob,) = blobs_of(machine.folder / "store")
        assert blob.read_bytes() == want
