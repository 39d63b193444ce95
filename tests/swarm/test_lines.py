"""One machine, an origin of 20 Mbit/s and three peers of 100: all of them are used, in time, whoever comes or goes."""

from __future__ import annotations

import json
import urllib.request
from functools import partial

import pytest

from diachunk.limits import CHUNK_BYTES
from diachunk.node.model import PORTS
from fixtures import lab_lines
from fixtures.lab import MBIT, Lab
from fixtures.lab_machine import Machine, wait_for
from fixtures.lab_scenarios import goods
from fixtures.lab_swarm import Watch, fetcher, let_go, serve, wait_until

pytestmark = pytest.mark.loopback
SIZE = 128_000_000
ATTEMPTS = 3
"""A policy that falls short does so each time; a busy machine does not."""
LANES_A_PEER = 2


def test_one_origin_and_three_peers_give_what_their_cables_carry() -> None:
    reached = []
    for _ in range(ATTEMPTS):
        with lab_lines.lines(SIZE) as here:
            plain_bps = lab_lines.plain_bps(here, 3.0)
            taken = lab_lines.together(here)
            assert taken.outcome.error == ""
            reached.append(taken.bps(SIZE) / plain_bps)
        if reached[-1] >= 0.85:
            return
    pytest.fail(f"{reached} of four plain flows")


def test_a_peer_that_appears_is_used_within_three_seconds() -> None:
    with lab_lines.lines(SIZE) as here:
        taken = lab_lines.one_appears(here)
    assert taken.outcome.error == ""
    assert taken.used_after_s <= 3.0
    assert taken.outcome.sources[f"{here.bed['peer2'].host}:{PORTS[0]}"] > 0


@pytest.mark.parametrize("silently", [False, True], ids=["killed", "unplugged"])
def test_a_peer_that_vanishes_costs_its_chunks_in_flight(silently: bool) -> None:
    with lab_lines.lines(SIZE) as here:
        taken = lab_lines.one_vanishes(here, silently=silently)
    assert taken.outcome.error == ""
    assert taken.outcome.wasted_bytes <= LANES_A_PEER * CHUNK_BYTES


def test_a_serve_beside_a_fetch_shares_the_partial_as_it_grows() -> None:
    """Both on one store; another machine, which has no origin, takes what the first has so far."""
    size = 40_000_000
    with Lab({"origin": 20 * MBIT, "first": 100 * MBIT, "second": 100 * MBIT}, 4 * size) as bed:
        load = goods(bed.folder, size)
        bed["origin"].nginx(load.root)
        serve(bed["first"])
        bed["first"].run(partial(wait_for, bed["first"].host, PORTS[0], "/v1/node"))
        origin = f"http://{bed['origin'].host}"
        first = fetcher(bed["first"], load.manifest, origins=[origin], share=True)
        second = fetcher(bed["second"], load.manifest, peers=[bed["first"].host])
        let_go([first])
        wait_until(lambda: held_by(bed["first"]) > 0, 20.0)
        with Watch(bed) as watch:
            let_go([second])
            ended = [first.outcome(), second.outcome()]
    assert [each.error for each in ended] == ["", ""]
    assert sum(ended[1].sources.values()) == size
    done_at = first.started_at + ended[0].done_s
    begun = watch.samples[0][1]["second"].received
    while_incomplete = [now["second"].received - begun for at, now in watch.samples if at < done_at]
    assert while_incomplete[-1] > 0.6 * size
    # it comes once over the slow cable, and close behind that over the fast one
    assert second.started_at + ended[1].done_s - done_at < 3.0


def held_by(machine: Machine) -> int:
    """Bytes that its `serve` says are here."""

    def ask() -> int:
        with urllib.request.urlopen(f"http://{machine.host}:{PORTS[0]}/v1/node", timeout=5.0) as reply:
            return sum(each["have_bytes"] for each in json.load(reply)["manifests"])

    return machine.run(ask)


def test_what_is_complete_is_served_without_any_origin() -> None:
    with lab_lines.lines(SIZE // 4) as here:
        here.serve("peer0")
        taker = here.taker(origins=[])
        let_go([taker])
        outcome = taker.outcome()
    assert outcome.error == ""
    assert outcome.sources == {f"{here.bed['peer0'].host}:{PORTS[0]}": SIZE // 4}
