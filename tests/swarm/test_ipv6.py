"""Machines that have IPv6 alone find each other by mDNS, and share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

import diachunk
from diachunk.node.model import PORTS
from fixtures import netns
from fixtures.lab import MBIT, Lab
from fixtures.lab_machine import wait_for
from fixtures.lab_scenarios import Goods, goods
from fixtures.lab_swarm import fetcher, let_go, serve

pytestmark = pytest.mark.loopback
SIZE = 20_000_000


@contextmanager
def lab_of_ipv6() -> Iterator[tuple[Lab, Goods]]:
    """A machine that has all, and one that has nothing."""
    with Lab({"giver": 1000 * MBIT, "taker": 1000 * MBIT}, 4 * SIZE) as bed:
        for number, machine in enumerate(bed.machines.values(), 1):
            machine.host = f"fd88::{number}"
            at = ("-n", machine.namespace, "addr")
            netns.ip(*at, "flush", "dev", "eth0", "scope", "global")
            netns.ip(*at, "add", f"{machine.host}/64", "dev", "eth0", "nodad")
        load = goods(bed.folder, SIZE)
        giver = bed["giver"]
        diachunk.fetch(load.manifest, origins=[str(load.root)], home=giver.folder / "store")
        serve(giver)
        giver.run(partial(wait_for, giver.host, PORTS[0], "/v1/node"))
        yield bed, load


def test_they_find_each_other_by_mdns() -> None:
    with lab_of_ipv6() as (bed, load):
        taker = fetcher(bed["taker"], load.manifest, discover=True, share=True)
        let_go([taker])
        outcome = taker.outcome()
        assert outcome.error == ""
        assert outcome.sources == {f"[{bed['giver'].host}]:{PORTS[0]}": SIZE}


def test_one_is_named_by_its_address() -> None:
    with lab_of_ipv6() as (bed, load):
        taker = fetcher(bed["taker"], load.manifest, peers=[f"[{bed['giver'].host}]"])
        let_go([taker])
        outcome = taker.outcome()
        assert outcome.error == ""
        assert outcome.sources == {f"[{bed['giver'].host}]:{PORTS[0]}": SIZE}
