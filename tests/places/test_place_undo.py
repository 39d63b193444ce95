"""Undo takes away what is still exactly what was placed, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.errors import StoreError, UsageError
from diachunk.manifest import Manifest
from fixtures.placing import (
    CODEC,
    CODEC_COMMIT,
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

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/deep/extra.json": b"{}"}
VOCODER = {"checkpoint.pth": WEIGHTS[:100_000]}
HINTS = [{"kind": "dia", "component": "vocoder"}, {"kind": "descript", "component": "vocoder"}]


@pytest.fixture
def manifest(world: World) -> Manifest:
    made = manifest_of(from_hub("model", MODEL), component("vocoder", VOCODER), places=HINTS)
    return world.keep(made, MODEL, VOCODER)


def remaining(world: World) -> dict[str, str]:
    return {name: what for name, what in tree_of(world.home / ".cache").items() if what != "/"}


@pytest.mark.parametrize("mode", ["auto", "symlink", "copy"])
def test_all_of_it_goes_everywhere_with_the_directories_that_are_empty_then(
    world: World, manifest: Manifest, mode: str
) -> None:
    placed = place_manifest(world.context, manifest, link_mode=mode)
    assert {each.kind for each in placed.places} == {"hub", "dia", "descript"}
    undone = undo_manifest(world.context, manifest)
    assert undone.left == ()
    assert tree_of(world.home / ".cache") == {
        "dia": "/",
        "descript": "/",
        "descript/dac": "/",
        "huggingface": "/",
        "huggingface/hub": "/",
    }
    assert world.records.ids() == []
    assert_clean(world.home)
    assert all(world.store.snapshots.holds(file) for _, file in manifest.walk())


def test_what_is_undone_can_be_placed_again(world: World, manifest: Manifest) -> None:
    place_manifest(world.context, manifest)
    before = tree_of(world.home / ".cache")
    undo_manifest(world.context, manifest)
    place_manifest(world.context, manifest)
    assert tree_of(world.home / ".cache") == before


def test_some_places_or_components_alone_can_be_undone(world: World, manifest: Manifest) -> None:
    place_manifest(world.context, manifest)
    undo_manifest(world.context, manifest, ["descript"])
    assert not (world.home / ".cache" / "descript" / "dac").exists() or not list(
        (world.home / ".cache" / "descript" / "dac").iterdir()
    )
    undo_manifest(world.context, manifest, components=["model"])
    assert list(remaining(world)) == ["dia/vocoder/checkpoint.pth"]
    with pytest.raises(UsageError, match="was placed there"):
        undo_manifest(world.context, manifest, ["hub"])
    undo_manifest(world.context, manifest)
    assert remaining(world) == {}
    with pytest.raises(UsageError, match="was placed"):
        undo_manifest(world.context, manifest)


def test_what_changed_since_is_left_and_named(world: World, manifest: Manifest) -> None:
    place_manifest(world.context, manifest, link_mode="copy")
    blob = world.repository() / "blobs" / etag("config.json", CONFIG)
    blob.write_bytes(b"edited")
    link = world.repository() / "snapshots" / COMMIT / "model.safetensors"
    link.unlink()
    link.symlink_to("/elsewhere")
    (world.repository() / "refs" / "main").write_text("f" * 40)
    undone = undo_manifest(world.context, manifest)
    assert {path for path, _ in undone.left} == {blob, link, world.repository() / "refs" / "main"}
    assert {why for _, why in undone.left} == {"it was changed since"}
    assert blob.read_bytes() == b"edited"
    assert link.readlink() == Path("/elsewhere")
    assert (world.repository() / "refs" / "main").read_text() == "f" * 40


def test_a_link_in_the_place_of_what_was_put_is_not_ours(world: World, manifest: Manifest) -> None:
    place_manifest(world.context, manifest, link_mode="copy")
    ref, blob = (
        world.repository() / "refs" / "main",
        world.repository() / "blobs" / etag("config.json", CONFIG),
    )
    for path in (ref, blob):
        path.rename(world.home / path.name)
        path.symlink_to(world.home / path.name)
    undone = undo_manifest(world.context, manifest)
    assert {path for path, _ in undone.left} == {ref, blob}
    assert (world.home / "main").read_text() == COMMIT


def test_what_is_gone_already_is_no_trouble(world: World, manifest: Manifest) -> None:
    place_manifest(world.context, manifest)
    (world.repository() / "snapshots" / COMMIT / "config.json").unlink()
    (world.home / ".cache" / "dia" / "vocoder" / "checkpoint.pth").unlink()
    assert undo_manifest(world.context, manifest).left == ()
    assert remaining(world) == {}


def test_files_that_others_put_beside_it_stay_and_so_do_their_directories(
    world: World, manifest: Manifest
) -> None:
    place_manifest(world.context, manifest)
    theirs = world.repository() / "snapshots" / COMMIT / "theirs.json"
    theirs.write_text("x")
    undo_manifest(world.context, manifest)
    assert list(remaining(world)) == [
        "huggingface/hub/CACHEDIR.TAG",
        f"huggingface/hub/models--nari-labs--Dia-1.6B-0626/snapshots/{COMMIT}/theirs.json",
    ]


def test_a_file_that_another_placed_checkpoint_needs_stays_until_that_goes_too(world: World) -> None:
    shared = {"model.safetensors": WEIGHTS}
    codec = from_hub("vocoder", shared, CODEC, CODEC_COMMIT)
    first = world.keep(manifest_of(from_hub("model", MODEL), codec, name="lab/a"), MODEL, shared)
    second = world.keep(manifest_of(codec, name="lab/b"), shared)
    for one, other in ((first, second), (second, first)):
        place_manifest(world.context, first)
        place_manifest(world.context, second)
        undone = undo_manifest(world.context, one)
        assert {why for _, why in undone.left} == {"another placed checkpoint needs it too"}
        snapshot = world.repository(CODEC) / "snapshots" / CODEC_COMMIT
        assert (snapshot / "model.safetensors").read_bytes() == WEIGHTS
        assert (world.repository(CODEC) / "refs" / "main").read_text() == CODEC_COMMIT
        undo_manifest(world.context, other)
        assert tree_of(world.hub) == {}, "the one that was left is nobody's"


@pytest.mark.parametrize("mode", ["copy", "symlink"])
def test_a_blob_that_a_client_linked_to_since_stays(world: World, manifest: Manifest, mode: str) -> None:
    place_manifest(world.context, manifest, link_mode=mode)
    name = etag("model.safetensors", WEIGHTS)
    theirs = world.repository() / "snapshots" / ("f" * 40) / "model.safetensors"
    theirs.parent.mkdir()
    theirs.symlink_to(f"../../blobs/{name}")
    undone = undo_manifest(world.context, manifest)
    ((path, why),) = undone.left
    assert path.name == name
    assert f"{theirs} needs it too" in why
    assert theirs.read_bytes() == WEIGHTS
    # a link into the store would lead nowhere once the store forgets the file
    assert not path.is_symlink()
    assert world.records.ids() == []
    assert_clean(world.home)


def test_a_link_into_the_store_that_must_stay_keeps_its_record(
    world: World, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_manifest(world.context, manifest, link_mode="symlink")
    name = etag("model.safetensors", WEIGHTS)
    theirs = world.repository() / "snapshots" / ("f" * 40) / "model.safetensors"
    theirs.parent.mkdir()
    theirs.symlink_to(f"../../blobs/{name}")

    def refuse(*arguments: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr("diachunk.places.undo.make", refuse)
    undo_manifest(world.context, manifest)
    assert theirs.read_bytes() == WEIGHTS
    assert world.records.ids() == [manifest.id]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"placed": 99}', '{"placed": 1, "places": [{}]}', '"x"', "[" * 99999]
)
def test_a_record_that_cannot_be_read_is_as_if_there_were_none(
    world: World, manifest: Manifest, text: str
) -> None:
    place_manifest(world.context, manifest)
    record = world.store.root / "placed" / f"{manifest.hex_id}.json"
    record.write_text(text)
    undone = undo_manifest(world.context, manifest)
    assert undone.removed == ()
    assert any(str(record) in each for each in undone.notices)
    place_manifest(world.context, manifest)
    assert (world.repository() / "snapshots" / COMMIT / "config.json").read_bytes() == CONFIG


def test_a_record_with_a_digest_that_is_none_is_no_record(world: World, manifest: Manifest) -> None:
    place_manifest(world.context, manifest)
    record = world.store.root / "placed" / f"{manifest.hex_id}.json"
    value = json.loads(record.read_text())
    value["places"][0]["puts"][0]["blake3"] = "xyz"
    record.write_text(json.dumps(value))
    assert world.records.get(manifest.id) == ()


@pytest.mark.parametrize("where", ["../../victim", "/etc/victim", "a/../../victim", "a//b", ".", "", "a\0b"])
def test_a_record_leads_nowhere_outside_of_its_place(world: World, manifest: Manifest, where: str) -> None:
    place_manifest(world.context, manifest)
    victim = world.home / "victim"
    victim.write_text("precious")
    record = world.store.root / "placed" / f"{manifest.hex_id}.json"
    value = json.loads(record.read_text())
    status = victim.stat()
    stamp = {"device": status.st_dev, "inode": status.st_ino, "size": 8, "mtime_ns": status.st_mtime_ns}
    for put in value["places"][0]["puts"]:
        put |= {
            "where": where,
            "how": "copy",
            "stamp": stamp | {"lists": [], "blake3": "", "sha256": "", "verified_at": 0},
        }
    record.write_text(json.dumps(value))
    assert undo_manifest(world.context, manifest).removed == ()
    assert victim.read_text() == "precious"
