"""What it costs to keep an eye on many machines that do nothing."""

from __future__ import annotations

import contextlib
import time

from diachunk.limits import DEFAULT
from diachunk.manifest import Manifest
from fixtures.hostile_peer import HostilePeer
from fixtures.neighbour import Around, until
from store_files import PIECES, manifest_of


def share_of_a_core(manifest: Manifest, peers: int, seconds: float) -> float:
    """Processor time of the asking side's thread over the time that passed, once all are known and listened to."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(HostilePeer(manifest)) for _ in range(peers)]
        around = stack.enter_context(Around(*(each.address for each in idle)))
        told = around.began(manifest)
        until(lambda: len(around.call(lambda: list(around.it.neighbours))) == peers, 60.0)
        until(lambda: len(told.held) >= min(peers, DEFAULT.neighbours_max), 60.0)
        before_s, started_at = around.call(time.thread_time), time.monotonic()
        time.sleep(seconds)
        return (around.call(time.thread_time) - before_s) / (time.monotonic() - started_at)


def test_watching_idle_machines_costs_next_to_nothing(manifest: Manifest) -> None:
    """The target is 2% for 200; processor time is counted, so that others at work on this machine do not matter."""
    assert share_of_a_core(manifest, 40, 3.0) < 0.05


if __name__ == "__main__":
    made = manifest_of("lab/thing", {"model/a.bin": PIECES})
    print(f"{share_of_a_core(made, 200, 30.0):.2%} of a core for 200 idle machines")
