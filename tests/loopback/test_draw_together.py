"""Machines that draw the same from an emulated Hub: together while they do, and from each other afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.api.sharing import FIND_S
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.manifest import Manifest
from diachunk.node.node import Node
from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.checkpoints import assert_store_is_right
from fixtures.hub_world import VOCODER, hub_serving, noise
from fixtures.settings import write_config
from fixtures.watch import Told

pytestmark = pytest.mark.loopback

FILES = {
    "config.json": b'{"rate": 44100}\n',
    "vocab.txt": noise("vocab", 70_000),
    "codec.bin": noise("codec", 12 * CHUNK_BYTES + 12_345),
}
SIZE = sum(len(data) for data in FILES.values())
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = range(18_420 + 20 * _WORKER, 18_424 + 20 * _WORKER)
"""Tests of this file run beside each other, and a machine takes the first free one of ten."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, base: Path) -> Iterator[Hub]:
    write_config(base, {"patience_s": 8.0}, extra=f"port = {PORTS[0]}")
    with hub_serving(monkeypatch, {VOCODER: FILES}) as serving:
        yield serving


def together(count: int, fetch: Callable[[int], diachunk.Snapshot]) -> list[diachunk.Snapshot]:
    """So many fetches, begun at one moment, each with a store of its own."""
    barrier = threading.Barrier(count)

    def run(number: int) -> diachunk.Snapshot:
        barrier.wait()
        return fetch(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def fetch(target: str | Path, home: Path, **options: Any) -> diachunk.Snapshot:
    said = {
        "peers": [f"127.0.0.1:{port}" for port in PORTS],
        "share": True,
        "linger_s": 10.0,
        "max_down_bps": 6 * MiB,
        **options,
    }
    return diachunk.fetch(target, home=home, **said)


def assert_right(home: Path, snapshot: diachunk.Snapshot) -> Manifest:
    for path, data in FILES.items():
        assert snapshot.path(path).read_bytes() == data
    assert_store_is_right(home)
    assert list((home / "drafts").iterdir()) == []
    return snapshot.manifest


def test_a_repository_is_taken_once_by_machines_that_start_together(hub: Hub, tmp_path: Path) -> None:
    snapshots = together(4, lambda number: fetch(f"hub:{VOCODER}", tmp_path / f"store{number}"))
    ids = {assert_right(tmp_path / f"store{number}", each).id for number, each in enumerate(snapshots)}
    assert len(ids) == 1
    assert hub.bytes_sent() <= 1.8 * SIZE


def test_a_machine_that_starts_later_finds_what_was_drawn_by_what_is_stated(hub: Hub, tmp_path: Path) -> None:
    """No name stands for it on the first machine: it was fetched as `hub:`."""
    first = diachunk.fetch(f"hub:{VOCODER}", home=tmp_path / "first")
    hub.fail(Part.CDN, faults.Status(503))
    hub.fail(Part.RESOLVE, faults.Status(503))
    with diachunk.serve(port=PORTS[0], home=tmp_path / "first", discover=False):
        second = fetch(f"hub:{VOCODER}", tmp_path / "second", share=False, linger_s=0)
    assert assert_right(tmp_path / "second", second).id == first.manifest.id


def test_a_library_call_opens_no_port_unless_told(hub: Hub, tmp_path: Path) -> None:
    told = Told()
    with diachunk.serve(port=PORTS[0], home=tmp_path / "other", discover=False) as serving:
        fetch(f"hub:{VOCODER}", tmp_path / "one", share=False, linger_s=None, progress=told)
        assert serving.peers() == []


def test_beside_a_serve_it_is_shown_on_a_port_of_its_own_while_it_is_drawn(hub: Hub, tmp_path: Path) -> None:
    told = Told()
    with diachunk.serve(port=PORTS[0], home=tmp_path / "one", discover=False) as serving:
        snapshot = fetch(f"hub:{VOCODER}", tmp_path / "one", linger_s=0.0, progress=told, peers=[])
        assert serving.port == PORTS[0]
    assert_right(tmp_path / "one", snapshot)
    said = [each.text for each in told.events if isinstance(each, diachunk.Notice)]
    assert said == [f"sharing what is not whole yet on port {PORTS[1]}"]


def test_others_are_looked_for_while_upstream_answers(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, too, nobody waits for both, one after the other."""
    waits: list[float] = []
    own = Node.ask_refs

    def noting(self: Node, name: str, revision: str, wait_s: float, *more: Any) -> Any:
        waits.append(wait_s)
        assert self.is_up, "it has been looking"
        return own(self, name, revision, wait_s, *more)

    monkeypatch.setattr(Node, "ask_refs", noting)
    hub.fail(Part.API, faults.RetryAfter(2, 503), of="*/revision/*", times=1)
    alone: dict[str, Any] = {"peers": [], "share": False, "discover": True, "linger_s": 0}
    fetch(f"hub:{VOCODER}", tmp_path / "one", max_down_bps=None, **alone)
    assert len(waits) == 1
    assert waits[0] < FIND_S - 0.5
