"""Damage at rest is found and named down to the tensor, whatever it is; nothing is written."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

import diachunk
from diachunk import State
from diachunk.errors import UsageError
from diachunk.testing.servers import Nginx
from fixtures import damage
from fixtures.checkpoints import MIB, Checkpoint
from fixtures.verified import SHARD, WEIGHTS, damaged_bytes, reports
from fixtures.watch import Told, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]


def test_a_whole_checkpoint_verifies(small: Checkpoint, home: Path, fetched: Path) -> None:
    told = Told()
    done = diachunk.verify([small.target], home=home, progress=told)
    assert done.ok
    assert {each.state for each in done.files} == {State.OK}
    assert len(done.files) == 7
    assert done.checked_bytes == told.bytes_by(diachunk.How.HASHED) == small.total_bytes
    assert all(each.location is not None and each.location.is_file() for each in done.files)


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
    found = reports(diachunk.verify(["lab/small"], home=home))[SHARD]
    assert (found.state, found.location) == (State.DAMAGED, mine)
    assert found.damage[0].tensors == ("layers.0.weight",)


def test_a_file_of_the_users_own_that_is_gone_is_told(published_here: Checkpoint, home: Path) -> None:
    published_here.file(SHARD).unlink()
    found = reports(diachunk.verify(["lab/small"], home=home))[SHARD]
    assert found.state is State.MISSING


def test_a_directory_of_links_is_verified_through_them(small: Checkpoint, home: Path, fetched: Path) -> None:
    assert diachunk.verify([small.target], directory=fetched, home=home).ok


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


def test_two_checkpoints_that_share_a_blob_read_it_once(small: Checkpoint, home: Path, fetched: Path) -> None:
    diachunk.publish([fetched / "vocoder"], name="lab/vocoder-alone", home=home)
    done = diachunk.verify(home=home)
    assert done.ok
    assert len(done.files) == 9
    assert done.checked_bytes == small.total_bytes
    assert filecmp.cmp(fetched / WEIGHTS, small.file(WEIGHTS), shallow=False)
