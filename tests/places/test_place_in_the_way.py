"""What lies where something is to be placed: nothing of a user's is written to, followed or lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.errors import StoreError
from diachunk.store.stamps import Stamp
from fixtures.placing import (
    COMMIT,
    CONFIG,
    WEIGHTS,
    World,
    assert_clean,
    component,
    etag,
    from_hub,
    manifest_of,
    tree_of,
)

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
SHA256 = etag("model.safetensors", WEIGHTS)


@pytest.fixture
def blob(world: World) -> Path:
    """Where the weights belong; the directory is there."""
    path = world.repository() / "blobs" / SHA256
    path.parent.mkdir(parents=True)
    return path


def test_a_file_with_the_right_bytes_is_kept_as_it_is(world: World, blob: Path) -> None:
    blob.write_bytes(WEIGHTS)
    before = Stamp.of(blob.stat())
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    placed = place_manifest(world.context, manifest)
    assert before.matches(blob.stat())
    assert {each.path: each.how for each in placed.files}["model.safetensors"] == "there already"
    told: list[object] = []
    place_manifest(world.context, manifest, progress=told.append)
    assert told == [], "it was read again"
    undo_manifest(world.context, manifest)
    assert tree_of(world.hub) == {
        "models--nari-labs--Dia-1.6B-0626": "/",
        "models--nari-labs--Dia-1.6B-0626/blobs": "/",
        f"models--nari-labs--Dia-1.6B-0626/blobs/{SHA256}": SHA256,
    }


@pytest.mark.parametrize("data", [WEIGHTS[:-1], WEIGHTS[:-1] + b"x", b"", WEIGHTS + b"x"])
def test_a_wrong_or_truncated_file_is_named_and_left_alone(world: World, blob: Path, data: bytes) -> None:
    blob.write_bytes(data)
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    before = tree_of(world.hub)
    with pytest.raises(StoreError, match=f"{SHA256} is in the way") as caught:
        place_manifest(world.context, manifest)
    assert "--force" in caught.value.hint
    assert tree_of(world.hub) == before
    assert world.records.ids() == []


def test_force_moves_it_aside_and_keeps_its_bytes(world: World, blob: Path) -> None:
    blob.write_bytes(b"theirs")
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    placed = place_manifest(world.context, manifest, force=True)
    assert blob.read_bytes() == WEIGHTS
    (aside,) = [each for each in blob.parent.iterdir() if "moved-aside" in each.name]
    assert aside.read_bytes() == b"theirs"
    assert any(aside.name in each for each in placed.notices)
    undo_manifest(world.context, manifest)
    assert [each.name for each in blob.parent.iterdir()] == [aside.name]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_directory_or_fifo_in_the_way_is_refused_or_moved_aside(
    world: World, blob: Path, make: Callable[[Path], None]
) -> None:
    make(blob)
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    with pytest.raises(StoreError, match="in the way"):
        place_manifest(world.context, manifest)
    place_manifest(world.context, manifest, force=True)
    assert blob.read_bytes() == WEIGHTS


def test_a_link_to_other_bytes_is_replaced_and_what_it_led_to_untouched(world: World, blob: Path) -> None:
    theirs = world.home / "theirs"
    theirs.write_bytes(bytes(len(WEIGHTS)))
    blob.symlink_to(theirs)
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    for mode in ("auto", "copy", "symlink"):
        blob.unlink()
        blob.symlink_to(theirs)
        placed = place_manifest(world.context, manifest, link_mode=mode)
        assert theirs.read_bytes() == bytes(len(WEIGHTS))
        assert blob.read_bytes() == WEIGHTS
        assert any("was a link to" in each for each in placed.notices)


def test_a_link_that_leads_nowhere_is_replaced(world: World, blob: Path) -> None:
    blob.symlink_to("gone")
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    assert blob.read_bytes() == WEIGHTS
    assert not (blob.parent / "gone").exists()


def test_a_link_into_the_clients_shared_store_with_the_right_bytes_is_kept(world: World, blob: Path) -> None:
    shared = world.hub / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    shared.write_bytes(WEIGHTS)
    blob.symlink_to(f"../../blobs/ab/{'ab' * 32}")
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    placed = place_manifest(world.context, manifest)
    assert {each.path: each.how for each in placed.files}["model.safetensors"] == "there already"
    assert blob.is_symlink()
    undo_manifest(world.context, manifest)
    assert blob.is_symlink()
    assert shared.read_bytes() == WEIGHTS


@pytest.mark.parametrize("where", ["", "blobs", "refs", "snapshots", f"snapshots/{COMMIT}"])
def test_a_directory_link_below_the_root_is_refused(world: World, where: str) -> None:
    outside = world.home / "outside"
    outside.mkdir()
    path = world.repository() / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    for force in (False, True):
        with pytest.raises(StoreError, match="is a link: nothing is written through one"):
            place_manifest(world.context, manifest, force=force)
    assert list(outside.iterdir()) == []
    assert_clean(world.home)


def test_links_above_the_root_are_the_users_own_affair(world: World) -> None:
    big = world.home / "big-disk"
    big.mkdir()
    (world.home / ".cache").symlink_to(big)
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    assert (big / "huggingface" / "hub" / world.repository().name / "refs" / "main").read_text() == COMMIT


def test_the_root_itself_may_be_a_link(world: World) -> None:
    big = world.home / "big-disk"
    big.mkdir()
    world.hub.parent.mkdir(parents=True)
    world.hub.symlink_to(big)
    place_manifest(world.context, world.keep(manifest_of(from_hub("model", MODEL)), MODEL))
    assert (big / world.repository().name / "refs" / "main").read_text() == COMMIT


def test_a_file_where_a_directory_belongs_is_named(world: World) -> None:
    world.repository().parent.mkdir(parents=True)
    world.repository().write_bytes(b"")
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    with pytest.raises(StoreError, match=f"{world.repository()} is in the way: no directory"):
        place_manifest(world.context, manifest)


def test_a_ref_that_is_a_link_is_replaced_not_written_through(world: World) -> None:
    theirs = world.home / "theirs"
    theirs.write_text("f" * 40)
    path = world.repository() / "refs" / "main"
    path.parent.mkdir(parents=True)
    path.symlink_to(theirs)
    place_manifest(world.context, world.keep(manifest_of(from_hub("model", MODEL)), MODEL))
    assert theirs.read_text() == "f" * 40
    assert not path.is_symlink()
    assert path.read_text() == COMMIT


def test_a_snapshot_that_was_made_without_links_is_kept_where_it_is_right(world: World) -> None:
    snapshot = world.repository() / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(CONFIG)
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    assert not (snapshot / "config.json").is_symlink()
    (snapshot / "config.json").write_bytes(b"edited")
    with pytest.raises(StoreError, match=r"config\.json is in the way"):
        place_manifest(world.context, manifest)


def test_what_diachunk_placed_before_is_replaced_without_force(world: World) -> None:
    into = world.home / "out"
    old = world.keep(manifest_of(component("model", {"a.bin": b"old"}), name="lab/a"), {"": b"old"})
    new = world.keep(manifest_of(component("model", {"a.bin": b"new"}), name="lab/b"), {"": b"new"})
    place_manifest(world.context, old, [into])
    place_manifest(world.context, new, [into])
    assert (into / "model" / "a.bin").read_bytes() == b"new"
    undo_manifest(world.context, old)
    assert (into / "model" / "a.bin").read_bytes() == b"new"


def test_what_a_user_made_of_it_since_is_theirs(world: World) -> None:
    into = world.home / "out"
    old = world.keep(manifest_of(component("model", {"a.bin": b"old"}), name="lab/a"), {"": b"old"})
    new = world.keep(manifest_of(component("model", {"a.bin": b"new"}), name="lab/b"), {"": b"new"})
    place_manifest(world.context, old, [into], link_mode="copy")
    (into / "model" / "a.bin").write_bytes(b"mine")
    with pytest.raises(StoreError, match="in the way"):
        place_manifest(world.context, new, [into])
    undone = undo_manifest(world.context, old)
    assert [(path.name, why) for path, why in undone.left] == [("a.bin", "it was changed since")]
    assert (into / "model" / "a.bin").read_bytes() == b"mine"


def test_names_as_long_as_they_can_be_are_placed(world: World) -> None:
    files = {f"{'d' * 255}/{'e' * 255}/{'n' * 255}": CONFIG, f"{'ä' * 120}.json": b"{}"}
    manifest = world.keep(manifest_of(from_hub("model", files)), files)
    place_manifest(world.context, manifest)
    for path, data in files.items():
        assert (world.repository() / "snapshots" / COMMIT / path).read_bytes() == data
    deep = world.home / "x" / ("y" * 250)
    place_manifest(world.context, manifest, [deep])
    assert (deep / "model" / f"{'ä' * 120}.json").read_bytes() == b"{}"
