"""P5 and P6: what is here, now and as it grows."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diachunk.bitmap import Bitmap
from diachunk.digest import digest_of
from diachunk.limits import Limits
from diachunk.manifest import Manifest
from diachunk.node.model import Want
from diachunk.node.stock import shelf
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import BLOCK, CHUNKS, DIGEST, PIECES, fill, keep, manifest_of, write


def bits_of(said: Any) -> list[int]:
    return list(Bitmap.from_bytes(base64.b64decode(said["full"]), said["bits"]))


def test_bits_are_distinct_digests_in_order_of_first_appearance(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    files = {"a/x.bin": (PIECES[1], PIECES[0], PIECES[1]), "b/y.bin": (PIECES[0], PIECES[2])}
    made = manifest_of("lab/order", files)
    store.catalog.add(made)
    fill(store, files["b/y.bin"])
    with Served(store) as node:
        said = node.json(f"/v1/manifests/{made.hex_id}/have")
        assert (said["bits"], bits_of(said)) == (3, [1, 2])
        assert (said["wants"], said["feeds"], said["taking"]) == (None, False, [])


def test_a_chunk_that_lies_in_another_checkpoints_file_counts(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    keep(store, manifest_of("lab/one", {"a/x.bin": PIECES[:2]}), {"a/x.bin": PIECES[:2]})
    other = manifest_of("lab/two", {"a/x.bin": PIECES[1:]})
    store.catalog.add(other)
    with Served(store) as node:
        assert bits_of(node.json(f"/v1/manifests/{other.hex_id}/have")) == [0]


def test_an_unknown_manifest_is_404_and_a_bad_wait_400(served: Served, manifest: Manifest) -> None:
    assert served.ask(f"/v1/manifests/{digest_of(b'?').hex()}/have")[0] == 404
    for wait in ("-1", "x", "1e9", "nan", "1" * 40):
        assert served.ask(f"/v1/manifests/{manifest.hex_id}/have?wait={wait}")[0] == 400


def test_a_long_poll_hears_of_chunks_as_they_come_and_only_of_those(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    made = manifest_of("lab/grows", {"model/a.bin": PIECES})
    store.catalog.add(made)
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    company = _Company(partial, made)
    try:
        with Served(store) as node:
            path = f"/v1/manifests/{made.hex_id}/have"
            node.state.shelf.lend(company, made.id)  # type: ignore[arg-type]
            said = node.json(path)
            heard: set[int] = set()
            for index in (2, 0, 3):
                write(partial, PIECES, [index])
                since = f"{said['epoch']}:{said['version']}"
                said = node.json(f"{path}?since={since}&wait=20")
                heard |= set(said["gained"])
                assert index in heard
            assert heard == {0, 2, 3}
            assert bits_of(node.json(path)) == [0, 2, 3]
            assert node.ask(f"/v1/chunks/{CHUNKS.digest(2).hex()}")[2] == PIECES[2]
            assert node.ask(f"/v1/chunks/{CHUNKS.digest(1).hex()}")[0] == 404
    finally:
        partial.close()


class _Company:
    """As much of a session as the shelf looks at."""

    def __init__(self, partial: Any, manifest: Manifest) -> None:
        from diachunk.schedule.work import BlobFacts, WorkList

        file = manifest.components[0].files[0]
        facts = BlobFacts(file.blake3, file.size, file.chunks, manifest.components[0].name, file.path)
        self.work = WorkList([facts])
        self.files = [partial]


def test_what_a_session_completed_stays_when_it_is_over(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    made = manifest_of("lab/done", {"model/a.bin": PIECES})
    store.catalog.add(made)
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    company = _Company(partial, made)
    with Served(store, verify_claimed=False) as node:
        path = f"/v1/manifests/{made.hex_id}/have"
        node.state.shelf.lend(company, made.id)  # type: ignore[arg-type]
        write(partial, PIECES)
        until(lambda: len(bits_of(node.json(path))) == 4)
        before = node.json(path)
        partial.complete()
        assert node.ask(f"/v1/blobs/{DIGEST.hex()}")[0] == 200
        node.state.shelf.unlend(company)  # type: ignore[arg-type]
        partial.close()
        until(lambda: node.call(lambda: node.state.shelf.blob(DIGEST, 0, 1)[0].file.whole))  # type: ignore[index]
        after = node.json(path)
        assert (after["epoch"], bits_of(after)) == (before["epoch"], [0, 1, 2, 3])
        assert node.ask(f"/v1/blobs/{DIGEST.hex()}")[0] == 200


def test_what_a_session_left_unfinished_is_followed_when_another_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "POLL_S", 0.05)
    store = Store.open(tmp_path / "store")
    made = manifest_of("lab/left", {"model/a.bin": PIECES})
    store.catalog.add(made)
    first = store.blobs.open_partial(DIGEST, CHUNKS)
    company = _Company(first, made)
    with Served(store) as node:
        path = f"/v1/manifests/{made.hex_id}/have"
        node.state.shelf.lend(company, made.id)  # type: ignore[arg-type]
        write(first, PIECES, [0])
        until(lambda: bits_of(node.json(path)) == [0])
        node.state.shelf.unlend(company)  # type: ignore[arg-type]
        first.close()
        second = store.blobs.open_partial(DIGEST, CHUNKS)
        write(second, PIECES, [2])
        until(lambda: bits_of(node.json(path)) == [0, 2])
        # What this process wrote is not hashed again.
        assert node.call(lambda: node.state.shelf.verified_bytes) == BLOCK
        second.close()


def test_the_epoch_changes_when_something_is_lost(served: Served, store: Store, manifest: Manifest) -> None:
    path = f"/v1/manifests/{manifest.hex_id}/have"
    before = served.json(path)
    store.layout.blob(DIGEST).unlink()
    until(lambda: served.json(path)["epoch"] != before["epoch"])
    after = served.json(path)
    assert bits_of(after) == [1, 2]  # those that lie in another file as well
    said = served.json(f"{path}?since={before['epoch']}:{before['version']}&wait=20")
    assert "full" in said


@pytest.mark.parametrize(
    "since", ["", "x:1", "0123456789abcdef:1", f"{'0' * 16}:{'9' * 40}", "%00", "a" * 2000]
)
def test_a_since_that_means_nothing_gets_everything_at_once(
    served: Served, manifest: Manifest, since: str
) -> None:
    started_at = time.monotonic()
    said = served.json(f"/v1/manifests/{manifest.hex_id}/have?since={since}&wait=20")
    assert bits_of(said) == [0, 1, 2, 3]
    assert time.monotonic() - started_at < 10


def test_wants_and_what_is_taken_are_told(served: Served, manifest: Manifest) -> None:
    path = f"/v1/manifests/{manifest.hex_id}/have"
    said = served.json(path)
    want = Want(manifest.id, ("model",), True, ((2, 1024),))
    served.call(lambda: served.state.wants.put(want))
    said = served.json(f"{path}?since={said['epoch']}:{said['version']}&wait=20")
    assert (said["wants"], said["feeds"], said["taking"]) == (["model"], True, [[2, 1024]])
    served.call(lambda: served.state.wants.taking(manifest.id, [(2, 4096)]))
    said = served.json(f"{path}?since={said['epoch']}:{said['version']}&wait=20")
    assert said["taking"] == [[2, 4096]]
    served.call(lambda: served.state.wants.drop(manifest.id))
    said = served.json(f"{path}?since={said['epoch']}:{said['version']}&wait=20")
    assert (said["wants"], said["taking"]) == (None, [])


def test_a_poll_with_nothing_new_ends_when_its_time_is_up(store: Store, manifest: Manifest) -> None:
    with Served(store, limits=Limits(have_wait_s=0.2)) as node:
        path = f"/v1/manifests/{manifest.hex_id}/have"
        said = node.json(path)
        again = node.json(f"{path}?since={said['epoch']}:{said['version']}&wait=20")
        assert (again["gained"], again["version"]) == ([], said["version"])


def test_too_many_listeners_are_told_to_come_again_and_leaving_frees_a_place(
    served: Served, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diachunk.node.serving.answers_have.LISTENERS_MAX", 1)
    path = f"/v1/manifests/{manifest.hex_id}/have"
    said = served.json(path)
    poll = f"{path}?since={said['epoch']}:{said['version']}&wait=20"
    heard: list[Any] = []
    listener = threading.Thread(target=lambda: heard.append(served.json(poll)))
    listener.start()
    until(lambda: served.call(lambda: served.state.listeners) == 1)
    status, headers, _ = served.ask(poll)
    assert (status, headers["retry-after"]) == (503, "5")
    served.call(lambda: served.state.wants.put(Want(manifest.id, ("model",), False)))
    listener.join(20)
    assert heard[0]["wants"] == ["model"]
    assert served.call(lambda: served.state.listeners) == 0


def test_have_over_any_digests_in_the_order_asked_for(served: Served) -> None:
    digests = [digest_of(piece) for piece in (PIECES[3], b"not here", PIECES[0])]
    said = served.json("/v1/have", method="POST", body={"digests": [each.hex() for each in digests]})
    assert bits_of(said) == [0, 2]
    said = served.json("/v1/have", method="POST", body={"digests": [], "later": True})
    assert said == {"bits": 0, "full": ""}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"digests": 7}', 400),
        (b'{"digests": [7]}', 400),
        (b'{"digests": ["xy"]}', 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        ({"digests": ["0" * 64] * 8193}, 413),
        (b" " * (1024 * 1024 + 1), 413),
    ],
    ids=range(10),
)
def test_bodies_that_make_no_sense_are_refused(served: Served, body: object, status: int) -> None:
    got, headers, data = served.ask("/v1/have", method="POST", body=body)
    assert (got, headers["content-type"]) == (status, "application/json")
    assert b'"error"' in data
