"""Damage at rest: found, named down to the tensor, and mended with just the chunks that are wrong."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

import pytest

import diachunk
from diachunk import State
from diachunk.errors import StoreError, TransferIncomplete, UsageError
from diachunk.manifest import ChunkList, FileEntry
from diachunk.testing.servers import Nginx
from fixtures import damage
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.damage import Damage
from fixtures.watch import Told, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

SHARD = "model/model-00001-of-00003.safetensors"
WEIGHTS = "vocoder/weights.pth"

DAMAGES: list[tuple[Damage, State]] = [
    (damage.flip, State.DAMAGED),
    (damage.zero, State.DAMAGED),
    (damage.swap, State.DAMAGED),
    (damage.cut, State.CUT_OFF),
    (damage.cut_to_nothing, State.CUT_OFF),
    (damage.append, State.TOO_LONG),
]
EACH_DAMAGE = pytest.mark.parametrize(
    ("spoil", "state"), DAMAGES, ids=[each.__name__ for each, _ in DAMAGES]
)


@pytest.fixture
def fetched(small: Checkpoint, home: Path) -> Path:
    """A snapshot of the whole checkpoint."""
    return fetch(small, str(small.root), home=home).snapshot.directory


@pytest.fixture
def published_here(small: Checkpoint, home: Path, tmp_path: Path) -> Checkpoint:
    """A copy of the checkpoint that this store adopted where it lies."""
    mine = tmp_path / "mine"
    shutil.copytree(small.root, mine)
    diachunk.publish([f"{each}={mine / each}" for each in ("model", "vocoder")], name="lab/small", home=home)
    return Checkpoint(mine, small.manifest_file, small.manifest)


def reports(done: diachunk.VerifyReport) -> dict[str, diachunk.FileReport]:
    return {f"{each.component}/{each.path}": each for each in done.files}


def entry_of(checkpoint: Checkpoint, name: str) -> FileEntry:
    component, _, path = name.partition("/")
    return next(
        file for part, file in checkpoint.manifest.walk() if (part.name, file.path) == (component, path)
    )


def damaged_bytes(report: diachunk.FileReport) -> int:
    return sum(each.size for each in report.damage)


def different_bytes(chunks: ChunkList, path: Path, original: Path) -> int:
    """What has to be fetched: the sizes of all chunks whose bytes differ from the original's."""
    with path.open("rb") as one, original.open("rb") as other:
        return sum(size for size in chunks.sizes if one.read(size) != other.read(size))


def test_a_whole_checkpoint_verifies(small: Checkpoint, home: Path, fetched: Path) -> None:
    told = Told()
    done = diachunk.verify([small.target], home=home, progress=told)
    assert done.ok
    assert {each.state for each in done.files} == {State.OK}
    assert len(done.files) == 7
    assert done.checked_bytes == told.bytes_by(diachunk.How.HASHED) == small.total_bytes
    assert all(each.location is not None and each.location.is_file() for each in done.files)


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


def test_the_damaged_tensor_is_named_in_a_safetensors_file(
    small: Checkpoint, home: Path, fetched: Path
) -> None:
    damage.flip((fetched / SHARD).resolve())
    found = reports(diachunk.verify([small.target], home=home))[SHARD]
    (bad,) = found.damage
    assert bad.offset <= 6 * MIB < bad.offset + bad.size
    assert bad.tensors == ("layers.0.weight",)


def test_the_damaged_tensor_is_named_in_a_torch_file(small: Checkpoint, home: Path, fetched: Path) -> None:
    damage.flip((fetched / WEIGHTS).resolve(), 4 * MIB)
    found = reports(diachunk.verify([small.target], home=home))[WEIGHTS]
    (bad,) = found.damage
    assert bad.tensors == ("archive/data/2",)


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


def test_an_unfinished_file_is_told_apart_from_a_missing_one(small: Checkpoint, home: Path) -> None:
    class Enough(Exception):
        pass

    def stop(event: diachunk.Event) -> None:
        if event.bytes > 1000:
            raise Enough

    with Nginx(small.root, rate_bps=4 * MIB) as origin, pytest.raises(Enough):
        diachunk.fetch(small.target, origins=[origin.url], home=home, progress=stop)
    states = {each.state for each in diachunk.verify([small.target], home=home).files}
    assert State.UNFINISHED in states
    assert states <= {State.OK, State.MISSING, State.UNFINISHED}
    assert diachunk.verify([small.target], home=home, repair=True, origins=[str(small.root)]).ok


def test_a_damaged_file_of_the_users_own_is_named_and_left_as_it_is(
    published_here: Checkpoint, home: Path
) -> None:
    mine = published_here.file(SHARD)
    damage.flip(mine)
    spoilt, before = mine.read_bytes(), mine.stat()
    found = reports(diachunk.verify(["lab/small"], home=home))[SHARD]
    assert (found.state, found.location) == (State.DAMAGED, mine)
    assert found.damage[0].tensors == ("layers.0.weight",)


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


def test_a_file_of_the_users_own_that_is_gone_is_told(published_here: Checkpoint, home: Path) -> None:
    published_here.file(SHARD).unlink()
    found = reports(diachunk.verify(["lab/small"], home=home))[SHARD]
    assert found.state is State.MISSING


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
    with pytest.raises(TransferIncomplete):
        diachunk.verify([small.target], directory=to, home=home, repair=True)
    assert not diachunk.verify([small.target], directory=to, home=home).ok
    fetch(small, str(small.root), home=home, to=to)
    assert_same_files(to, small)


def test_a_directory_of_links_is_verified_through_them(small: Checkpoint, home: Path, fetched: Path) -> None:
    assert diachunk.verify([small.target], directory=fetched, home=home).ok


def test_a_repair_without_a_source_says_so_and_loses_nothing(
    small: Checkpoint, home: Path, fetched: Path
) -> None:
    damage.flip((fetched / SHARD).resolve())
    with pytest.raises(TransferIncomplete, match="no origin is known"):
        diachunk.verify([small.target], home=home, repair=True)
    with Nginx(small.root) as origin:
        assert diachunk.verify([small.target], home=home, repair=True, origins=[origin.url]).ok
        assert origin.bytes_sent() <= 4 * MIB
    assert_same_files(fetched, small)


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_parts_of_a_scrub_cover_everything_once(
    small: Checkpoint, home: Path, fetched: Path, parts: int
) -> None:
    blob = (fetched / SHARD).resolve()
    damage.flip(blob)
    checked, found = 0, []
    for part in range(1, parts + 1):
        done = diachunk.verify([small.target], home=home, subset=(part, parts))
        checked += done.checked_bytes + damaged_bytes(reports(done)[SHARD])
        found += [part] if not done.ok else []
    assert checked == small.total_bytes
    assert len(found) == 1


@pytest.mark.parametrize("subset", [(0, 3), (4, 3), (-1, 3), (1, 0)])
def test_a_part_that_is_none_is_refused(
    small: Checkpoint, home: Path, fetched: Path, subset: tuple[int, int]
) -> None:
    with pytest.raises(UsageError):
        diachunk.verify([small.target], home=home, subset=subset)


def test_without_a_target_everything_that_was_fetched_is_verified(
    small: Checkpoint, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.bin").write_bytes(os.urandom(100_000))
    diachunk.publish([tmp_path / "one.bin"], name="lab/one", home=home)
    directory = fetch(small, str(small.root), home=home, components=["vocoder"]).snapshot.directory
    done = diachunk.verify(home=home)
    assert done.ok
    assert {(each.checkpoint, each.path) for each in done.files} == {
        ("lab/one@main", "one.bin"),
        ("lab/small@main", "config.json"),
        ("lab/small@main", "weights.pth"),
    }
    damage.flip((directory / WEIGHTS).resolve(), 1000)
    assert not diachunk.verify(home=home).ok


def test_verifying_an_empty_store_is_well(home: Path) -> None:
    assert diachunk.verify(home=home).files == ()


def test_a_damaged_manifest_in_the_store_is_named(small: Checkpoint, home: Path, fetched: Path) -> None:
    (stored,) = (home / "manifests").iterdir()
    spoilt = stored.read_bytes().replace(b'"small"', b'"smelt"').replace(b"lab/small", b"lab/smell")
    stored.chmod(0o644)
    stored.write_bytes(spoilt)
    (report,) = diachunk.verify(home=home).files
    assert (report.state, report.location) == (State.DAMAGED, stored)
    assert "fetch again" in report.why
    # the manifest itself is at hand again: it mends the stored one
    fetch(small, str(small.root), home=home)
    assert diachunk.verify(home=home).ok


def test_two_checkpoints_that_share_a_blob_read_it_once(
    small: Checkpoint, home: Path, fetched: Path
) -> None:
    diachunk.publish([fetched / "vocoder"], name="lab/vocoder-alone", home=home)
    done = diachunk.verify(home=home)
    assert done.ok
    assert len(done.files) == 9
    assert done.checked_bytes == small.total_bytes
    assert filecmp.cmp(fetched / WEIGHTS, small.file(WEIGHTS), shallow=False)
