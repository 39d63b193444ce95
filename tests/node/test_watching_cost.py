"""What it costs to keep an eye on many machines that do nothing, and to be kept an eye on."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from diachunk.limits import DEFAULT
from diachunk.manifest import Manifest
from diachunk.node.around.roster import Roster
from diachunk.node.serving.answers_have import LISTENERS_MAX
from diachunk.store.store import Store
from fixtures.hostile_peer import HostilePeer
from fixtures.neighbour import Around, until
from fixtures.served import Served
from fixtures.watchers import Watchers, from_one_address
from store_files import PIECES, keep, manifest_of


def asking_side(manifest: Manifest, peers: int, seconds: float) -> float:
    """Processor time of the asking side's thread over the time that passed, once all are known and listened to."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(HostilePeer(manifest)) for _ in range(peers)]
        around = stack.enter_context(Around(*(each.address for each in idle)))
        told = around.began(manifest)
        until(lambda: len(around.call(lambda: list(around.it.neighbours))) == peers, 60.0)
        until(lambda: len(told.held) >= min(peers, DEFAULT.neighbours_max), 60.0)
        return _share_of_a_core(lambda: around.call(time.thread_time), seconds)


def answering_side(store: Store, manifest: Manifest, peers: int, seconds: float) -> float:
    """The same of a node to which that many machines listen, as many as it lets listen, and announce themselves."""
    limits = from_one_address(DEFAULT, peers)
    roster = Roster(limits, time.monotonic)
    with (
        Served(store, limits=limits, roster=roster) as node,
        Watchers(node.port, manifest, peers, limits) as watchers,
    ):
        until(lambda: watchers.hearing == min(peers, LISTENERS_MAX), 60.0)
        return _share_of_a_core(lambda: node.call(time.thread_time), seconds)


def _share_of_a_core(processor_s: Callable[[], float], seconds: float) -> float:
    before_s, started_at = processor_s(), time.monotonic()
    time.sleep(seconds)
    return (processor_s() - before_s) / (time.monotonic() - started_at)


def test_watching_idle_machines_costs_next_to_nothing(manifest: Manifest) -> None:
    """The target is 2% for 200; processor time is counted, so that others at work on this machine do not matter."""
    assert asking_side(manifest, 40, 3.0) < 0.05


def test_being_watched_by_idle_machines_costs_next_to_nothing(store: Store, manifest: Manifest) -> None:
    """Also by those that it does not let listen: with a second between their questions, 2.3% instead of 0.5%."""
    assert answering_side(store, manifest, 200, 3.0) < 0.015


if __name__ == "__main__":
    made = manifest_of("lab/thing", {"model/a.bin": PIECES})
    print(f"{asking_side(made, 200, 30.0):.2%} of a core for 200 idle machines")
    with tempfile.TemporaryDirectory() as folder:
        there = Store.open(Path(folder) / "store")
        keep(there, made, {"model/a.bin": PIECES})
        print(f"{answering_side(there, made, 200, 30.0):.2%} of a core for 200 that watch this one")
