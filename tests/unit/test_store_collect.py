"""Garbage collection: what a root needs stays, what nothing needs goes, and a dry run touches nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from diachunk.errors import StoreError
from diachunk.manifest import Manifest
from diachunk.store.adopted import AdoptedFile
from diachunk.store.collect import GRACE_S, Collector
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from store_files import BLOCK, DIGEST, PIECES, chunk_list, fill, keep, listing, manifest_of, write

A = (b"a" * BLOCK,) * 2
B = (b"b" * BLOCK,) * 2
C = (b"c" * BLOCK,) * 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def kept(store: Store, name: str, *files: tuple[bytes, ...], days_ago: float = 0.0) -> Manifest:
    """A complete checkpoint that was used last so long ago."""
    contents = {f"m/{number}": pieces for number, pieces in enumerate(files)}
    manifest = manifest_of(name, contents)
    keep(store, manifest, contents)
    then = time.time() - days_ago * 86400
    os.utime(store.layout.manifest(manifest.id), (then, then))
    return manifest


def unname(store: Store, manifest: Manifest) -> None:
    store.catalog.remove_ref(manifest.name, manifest.revision)


def age(path: Path, days: float = 2.0) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then), follow_symlinks=False)


def blobs(store: Store) -> set[bytes]:
    """Which of A, B and C are here, by their letter."""
    found = set()
    for path in (store.root / "blobs").glob("??/*"):
        if len(path.name) == 64:
            found.add(path.read_bytes()[:1])
    return found


def test_what_a_name_or_a_pin_needs_stays(store: Store) -> None:
    kept(store, "one", A, days_ago=400)
    pinned = kept(store, "two", B, days_ago=400)
    unname(store, pinned)
    store.catalog.pin(pinned.id)
    before = listing(store.root)
    assert Collector(store).collect().removed == []
    assert listing(store.root) == before


def test_what_nothing_needs_goes_with_all_that_belongs_to_it(store: Store) -> None:
    kept(store, "one", A, B)
    gone = kept(store, "two", B, C, days_ago=2)
    unname(store, gone)
    collected = Collector(store).collect()
    assert blobs(store) == {b"a", b"b"}, "what both need stays"
    assert store.catalog.ids() != [gone.id]
    assert not store.layout.snapshot(gone.id).exists()
    assert collected.freed_bytes >= 2 * BLOCK
    assert collected.kept_bytes >= 4 * BLOCK
    assert not [name for name in listing(store.root) if name.endswith(".stamp") and len(blobs(store)) != 2]
    assert {each.kind for each in collected.removed} == {"checkpoint", "blob", "record"}


def test_what_was_used_a_moment_ago_may_be_under_way_and_stays(store: Store) -> None:
    manifest = kept(store, "one", A, days_ago=0.9 * GRACE_S / 86400)
    unname(store, manifest)
    Collector(store).collect()
    assert blobs(store) == {b"a"}
    age(store.layout.manifest(manifest.id), 1.1 * GRACE_S / 86400)
    Collector(store).collect()
    assert blobs(store) == set()


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store, tmp_path: Path) -> None:
    unname(store, kept(store, "one", A, days_ago=2))
    kept(store, "two", B, days_ago=50)
    kept(store, "three", C)
    stray = store.root / "blobs" / ".ingest-1-x.tmp"
    stray.write_bytes(b"x" * 5000)
    age(stray)
    store.blobs.adopted.put(DIGEST, AdoptedFile(tmp_path / "gone", Stamp(1, 2, 3, 4)))
    before = listing(store.root)
    dry = Collector(store, dry_run=True).collect(older_than_s=30 * 86400, max_bytes=2 * BLOCK)
    assert listing(store.root) == before
    wet = Collector(store).collect(older_than_s=30 * 86400, max_bytes=2 * BLOCK)
    assert wet.removed == dry.removed
    assert (wet.freed_bytes, wet.kept_bytes) == (dry.freed_bytes, dry.kept_bytes)
    assert blobs(store) == {b"c"}
    assert not stray.exists()


def test_by_size_the_least_recently_used_go_first_and_pinned_ones_never(store: Store) -> None:
    oldest = kept(store, "pinned", A, days_ago=30)
    kept(store, "old", B, days_ago=20)
    kept(store, "new", C, days_ago=10)
    assert Collector(store, pinned=[oldest.id]).collect(max_bytes=4 * BLOCK).notes == []
    assert blobs(store) == {b"a", b"c"}
    (note,) = Collector(store, pinned=[oldest.id]).collect(max_bytes=1).notes
    assert note.endswith(": pinned@main is pinned in the settings")
    assert f"{2 * BLOCK:,} bytes" in note
    assert blobs(store) == {b"a"}
    assert [ref.name for ref in store.catalog.refs()] == ["pinned"]


def test_by_size_nothing_goes_that_fits(store: Store) -> None:
    kept(store, "one", A, days_ago=20)
    kept(store, "two", A, B, days_ago=10)
    Collector(store).collect(max_bytes=4 * BLOCK)
    assert blobs(store) == {b"a", b"b"}, "a shared blob counts once"


def test_by_age_names_go_too(store: Store) -> None:
    kept(store, "old", A, days_ago=31)
    kept(store, "new", B, days_ago=29)
    Collector(store).collect(older_than_s=30 * 86400)
    assert blobs(store) == {b"b"}
    assert [ref.name for ref in store.catalog.refs()] == ["new"]
    assert sorted(os.listdir(store.root / "snapshots"))[-1] == "new@main"


def test_a_partial_stays_while_a_manifest_needs_it_or_somebody_fills_it_or_it_is_young(store: Store) -> None:
    needed = kept(store, "needed", A)
    store.blobs.demote(needed.components[0].files[0].blake3, needed.components[0].files[0].chunks)
    held = store.blobs.open_partial(DIGEST, chunk_list(PIECES))
    write(held, PIECES, [0])
    young = store.blobs.open_partial(b"\x01" * 32, chunk_list(B))
    write(young, B, [0])
    young.close()
    for path in (store.layout.partials(needed.components[0].files[0].blake3)[0], held.path):
        age(path)
    assert Collector(store).collect().removed == []
    held.close()
    age(held.path)
    (removed,) = Collector(store).collect().removed
    assert (removed.kind, removed.label) == ("partial", held.path.name)
    assert young.path.exists()


def test_a_partial_of_a_blob_that_is_complete_goes(store: Store) -> None:
    manifest = kept(store, "one", A)
    partial = store.blobs.open_partial(manifest.components[0].files[0].blake3, chunk_list([b"".join(A)]))
    write(partial, [b"".join(A)])
    partial.close()
    age(partial.path)
    assert [each.kind for each in Collector(store).collect().removed] == ["partial"]
    assert blobs(store) == {b"a"}


def test_leftovers_go_when_they_are_old(store: Store) -> None:
    fill(store)
    manifest = kept(store, "one", PIECES)
    directory = store.layout.blob_dir(DIGEST)
    strays = [
        directory / ".x.1234.tmp",
        store.root / "refs" / ".x.1234.tmp",
        store.root / "blobs" / ".ingest-1-2.tmp",
    ]
    for stray in strays:
        stray.write_bytes(b"x")
    Collector(store).collect()
    assert all(stray.exists() for stray in strays), "somebody may be writing it"
    for stray in strays:
        age(stray)
    Collector(store).collect()
    assert not any(stray.exists() for stray in strays)
    assert store.snapshots.complete(manifest)


def test_the_users_own_files_are_never_removed(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"".join(PIECES))
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, Stamp.of(mine.stat())))
    store.blobs.adopted.put(DIGEST, AdoptedFile(tmp_path / "gone", Stamp(1, 2, 3, 4)))
    Collector(store).collect(max_bytes=1)
    assert mine.exists()
    assert [each.path for each in store.blobs.adopted.get(DIGEST)] == [mine]


@pytest.mark.parametrize("data", [b"", b'{"diachunk": 2}'])
def test_nothing_is_collected_while_a_manifest_cannot_be_read(store: Store, data: bytes) -> None:
    manifest = kept(store, "of-a-newer-diachunk", A)
    store.layout.manifest(manifest.id).write_bytes(data)
    with pytest.raises(StoreError, match=manifest.hex_id):
        Collector(store).collect()
    assert blobs(store) == {b"a"}
