"""By which kind of link a file shows up, and what that means for whose file it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.digest import digest_of
from diachunk.errors import StoreError, UsageError
from diachunk.manifest import Manifest
from diachunk.store.adopted import AdoptedFile
from diachunk.store.files import Files
from diachunk.store.stamps import Stamp
from diachunk.transfer.progress import Event, Status
from fixtures.mounts import mounted
from fixtures.placing import WEIGHTS, World, assert_clean, component, entry, from_hub, manifest_of
from fixtures.ram import in_memory

MODEL = {"model.safetensors": WEIGHTS}


@pytest.fixture
def manifest(world: World) -> Manifest:
    return world.keep(manifest_of(component("model", MODEL)), MODEL)


@pytest.fixture
def no_reflinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Files, "reflink", lambda *arguments: False)


def blob(world: World) -> Path:
    return world.store.layout.blob(digest_of(WEIGHTS))


def how_of(world: World, manifest: Manifest, into: Path, mode: str = "auto") -> str:
    (file,) = place_manifest(world.context, manifest, [into], link_mode=mode).files
    assert file.where.read_bytes() == WEIGHTS
    return file.how


@pytest.mark.usefixtures("no_reflinks")
def test_auto_takes_a_hard_link_to_what_the_store_owns(world: World, manifest: Manifest) -> None:
    assert how_of(world, manifest, world.home / "x") == "hardlink"
    placed = world.home / "x" / "model" / "model.safetensors"
    assert placed.stat().st_ino == blob(world).stat().st_ino
    assert placed.stat().st_mode & 0o222 == 0
    # still proven: a link changes nothing of a file that its stamp knows
    assert how_of(world, manifest, world.home / "y") == "hardlink"


@pytest.mark.usefixtures("no_reflinks")
def test_a_blob_that_somebody_could_write_to_is_not_hard_linked(world: World, manifest: Manifest) -> None:
    blob(world).chmod(0o644)
    assert how_of(world, manifest, world.home / "x") == "symlink"
    assert_clean(world.home)


@pytest.mark.usefixtures("no_reflinks")
def test_a_users_own_file_is_never_hard_linked(world: World) -> None:
    path = world.home / "mine.safetensors"
    path.write_bytes(WEIGHTS)
    file = entry("model.safetensors", WEIGHTS)
    stamp = Stamp.of(path.stat()).adding(chunk_list=file.chunks.id)
    world.store.blobs.adopted.put(file.blake3, AdoptedFile(path, stamp))
    manifest = manifest_of(component("model", MODEL))
    assert how_of(world, manifest, world.home / "x") == "symlink"
    with pytest.raises(StoreError, match="not diachunk's own"):
        how_of(world, manifest, world.home / "y", "hardlink")
    assert how_of(world, manifest, world.home / "z", "copy") == "copy"
    assert path.stat().st_nlink == 1


def test_a_symbolic_link_is_absolute_and_goes_through_no_other(world: World, manifest: Manifest) -> None:
    assert how_of(world, manifest, world.home / "x", "symlink") == "symlink"
    assert (world.home / "x" / "model" / "model.safetensors").readlink() == blob(world)


def test_a_copy_is_a_file_of_its_own_that_its_owner_may_change(world: World, manifest: Manifest) -> None:
    assert how_of(world, manifest, world.home / "x", "copy") == "copy"
    placed = world.home / "x" / "model" / "model.safetensors"
    assert placed.stat().st_ino != blob(world).stat().st_ino
    mask = os.umask(0)
    os.umask(mask)
    assert placed.stat().st_mode & 0o777 == 0o666 & ~mask
    placed.write_bytes(b"changed")
    assert blob(world).read_bytes() == WEIGHTS


def test_copying_says_how_much_there_is_to_read_and_what_was(world: World, manifest: Manifest) -> None:
    events: list[Event] = []
    place_manifest(world.context, manifest, [world.home / "x"], link_mode="copy", progress=events.append)
    assert [each.left_bytes for each in events if isinstance(each, Status)] == [len(WEIGHTS)]
    assert sum(each.bytes for each in events) == len(WEIGHTS)


def test_another_kind_of_link_asked_for_takes_the_place_of_ours(world: World, manifest: Manifest) -> None:
    for mode in ("copy", "symlink", "hardlink", "symlink", "copy"):
        assert how_of(world, manifest, world.home / "x", mode) == mode
    assert how_of(world, manifest, world.home / "x") == "copy", "auto leaves what is right"
    undo_manifest(world.context, manifest)
    assert list((world.home / "x").iterdir()) == []


def test_what_is_the_adopted_file_itself_needs_nothing(world: World) -> None:
    path = world.home / "x" / "model" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    file = entry("model.safetensors", WEIGHTS)
    stamp = Stamp.of(path.stat()).adding(chunk_list=file.chunks.id)
    world.store.blobs.adopted.put(file.blake3, AdoptedFile(path, stamp))
    manifest = manifest_of(component("model", MODEL))
    for mode in ("auto", "hardlink", "copy", "symlink"):
        assert how_of(world, manifest, world.home / "x", mode) == "there already"
    assert Stamp.of(path.stat()).same_file(stamp)
    undo = undo_manifest(world.context, manifest)
    assert undo.removed == ()
    assert path.read_bytes() == WEIGHTS


def test_an_unknown_link_mode_is_a_usage_error(world: World, manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="no link mode"):
        place_manifest(world.context, manifest, [world.home / "x"], link_mode="magic")


@pytest.mark.usefixtures("no_reflinks")
def test_where_no_link_is_possible_auto_copies_and_says_so(
    world: World, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    placed = place_manifest(world.context, manifest, [world.home / "x"])
    assert [each.how for each in placed.files] == ["copy"]
    assert any("was copied" in each for each in placed.notices)
    with pytest.raises(StoreError, match="cannot symlink"):
        place_manifest(world.context, manifest, [world.home / "y"], link_mode="symlink")
    hub = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    with pytest.raises(StoreError, match="takes no symbolic links"):
        place_manifest(world.context, hub)
    assert_clean(world.home)
    assert list(world.hub.iterdir()) == [], "directories of what came to nothing"


def test_on_another_file_system_auto_takes_a_symbolic_link(world: World, manifest: Manifest) -> None:
    with in_memory() as disk:
        if disk.stat().st_dev == world.home.stat().st_dev:
            pytest.skip("no second file system here")
        assert how_of(world, manifest, disk / "x") == "symlink"
        with pytest.raises(StoreError, match="no hard links from the store to there"):
            how_of(world, manifest, disk / "y", "hardlink")
        assert how_of(world, manifest, disk / "z", "copy") == "copy"
        assert_clean(disk)


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_where_blocks_can_be_shared_a_reflink_comes_first(world: World, kind: str) -> None:
    with mounted(kind, 0) as disk:
        there = World(disk.path / "home", type(world.context).make(disk.path / "store"))
        manifest = there.keep(manifest_of(from_hub("model", MODEL)), MODEL)
        blob_path = there.store.layout.blob(digest_of(WEIGHTS))
        placed = place_manifest(there.context, manifest, environment={"HOME": str(disk.path / "home")})
        assert [each.how for each in placed.files] == ["reflink"]
        real = placed.files[0].where.resolve()
        assert real.stat().st_ino != blob_path.stat().st_ino
        assert real.read_bytes() == WEIGHTS
        again = place_manifest(there.context, manifest, environment={"HOME": str(disk.path / "home")})
        assert [each.how for each in again.files] == ["reflink"]
        undo_manifest(there.context, manifest)
        assert list((disk.path / "home" / ".cache" / "huggingface" / "hub").iterdir()) == []
