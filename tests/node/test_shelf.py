"""The shelf follows what other processes do to the store, and offers nothing that is not verified."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.manifest import Manifest
from diachunk.node.stock import disk, growing, shelf
from diachunk.node.stock.holdings import Entry, Table
from diachunk.store.blobs import Presence
from diachunk.store.catalog import Catalog
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import BLOCK, CHUNKS, DATA, DIGEST, PIECES, fill, keep, manifest_of, write

BLOB = f"/v1/blobs/{DIGEST.hex()}"
FILES = {"model/a.bin": PIECES}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "POLL_S", 0.05)


@pytest.fixture
def known(store: Store) -> Manifest:
    """A checkpoint of which nothing is here yet."""
    made = manifest_of("lab/later", FILES)
    store.catalog.add(made)
    return made


def held(node: Served, manifest: Manifest) -> set[int]:
    have = node.call(lambda: node.state.shelf.have(manifest.id))
    return set() if have is None else set(have.bits)


def test_what_is_published_and_removed_meanwhile_is_noticed(store: Store) -> None:
    with Served(store) as node:
        assert node.json("/v1/node")["manifests"] == []
        made = manifest_of("lab/new", FILES)
        keep(store, made, FILES)
        until(lambda: held(node, made) == {0, 1, 2, 3})
        assert node.json("/v1/refs/lab/new")["refs"] == [{"revision": "main", "id": made.hex_id}]
        store.catalog.remove_ref("lab/new", "main")
        until(lambda: node.ask("/v1/refs/lab/new")[0] == 404)
        store.catalog.remove(made.id)
        until(lambda: node.json("/v1/node")["manifests"] == [])
        assert node.ask(BLOB)[0] == 404
        assert node.ask(f"/v1/manifests/{made.hex_id}/have")[0] == 404


def test_a_file_that_gc_takes_is_gone(store: Store, manifest: Manifest) -> None:
    with Served(store) as node:
        assert held(node, manifest) == {0, 1, 2, 3}
        store.layout.blob(DIGEST).unlink()
        until(lambda: held(node, manifest) == {1, 2})


def test_a_partial_that_another_process_fills_is_hashed_as_it_grows(store: Store, known: Manifest) -> None:
    with Served(store) as node:
        partial = store.blobs.open_partial(DIGEST, CHUNKS)
        write(partial, PIECES, [1])
        until(lambda: held(node, known) == {1})
        write(partial, PIECES, [3])
        until(lambda: held(node, known) == {1, 3})
        assert node.ask(f"/v1/chunks/{CHUNKS.digest(3).hex()}")[2] == PIECES[3]
        before = node.json(f"/v1/manifests/{known.hex_id}/have")["epoch"]
        write(partial, PIECES, [0, 2])
        partial.complete()
        partial.close()
        until(lambda: node.ask(BLOB)[2] == DATA)
        assert node.json(f"/v1/manifests/{known.hex_id}/have")["epoch"] == before
        assert node.call(lambda: node.state.shelf.verified_bytes) <= len(DATA)


def test_wrong_bytes_in_a_partial_are_never_offered(store: Store, known: Manifest) -> None:
    path = store.layout.partial(DIGEST, CHUNKS.id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PIECES[0] + b"?" * BLOCK + PIECES[2] + PIECES[3])
    with Served(store) as node:
        until(lambda: held(node, known) == {0, 2, 3})
        assert node.ask(f"/v1/chunks/{CHUNKS.digest(1).hex()}")[0] == 404
        with path.open("r+b") as file:
            file.seek(BLOCK)
            file.write(PIECES[1])
        until(lambda: held(node, known) == {0, 1, 2, 3})


def test_chunks_are_hashed_once_though_the_file_grows(store: Store, known: Manifest) -> None:
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    with Served(store) as node:
        for index in range(3):
            write(partial, PIECES, [index])
            until(lambda index=index: index in held(node, known))  # type: ignore[misc]
        assert node.call(lambda: node.state.shelf.verified_bytes) == 3 * BLOCK
    partial.close()


def test_a_blob_that_only_claims_to_be_right_is_hashed_and_stamped(store: Store, known: Manifest) -> None:
    fill(store, PIECES)
    store.layout.stamp(DIGEST).unlink()
    assert store.blobs.find(DIGEST, len(DATA), CHUNKS).presence is Presence.CLAIMED
    with Served(store) as node:
        until(lambda: node.ask(BLOB)[2] == DATA)
        until(lambda: store.blobs.find(DIGEST, len(DATA), CHUNKS).presence is Presence.PROVEN)
        until(lambda: node.call(lambda: node.state.shelf.blob(DIGEST, 0, 1)[0].file.whole))  # type: ignore[index]


def test_a_damaged_blob_offers_only_what_is_right_of_it_and_is_not_stamped(
    store: Store, known: Manifest
) -> None:
    path = fill(store, PIECES)
    os.chmod(path, 0o644)
    path.write_bytes(PIECES[0] + b"?" * BLOCK + PIECES[2] + PIECES[3])
    with Served(store) as node:
        until(lambda: held(node, known) == {0, 2, 3})
        assert node.ask(BLOB)[0] == 404
        assert store.blobs.find(DIGEST, len(DATA), CHUNKS).presence is Presence.CLAIMED


def test_claims_are_left_alone_where_nobody_wants_them_hashed(store: Store, known: Manifest) -> None:
    fill(store, PIECES)
    store.layout.stamp(DIGEST).unlink()
    with Served(store, verify_claimed=False) as node:
        assert held(node, known) == set()
        assert node.ask(BLOB)[0] == 404


def test_a_partial_that_is_replaced_offers_nothing_of_the_old_one(store: Store, known: Manifest) -> None:
    path = store.layout.partial(DIGEST, CHUNKS.id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(DATA)
    with Served(store) as node:
        until(lambda: held(node, known) == {0, 1, 2, 3})
        other = path.with_name("other")
        other.write_bytes(b"?" * len(DATA))
        os.replace(other, path)
        assert (
            node.ask(f"/v1/chunks/{CHUNKS.digest(0).hex()}")[0] == 404
        )  # at once: looked at when it is opened
        until(lambda: held(node, known) == set())


def test_private_checkpoints_are_there_only_under_a_secret(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = manifest_of("lab/private", {"model/p.bin": PIECES[:2]})
    public = manifest_of("lab/public", {"model/q.bin": PIECES[1:]})
    keep(store, private, {"model/p.bin": PIECES[:2]})
    keep(store, public, {"model/q.bin": PIECES[1:]})
    monkeypatch.setattr(Catalog, "is_private", lambda self, each: each == private.id, raising=False)
    with Served(store) as node:
        assert [each["name"] for each in node.json("/v1/node")["manifests"]] == ["lab/public"]
        hidden = digest_of(PIECES[0]).hex()
        for path in (
            f"/v1/manifests/{private.hex_id}",
            f"/v1/manifests/{private.hex_id}/have",
            "/v1/refs/lab/private",
            f"/v1/blobs/{digest_of(b''.join(PIECES[:2])).hex()}",
            f"/v1/chunks/{hidden}",
        ):
            assert node.ask(path)[0] == 404
        assert node.json("/v1/have", method="POST", body={"digests": [hidden]})["full"] == "AA=="
        assert node.ask(f"/v1/chunks/{digest_of(PIECES[1]).hex()}")[0] == 200  # a public one has it as well
        assert b"private" not in node.ask("/")[2]


def test_chunks_whose_digests_begin_alike_are_told_apart() -> None:
    made = manifest_of("lab/x", FILES)
    entry = Entry(made, 0.0, Path("x"))
    alike = bytearray(CHUNKS.digest(0))
    alike[31] ^= 1
    table = Table({made.id: entry})
    table.adopt_places()
    assert [index for _, index in table.where(CHUNKS.digest(0))] == [0]
    assert list(table.where(bytes(alike))) == []


def test_a_file_that_never_becomes_right_is_looked_at_less_and_less(
    store: Store, known: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.layout.partial(DIGEST, CHUNKS.id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"?" * len(DATA))
    hashed = []
    looked = growing.Growing(lambda key, identity, index: None)
    monkeypatch.setattr(looked, "_hash", lambda *_: hashed.append(1))
    entry = Entry(known, 0.0, Path("x"))
    file = next(iter(Table({known.id: entry}).files.values()))
    for moment in range(200):
        os.utime(path, (moment, moment))
        looked.look(file, disk.Disk(store, (), secret=False).look(file))
    assert len(hashed) <= 12 * len(CHUNKS)
