"""What a store remembers: the latest signed version of a name, and what is private."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.manifest.signed import Signature, signatures_of
from diachunk.store.collect import DRAFT_GRACE_S, Collector
from diachunk.store.layout import Layout
from diachunk.store.store import Store
from store_files import PIECES, leftovers, manifest_of

ONE = manifest_of("lab/a", {"model/a.bin": PIECES})
TWO = manifest_of("lab/a", {"model/a.bin": PIECES[1:]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def old(path: Path) -> None:
    os.utime(path, (1, 1))


def test_the_latest_version_seen_is_remembered_by_every_process(store: Store) -> None:
    assert store.catalog.seen("lab/a", "main") is None
    store.catalog.note_seen("lab/a", "main", 7, ONE.id)
    store.catalog.note_seen("lab/a", "main", 9, TWO.id)
    store.catalog.note_seen("lab/a", "main", 8, ONE.id)
    seen = Store.open(store.root).catalog.seen("lab/a", "main")
    assert seen is not None
    assert (seen.serial, seen.manifest_id) == (9, TWO.id)
    assert store.catalog.seen("lab/a", "v2") is None
    assert not leftovers(store.root)


@pytest.mark.parametrize("data", [b"", b"7", b"x y", b"\xff", b"9 " + b"a" * 64 + b"b", b"1" * 300])
def test_a_damaged_record_is_as_good_as_none(store: Store, data: bytes) -> None:
    store.catalog.note_seen("lab/a", "main", 7, ONE.id)
    store.layout.seen("lab/a", "main").write_bytes(data)
    assert store.catalog.seen("lab/a", "main") is None
    store.catalog.note_seen("lab/a", "main", 7, ONE.id)
    assert store.catalog.seen("lab/a", "main") is not None


def test_what_was_seen_outlives_the_checkpoint(store: Store) -> None:
    store.catalog.add(ONE)
    store.catalog.note_seen("lab/a", "main", 7, ONE.id)
    old(store.layout.seen("lab/a", "main"))
    Collector(store).collect(removing=[ONE])
    assert store.catalog.seen("lab/a", "main") is not None


def test_private_is_said_before_the_manifest_comes_and_of_that_one_alone(store: Store) -> None:
    assert not store.catalog.is_private(ONE.id)
    store.catalog.mark_private(ONE.id)
    store.catalog.mark_private(ONE.id)
    other = Store.open(store.root)
    assert other.catalog.is_private(ONE.id)
    assert other.catalog.private_ids() == {ONE.id}
    assert not other.catalog.is_private(TWO.id)


def test_where_nobody_can_tell_it_is_private(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "lstat", refuse)
    assert store.catalog.is_private(ONE.id)


def test_the_mark_goes_with_the_checkpoint(store: Store) -> None:
    for manifest in (ONE, TWO):
        store.catalog.add(manifest)
        store.catalog.pin(manifest.id)
        store.catalog.mark_private(manifest.id)
    Collector(store).collect(removing=[ONE])
    assert store.catalog.private_ids() == {TWO.id}


def test_a_mark_whose_manifest_is_yet_to_come_stays_as_long_as_a_draft(store: Store) -> None:
    waiting, gone = digest_of(b"waiting"), digest_of(b"gone")
    store.catalog.add(ONE)
    store.catalog.pin(ONE.id)
    for each in (waiting, gone, ONE.id):
        store.catalog.mark_private(each)
    for each in (gone, ONE.id):
        old(store.layout.private(each))
    week = time.time() - DRAFT_GRACE_S + 3600
    os.utime(store.layout.private(waiting), (week, week))
    Collector(store).collect()
    assert store.catalog.private_ids() == {waiting, ONE.id}


def test_a_store_of_an_older_version_has_neither(store: Store) -> None:
    assert not (store.root / "private").exists()
    assert store.catalog.private_ids() == set()
    Layout.open(store.root)
    Collector(store).collect()


def test_a_stored_manifest_takes_signatures_and_keeps_its_id(store: Store) -> None:
    store.catalog.add(ONE)
    first, second = Signature(5, armour("x")), Signature(9, armour("y"))
    store.catalog.add_signatures(ONE.id, [first])
    store.catalog.add_signatures(ONE.id, [second, first])
    store.catalog.add(ONE)
    read = Store.open(store.root).catalog.get(ONE.id)
    assert signatures_of(read) == (second, first)
    assert read.id == ONE.id
    assert not leftovers(store.root)


def armour(text: str) -> str:
    return f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n"
