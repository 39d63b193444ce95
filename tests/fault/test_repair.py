"""Damage is mended with just the chunks that are wrong, and never in a file of the user's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import diachunk
from diachunk import State
from diachunk.errors import StoreError, TransferIncomplete
from diachunk.testing.servers import Nginx
from fixtures import damage
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.damage import Damage
from fixtures.verified import EACH_DAMAGE, SHARD, WEIGHTS, damaged_bytes, different_bytes, entry_of, reports
from fixtures.watch import fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]


@EACH_DAMAGE
def test_damage_is_found_and_mended_with_just_the_chunks_that_are_wrong(
    small: Checkpoint, home: Path, fetched: Path, spoil: Damage, state: State
) -> None:
    blob = (fetched / SHARD).resolve()
    spoil(blob)
    expected = different_bytes(entry_of(small, SHARD).chunks, blob, small.file(SHARD))
    found = diachunk.verify([small.target], home=home)
    assert not found.ok
    assert {name for name, each in reports(found).items() if each.state is not State.OK} == {SHARD}
    report = reports(found)[SHARD]
    assert report.state is state
    assert damaged_bytes(report) == expected
    assert report.location == blob
    with Nginx(small.root) as origin:
        mended = diachunk.verify([small.target], home=home, repair=True, origins=[origin.url])
        assert origin.bytes_sent() == expected
        assert {each.path for each in origin.requests()} <= {f"/{SHARD}"}
    assert mended.ok
    assert reports(mended)[SHARD].repaired
    assert mended.repair is not None
    assert mended.repair.fetched_bytes == expected
    assert_same_files(fetched, small)
    assert_store_is_right(home)
    assert diachunk.verify([small.target], home=home).ok


def test_a_damaged_header_names_no_tensor_and_is_mended(small: Checkpoint, home: Path, fetched: Path) -> None:
    damage.flip((fetched / SHARD).resolve(), 0)
    found = reports(diachunk.verify([small.target], home=home))[SHARD]
    assert [each.tensors for each in found.damage] == [()]
    assert diachunk.verify([small.target], home=home, repair=True, origins=[str(small.root)]).ok
    assert_same_files(fetched, small)


def test_a_fetch_trusts_a_stamp_but_mends_what_was_touched(
    small: Checkpoint, home: Path, fetched: Path
) -> None:
    blob = (fetched / SHARD).resolve()
    damage.flip(blob)
    os.utime(blob)
    with Nginx(small.root) as origin:
        done = fetch(small, origin.url, home=home)
        assert 0 < origin.bytes_sent() <= 4 * MIB
    assert_same_files(done.snapshot.directory, small)


def test_another_blobs_bytes_in_a_blobs_place_are_found_and_mended(
    small: Checkpoint, home: Path, fetched: Path
) -> None:
    blob, other = (fetched / SHARD).resolve(), (fetched / WEIGHTS).resolve()
    blob.unlink()
    shutil.copy(other, blob)
    found = reports(diachunk.verify([small.target], home=home))
    assert found[SHARD].state is State.CUT_OFF
    assert found[WEIGHTS].state is State.OK
    assert diachunk.verify([small.target], home=home, repair=True, origins=[str(small.root)]).ok
    assert_same_files(fetched, small)
    assert_store_is_right(home)


@pytest.mark.parametrize("what", ["directory", "link to other bytes", "dangling link", "fifo"])
def test_something_else_in_a_blobs_place_is_found_and_moved_aside(
    small: Checkpoint, home: Path, fetched: Path, tmp_path: Path, what: str
) -> None:
    blob = (fetched / SHARD).resolve()
    blob.unlink()
    (tmp_path / "precious").write_bytes(b"precious")
    if what == "directory":
        blob.mkdir()
        (blob / "precious").write_bytes(b"precious")
    elif what == "fifo":
        os.mkfifo(blob)
    else:
        blob.symlink_to(tmp_path / ("precious" if "other" in what else "nothing"))
    found = diachunk.verify([small.target], home=home)
    assert not found.ok
    assert [name for name, each in reports(found).items() if each.state is not State.OK] == [SHARD]
    assert diachunk.verify([small.target], home=home, repair=True, origins=[str(small.root)]).ok
    assert blob.is_file()
    assert not blob.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert_same_files(fetched, small)


def test_a_missing_blob_is_found_and_fetched(small: Checkpoint, home: Path, fetched: Path) -> None:
    (fetched / SHARD).resolve().unlink()
    found = reports(diachunk.verify([small.target], home=home))[SHARD]
    assert (found.state, found.location, found.damage) == (State.MISSING, None, ())
    with Nginx(small.root) as origin:
        assert diachunk.verify([small.target], home=home, repair=True, origins=[origin.url]).ok
        assert origin.bytes_sent() == entry_of(small, SHARD).size
    assert_same_files(fetched, small)


@pytest.mark.parametrize("touched", [True, False])
@EACH_DAMAGE
def test_repairing_a_file_of_the_users_own_gives_the_store_its_own_copy(
    small: Checkpoint, published_here: Checkpoint, home: Path, spoil: Damage, state: State, touched: bool
) -> None:
    mine = published_here.file(SHARD)
    spoil(mine)
    if touched:
        os.utime(mine)
    spoilt, before = mine.read_bytes(), mine.stat()
    expected = different_bytes(entry_of(small, SHARD).chunks, mine, small.file(SHARD))
    with Nginx(small.root) as origin:
        mended = diachunk.verify(["lab/small"], home=home, repair=True, origins=[origin.url])
        assert origin.bytes_sent() == expected
    assert mended.ok
    assert reports(mended)[SHARD].state is state
    after = mine.stat()
    assert mine.read_bytes() == spoilt
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
    )
    snapshot = fetch("lab/small", home=home).snapshot.directory
    assert_same_files(snapshot, small)
    assert_store_is_right(home)
    assert (snapshot / SHARD).resolve().is_relative_to(home.resolve())
    assert diachunk.verify(["lab/small"], home=home).ok


@pytest.mark.parametrize("touched", [True, False])
def test_a_directory_is_verified_and_repaired_where_it_lies(
    small: Checkpoint, home: Path, tmp_path: Path, touched: bool
) -> None:
    to = tmp_path / "out"
    fetch(small, str(small.root), home=home, to=to)
    damage.flip(to / SHARD)
    if touched:
        os.utime(to / SHARD)
    (to / WEIGHTS).unlink()
    found = diachunk.verify([small.target], directory=to, home=home)
    states = {name: each.state for name, each in reports(found).items() if each.state is not State.OK}
    assert states == {SHARD: State.DAMAGED, WEIGHTS: State.MISSING}
    with Nginx(small.root) as origin:
        mended = diachunk.verify(
            [small.target], directory=to, home=home, repair=True, force=touched, origins=[origin.url]
        )
        assert origin.bytes_sent() == damaged_bytes(reports(found)[SHARD]) + entry_of(small, WEIGHTS).size
    assert mended.ok
    assert_same_files(to, small)
    assert diachunk.verify([small.target], directory=to, home=home).ok


def test_a_directory_of_the_users_own_is_repaired_only_with_force(
    small: Checkpoint, home: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(small.root, mine)
    damage.flip(mine / SHARD)
    spoilt = (mine / SHARD).read_bytes()
    with pytest.raises(StoreError, match="--force"):
        diachunk.verify([small.target], directory=mine, home=home, repair=True, origins=[str(small.root)])
    assert (mine / SHARD).read_bytes() == spoilt
    done = diachunk.verify(
        [small.target], directory=mine, home=home, repair=True, force=True, origins=[str(small.root)]
    )
    assert done.ok
    assert_same_files(mine, small)


def test_a_failed_repair_of_a_directory_leaves_it_known_as_damaged(
    small: Checkpoint, home: Path, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    fetch(small, str(small.root), home=home, to=to)
    damage.flip(to / SHARD)
    report = diachunk.verify([small.target], directory=to, home=home, repair=True)
    assert not report.ok
    assert isinstance(report.repair_error, TransferIncomplete)
    assert not diachunk.verify([small.target], directory=to, home=home).ok
    fetch(small, str(small.root), home=home, to=to)
    assert_same_files(to, small)


def test_a_repair_without_a_source_says_so_and_loses_nothing(
    small: Checkpoint, home: Path, fetched: Path
) -> None:
    damage.flip((fetched / SHARD).resolve())
    report = diachunk.verify([small.target], home=home, repair=True)
    assert not report.ok
    assert isinstance(report.repair_error, TransferIncomplete)
    assert "no origin is known" in str(report.repair_error)
    assert "no origin is known" in next(each.why for each in report.files if each.state is State.DAMAGED)
    with Nginx(small.root) as origin:
        assert diachunk.verify([small.target], home=home, repair=True, origins=[origin.url]).ok
        assert origin.bytes_sent() <= 4 * MIB
    assert_same_files(fetched, small)
