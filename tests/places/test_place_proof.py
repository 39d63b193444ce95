"""Nothing is placed under a digest that was not computed here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diachunk.api.placing import place_manifest
from diachunk.digest import digest_of
from diachunk.errors import IntegrityError, StoreError
from diachunk.manifest import Component, FileEntry
from diachunk.places import proof
from diachunk.store.adopted import AdoptedFile
from diachunk.store.stamps import Stamp, read_stamp
from diachunk.transfer.progress import Event, How, Progress, Status
from fixtures.placing import COMMIT, CONFIG, REPOSITORY, WEIGHTS, World, entry, from_hub, git_id, manifest_of

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
UPSTREAM = {"kind": "hub", "repository": REPOSITORY, "commit": COMMIT}


def read_counting(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file is read from now on."""
    read: Counter[Path] = Counter()
    real = proof.hash_into

    def counting(path: Path, *arguments: Any) -> Stamp:
        read[path] += 1
        return real(path, *arguments)

    monkeypatch.setattr(proof, "hash_into", counting)
    return read


def test_a_digest_nobody_computed_is_computed_once_told_and_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    read = read_counting(monkeypatch)
    events: list[Event] = []
    place_manifest(world.context, manifest, progress=events.append)
    assert set(read.values()) == {1}
    assert len(read) == len(MODEL)
    total = sum(map(len, MODEL.values()))
    assert [each.left_bytes for each in events if isinstance(each, Status)] == [total]
    told = [each for each in events if isinstance(each, Progress)]
    assert sum(each.bytes for each in told) == total
    assert {(each.component, each.how) for each in told} == {("model", How.HASHED)}
    stamp = read_stamp(world.store.layout.stamp(digest_of(CONFIG)))
    assert stamp is not None
    assert stamp.git == git_id(CONFIG)
    read.clear()
    place_manifest(world.context, manifest, [world.home / "x"])
    assert not read


def test_a_digest_of_the_stamp_is_taken_without_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    other = world.keep(manifest_of(from_hub("model", MODEL, "other/name"), name="lab/b"), MODEL)
    read = read_counting(monkeypatch)
    place_manifest(world.context, other)
    assert not read
    assert (world.repository("other/name") / "snapshots" / COMMIT / "config.json").read_bytes() == CONFIG


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"git": "0" * 40}])
def test_a_manifest_that_lies_about_a_digest_is_refused_and_nothing_placed(
    world: World, wrong: dict[str, Any]
) -> None:
    file = replace(entry("model.safetensors", WEIGHTS), **wrong)
    manifest = world.keep(manifest_of(Component("model", (file,), UPSTREAM)), MODEL)
    with pytest.raises(IntegrityError, match=r"model/model\.safetensors: its (sha256|git) is"):
        place_manifest(world.context, manifest)
    assert not world.hub.exists()


def test_a_lie_beside_the_truth_about_the_same_bytes_is_refused(world: World) -> None:
    files = (replace(entry("a.json", CONFIG), git=""), replace(entry("b.json", CONFIG), git="0" * 40))
    manifest = world.keep(manifest_of(Component("model", files, UPSTREAM)), MODEL)
    with pytest.raises(IntegrityError, match=r"b\.json"):
        place_manifest(world.context, manifest)


def test_two_files_that_claim_one_name_for_other_bytes_are_refused(world: World) -> None:
    true = entry("a.safetensors", WEIGHTS)
    files = (true, replace(entry("b.safetensors", CONFIG), sha256=true.sha256))
    manifest = world.keep(manifest_of(Component("model", files, UPSTREAM)), MODEL)
    with pytest.raises(IntegrityError, match=r"b\.safetensors"):
        place_manifest(world.context, manifest)


def test_a_file_without_a_digest_has_no_name_in_a_hub_cache(world: World) -> None:
    file = replace(entry("model.safetensors", WEIGHTS), sha256="")
    manifest = world.keep(manifest_of(Component("model", (file,), UPSTREAM)), MODEL)
    with pytest.raises(Exception, match="under which name a hub keeps it"):
        place_manifest(world.context, manifest)


def adopt(world: World, path: Path, file: FileEntry) -> AdoptedFile:
    stamp = Stamp.of(path.stat()).adding(chunk_list=file.chunks.id)
    record = AdoptedFile(path, stamp)
    world.store.blobs.adopted.put(file.blake3, record)
    return record


def test_the_digest_of_an_adopted_file_is_kept_with_its_record(world: World) -> None:
    path = world.home / "mine.safetensors"
    path.write_bytes(WEIGHTS)
    file = entry("model.safetensors", WEIGHTS)
    adopt(world, path, file)
    manifest = manifest_of(Component("model", (file,), UPSTREAM))
    placed = place_manifest(world.context, manifest)
    assert [each.how for each in placed.files] == ["symlink"] or [each.how for each in placed.files] == [
        "reflink"
    ]
    (record,) = world.store.blobs.adopted.get(file.blake3)
    assert record.stamp.sha256 == file.sha256
    assert record.stamp.lists == (file.chunks.id.hex(),)


def test_a_file_that_nobody_verified_is_not_placed(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    world.store.layout.stamp(digest_of(WEIGHTS)).unlink()
    with pytest.raises(StoreError, match=r"model/model\.safetensors .*not verified"):
        place_manifest(world.context, manifest)
    assert not world.hub.exists()


def test_a_file_that_changed_since_it_was_verified_is_not_placed(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    blob = world.store.layout.blob(digest_of(WEIGHTS))
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(StoreError, match="not verified"):
        place_manifest(world.context, manifest)


def test_an_adopted_file_that_is_only_a_claim_is_not_placed(world: World) -> None:
    path = world.home / "mine.safetensors"
    path.write_bytes(bytes(len(WEIGHTS)))
    file = entry("model.safetensors", WEIGHTS)
    world.store.blobs.adopted.put(file.blake3, AdoptedFile(path, Stamp.of(path.stat())))
    for manifest in (
        manifest_of(Component("model", (file,), UPSTREAM)),
        manifest_of(Component("model", (file,))),
    ):
        with pytest.raises(StoreError, match="not verified"):
            place_manifest(world.context, manifest, [world.home / "x"])


@pytest.mark.parametrize("when", ["before", "amid"])
def test_a_file_that_changes_while_its_digest_is_computed_gets_no_stamp(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    blob = world.store.layout.blob(digest_of(WEIGHTS))
    blob.chmod(0o644)
    real = proof.hash_into

    def hash_into(path: Path, hashes: Any, read: Callable[[int], None]) -> Stamp:
        def change(size: int) -> None:
            if path == blob:
                with blob.open("r+b") as file:
                    file.write(bytes(100))
            read(size)

        if when == "before":
            change(0)
            return real(path, hashes, read)
        return real(path, hashes, change)

    monkeypatch.setattr(proof, "hash_into", hash_into)
    with pytest.raises(StoreError, match="changed"):
        place_manifest(world.context, manifest)
    stamp = read_stamp(world.store.layout.stamp(digest_of(WEIGHTS)))
    assert stamp is not None
    assert stamp.sha256 == ""
    assert not world.hub.exists()


def test_bytes_that_rotted_under_their_stamp_are_not_named(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    blob = world.store.layout.blob(digest_of(WEIGHTS))
    status = blob.stat()
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"\xff\xff")
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    blob.chmod(0o444)
    with pytest.raises(IntegrityError, match="its sha256 is"):
        place_manifest(world.context, manifest)
    assert not world.hub.exists()
    # where names say nothing, a copy is hashed while it is made
    with pytest.raises(IntegrityError, match="is damaged"):
        place_manifest(world.context, manifest, [world.home / "x"], link_mode="copy")
    assert [each for each in (world.home / "x").rglob("*") if each.is_file()] == []
