"""What placing writes into the cache of huggingface_hub."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.errors import StoreError, UsageError
from diachunk.places import Wanted, cache_of
from diachunk.store.collect import Collector
from diachunk.store.stamps import Stamp
from fixtures.placing import (
    CODEC,
    CODEC_COMMIT,
    COMMIT,
    CONFIG,
    WEIGHTS,
    World,
    assert_clean,
    etag,
    from_hub,
    git_id,
    manifest_of,
    pieces_of,
    tree_of,
)
from store_files import fill

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/deep/extra.json": b"{}"}
VOCODER = {"config.json": b"{}", "model.safetensors": WEIGHTS[:100_000]}
OTHER_COMMIT = "f" * 40


def ref(world: World) -> str:
    return (world.repository() / "refs" / "main").read_text()


def test_blobs_are_named_by_etag_and_the_commit_links_to_them(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    placed = place_manifest(world.context, manifest)
    snapshot = world.repository() / "snapshots" / COMMIT
    assert [each.shown for each in placed.places] == [snapshot]
    for path, data in MODEL.items():
        up = "../" * (path.count("/") + 2)
        assert (snapshot / path).readlink() == Path(f"{up}blobs/{etag(path, data)}")
        assert (snapshot / path).read_bytes() == data
    assert {each.name for each in (world.repository() / "blobs").iterdir()} == {
        etag(path, data) for path, data in MODEL.items()
    }
    assert ref(world) == COMMIT
    assert {each.where for each in placed.files} == {snapshot / path for path in MODEL}
    assert {each.how for each in placed.files} <= {"hardlink", "reflink"}
    assert placed.notices == ()
    assert_clean(world.home)


def test_every_component_goes_to_its_own_repository(world: World) -> None:
    manifest = manifest_of(from_hub("model", MODEL), from_hub("vocoder", VOCODER, CODEC, CODEC_COMMIT))
    world.keep(manifest, MODEL, VOCODER)
    place_manifest(world.context, manifest)
    assert ref(world) == COMMIT
    assert (world.repository(CODEC) / "refs" / "main").read_text() == CODEC_COMMIT
    assert (world.repository(CODEC) / "snapshots" / CODEC_COMMIT / "config.json").read_bytes() == b"{}"


def test_one_component_alone_can_be_placed_while_the_other_is_not_here(world: World) -> None:
    manifest = manifest_of(from_hub("model", MODEL), from_hub("vocoder", VOCODER, CODEC, CODEC_COMMIT))
    world.keep(manifest, VOCODER)
    place_manifest(world.context, manifest, components=["vocoder"])
    assert not world.repository().exists()
    with pytest.raises(StoreError, match=r"model/config\.json and 1 more .* not complete here") as caught:
        place_manifest(world.context, manifest)
    assert "diachunk fetch" in caught.value.hint


def test_files_of_equal_bytes_share_a_blob(world: World) -> None:
    files = {"a.json": CONFIG, "b.json": CONFIG}
    manifest = world.keep(manifest_of(from_hub("model", files)), files)
    place_manifest(world.context, manifest)
    assert [each.name for each in (world.repository() / "blobs").iterdir()] == [git_id(CONFIG)]
    assert all((world.repository() / "snapshots" / COMMIT / name).read_bytes() == CONFIG for name in files)


def test_an_empty_file_is_placed_too(world: World) -> None:
    files = {"__init__.py": b""}
    place_manifest(world.context, world.keep(manifest_of(from_hub("model", files)), files))
    assert (world.repository() / "blobs" / "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391").read_bytes() == b""


def test_placing_again_changes_nothing_and_reads_nothing(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    before = [(each, Stamp.of(each.lstat())) for each in sorted(world.hub.rglob("*"))]
    told: list[object] = []
    placed = place_manifest(world.context, manifest, progress=told.append)
    assert [(each, Stamp.of(each.lstat())) for each in sorted(world.hub.rglob("*"))] == before
    assert told == []
    assert placed.notices == ()


def test_a_ref_to_another_commit_is_moved_said_and_remembered(world: World) -> None:
    older = {"config.json": b"old"}
    for files, commit in ((older, OTHER_COMMIT), (MODEL, COMMIT)):
        manifest = world.keep(manifest_of(from_hub("model", files, commit=commit)), files)
        placed = place_manifest(world.context, manifest)
    assert ref(world) == COMMIT
    assert [OTHER_COMMIT in each and COMMIT in each for each in placed.notices] == [True]
    undo_manifest(world.context, manifest)
    assert ref(world) == OTHER_COMMIT
    assert (world.repository() / "snapshots" / OTHER_COMMIT / "config.json").read_bytes() == b"old"
    assert not (world.repository() / "snapshots" / COMMIT).exists()


def test_a_ref_is_not_put_back_to_a_commit_that_is_gone(world: World) -> None:
    first = world.keep(manifest_of(from_hub("model", VOCODER, commit=OTHER_COMMIT)), VOCODER)
    second = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, first)
    place_manifest(world.context, second)
    undo_manifest(world.context, first)
    assert ref(world) == COMMIT
    undo_manifest(world.context, second)
    assert tree_of(world.hub) == {}


def test_a_mark_that_a_file_is_absent_is_moved_aside(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    marks = world.repository() / ".no_exist" / COMMIT
    marks.mkdir(parents=True)
    (marks / "config.json").touch()
    (marks / "other.json").touch()
    placed = place_manifest(world.context, manifest)
    assert not (marks / "config.json").exists()
    assert (marks / "other.json").exists()
    assert any("hid a file" in each for each in placed.notices)


def test_the_cache_is_tagged_only_where_it_is_made(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    assert (
        (world.hub / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    )
    shutil.rmtree(world.hub)
    (world.hub / "models--a--b").mkdir(parents=True)
    place_manifest(world.context, manifest)
    # the clients before 1.0 call a file in this directory damage
    assert not (world.hub / "CACHEDIR.TAG").exists()


def test_a_list_of_all_files_is_written_only_where_the_manifest_has_all(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    place_manifest(world.context, manifest)
    assert not (world.repository() / "trees").exists()
    whole = world.keep(manifest_of(from_hub("model", MODEL, files="all"), name="lab/whole"), MODEL)
    place_manifest(world.context, whole)
    listed = json.loads((world.repository() / "trees" / f"{COMMIT}.json").read_text())
    assert listed["format_version"] == 1
    assert set(listed["files"]) == set(MODEL)
    assert listed["files"]["config.json"] == {"size": len(CONFIG), "blob_id": git_id(CONFIG)}
    sha256 = etag("model.safetensors", WEIGHTS)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(WEIGHTS)}\n"
    assert listed["files"]["model.safetensors"] == {
        "size": len(WEIGHTS),
        "blob_id": git_id(pointer.encode()),
        "lfs_sha256": sha256,
        "lfs_size": len(WEIGHTS),
    }


def test_a_list_of_all_files_that_is_there_stays(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL, files="all")), MODEL)
    path = world.repository() / "trees" / f"{COMMIT}.json"
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    place_manifest(world.context, manifest)
    undo_manifest(world.context, manifest)
    assert path.read_text() == "theirs"


def test_unfinished_downloads_of_every_client_are_leftovers(world: World) -> None:
    blobs = world.repository() / "blobs"
    blobs.mkdir(parents=True)
    name = etag("model.safetensors", WEIGHTS)
    for each in (f"{name}.incomplete", f"{name}.0a1b2c3d.incomplete"):
        (blobs / each).write_bytes(b"123")
    place = cache_of("hub", {"HOME": str(world.home)})
    assert [(path.name, size) for path, size in place.leftovers()] == [
        (f"{name}.0a1b2c3d.incomplete", 3),
        (f"{name}.incomplete", 3),
    ]
    assert list(place.entries()) == []


def test_a_cache_that_was_made_without_links_is_read_by_name_and_size(world: World) -> None:
    snapshot = world.repository() / "snapshots" / COMMIT
    (snapshot / "deep").mkdir(parents=True)
    (snapshot / "deep" / "config.json").write_bytes(CONFIG)
    place = cache_of("hub", {"HOME": str(world.home)})
    wanted = [
        Wanted(len(CONFIG), name="other.json"),
        Wanted(len(CONFIG), name="config.json"),
        Wanted(1, name="config.json"),
    ]
    assert list(place.candidates(wanted)) == [(1, snapshot / "deep" / "config.json")]
    (entry,) = place.entries()
    assert (entry.file, entry.commit, entry.algorithm) == ("deep/config.json", COMMIT, "")


def test_what_is_placed_is_known_to_the_store_and_kept_from_collection(world: World) -> None:
    manifest = manifest_of(from_hub("model", MODEL))
    for data in MODEL.values():
        fill(world.store, pieces_of(data))
    place_manifest(world.context, manifest, link_mode="symlink")
    assert world.store.catalog.get(manifest.id) == manifest
    aged = time.time() - 10 * 86400
    for path in [*world.store.root.rglob("*")]:
        if not path.is_dir() and path.suffix != ".stamp" and len(path.name) != 64:
            os.utime(path, (aged, aged))
    Collector(world.store).collect()
    for name, data in MODEL.items():
        assert (world.repository() / "snapshots" / COMMIT / name).read_bytes() == data


@pytest.mark.parametrize(
    ("repository", "commit"),
    [
        ("../../evil", COMMIT),
        ("a/b/c", COMMIT),
        ("a--b/c", COMMIT),
        ("a/..", COMMIT),
        ("", COMMIT),
        ("a/b", "main"),
        ("a/b", COMMIT.upper()),
        ("a/b", "../../../../x"),
    ],
)
def test_what_is_no_repository_or_commit_is_refused(world: World, repository: str, commit: str) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL, repository, commit)), MODEL)
    with pytest.raises(UsageError, match=r"is no (repository|commit)"):
        place_manifest(world.context, manifest)
    assert not world.hub.exists()
