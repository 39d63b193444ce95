"""Names, manifests and the directories that programs are given."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.errors import StoreError, TrustError, UsageError
from diachunk.manifest import encode
from diachunk.manifest.write import compact
from diachunk.store.adopted import AdoptedFile
from diachunk.store.catalog import Catalog
from diachunk.store.files import Files
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from store_files import DATA, DIGEST, PIECES, chunk_list, fill, keep, leftovers, listing, manifest_of

ONE = manifest_of("lab/a", {"model/deep/a.bin": PIECES, "vocoder/b.bin": PIECES[:2]})
TWO = manifest_of("lab/a", {"model/deep/a.bin": PIECES[1:]}, "v2")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


# --- manifests ---------------------------------------------------------------------------------------------


def test_a_manifest_is_kept_under_its_id(store: Store) -> None:
    store.catalog.add(ONE)
    store.catalog.add(ONE)
    assert store.catalog.get(ONE.id) == ONE
    assert store.catalog.ids() == [ONE.id]
    assert not leftovers(store.root)


def test_what_is_not_here_is_said(store: Store) -> None:
    with pytest.raises(UsageError, match="no manifest"):
        store.catalog.get(ONE.id)


@pytest.mark.parametrize("data", [b"", b"{", encode(TWO), encode(ONE)[:-20]])
def test_a_damaged_manifest_is_refused_by_name_and_passed_over_in_lists(store: Store, data: bytes) -> None:
    store.catalog.add(ONE)
    store.catalog.add(TWO)
    store.layout.manifest(ONE.id).write_bytes(data)
    with pytest.raises(StoreError, match=ONE.hex_id):
        store.catalog.get(ONE.id)
    assert list(Catalog(store.layout).manifests()) == [TWO]
    assert [each.id for each in store.catalog.manifests()] == store.catalog.ids(), (
        "what is in memory is whole"
    )


def test_outlines_say_what_the_manifests_say_but_for_chunks(store: Store) -> None:
    for each in (ONE, TWO):
        store.catalog.add(each)
    for catalog in (store.catalog, Catalog(store.layout)):
        found = list(catalog.outlines())
        assert [each.id for each in found] == catalog.ids()
        for outline in found:
            manifest = ONE if outline.id == ONE.id else TWO
            assert (outline.name, outline.revision) == (manifest.name, manifest.revision)
            assert [(each.path, each.size, each.blake3) for each in outline.files()] == [
                (file.path, file.size, file.blake3) for _, file in manifest.walk()
            ]


@pytest.mark.parametrize("data", [b"", b"{", compact(TWO), encode(ONE)[:-20], None])
def test_outlines_pass_over_what_is_no_manifest(store: Store, data: bytes | None) -> None:
    store.catalog.add(ONE)
    store.catalog.add(TWO)
    if data is None:
        store.layout.manifest(ONE.id).unlink()
        store.layout.manifest(ONE.id).mkdir()
    else:
        store.layout.manifest(ONE.id).write_bytes(data)
    assert [each.id for each in Catalog(store.layout).outlines()] == [TWO.id]


def test_a_stray_file_among_the_manifests_is_no_manifest(store: Store) -> None:
    store.catalog.add(ONE)
    (store.root / "manifests" / "readme.txt").write_bytes(b"x")
    (store.root / "manifests" / ".x.1234.tmp").write_bytes(b"x")
    assert store.catalog.ids() == [ONE.id]


def test_a_unique_prefix_finds_a_manifest(store: Store) -> None:
    for each in (ONE, TWO):
        store.catalog.add(each)
    assert store.catalog.by_prefix(ONE.hex_id[:8]) == ONE.id
    for prefix, words in (("", "2 manifests"), ("0" * 63, "no manifest")):
        with pytest.raises(UsageError, match=words):
            store.catalog.by_prefix(prefix)


def test_use_is_remembered(store: Store) -> None:
    assert store.catalog.used_at(ONE.id) == 0.0
    store.catalog.add(ONE)
    os.utime(store.layout.manifest(ONE.id), (5, 5))
    assert store.catalog.used_at(ONE.id) == 5.0
    store.catalog.touch(ONE.id)
    assert store.catalog.used_at(ONE.id) > 5.0


# --- refs and pins -----------------------------------------------------------------------------------------


def test_a_name_moves_only_with_force(store: Store) -> None:
    store.catalog.set_ref("lab/a", "main", ONE.id)
    store.catalog.set_ref("lab/a", "main", ONE.id)
    with pytest.raises(TrustError, match="already stands for") as caught:
        store.catalog.set_ref("lab/a", "main", TWO.id)
    assert caught.value.exit_code == 7
    assert store.catalog.ref("lab/a", "main") == ONE.id
    store.catalog.set_ref("lab/a", "main", TWO.id, force=True)
    assert store.catalog.ref("lab/a", "main") == TWO.id


def test_names_are_listed_sorted(store: Store) -> None:
    for name, revision in (("lab/b", "main"), ("a", "v2"), ("lab/a", "v1"), ("a", "main")):
        store.catalog.set_ref(name, revision, ONE.id)
    (store.root / "refs" / ".x@y.12.tmp").write_text(ONE.hex_id)
    (store.root / "refs" / "bad@main").write_text("latest")
    assert [str(ref) for ref in store.catalog.refs()] == ["a@main", "a@v2", "lab/a@v1", "lab/b@main"]
    store.catalog.remove_ref("a", "v2")
    store.catalog.remove_ref("a", "v2")
    assert store.catalog.ref("a", "v2") is None


@pytest.mark.parametrize("text", ["", "main", ONE.hex_id.upper(), ONE.hex_id + "00", "é" * 64, " " * 5000])
def test_a_ref_that_is_no_id_stands_for_nothing(store: Store, text: str) -> None:
    path = store.layout.ref("a", "main")
    path.write_text(text)
    assert store.catalog.ref("a", "main") is None
    store.catalog.set_ref("a", "main", ONE.id)
    assert store.catalog.ref("a", "main") == ONE.id


def test_pins(store: Store) -> None:
    store.catalog.pin(ONE.id)
    store.catalog.pin(ONE.id)
    (store.root / "pins" / "stray").write_bytes(b"")
    assert store.catalog.pins() == {ONE.id}
    store.catalog.unpin(ONE.id)
    store.catalog.unpin(ONE.id)
    assert store.catalog.pins() == set()


# --- snapshots ---------------------------------------------------------------------------------------------


def test_a_snapshot_shows_the_files_under_their_own_names_by_relative_links(
    store: Store, tmp_path: Path
) -> None:
    keep(store, ONE, {"a": PIECES, "b": PIECES[:2]})
    root = store.layout.named_snapshot("lab/a", "main")
    assert (root / "model" / "deep" / "a.bin").read_bytes() == DATA
    assert (root / "vocoder" / "b.bin").read_bytes() == b"".join(PIECES[:2])
    links = [link for _, _, link in listing(store.root).values() if link]
    assert len(links) == 3
    assert not any(os.path.isabs(link) for link in links)
    store.root.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "snapshots" / "lab" / "a@main" / "model" / "deep" / "a.bin"
    assert moved.read_bytes() == DATA, "a store can be moved as a whole"


def test_only_complete_files_of_the_chosen_components_are_shown(store: Store) -> None:
    fill(store, PIECES[:2])
    root = store.snapshots.build(ONE)
    assert not (root / "model").exists()
    assert (root / "vocoder" / "b.bin").exists()
    assert not store.snapshots.complete(ONE)
    fill(store)
    assert store.snapshots.complete(ONE)
    store.snapshots.build(ONE, frozenset({"vocoder"}))
    assert not (root / "model").exists()
    store.snapshots.build(ONE)
    assert (root / "model" / "deep" / "a.bin").exists()


def test_building_again_changes_nothing(store: Store) -> None:
    keep(store, ONE, {"a": PIECES, "b": PIECES[:2]})
    before = {path: os.lstat(path).st_ino for path in store.root.rglob("*") if path.is_symlink()}
    store.snapshots.build(ONE)
    assert {path: os.lstat(path).st_ino for path in before} == before


def test_an_adopted_file_is_linked_where_it_is(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(DATA)
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, Stamp.of(mine.stat())))
    link = store.snapshots.build(ONE) / "model" / "deep" / "a.bin"
    assert not link.is_symlink(), "nobody has read it yet"
    stamp = Stamp.of(mine.stat()).adding(chunk_list=chunk_list(PIECES).id)
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, stamp))
    store.snapshots.build(ONE)
    assert os.readlink(link) == str(mine)
    fill(store)
    store.snapshots.build(ONE)
    assert not os.path.isabs(os.readlink(link)), "the store's own blob is the better one"


def test_a_name_moves_from_one_snapshot_to_the_next_in_one_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, ONE, {"a": PIECES, "b": PIECES[:2]})
    fill(store, PIECES[1:])
    store.snapshots.build(TWO)
    link = store.layout.named_snapshot("lab/a", "main")
    seen: list[Path] = []
    rename = Files.rename

    def look_before_renaming(files: Files, source: Path, target: Path) -> None:
        seen.append(link.resolve(strict=True))
        rename(files, source, target)

    monkeypatch.setattr(Files, "rename", look_before_renaming)
    store.snapshots.name("lab/a", "main", TWO.id)
    assert seen == [store.layout.snapshot(ONE.id)], "the old one to the last moment"
    assert link.resolve() == store.layout.snapshot(TWO.id)
    assert not leftovers(store.root)


def test_removing_a_snapshot_removes_no_blob(store: Store) -> None:
    keep(store, ONE, {"a": PIECES, "b": PIECES[:2]})
    store.snapshots.remove(ONE.id)
    store.snapshots.remove_name("lab/a", "main")
    store.snapshots.remove_name("lab/a", "main")
    assert not store.layout.snapshot(ONE.id).exists()
    assert store.layout.blob(DIGEST).read_bytes() == DATA


# --- adopted files -----------------------------------------------------------------------------------------


def adopted(path: Path, *, ours: bool = False) -> AdoptedFile:
    return AdoptedFile(path, Stamp(1, 2, 3, 4, ("ab",)), ours)


def test_adopted_files_are_remembered_the_latest_first_and_once_a_path(store: Store, tmp_path: Path) -> None:
    records = store.blobs.adopted
    for name in ("a", "b", "a"):
        records.put(DIGEST, adopted(tmp_path / name, ours=name == "a"))
    assert records.get(DIGEST) == [adopted(tmp_path / "a", ours=True), adopted(tmp_path / "b")]
    assert records.by_path(tmp_path / "b") == (DIGEST, adopted(tmp_path / "b"))
    assert records.by_path(tmp_path / "c") is None
    assert list(records.digests()) == [DIGEST]
    for name in ("a", "b", "b"):
        records.drop(DIGEST, tmp_path / name)
    assert list(records.digests()) == []


def test_the_number_of_records_of_one_blob_is_bounded(store: Store, tmp_path: Path) -> None:
    for number in range(100):
        store.blobs.adopted.put(DIGEST, adopted(tmp_path / str(number)))
    assert len(store.blobs.adopted.get(DIGEST)) == 64
    assert store.blobs.adopted.get(DIGEST)[0].path == tmp_path / "99"


GOOD = adopted(Path("/a")).to_object()


@pytest.mark.parametrize(
    "value",
    [
        5,
        None,
        {},
        [5],
        [{}],
        [{**GOOD, "path": "relative"}],
        [{**GOOD, "stamp": {}}],
        [{**GOOD, "stamp": {**GOOD["stamp"], "size": 1e999}}],
        [{key: GOOD[key] for key in ("path", "stamp")}],
    ],
)
def test_a_record_that_is_none_is_as_if_it_were_not_there(store: Store, value: object) -> None:
    store.layout.adopted(DIGEST).write_text(json.dumps(value))
    assert store.blobs.adopted.get(DIGEST) == []


@pytest.mark.parametrize("path", ["/a\0b", "/\ud800", "/" + "x" * 300])
def test_a_record_with_an_impossible_path_is_found_by_nobody(store: Store, path: str) -> None:
    store.layout.adopted(DIGEST).write_text(json.dumps([{**GOOD, "path": path}]))
    assert [each.unchanged() for each in store.blobs.adopted.get(DIGEST)] == [None]
    assert store.blobs.find(DIGEST, len(DATA), ONE.components[0].files[0].chunks).path is None


def test_garbage_among_the_records_is_passed_over(store: Store) -> None:
    (store.root / "adopted" / "stray").write_bytes(b"x")
    store.layout.adopted(digest_of(b"x")).write_bytes(b"[" * 50_000)
    assert [store.blobs.adopted.get(each) for each in store.blobs.adopted.digests()] == [[]]
