"""rm and gc free what nothing needs, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import TransferIncomplete, UsageError
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    published,
    tree,
)
from fixtures.watch import fetch

DAY_S = 86400.0


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Checkpoint, Checkpoint]:
    """Two checkpoints that share one of their two files each."""
    shared = os.urandom(5 * MIB)
    one = tree(tmp_path / "one", {"m/shared.bin": shared, "m/own.bin": os.urandom(3 * MIB)})
    two = tree(tmp_path / "two", {"m/shared.bin": shared, "m/own.bin": os.urandom(2 * MIB)})
    return published(one, "lab/one"), published(two, "lab/two")


def age(home: Path, checkpoint: Checkpoint, seconds: float) -> None:
    """As if the checkpoint had been used last so long ago."""
    then = time.time() - seconds
    os.utime(home / "manifests" / f"{checkpoint.manifest.hex_id}.json", (then, then))


def names(home: Path) -> set[str]:
    return {each.name for each in blobs_of(home)}


def blobs_wanted(*checkpoints: Checkpoint) -> set[str]:
    return {file.blake3.hex() for each in checkpoints for _, file in each.manifest.walk()}


def test_removing_one_checkpoint_frees_its_own_blobs_and_keeps_shared_ones(
    pair: tuple[Checkpoint, Checkpoint], home: Path
) -> None:
    one, two = pair
    for each in pair:
        fetch(each, str(each.root), home=home)
    removed, collected = diachunk.rm([one.manifest.hex_id], home=home)
    assert [each.hex_id for each in removed] == [one.manifest.hex_id]
    assert collected.freed_bytes >= 3 * MIB
    assert names(home) == blobs_wanted(two)
    assert_same_files(fetch(two, home=home).snapshot.directory, two)
    assert_store_is_right(home)
    assert [each.manifest.hex_id for each in diachunk.ls(home).held] == [two.manifest.hex_id]
    with pytest.raises(TransferIncomplete):
        diachunk.fetch(one.target, home=home)


def test_removing_something_unknown_removes_nothing(pair: tuple[Checkpoint, Checkpoint], home: Path) -> None:
    one, _ = pair
    fetch(one, str(one.root), home=home)
    with pytest.raises(UsageError):
        diachunk.rm([one.manifest.hex_id, "lab/none"], home=home)
    assert names(home) == blobs_wanted(one)
    assert len(diachunk.ls(home).held) == 1


def test_adopted_files_are_never_touched(tmp_path: Path, home: Path) -> None:
    mine = tree(tmp_path / "mine", {"w.bin": os.urandom(3 * MIB)})
    before = (mine / "w.bin").stat()
    diachunk.publish([mine], name="lab/mine", home=home)
    diachunk.rm(["lab/mine"], home=home)
    diachunk.gc(home=home, older_than_s=0, max_bytes=0)
    after = (mine / "w.bin").stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
        before.st_mode,
    )
    assert diachunk.ls(home).held == ()


def test_a_directory_that_was_filled_is_never_touched(
    pair: tuple[Checkpoint, Checkpoint], home: Path, tmp_path: Path
) -> None:
    one, _ = pair
    fetch(one, str(one.root), home=home, to=tmp_path / "out")
    diachunk.rm([one.manifest.hex_id], home=home)
    diachunk.gc(home=home, older_than_s=0, max_bytes=0)
    assert_same_files(tmp_path / "out", one)


def test_what_was_fetched_by_file_is_pinned_however_old(
    pair: tuple[Checkpoint, Checkpoint], home: Path
) -> None:
    one, _ = pair
    fetch(one, str(one.root), home=home)
    assert [each.pinned for each in diachunk.ls(home).held] == [True]
    age(home, one, 400 * DAY_S)
    assert diachunk.gc(home=home).removed == []
    assert names(home) == blobs_wanted(one)


def test_old_checkpoints_go_when_asked_and_a_dry_run_only_says_so(
    pair: tuple[Checkpoint, Checkpoint], home: Path
) -> None:
    one, two = pair
    for each in pair:
        fetch(each, str(each.root), home=home)
    age(home, one, 40 * DAY_S)
    said = diachunk.gc(home=home, older_than_s=30 * DAY_S, dry_run=True)
    assert said.freed_bytes >= 3 * MIB
    assert names(home) == blobs_wanted(one, two)
    done = diachunk.gc(home=home, older_than_s=30 * DAY_S)
    assert done.freed_bytes == said.freed_bytes
    assert [(each.kind, each.label) for each in done.removed] == [
        (each.kind, each.label) for each in said.removed
    ]
    assert names(home) == blobs_wanted(two)


def test_a_maximum_size_drops_what_was_used_longest_ago(
    pair: tuple[Checkpoint, Checkpoint], home: Path
) -> None:
    one, two = pair
    for each in pair:
        fetch(each, str(each.root), home=home)
    age(home, two, 2 * DAY_S)
    age(home, one, 1 * DAY_S)
    diachunk.gc(home=home, max_bytes=9 * MIB)
    assert names(home) == blobs_wanted(one)
    diachunk.gc(home=home, max_bytes=9 * MIB)
    assert names(home) == blobs_wanted(one)


def test_an_unfinished_fetch_is_kept_while_it_is_young_or_wanted(
    pair: tuple[Checkpoint, Checkpoint], home: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(event: diachunk.Event) -> None:
        for partial in (home / "blobs").glob("??/*.partial"):
            status = partial.stat()
            if status.st_size > 4 * MIB and 0 < status.st_blocks * 512 <= 1.1 * MIB:  # not the large chunk
                raise Enough

    one, _ = pair
    with Nginx(one.root, rate_bps=MIB) as origin, pytest.raises(Enough):
        diachunk.fetch(one.target, origins=[origin.url], home=home, progress=stop)
    partials = list((home / "blobs").glob("??/*.partial"))
    assert partials
    diachunk.gc(home=home)
    assert all(each.exists() for each in partials)
    age(home, one, 2 * DAY_S)
    for each in partials:
        os.utime(each, (1, 1))
    done = diachunk.gc(home=home)
    assert {each.kind for each in done.removed} >= {"checkpoint", "partial"}
    assert list((home / "blobs").glob("??/*.partial")) == []


def test_after_a_gc_the_named_checkpoint_is_whole(pair: tuple[Checkpoint, Checkpoint], home: Path) -> None:
    one, _ = pair
    diachunk.publish([f"m={one.root / 'm'}"], name="lab/one", home=home, copy=True)
    age(home, one, 100 * DAY_S)
    diachunk.gc(home=home)
    assert_same_files(fetch("lab/one", home=home).snapshot.directory, one)


def test_ls_says_what_is_complete_and_how_large(pair: tuple[Checkpoint, Checkpoint], home: Path) -> None:
    one, two = pair
    fetch(one, str(one.root), home=home)
    diachunk.publish([f"m={two.root / 'm'}"], name="lab/two", home=home)
    held = {each.manifest.name: each for each in diachunk.ls(home).held}
    assert held["lab/one"].complete
    assert held["lab/two"].names == ("lab/two@main",)
    assert held["lab/two"].present_bytes == two.total_bytes
    listing = diachunk.ls(home)
    assert one.total_bytes <= listing.disk_bytes < one.total_bytes + MIB
    assert listing.free_bytes > 0
