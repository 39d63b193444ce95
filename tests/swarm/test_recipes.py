"""Machines that start the same recipe at once take one copy of it from upstream together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import pytest

from diachunk.node.model import PORTS
from fixtures import lab_recipes
from fixtures.lab import Lab
from fixtures.lab_machine import wait_for
from fixtures.lab_recipes import Drawn, assert_right, drawing
from fixtures.lab_scenarios import ideal_s, lab, nodes_of
from fixtures.lab_swarm import Outcome, Watch, get_ready, let_go, outcomes, serve, wait_until

pytestmark = pytest.mark.loopback
MB = 1_000_000
SIZES = {
    "model.bin": 40 * MB,
    "vocoder.bin": 14 * MB,
    "config.json": 700,
    "vocab.txt": 90_000,
    "empty.txt": 0,
}
SIZE = sum(SIZES.values())
LONG = {**SIZES, "model.bin": 110 * MB}
"""Who comes later first looks for others for 2 s, and is then to find them at work."""
NODES = 4
EGRESS_MAX = 1.5


def drawn(bed: Lab, sizes: Mapping[str, int] = SIZES) -> Drawn:
    load = lab_recipes.drawn(bed, sizes)
    bed["origin"].nginx(load.root)
    return load


def assert_drawn(bed: Lab, load: Drawn, ended: list[Outcome]) -> None:
    assert [each.error for each in ended] == [""] * len(ended)
    assert [each.bytes for each in ended] == [load.size] * len(ended)
    for machine in nodes_of(bed):
        assert_right(machine.folder / "store", load)


def test_machines_that_draw_at_once_take_one_copy_from_upstream() -> None:
    with lab(NODES, SIZE) as bed:
        load = drawn(bed)
        runners = drawing(bed, load)
        with Watch(bed) as watch:
            let_go(runners)
            ended = outcomes(runners)
            carried = watch.carried()
        assert_drawn(bed, load, ended)
    assert carried["origin"].sent / load.size <= EGRESS_MAX, ended


def test_a_serve_beside_each_of_them_keeps_nobody_from_sharing() -> None:
    """The lab admin's way: the service runs everywhere, before anything is fetched."""
    with lab(NODES, SIZE) as bed:
        load = drawn(bed)
        for machine in nodes_of(bed):
            serve(machine)
        for machine in nodes_of(bed):
            machine.run(partial(wait_for, machine.host, PORTS[0], "/v1/node"))
        runners = drawing(bed, load)
        with Watch(bed) as watch:
            let_go(runners)
            ended = outcomes(runners)
            carried = watch.carried()
        assert_drawn(bed, load, ended)
    assert carried["origin"].sent / load.size <= EGRESS_MAX, ended
    assert all(label.endswith(f":{PORTS[1]}") for each in ended for label in each.sources if ":" in label)


def test_a_machine_that_starts_mid_way_joins_the_others() -> None:
    with lab(NODES, sum(LONG.values())) as bed:
        load = drawn(bed, LONG)
        *first, late = drawing(bed, load)
        get_ready([*first, late])
        with Watch(bed) as watch:
            let_go(first)
            wait_until(lambda: watch.carried()["node0"].received > MB, 60.0)
            let_go([late])
            ended = outcomes([*first, late])
            carried = watch.carried()
        assert_drawn(bed, load, ended)
    assert carried["origin"].sent / load.size <= EGRESS_MAX, ended
    others = sum(each for label, each in ended[-1].sources.items() if ":" in label)
    assert others > 0.5 * load.size, ended[-1].sources


def test_an_origin_that_dies_when_one_copy_is_here_is_not_missed() -> None:
    with lab(NODES, SIZE) as bed:
        load = drawn(bed)
        runners = drawing(bed, load)
        with Watch(bed) as watch:
            let_go(runners)
            wait_until(lambda: watch.carried()["origin"].sent > 1.45 * SIZE or done(bed), 60.0)
            time.sleep(ideal_s(MB))
            bed["origin"].kill()
            ended = outcomes(runners)
        assert_drawn(bed, load, ended)


def done(bed: Lab) -> bool:
    """Whether some machine has all."""
    return any(list((machine.folder / "store" / "manifests").glob("*")) for machine in nodes_of(bed))
