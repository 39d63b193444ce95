"""Locks save work and nothing else: without them, or with their holder stuck, every byte is right all the same."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import diachunk
from diachunk.store.partial import Partial, Vanished
from diachunk.store.store import Store
from diachunk.testing.servers import Nginx
from fixtures import damage
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    published,
    tree,
)
from fixtures.crowd import (
    Locks,
    Neighbour,
    assert_all_succeeded,
    assert_blobs_are_right,
    assert_calm,
    started,
    together,
)
from fixtures.settings import write_config
from store_files import CHUNKS, DIGEST, PIECES, write

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(300)]

LANES = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """15 MB: one file of three chunks and a bit, and four smaller ones."""
    files = {f"model/{number}.bin": os.urandom(500_000 + number) for number in range(4)}
    files["model/large.bin"] = os.urandom(13 * MIB + 17)
    return published(tree(tmp_path_factory.mktemp("weights") / "served", files), "lab/weights")


@pytest.fixture(scope="module")
def origin(weights: Checkpoint) -> Iterator[Nginx]:
    with Nginx(weights.root) as nginx:
        yield nginx


@pytest.fixture
def stuck_soon(base: Path) -> None:
    """A neighbour that gives no sign of life for three seconds is taken to be stuck."""
    write_config(base, {"lanes": LANES, "patience_s": 3})


def command(home: Path, weights: Checkpoint, origin: Nginx, *more: str | Path, locks: Locks) -> Neighbour:
    return Neighbour.command(home, "fetch", weights.target, "--origin", origin.url, *more, locks=locks)


# --- locks that do nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "locks"),
    [(2, Locks.NOTHING), (4, Locks.NOTHING), (4, Locks.NONE_LEFT), (4, Locks.UNSUPPORTED)],
    ids=lambda each: each.name.lower() if isinstance(each, Locks) else str(each),
)
def test_without_locks_fetches_at_once_all_succeed_and_every_byte_is_right(
    weights: Checkpoint, origin: Nginx, home: Path, locks: Locks, count: int
) -> None:
    crowd = together([command(home, weights, origin, locks=locks) for _ in range(count)])
    assert_all_succeeded(crowd)
    assert_same_files(Path(crowd[0].printed.strip()), weights)
    assert_blobs_are_right(home)
    assert diachunk.verify(home=home).ok


def test_without_locks_slow_fetches_that_start_apart_end_right(weights: Checkpoint, home: Path) -> None:
    with Nginx(weights.root, rate_bps=3 * MIB) as slow, ExitStack() as stack:
        crowd = []
        for _ in range(3):
            crowd.append(started(stack, command(home, weights, slow, locks=Locks.NOTHING)))
            time.sleep(0.4)
        assert_all_succeeded([each.end() for each in crowd])
    assert_same_files(diachunk.fetch(weights.target, home=home).directory, weights)
    assert_blobs_are_right(home)


def test_without_locks_fetches_into_one_directory_end_right(
    weights: Checkpoint, origin: Nginx, home: Path, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    crowd = together([command(home, weights, origin, "--to", to, locks=Locks.NOTHING) for _ in range(3)])
    assert_all_succeeded(crowd)
    assert_same_files(to, weights)


def test_one_with_locks_and_one_without_end_right(weights: Checkpoint, origin: Nginx, home: Path) -> None:
    crowd = together([command(home, weights, origin, locks=each) for each in Locks])
    assert_all_succeeded(crowd)
    assert_same_files(Path(crowd[0].printed.strip()), weights)
    assert_blobs_are_right(home)


def test_without_locks_repairs_at_once_mend_every_blob(
    weights: Checkpoint, origin: Nginx, home: Path
) -> None:
    diachunk.fetch(weights.target, origins=[origin.url], home=home)
    for spoil in (damage.flip, damage.cut, damage.append):
        for blob in [each for each in blobs_of(home) if each.stat().st_size > 8 * MIB]:
            spoil(blob)
        words = ("verify", weights.target, "--repair", "--origin", origin.url)
        crowd = together([Neighbour.command(home, *words, locks=Locks.NOTHING) for _ in range(3)])
        assert_all_succeeded(crowd)
        assert_blobs_are_right(home)
    assert_same_files(diachunk.fetch(weights.target, home=home).directory, weights)


def test_without_locks_a_fetch_beside_collections_ends_right(
    weights: Checkpoint, origin: Nginx, home: Path
) -> None:
    with ExitStack() as stack:
        loop = started(stack, Neighbour.loop("diachunk.gc(home=home)", home, locks=Locks.NOTHING))
        crowd = together([command(home, weights, origin, locks=Locks.NOTHING) for _ in range(2)])
        assert_all_succeeded(crowd)
        turns, errors = loop.stop()
        assert turns > 2
        assert errors == {}
    assert_same_files(diachunk.fetch(weights.target, home=home).directory, weights)
    assert_blobs_are_right(home)


def test_without_locks_a_late_writer_never_replaces_the_finished_blob(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda fd, kind: None)
    store = Store.open(home)
    first, late = (store.blobs.open_partial(DIGEST, CHUNKS) for _ in range(2))
    fresh: list[Partial] = []
    fchmod = os.fchmod

    def overtake(fd: int, mode: int) -> None:
        """The late one has looked whether the file is still its own; now the first gives it its name."""
        monkeypatch.setattr(os, "fchmod", fchmod)
        first.complete()
        fresh.append(store.blobs.open_partial(DIGEST, CHUNKS))
        fchmod(fd, mode)

    write(first, PIECES)
    monkeypatch.setattr(os, "fchmod", overtake)
    with contextlib.suppress(Vanished):
        late.complete()
    assert fresh
    assert_blobs_are_right(home)
    for each in (first, late, *fresh):
        each.close()


# --- a holder that is stuck, or stopped --------------------------------------------------------------------


def holding(stack: ExitStack, home: Path, weights: Checkpoint, origin: Nginx, *more: str | Path) -> Neighbour:
    """A fetch that would take a quarter of a minute, at work."""
    slow = command(home, weights, origin, "--max-down", "1M", "--json", *more, locks=Locks.REAL)
    started(stack, slow).wait_until_printed('"event":"progress"')
    return slow


@pytest.mark.usefixtures("stuck_soon")
@pytest.mark.parametrize("into", ["store", "directory"])
def test_a_neighbour_that_hangs_is_waited_for_and_then_named(
    weights: Checkpoint, home: Path, tmp_path: Path, into: str
) -> None:
    to = ("--to", tmp_path / "out") if into == "directory" else ()
    with Nginx(weights.root) as origin, ExitStack() as stack:
        holder = holding(stack, home, weights, origin, *to)
        holder.signal(signal.SIGSTOP)
        waiting = started(stack, command(home, weights, origin, *to, locks=Locks.REAL))
        waiting.wait_until_said("another diachunk is fetching model/")
        ended = waiting.end()
        assert ended.code == 6
        assert_calm(ended)
        assert "waiting for it" in ended.said
        assert "another diachunk holds model/" in ended.errors[0]
        assert "stop that process, then run the same again" in ended.said
        holder.signal(signal.SIGCONT)
        holder.signal(signal.SIGTERM)
        assert holder.end().code == 130
        assert_all_succeeded(together([command(home, weights, origin, *to, locks=Locks.REAL)]))
    if into == "store":
        assert_store_is_right(home)


@pytest.mark.usefixtures("stuck_soon")
@pytest.mark.parametrize(
    ("number", "into"),
    [
        (signal.SIGINT, "store"),
        (signal.SIGTERM, "store"),
        (signal.SIGHUP, "store"),
        (signal.SIGINT, "directory"),
    ],
)
def test_a_fetch_that_is_told_to_stop_says_how_to_go_on_and_can(
    weights: Checkpoint, home: Path, tmp_path: Path, number: signal.Signals, into: str
) -> None:
    to = ("--to", tmp_path / "out") if into == "directory" else ()
    with Nginx(weights.root) as origin, ExitStack() as stack:
        slow = started(stack, command(home, weights, origin, "--max-down", "2M", *to, locks=Locks.REAL))
        while origin.bytes_sent() < MIB:
            assert slow.process.poll() is None, slow.said
            time.sleep(0.05)
        slow.signal(number)
        ended = slow.end()
        assert ended.code == 130, ended.said
        assert_calm(ended)
        assert ended.said.splitlines()[-1] == (
            "diachunk: stopped; what is verified is kept: run the same again to resume"
        )
        (done,) = together([command(home, weights, origin, *to, locks=Locks.REAL)])
        assert_all_succeeded([done])
        assert origin.bytes_sent() <= weights.total_bytes + LANES * 4 * MIB
    assert_same_files(Path(done.printed.strip()), weights)


def test_a_waiting_fetch_can_be_stopped_too(weights: Checkpoint, home: Path) -> None:
    with Nginx(weights.root) as origin, ExitStack() as stack:
        waiting = stack.enter_context(command(home, weights, origin, locks=Locks.REAL))
        waiting.wait_ready()
        holder = holding(stack, home, weights, origin)
        waiting.go()
        waiting.wait_until_said("waiting for it")
        waiting.signal(signal.SIGINT)
        ended = waiting.end()
        assert ended.code == 130
        assert_calm(ended)
        assert "run the same again to resume" in ended.said
        holder.signal(signal.SIGTERM)
        assert holder.end().code == 130
