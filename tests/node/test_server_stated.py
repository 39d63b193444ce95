"""P18 to P20: what is here of files of which only the whole is stated, while a session fetches them and afterwards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diachunk.chunking.hashing import hash_one
from diachunk.chunking.verify import ChunkRef
from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import ChunkList, Component, FileEntry, build
from diachunk.manifest.stated import StatedFile
from diachunk.manifest.statement import Statement, found_by_of
from diachunk.node.guard import Guard
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.secret import Secret
from diachunk.store.drafts import Draft, matches
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import manifest_of

DATA = os.urandom(2 * CHUNK_BYTES + 777)
FILE = StatedFile("model", "weights.bin", len(DATA), hashlib.sha256(DATA).hexdigest())
SMALL = StatedFile("model", "config.json", 5, hashlib.sha256(b"small").hexdigest())
STATEMENT = Statement.of([FILE, SMALL])
PATH = f"/v1/stated/{FILE.key.hex()}"
HAVE = f"/v1/manifests/{STATEMENT.id.hex()}/have"


class Drawing:
    """As much of a session as the shelf looks at: it fills the draft of FILE."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.draft = store.drafts.open(FILE, self._verdict)
        self.work = WorkList([BlobFacts(FILE.key, FILE.size, self.draft.chunks, "model", FILE.path)])
        self.files = [self.draft]

    def _verdict(self, partial: Any) -> Any:
        hashes = hash_one(partial.path)
        return hashes if matches(FILE, hashes) else None

    def put(self, *indexes: int, data: bytes = DATA) -> None:
        for index in indexes:
            offset, size = self.draft.chunks.offsets[index], self.draft.chunks.sizes[index]
            ref = ChunkRef(self.draft.chunks.digest(index), size, FILE.key, offset)
            view = memoryview(data)[offset : offset + size]
            self.draft.write(self.draft.judge(ref, view, local=False), offset)


@pytest.fixture
def node(store: Store) -> Iterator[Served]:
    with Served(store) as node:
        yield node


@pytest.fixture
def drawing(store: Store) -> Iterator[Drawing]:
    made = Drawing(store)
    yield made
    made.draft.close()


def lend(node: Served, drawing: Drawing) -> None:
    node.state.shelf.lend(drawing, STATEMENT)  # type: ignore[arg-type]
    until(lambda: node.ask(HAVE)[0] == 200)


def held(node: Served) -> int:
    have = node.call(lambda: node.state.shelf.feed(STATEMENT.id).have())  # type: ignore[union-attr]
    return len(have.bits)


def ask(node: Served, index: int) -> tuple[int, bytes]:
    start = index * CHUNK_BYTES
    end = min(start + CHUNK_BYTES, len(DATA))
    status, _, body = node.ask(PATH, headers={"Range": f"bytes={start}-{end - 1}"})
    return status, body


def test_pieces_are_given_as_they_come_and_by_nothing_but_the_key(node: Served, drawing: Drawing) -> None:
    assert (node.ask(HAVE)[0], ask(node, 0)[0]) == (404, 404)
    drawing.put(1)
    lend(node, drawing)
    until(lambda: held(node) == 1)
    assert ask(node, 1) == (206, DATA[CHUNK_BYTES : 2 * CHUNK_BYTES])
    assert ask(node, 0)[0] == 404
    drawing.put(0)
    until(lambda: ask(node, 0) == (206, DATA[:CHUNK_BYTES]))
    assert node.json(HAVE)["bits"] == 4
    assert node.ask(f"/v1/blobs/{FILE.key.hex()}")[0] == 404, "no blob"
    piece = drawing.draft.chunks.digest(1).hex()
    assert node.ask(f"/v1/chunks/{piece}")[0] == 404, "no chunk"
    said = node.ask("/v1/have", method="POST", body={"digests": [piece]})[2]
    assert b'"AA=="' in said
    assert node.ask(f"/v1/manifests/{STATEMENT.id.hex()}")[0] == 404, "no manifest"
    assert node.json("/v1/node")["manifests"] == []


def test_what_became_a_blob_is_given_on_without_a_pause(node: Served, drawing: Drawing) -> None:
    lend(node, drawing)
    drawing.put(0, 1, 2)
    until(lambda: held(node) == 3)
    before = node.json(HAVE)["epoch"]
    drawing.draft.complete()
    assert not drawing.draft.path.exists()
    assert node.ask(PATH) == (200, *node.ask(PATH)[1:2], DATA)
    node.state.shelf.unlend(drawing)  # type: ignore[arg-type]
    drawing.draft.close()
    drawing.store.drafts.forget(FILE)
    assert node.ask(PATH)[2] == DATA
    assert (node.json(HAVE)["epoch"], held(node)) == (before, 3)


def test_a_blob_that_was_here_already_is_given_in_its_place(node: Served, store: Store) -> None:
    first = Drawing(store)
    first.put(0, 1, 2)
    first.draft.complete()
    first.draft.close()
    drawing = Drawing(store)
    lend(node, drawing)
    drawing.put(0, 1, 2)
    until(lambda: held(node) == 3)
    drawing.draft.complete()
    drawing.draft.close()
    until(lambda: node.ask(PATH)[2] == DATA)


def test_what_is_not_what_was_stated_is_withdrawn_at_once_and_may_come_again(
    node: Served, drawing: Drawing
) -> None:
    lend(node, drawing)
    drawing.put(0, 1, 2, data=bytes(len(DATA)))
    until(lambda: held(node) == 3)
    epoch = node.json(HAVE)["epoch"]
    drawing.draft.doubt()
    until(lambda: ask(node, 0)[0] == 404)
    assert (held(node), drawing.draft.path.exists()) == (0, True)
    assert node.json(HAVE)["epoch"] != epoch
    drawing.draft.discard()
    again = Drawing(drawing.store)
    lend(node, again)
    again.put(0)
    until(lambda: ask(node, 0) == (206, DATA[:CHUNK_BYTES]))
    assert held(node) == 1
    again.draft.close()


def test_a_file_that_is_gone_is_not_here(node: Served, drawing: Drawing) -> None:
    lend(node, drawing)
    drawing.put(0)
    until(lambda: held(node) == 1)
    drawing.draft.path.unlink()
    assert ask(node, 0)[0] == 404
    until(lambda: held(node) == 0)


def test_what_turns_out_to_be_private_is_hidden_before_its_first_byte(
    node: Served, drawing: Drawing, store: Store
) -> None:
    drawing.put(0)
    lend(node, drawing)
    until(lambda: ask(node, 0)[0] == 206)
    store.catalog.mark_private(FILE.key)
    assert ask(node, 0)[0] == 404
    drawing.put(1)
    assert ask(node, 1)[0] == 404
    until(lambda: held(node) == 0)


def test_under_the_secret_what_is_private_is_shared(store: Store, drawing: Drawing) -> None:
    store.catalog.mark_private(FILE.key)
    drawing.put(0)
    secret = b"a secret that the lab shares"
    with Served(store, guard=Guard(secret=Secret(secret))) as node:
        node.state.shelf.lend(drawing, STATEMENT)  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {secret.decode()}", "Range": "bytes=0-9"}
        until(lambda: node.ask(PATH, headers=headers)[2] == DATA[:10])
        assert node.ask(PATH)[0] == 401


def test_a_manifest_that_bears_the_names_of_pieces_gets_none_of_them(store: Store, drawing: Drawing) -> None:
    """Anybody can write one: its node would give bytes that are not what their digests say."""
    hostile = FileEntry("x.bin", FILE.size, FILE.key, FILE.pieces())
    store.catalog.add(build("evil/x", "main", [Component("", (hostile,))]))
    real = ChunkList.of([(CHUNK_BYTES, digest_of(DATA[:CHUNK_BYTES])), *list(FILE.pieces())[1:]])
    store.catalog.add(
        build("evil/y", "main", [Component("", (FileEntry("x.bin", FILE.size, FILE.key, real),))])
    )
    with Served(store) as node:
        lend(node, drawing)
        drawing.put(0, 1, 2)
        until(lambda: held(node) == 3)
        assert all(each["have_bytes"] == 0 for each in node.json("/v1/node")["manifests"])
        assert node.ask(f"/v1/blobs/{FILE.key.hex()}", headers={"Range": "bytes=0-9"})[0] == 404
        assert node.ask(PATH)[2] == DATA


def test_manifests_are_found_by_the_files_that_are_stated(node: Served, store: Store) -> None:
    digest = digest_of(DATA)
    chunks = ChunkList.of(
        (len(DATA[at : at + CHUNK_BYTES]), digest_of(DATA[at : at + CHUNK_BYTES]))
        for at in range(0, len(DATA), CHUNK_BYTES)
    )
    made = build("lab/x", "r", [Component("", (FileEntry("w", len(DATA), digest, chunks, FILE.sha256),))])
    store.catalog.add(made)
    store.catalog.add(manifest_of("lab/other", {"model/a.bin": (b"1",)}))
    found_by = found_by_of(made)
    assert found_by is not None
    assert found_by == Statement.of([FILE]).found_by
    until(lambda: node.json(f"/v1/statements/{found_by.hex()}") == {"manifests": [made.hex_id]})
    assert node.json(f"/v1/statements/{STATEMENT.found_by.hex()}") == {"manifests": []}
    assert node.ask("/v1/statements/x")[0] == 400
    assert isinstance(Drawing(store).draft, Draft)


def test_what_was_here_before_is_offered_from_where_it_lies(node: Served, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    node.state.shelf.stated.keep(STATEMENT, {FILE.key: path, SMALL.key: tmp_path / "gone"})
    until(lambda: held(node) == 3)
    assert node.ask(PATH)[2] == DATA
    os.utime(path, ns=(1, 1))  # changed since: nobody knows what it is now
    assert node.ask(PATH)[0] == 404
    until(lambda: held(node) == 0)


def test_what_was_here_before_and_is_private_is_not(node: Served, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    store.catalog.mark_private(FILE.key)
    node.state.shelf.stated.keep(STATEMENT, {FILE.key: path})
    until(lambda: node.ask(HAVE)[0] == 200)
    assert (held(node), node.ask(PATH)[0]) == (0, 404)
