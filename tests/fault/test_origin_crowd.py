"""Fifty origins: the one that works is found among them, and when none does, the end comes and names them all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer, refused_port
from diachunk.testing.faults import Fault, always
from fixtures.checkpoints import Checkpoint, assert_same_files, assert_store_is_right
from fixtures.settings import write_config
from fixtures.watch import failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]


class Crowd:
    """Origins of which none works, each in one of several ways."""

    def __init__(self, small: Checkpoint, ways: list[Fault | None]) -> None:
        self._servers = [BadServer(small.root, always(way)) for way in ways if way is not None]
        refused = [f"http://127.0.0.1:{refused_port()}" for way in ways if way is None]
        self.urls = [each.url for each in self._servers] + refused

    def __enter__(self) -> list[str]:
        return self.urls

    def __exit__(self, *exc: object) -> None:
        for server in self._servers:
            server.close()


MUTE: list[Fault | None] = [faults.StallBeforeHeader(), faults.StallAfter(10)]
CROWDS: dict[str, list[Fault | None]] = {
    "mute": [*MUTE * 24, faults.StallBeforeHeader()],
    "of all kinds": [
        faults.StallBeforeHeader(),
        None,
        faults.Status(500),
        faults.Flip(),
        faults.StallAfter(0),
        faults.Status(403),
        faults.Reset(),
    ]
    * 7,
}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mute", "last"),
        ("of all kinds", "last"),
        ("of all kinds", "in the middle"),
    ],
)
def test_of_fifty_origins_the_one_that_works_is_soon_in_use(
    small: Checkpoint, home: Path, base: Path, name: str, place: str
) -> None:
    """With the limits that a user has, among them ten seconds of silence before a stall."""
    write_config(base, {})
    with Crowd(small, CROWDS[name]) as crowd, BadServer(small.root) as good:
        at = len(crowd) if place == "last" else len(crowd) // 2
        origins = [*crowd[:at], good.url, *crowd[at:]]
        asked: list[float] = []
        good.script = lambda request, number: asked.append(time.monotonic())
        started_at = time.monotonic()
        done = fetch(small, *origins, home=home)
        took_s = time.monotonic() - started_at
        assert asked[0] - started_at < 8.0
        assert took_s < 60.0
        assert len(done.report.sources) == 50
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    told = {each.label: each.verified_bytes for each in done.report.sources}
    # of a request for several chunks a liar may have brought right ones as well
    assert told[f"127.0.0.1:{good.port}"] > small.total_bytes / 2


def test_of_fifty_that_do_not_work_every_one_is_named(small: Checkpoint, home: Path) -> None:
    with Crowd(small, CROWDS["of all kinds"]) as crowd:
        started_at = time.monotonic()
        error = failed_fetch(small, *crowd, home=home)
        assert time.monotonic() - started_at < 60
        for url in crowd:
            assert f"{url.removeprefix('http://')}: " in error.message
