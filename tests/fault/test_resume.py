"""A fetch that was killed or interrupted goes on where it was; what lies on disk is believed only once hashed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import TransferIncomplete
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    published,
    tree,
)
from fixtures.process import FetchProcess
from fixtures.settings import write_config
from fixtures.watch import Told, fetch

pytestmark = pytest.mark.loopback

LANES = 2
RATE_BPS = 20 * MIB


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Nearly all of it in one file, so that what a partial holds is much more than what lanes may lose."""
    files = {"model/weights.bin": os.urandom(45 * MIB + 123), "model/config.json": b"{}"}
    return published(tree(tmp_path_factory.mktemp("large") / "served", files))


@pytest.fixture(autouse=True)
def few_lanes(base: Path) -> None:
    write_config(base, {"lanes": LANES, "hedge_chunks_min": 1})


class Enough(Exception):
    """Raised by a callback."""


def leave_unfinished(large: Checkpoint, home: Path, share: float = 0.6) -> list[Path]:
    """Fetches about so much of it; returns the partials, largest first."""
    told = Told()

    def stop(event: diachunk.Event) -> None:
        told(event)
        if told.total_bytes > share * large.total_bytes:
            raise Enough

    with Nginx(large.root, rate_bps=RATE_BPS) as slow, pytest.raises(Enough):
        diachunk.fetch(large.target, origins=[slow.url], home=home, progress=stop)
    found = sorted((home / "blobs").glob("??/*.partial"), key=lambda each: -each.stat().st_blocks)
    assert found
    return found


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.95])
def test_after_a_kill_only_what_was_under_way_is_fetched_again(
    large: Checkpoint, home: Path, share: float
) -> None:
    with Nginx(large.root, rate_bps=RATE_BPS) as origin:
        with FetchProcess(large.target, origin.url, home) as process:
            process.wait_for_bytes(int(share * large.total_bytes))
            assert process.signal(signal.SIGKILL)[0] == -signal.SIGKILL
        before = origin.bytes_sent()
        planned = diachunk.plan(large.target, home=home)
        done = fetch(large, origin.url, home=home)
        again = origin.bytes_sent() - before
    assert planned.fetch_bytes >= large.total_bytes - before
    assert planned.fetch_bytes <= done.report.fetched_bytes <= planned.fetch_bytes + LANES * 4 * MIB
    # one hedged chunk may come on top
    assert before + again <= large.total_bytes + LANES * 4 * MIB + 4 * MIB
    assert_same_files(done.snapshot.directory, large)
    assert_store_is_right(home)


def test_many_kills_in_a_row_still_end_right(large: Checkpoint, home: Path) -> None:
    with Nginx(large.root, rate_bps=RATE_BPS) as origin:
        for step in range(1, 6):
            with FetchProcess(large.target, origin.url, home) as process:
                process.wait_for_bytes(step * large.total_bytes // 6)
                process.signal(signal.SIGKILL)
        done = fetch(large, origin.url, home=home)
    assert_same_files(done.snapshot.directory, large)
    assert_store_is_right(home)


def test_into_a_directory_a_kill_costs_no_more(large: Checkpoint, home: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    with Nginx(large.root, rate_bps=RATE_BPS) as origin:
        with FetchProcess(large.target, origin.url, home, to) as process:
            process.wait_for_bytes(large.total_bytes // 2)
            process.signal(signal.SIGKILL)
        fetch(large, origin.url, home=home, to=to)
        assert origin.bytes_sent() <= large.total_bytes + (LANES + 1) * 4 * MIB
    assert_same_files(to, large)


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupt_says_that_it_can_be_resumed_and_it_can(
    large: Checkpoint, home: Path, number: int
) -> None:
    with Nginx(large.root, rate_bps=RATE_BPS) as origin:
        with FetchProcess(large.target, origin.url, home) as process:
            process.wait_for_bytes(large.total_bytes // 2)
            code, said = process.signal(number)
        assert code == 130
        assert "run the same again to resume" in said
        assert "Traceback" not in said
        done = fetch(large, origin.url, home=home)
        assert origin.bytes_sent() <= large.total_bytes + (LANES + 1) * 4 * MIB
    assert_same_files(done.snapshot.directory, large)


def test_what_is_left_of_a_fetch_is_complete_files_and_partials(large: Checkpoint, home: Path) -> None:
    leave_unfinished(large, home)
    names = {each.name for each in (home / "blobs").glob("??/*")}
    wanted = {file.blake3.hex() for _, file in large.manifest.walk()}
    assert all(name.split(".")[0] in wanted for name in names)
    assert all(name.partition(".")[2].split(".")[-1] in ("", "stamp", "partial") for name in names)
    with pytest.raises(TransferIncomplete, match="not on this machine"):
        diachunk.fetch(large.target, home=home)


def zero_a_page(partial: Path) -> None:
    with partial.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(bytes(4096))


def fill_with_garbage(partial: Path) -> None:
    size = partial.stat().st_size
    partial.write_bytes(os.urandom(size))


def cut(partial: Path) -> None:
    os.truncate(partial, partial.stat().st_size // 2)


def empty(partial: Path) -> None:
    os.truncate(partial, 0)


def append(partial: Path) -> None:
    with partial.open("ab") as file:
        file.write(os.urandom(5 * MIB))


def allocate_zeros(partial: Path) -> None:
    partial.write_bytes(bytes(partial.stat().st_size))


@pytest.mark.parametrize(
    "damage",
    [zero_a_page, fill_with_garbage, cut, empty, append, allocate_zeros],
    ids=lambda each: each.__name__,
)
def test_a_damaged_partial_is_mended_by_fetching_what_is_wrong_in_it(
    large: Checkpoint, home: Path, damage: Callable[[Path], None]
) -> None:
    for partial in leave_unfinished(large, home):
        damage(partial)
    with Nginx(large.root) as origin:
        done = fetch(large, origin.url, home=home)
        assert origin.bytes_sent() <= large.total_bytes + 4 * MIB
    assert_same_files(done.snapshot.directory, large)
    assert_store_is_right(home)


def test_one_damaged_page_costs_one_chunk(large: Checkpoint, home: Path) -> None:
    partial = leave_unfinished(large, home, 0.9)[0]
    planned = diachunk.plan(large.target, home=home)
    with partial.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"damage")
    with Nginx(large.root) as origin:
        fetch(large, origin.url, home=home)
        assert planned.fetch_bytes < origin.bytes_sent() <= planned.fetch_bytes + 2 * 4 * MIB


@pytest.mark.parametrize("what", ["directory", "link"])
def test_something_else_in_the_partials_place_is_moved_aside_and_never_followed(
    large: Checkpoint, home: Path, tmp_path: Path, what: str
) -> None:
    partial = leave_unfinished(large, home)[0]
    partial.unlink()
    (tmp_path / "precious").write_bytes(b"precious")
    if what == "link":
        partial.symlink_to(tmp_path / "precious")
    else:
        partial.mkdir()
    snapshot = diachunk.fetch(large.target, origins=[str(large.root)], home=home)
    assert_same_files(snapshot.directory, large)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_partial_that_vanishes_under_the_fetch_is_started_over(large: Checkpoint, home: Path) -> None:
    removed: list[Path] = []
    told = Told()

    def remove_once(event: diachunk.Event) -> None:
        told(event)
        partials = sorted((home / "blobs").glob("??/*.partial"))
        if not removed and told.total_bytes > large.total_bytes / 2 and partials:
            partials[0].unlink()
            removed.append(partials[0])

    with Nginx(large.root, rate_bps=RATE_BPS) as origin:
        done = diachunk.fetch(large.target, origins=[origin.url], home=home, progress=remove_once)
    assert removed
    assert told.total_bytes == large.total_bytes
    assert_same_files(done.directory, large)
    assert_store_is_right(home)
