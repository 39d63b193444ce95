"""A node that has shown a checkpoint gives nothing more of it from the moment in which it turns out to be private."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from diachunk.manifest import Manifest
from diachunk.node.guard import Guard
from diachunk.node.stock import shelf
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.secret import Secret
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import CHUNKS, DIGEST, PIECES, manifest_of, write

pytestmark = pytest.mark.loopback
ONE = manifest_of("lab/later-private", {"model/a.bin": PIECES})
CHUNK = f"/v1/chunks/{CHUNKS.digest(1).hex()}"


class Lent:
    """As much of a session as the shelf looks at."""

    def __init__(self, partial: Any, manifest: Manifest) -> None:
        file = manifest.components[0].files[0]
        self.work = WorkList([BlobFacts(file.blake3, file.size, file.chunks, "model", file.path)])
        self.files = [partial]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "store")
    made.catalog.add(ONE)
    return made


def test_what_turns_out_to_be_private_is_hidden_before_its_first_byte(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "POLL_S", 60.0)  # nothing is found out by looking now and then
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    try:
        with Served(store) as node:
            node.state.shelf.lend(Lent(partial, ONE), ONE.id)  # type: ignore[arg-type]
            until(lambda: len(node.json("/v1/node")["manifests"]) == 1)
            store.catalog.mark_private(ONE.id)
            write(partial, PIECES, [1])
            ends = time.monotonic() + 0.5
            while time.monotonic() < ends:
                assert node.ask(CHUNK)[0] == 404
            until(lambda: node.json("/v1/node")["manifests"] == [])
            assert node.ask(f"/v1/manifests/{ONE.hex_id}")[0] == 404
            assert node.ask(f"/v1/blobs/{DIGEST.hex()}")[0] == 404
    finally:
        partial.close()


def test_what_others_have_in_the_open_too_is_still_given(store: Store) -> None:
    public = manifest_of("lab/public", {"model/a.bin": PIECES})
    store.catalog.add(public)
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    try:
        with Served(store) as node:
            node.state.shelf.lend(Lent(partial, ONE), ONE.id)  # type: ignore[arg-type]
            until(lambda: len(node.json("/v1/node")["manifests"]) == 2)
            store.catalog.mark_private(ONE.id)
            write(partial, PIECES, [1])
            until(lambda: node.ask(CHUNK)[0] == 200)
            assert [each["id"] for each in node.json("/v1/node")["manifests"]] == [public.hex_id]
    finally:
        partial.close()


def test_under_the_secret_it_is_shared_as_ever(store: Store) -> None:
    store.catalog.mark_private(ONE.id)
    with Served(store, guard=Guard(secret=Secret(b"a secret that the lab shares"))) as node:
        assert [each.id for each in node.call(node.state.shelf.manifests)] == [ONE.id]
