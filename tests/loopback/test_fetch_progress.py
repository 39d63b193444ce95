"""What a fetch says before, while and after it runs, and how fast it may go."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from pathlib import Path

import pytest
from tqdm import tqdm

import diachunk
from diachunk.errors import TransferIncomplete
from diachunk.testing.bad_server import BadServer, refused_port
from diachunk.testing.faults import Drip, always
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, published, tree
from fixtures.settings import write_config
from fixtures.watch import Told, fetch

pytestmark = pytest.mark.loopback


def test_the_plan_says_what_then_happens(small: Checkpoint, home: Path) -> None:
    fetch(small, str(small.root), home=home, components=["vocoder"])
    planned = diachunk.plan(small.target, origins=["http://127.0.0.1:1/x"], home=home)
    assert [each.name for each in planned.components] == ["model", "vocoder"]
    assert [each.files for each in planned.components] == [5, 2]
    assert planned.origins == ("http://127.0.0.1:1/x",)
    assert planned.free_bytes > 0
    done = fetch(small, str(small.root), home=home)
    assert planned.present_bytes == done.report.present_bytes == done.told.bytes_by(diachunk.How.REUSED) > 0
    assert planned.fetch_bytes == done.report.fetched_bytes == done.told.bytes_by(diachunk.How.FETCHED) > 0
    assert planned.disk_bytes == planned.fetch_bytes
    assert (planned.reuse_bytes, done.report.reused_bytes) == (0, 0)
    assert planned.directory.resolve() == done.snapshot.directory.resolve()


def test_the_plan_counts_what_an_earlier_run_left_and_what_donors_hold(tmp_path: Path, home: Path) -> None:
    shared, own = b"s" * 4 * MIB, b"o" * (4 * MIB + 5)
    first = published(tree(tmp_path / "first", {"w.bin": shared}), "lab/first")
    second = published(tree(tmp_path / "second", {"x.bin": shared + own}), "lab/second")
    fetch(first, str(first.root), home=home)
    planned = diachunk.plan(second.target, home=home)
    assert (planned.present_bytes, planned.reuse_bytes, planned.fetch_bytes) == (0, len(shared), len(own))
    done = fetch(second, str(second.root), home=home)
    assert (done.report.reused_bytes, done.report.fetched_bytes) == (len(shared), len(own))


def test_a_plan_asks_nobody_and_changes_nothing(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root) as origin:
        diachunk.plan(small.target, origins=[origin.url], home=home)
        assert origin.requests() == []
    assert not any((home / "blobs").iterdir())


def test_tqdm_over_the_deltas_ends_exactly_full(small: Checkpoint, home: Path) -> None:
    planned = diachunk.plan(small.target, home=home)
    with tqdm(total=planned.total_bytes, file=io.StringIO()) as bar:
        diachunk.fetch(
            small.target,
            origins=[str(small.root)],
            home=home,
            progress=lambda event: bar.update(event.bytes) and None,
        )
        assert bar.n == bar.total


def test_progress_moves_while_a_single_chunk_arrives(tmp_path: Path, home: Path) -> None:
    checkpoint = published(tree(tmp_path / "served", {"w.bin": b"w" * 3 * MIB}))
    with BadServer(checkpoint.root, always(Drip(2 * MIB))) as origin:
        done = fetch(checkpoint, origin.url, home=home)
    steps = [each for each in done.told.events if isinstance(each, diachunk.Progress) and each.bytes > 0]
    assert len(steps) >= 6
    assert max(each.bytes for each in steps) <= 1.5 * MIB


def test_status_says_rate_what_is_left_and_what_limits(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, rate_bps=4 * MIB) as origin:
        done = fetch(small, origin.url, home=home)
        label = f"127.0.0.1:{origin.port}"
    statuses = [each for each in done.told.events if isinstance(each, diachunk.Status)]
    left = [each.left_bytes for each in statuses]
    assert left[0] > left[-1] == 0
    running = [each for each in statuses if each.rate_bps and each.left_bytes]
    assert running
    assert {each.limited_by for each in running} == {f"origin {label}"}
    assert all(each.eta_s is not None and each.eta_s > 0 for each in running)
    assert statuses[-1].sources[0].label == label
    assert statuses[-1].sources[0].verified_bytes == small.total_bytes


def test_the_cap_is_said_to_limit_when_it_does(small: Checkpoint, home: Path) -> None:
    done = fetch(small, str(small.root), home=home, max_down_bps=12 * MIB)
    said = [each.limited_by for each in done.told.events if isinstance(each, diachunk.Status)]
    assert said.count("the cap") > len(said) / 2


@pytest.mark.parametrize("origins", [1, 2])
def test_max_down_caps_all_sources_together(small: Checkpoint, home: Path, origins: int) -> None:
    cap_bps = 14 * MIB
    started_at = time.monotonic()
    with Nginx(small.root) as one, Nginx(small.root) as two:
        done = fetch(small, *(one.url, two.url)[:origins], home=home, max_down_bps=cap_bps)
        elapsed_s = time.monotonic() - started_at
        sent = one.bytes_sent() + two.bytes_sent()
    assert sent < small.total_bytes + 8 * MIB
    rate_bps = small.total_bytes / elapsed_s
    assert 0.7 * cap_bps < rate_bps < 1.15 * cap_bps
    assert_same_files(done.snapshot.directory, small)


def test_a_slow_cap_is_no_stall(tmp_path: Path, home: Path, base: Path) -> None:
    write_config(base, {"stall_s": 0.5, "patience_s": 1.0})
    checkpoint = published(tree(tmp_path / "served", {"w.bin": b"w" * 600_000}))
    with Nginx(checkpoint.root) as origin:
        done = fetch(checkpoint, origin.url, home=home, max_down_bps=400_000)
        assert len(origin.requests()) == 1
    assert done.told.troubles == []


def test_a_sources_trouble_is_told_while_the_fetch_goes_on(small: Checkpoint, home: Path) -> None:
    dead = f"http://127.0.0.1:{refused_port()}"
    done = fetch(small, dead, str(small.root), home=home)
    assert [(each.label, each.detail) for each in done.told.troubles][:1] == [
        (dead.removeprefix("http://"), "connection refused")
    ]


def test_an_exception_of_the_callback_stops_the_fetch_and_keeps_what_came(
    small: Checkpoint, home: Path
) -> None:
    class Enough(Exception):
        pass

    told = Told()

    def stop(event: diachunk.Event) -> None:
        told(event)
        if told.total_bytes > small.total_bytes / 2:
            raise Enough

    with Nginx(small.root, rate_bps=4 * MIB) as origin:
        with pytest.raises(Enough):
            diachunk.fetch(small.target, origins=[origin.url], home=home, progress=stop)
        first = origin.bytes_sent()
        fetch(small, origin.url, home=home)
        # what was in flight on the (at most 8) lanes is lost, and nothing else
        assert origin.bytes_sent() <= small.total_bytes + 8 * 4 * MIB
        assert origin.bytes_sent() - first < small.total_bytes * 0.75


async def collect(target: str, **options: object) -> list[diachunk.Event | diachunk.Fetched]:
    return [event async for event in diachunk.events(target, **options)]


def test_events_tell_the_same_asynchronously(small: Checkpoint, home: Path) -> None:
    events = asyncio.run(collect(small.target, origins=[str(small.root)], home=home))
    last = events[-1]
    assert isinstance(last, diachunk.Fetched)
    assert_same_files(last.snapshot.directory, small)
    assert sum(event.bytes for event in events) == small.total_bytes
    assert not any(isinstance(event, diachunk.Fetched) for event in events[:-1])


def test_events_raise_what_the_fetch_raises(small: Checkpoint, home: Path) -> None:
    with pytest.raises(TransferIncomplete, match="no origin is known"):
        asyncio.run(collect(small.target, home=home))


def test_the_loop_stays_free_while_events_come(small: Checkpoint, home: Path) -> None:
    async def both() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async for _ in diachunk.events(small.target, origins=[origin.url], home=home):
            pass
        ticking.cancel()
        return ticks

    with Nginx(small.root, rate_bps=8 * MIB) as origin:
        assert asyncio.run(both()) > 10


def test_leaving_the_events_early_stops_the_fetch(small: Checkpoint, home: Path) -> None:
    async def leave() -> None:
        stream = diachunk.events(small.target, origins=[origin.url], home=home)
        async with contextlib.aclosing(stream):
            async for event in stream:
                if event.bytes:
                    break

    with Nginx(small.root, rate_bps=1 * MIB) as origin:
        asyncio.run(leave())
        assert origin.bytes_sent() < small.total_bytes
    with pytest.raises(TransferIncomplete):
        diachunk.fetch(small.target, home=home)
