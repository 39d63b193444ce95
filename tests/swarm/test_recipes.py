"""Machines that start the same recipe at once take one copy of it from upstream together."""

from __future__ import annotations

import pytest

from fixtures.lab_recipes import assert_right, drawing, drawn
from fixtures.lab_scenarios import lab, nodes_of
from fixtures.lab_swarm import Watch, let_go, outcomes

pytestmark = pytest.mark.loopback
MB = 1_000_000
SIZES = {
    "model.bin": 40 * MB,
    "vocoder.bin": 14 * MB,
    "config.json": 700,
    "vocab.txt": 90_000,
    "empty.txt": 0,
}


def test_machines_that_draw_at_once_take_one_copy_from_upstream() -> None:
    with lab(4, sum(SIZES.values())) as bed:
        load = drawn(bed, SIZES)
        bed["origin"].nginx(load.root)
        runners = drawing(bed, load)
        with Watch(bed) as watch:
            let_go(runners)
            ended = outcomes(runners)
            carried = watch.carried()
        assert [each.error for each in ended] == [""] * 4
        for machine in nodes_of(bed):
            assert_right(machine.folder / "store", load)
    egress = carried["origin"].sent / load.size
    print(
        egress,
        [each.done_s for each in ended],
        [each.ended_s for each in ended],
        [each.sources for each in ended],
        [each.wasted_bytes for each in ended],
    )
    assert egress <= 1.5
