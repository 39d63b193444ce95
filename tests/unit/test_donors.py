"""Which local files are offered as donors, and what is read to find them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from diachunk.digest import Digest, digest_of
from diachunk.manifest import ChunkList, Manifest, outline, write
from diachunk.manifest.outline import FileOutline
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.donors import find_donors
from diachunk.store import catalog
from diachunk.store.store import Store
from store_files import BLOCK, PIECES, chunk_list, fill, manifest_of
from store_files import write as write_chunks

ONE = manifest_of("lab/a", {"m/a.bin": PIECES, "m/b.bin": PIECES[:1], "m/c.bin": PIECES[2:]})
OTHER = manifest_of("lab/b", {"m/d.bin": [b"x" * BLOCK, b"y" * BLOCK]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose manifests nobody has in memory."""
    store = Store.open(tmp_path / "store")
    for manifest in (ONE, OTHER):
        store.catalog.add(manifest)
    for pieces in (PIECES, PIECES[:1], PIECES[2:], [b"x" * BLOCK, b"y" * BLOCK]):
        fill(store, pieces)
    return Store.open(store.root)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """The ids of the manifests that are read from disk, one after another."""
    ids: list[Digest] = []

    def watched(data: bytes, manifest_id: Digest) -> outline.Outline:
        ids.append(manifest_id)
        return outline.outline(data, manifest_id)

    monkeypatch.setattr(catalog, "outline", watched)
    return ids


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files whose chunk lists are built."""
    paths: list[str] = []
    chunks = FileOutline.chunks

    def watched(file: FileOutline) -> ChunkList:
        paths.append(file.path)
        return chunks(file)

    monkeypatch.setattr(FileOutline, "chunks", watched)
    return paths


def work_for(*pieces: bytes) -> WorkList:
    whole = b"".join(pieces)
    return WorkList([BlobFacts(digest_of(b"wanted"), len(whole), chunk_list(pieces), "m", "f")])


def offered(work: WorkList, *stores: Store, but_not: Sequence[Path] = ()) -> list[int]:
    found = find_donors(work, stores, but_not)
    return [] if found is None else list(found.has)


def test_a_chunk_list_is_built_only_where_it_shares_a_wanted_chunk(
    store: Store, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "decode", lambda *_: pytest.fail("decoded"))
    assert offered(work_for(b"new" * 99), store) == []
    assert built == []
    assert offered(work_for(b"new" * 99, PIECES[3]), store) == [1]
    assert built == ["a.bin", "c.bin"]


def test_nothing_more_is_read_when_every_chunk_has_a_donor(store: Store, read: list[Digest]) -> None:
    first, second = sorted([ONE.id, OTHER.id])
    here = PIECES[0] if first == ONE.id else b"x" * BLOCK
    assert offered(work_for(here), store, store) == [0]
    assert read == [first]
    read.clear()
    assert offered(work_for(here, b"new" * 99), store) == [0]
    assert read == [first, second]
    read.clear()
    assert offered(WorkList([]), store) == []
    assert read == []


def test_a_manifest_in_memory_is_not_read_again(store: Store, read: list[Digest]) -> None:
    known = store.catalog.get(ONE.id)
    assert offered(work_for(PIECES[1], b"new" * 99), store) == [0]
    assert read == [OTHER.id]
    del known


def spaced(manifest: Manifest) -> bytes:
    return write.readable(manifest).replace(b', "', b' ,"', 1)


def torn(manifest: Manifest) -> bytes:
    return write.readable(manifest)[:-9]


@pytest.mark.parametrize(("spell", "expected"), [(write.compact, [0]), (spaced, [0]), (torn, [])])
def test_another_spelling_is_decoded_and_a_damaged_manifest_passed_over(
    store: Store, spell: object, expected: list[int]
) -> None:
    assert callable(spell)
    store.layout.manifest(ONE.id).write_bytes(spell(ONE))
    assert offered(work_for(PIECES[1]), store) == expected
    assert offered(work_for(b"y" * BLOCK), store) == [0]


def test_a_damaged_list_makes_no_claims_and_hides_no_other_manifest(store: Store) -> None:
    text = store.layout.manifest(ONE.id)
    digest = digest_of(PIECES[1]).hex().encode()
    text.write_bytes(text.read_bytes().replace(digest, b"g" * 64))
    assert offered(work_for(PIECES[0], PIECES[1]), store) == []
    assert offered(work_for(PIECES[0], b"y" * BLOCK), store) == [1]


def test_one_blob_is_a_donor_by_each_of_its_chunk_lists(store: Store) -> None:
    half = PIECES[2] + PIECES[3]
    store.catalog.add(manifest_of("lab/halves", {"m/a.bin": [PIECES[0] + PIECES[1], half]}))
    assert offered(work_for(PIECES[1], half), store) == [0, 1]


def test_what_is_being_filled_is_no_donor(store: Store) -> None:
    mine, other = PIECES[:2], PIECES[1:]
    for pieces in (mine, other):
        store.catalog.add(manifest_of(f"lab/{len(pieces)}", {"m/x.bin": pieces}))
    filling, unfinished = (
        store.blobs.open_partial(digest_of(b"".join(each)), chunk_list(each)) for each in (mine, other)
    )
    store.layout.blob(ONE.components[0].files[0].blake3).unlink()
    write_chunks(filling, mine, [1])
    assert offered(work_for(PIECES[1]), store) == [0]
    assert offered(work_for(PIECES[1]), store, but_not=[filling.path]) == []
    write_chunks(unfinished, other, [0])
    assert offered(work_for(PIECES[1]), store, but_not=[filling.path]) == [0]
    whole = store.layout.blob(digest_of(b"x" * BLOCK + b"y" * BLOCK))
    assert offered(work_for(b"y" * BLOCK), store) == [0]
    assert offered(work_for(b"y" * BLOCK), store, but_not=[whole]) == []
    for partial in (filling, unfinished):
        partial.close()


def test_a_blob_that_is_cut_off_offers_what_it_has(store: Store) -> None:
    """A request for many chunks fails as one: what is behind the end must not be among them."""
    blob = store.layout.blob(ONE.components[0].files[0].blake3)
    for file in ONE.components[0].files[1:]:
        store.layout.blob(file.blake3).unlink()
    blob.chmod(0o644)
    os.truncate(blob, 2 * BLOCK - 1)
    assert offered(work_for(PIECES[2], PIECES[0], PIECES[1]), store) == [1]


def test_a_place_that_is_proven_goes_before_one_that_is_guessed(store: Store) -> None:
    """What a partial's extents say may be a hole; and it may be found first."""
    guess = [PIECES[1], b"z" * BLOCK]
    partial = store.blobs.open_partial(digest_of(b"".join(guess)), chunk_list(guess))
    write_chunks(partial, guess, [0])
    proven = store.layout.blob(ONE.components[0].files[0].blake3)
    for number in range(8):  # ids decide which manifest is looked at first
        store.catalog.add(manifest_of(f"lab/guess{number}", {"m/x.bin": guess}))
    found = find_donors(work_for(PIECES[1]), [store])
    assert found is not None
    assert found.place(0) == (proven, BLOCK)
    proven.unlink()
    found = find_donors(work_for(PIECES[1]), [store])
    assert found is not None
    assert found.place(0) == (partial.path, 0)
    partial.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_that_may_not_be_read_is_passed_over(store: Store, tmp_path: Path) -> None:
    shut = Store.open(tmp_path / "shut")
    os.chmod(shut.root / "manifests", 0)
    assert offered(work_for(PIECES[1]), shut, store) == [0]
    os.chmod(shut.root / "manifests", 0o755)


def test_of_several_donors_the_first_is_named(store: Store) -> None:
    """`a.bin` comes before `b.bin` and `c.bin` in its manifest; the user's own store before lower ones."""
    lower = Store.open(store.root.parent / "lower")
    lower.catalog.add(ONE)
    fill(lower)
    found = find_donors(work_for(PIECES[0], PIECES[2]), [store, lower])
    assert found is not None
    assert found.files() == (store.layout.blob(ONE.components[0].files[0].blake3),)
    gone, small, last = (file.blake3 for file in ONE.components[0].files)
    store.layout.blob(gone).unlink()
    found = find_donors(work_for(PIECES[0], PIECES[1], PIECES[2]), [store, lower])
    assert found is not None
    assert found.files() == (store.layout.blob(small), store.layout.blob(last), lower.layout.blob(gone))
