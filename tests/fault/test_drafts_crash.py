"""SIGKILL at the calls of a recipe's fetch that change something: only truth is left, and little is fetched twice."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.limits import CHUNK_BYTES, KiB
from fixtures.crash_operation import Operation
from fixtures.crash_points import counted_origin
from fixtures.crash_world import LANES, Lab, World, make_lab
from fixtures.hub_crash import RECIPE, SECOND, RecipeCrashServer
from fixtures.hub_world import left_in
from fixtures.ram import in_memory
from fixtures.store_truth import lies, outcry

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="knows the calls of Linux alone")

_POINTS_MAX = 2000


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


def live_in(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    monkeypatch.setenv("HOME", str(lab.directory))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(lab.directory / "config"))


def sweep(
    lab: Lab, operation: Operation, root: Path, when: str, only: str, step: int, bound: int | None = None
) -> int:
    """Stops the operation at each `step`-th call and runs it again; returns how many there were."""
    with RecipeCrashServer(lab) as server:
        for number in range(1, _POINTS_MAX, step):
            world = World(root / f"{when}-{number}", lab)
            world.root.mkdir(parents=True)
            stopped = server.run(operation.name, world, number, when, only)
            point = f"{operation.name}, killed at {stopped.calls} ({stopped.point})"
            assert not stopped.failed, f"{point}: {stopped.failed}"
            if (world.home / "store.json").exists():
                assert lies(world) == [], point
                assert outcry(world, lab.old) == [] or number % 5, point
            asked: list[int] = []
            with counted_origin(asked.append):
                operation.run(world)
            assert operation.broken(world) == [], point
            assert lies(world) == [], point
            assert [each for each in left_in(world.home / "drafts") if not each.endswith(".tmp")] == [], point
            if bound is not None:
                assert stopped.asked_bytes + sum(asked) <= bound, point
            shutil.rmtree(world.root)
            if not stopped.point:
                return stopped.calls
    raise AssertionError("there is no end to it")


def test_killed_anywhere_beside_another_recipes_files_it_leaves_only_truth(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample: what is stopped in an empty store is swept in test_crash_points."""
    lab = make_lab(room / "shared" / "lab", chunk_bytes=8 * KiB, chunks=5)
    live_in(monkeypatch, lab)
    assert sweep(lab, SECOND, room / "shared" / "worlds", "before", "", 4) > 50


@pytest.mark.parametrize(("only", "when"), [("pwrite", "amid"), ("pwrite", "after"), ("write", "amid")])
def test_killed_anywhere_it_costs_at_most_what_the_lanes_held(
    room: Path, monkeypatch: pytest.MonkeyPatch, only: str, when: str
) -> None:
    """Half a piece is written, or half a record of the journal."""
    name = f"{only}-{when}"
    lab = make_lab(room / name / "lab", chunk_bytes=CHUNK_BYTES, chunks=3)
    live_in(monkeypatch, lab)
    # equal bytes count once; one request may be hedged
    bound = sum(map(len, set(lab.old.files.values()))) + (LANES + 1) * CHUNK_BYTES
    step = {"pwrite": 40, "write": 2}[only]
    sweep(lab, RECIPE, room / name / "worlds", when, only, step, bound)
