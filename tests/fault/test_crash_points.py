"""SIGKILL at every call that changes something: what is there is right, and the next run goes on from it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.limits import CHUNK_BYTES, KiB
from fixtures.cache_truth import temporaries
from fixtures.crash_operation import NothingLeft, Operation
from fixtures.crash_operations import BY_NAME
from fixtures.crash_points import CrashServer, Stopped, counted_origin
from fixtures.crash_world import LANES, Lab, World, make_lab
from fixtures.ram import in_memory
from fixtures.store_truth import half_named, leftovers, lies, outcry

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="knows the calls of Linux alone")

_POINTS_MAX = 2000
_SHARES = {"fetch": 2, "fetch-to": 3}
"""The long ones in parts: each N is in one of them."""
_LEFT_OUT = ("open-older", "fetch-by-name", "fetch-both-ways")
"""Made of the same steps as others."""
_SAMPLED = {
    "fetch-to-again": 4,
    "draft": 2,
    "draft-again": 5,
    "publish-recipe": 5,
    "place-copies": 2,
    "place-reflinks": 3,
    "place-undo-all": 2,
    "preload": 5,
    "lock": 3,
}
"""Those that differ from others in some steps: every so many'th N."""
_PARTS = [
    (name, share, of)
    for name, of in {name: _SHARES.get(name, 1) for name in BY_NAME if name not in _LEFT_OUT}.items()
    for share in range(1, of + 1)
    if name not in _SAMPLED
]


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture
def worlds(room: Path) -> Iterator[Path]:
    directory = room / "worlds"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def big(room: Path) -> Lab:
    """One file of three chunks of 4 MiB, beside small ones: more than two lanes can lose."""
    return make_lab(room / "big", chunk_bytes=CHUNK_BYTES, chunks=3)


@pytest.fixture(scope="module")
def tiny(room: Path) -> Lab:
    return make_lab(room / "tiny", chunk_bytes=8 * KiB, chunks=5)


@pytest.fixture(scope="module")
def big_server(big: Lab) -> Iterator[CrashServer]:
    with CrashServer(big) as server:
        yield server


@pytest.fixture(scope="module")
def tiny_server(tiny: Lab) -> Iterator[CrashServer]:
    with CrashServer(tiny) as server:
        yield server


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is stopped here, so nothing is lost that was not flushed: the runs afterwards need not wait."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


def stops(
    server: CrashServer,
    lab: Lab,
    operation: str,
    root: Path,
    when: str,
    only: str = "",
    numbers: range = range(1, _POINTS_MAX),
) -> Iterator[tuple[World, Stopped]]:
    """A fresh world for each N, until the operation comes to its end before its call N."""
    for number in numbers:
        world = World(root / f"{when}-{number}", lab)
        world.root.mkdir(parents=True)
        stopped = server.run(operation, world, number, when, only)
        assert not stopped.failed, f"{operation}, to be stopped {when} {number}: {stopped.failed}"
        yield world, stopped
        if not stopped.point:
            assert number > numbers.start
            return
        shutil.rmtree(world.root)
    raise AssertionError("there is no end to it")


def go_on(operation: Operation, world: World, point: str) -> int:
    """The next run; returns what it asked of the origin."""
    asked: list[int] = []
    with counted_origin(asked.append), contextlib.suppress(NothingLeft):
        operation.run(world)
    assert operation.broken(world) == [], point
    assert operation.clean(world), point
    rotten = operation.rotten(world)
    # The user's own spoiled files stay as they are; the store's are mended.
    left = (
        frozenset(each for each in rotten if each.is_relative_to(world.mine)) if operation.mends else rotten
    )
    assert lies(world, rotten=left) == [], point
    return sum(asked)


def sweep_later(world: World) -> None:
    """Eight days later everything temporary is swept."""
    ago = time.time() - 8 * 86400
    for name in leftovers(world):
        os.utime(world.root / name, (ago, ago), follow_symlinks=False)
    diachunk.gc(home=world.home)


@pytest.mark.parametrize(
    ("name", "only", "when"),
    [
        ("fetch", "pwrite", "amid"),
        ("fetch", "pwrite", "after"),
        ("fetch", "fdatasync", "before"),
        ("fetch", "rename", "after"),
        ("fetch-to", "pwrite", "amid"),
        ("fetch-to", "rename", "before"),
        ("draft", "pwrite", "after"),
        ("draft", "write", "amid"),
        ("draft", "rename", "after"),
    ],
)
def test_a_fetch_killed_anywhere_costs_at_most_what_the_lanes_held(
    big: Lab,
    big_server: CrashServer,
    worlds: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    only: str,
    when: str,
) -> None:
    settle(monkeypatch, big)
    operation = BY_NAME[name]
    made = big.native if name == "draft" else big.old
    bound = made.distinct_bytes + LANES * CHUNK_BYTES
    for world, stopped in stops(big_server, big, name, worlds, when, only):
        point = f"{name}, killed at {stopped.calls} ({stopped.point})"
        assert stopped.asked_bytes + go_on(operation, world, point) <= bound, point


def settle(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    monkeypatch.setenv("HOME", str(lab.directory))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(lab.directory / "config"))


@pytest.mark.parametrize(
    ("name", "share", "of"), [*_PARTS, *((name, 1, each) for name, each in _SAMPLED.items())]
)
def test_whatever_is_killed_anywhere_leaves_only_truth_and_can_be_done_again(
    tiny: Lab,
    tiny_server: CrashServer,
    worlds: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    share: int,
    of: int,
) -> None:
    settle(monkeypatch, tiny)
    operation = BY_NAME[name]
    numbers = range(share, _POINTS_MAX, of)
    for world, stopped in stops(tiny_server, tiny, name, worlds, "before", numbers=numbers):
        point = f"{name}, killed at {stopped.calls} ({stopped.point})"
        assert lies(world, rotten=operation.rotten(world)) == [], point
        if operation.swaps:
            assert half_named(world) == [], point
        if stopped.calls % 5 == 0:
            assert outcry(world, tiny.old) == [], point
            assert lies(world, rotten=operation.rotten(world)) == [], point
        go_on(operation, world, point)
        if "vain" not in name and leftovers(world):  # those stay unfinished
            sweep_later(world)
            assert leftovers(world) == [], point
        assert temporaries(world) == [], point
