"""What finished drafts became: a record recalls nothing that is not here and proven."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from diachunk.chunking.hashes import Hashes
from diachunk.chunking.hashing import hash_one
from diachunk.chunking.verify import ChunkRef
from diachunk.digest import digest_of, git_hasher
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest.stated import StatedFile
from diachunk.store.drafts import Draft, matches, needed_blob
from diachunk.store.partial import Partial
from diachunk.store.store import Store

DATA = os.urandom(2 * CHUNK_BYTES + 777)
FILE = StatedFile("model", "weights.bin", len(DATA), hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def judged(partial: Partial) -> Hashes | None:
    hashes = hash_one(partial.path, git=True)
    return hashes if matches(FILE, hashes) else None


def opened(store: Store, file: StatedFile = FILE) -> Draft:
    return store.drafts.open(file, judged)


def piece(draft: Draft, index: int, data: bytes = DATA) -> tuple[ChunkRef, memoryview]:
    offset, size = draft.chunks.offsets[index], draft.chunks.sizes[index]
    ref = ChunkRef(draft.chunks.digest(index), size, FILE.key, offset)
    return ref, memoryview(data)[offset : offset + size]


def put(draft: Draft, index: int, data: bytes = DATA) -> None:
    ref, view = piece(draft, index, data)
    draft.write(draft.judge(ref, view, local=False), ref.offset)


def put_all(draft: Draft, data: bytes = DATA) -> None:
    for index in range(len(draft.chunks)):
        put(draft, index, data)


# --- what became of them --------------------------------------------------------------------------------------


@pytest.fixture
def noted(store: Store) -> Path:
    draft = opened(store)
    put_all(draft)
    draft.complete()
    draft.close()
    return next((store.root / "drafts").glob("*.json"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "values",
    [
        {"sha256": "0" * 64},
        {"size": 5},
        {"size": "x"},
        {"size": 1e300},
        {"size": float("nan")},
        {"blake3": "zz"},
        {"blake3": 3},
        {"blake3": "0" * 64},
        {"sizes": [1]},
        {"sizes": [-1]},
        {"sizes": [2**40]},
        {"sizes": "abc"},
        {"sizes": None},
        {"digests": "0"},
        {"digests": "00" * 32},
        {"git": "nonsense"},
    ],
)
def test_a_record_that_is_not_right_recalls_nothing(
    store: Store, noted: Path, values: dict[str, object]
) -> None:
    assert store.drafts.recall(FILE) is not None
    change(noted, **values)
    assert store.drafts.recall(FILE) is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"1", b"\xff", b"[" * 100_000, b'{"size": ' + b"9" * 5000]
)
def test_a_record_that_is_none_recalls_nothing(store: Store, noted: Path, data: bytes) -> None:
    noted.write_bytes(data)
    assert store.drafts.recall(FILE) is None
    assert needed_blob(noted) is None


def test_a_record_is_believed_of_no_blob_that_was_not_proven(store: Store, noted: Path) -> None:
    hashes = store.drafts.recall(FILE)
    assert hashes is not None
    blob = store.layout.blob(hashes.blake3)
    os.utime(blob, ns=(1, 1))
    assert store.drafts.recall(FILE) is None
    blob.unlink()
    assert store.drafts.recall(FILE) is None


def test_a_record_of_another_statement_is_not_this_files(store: Store, noted: Path) -> None:
    other = dataclasses.replace(FILE, sha256="1" * 64)
    noted.rename(store.drafts.path(other).with_suffix(".json"))
    assert store.drafts.recall(other) is None


def test_all_that_is_stated_has_to_be_right() -> None:
    git = git_hasher(len(DATA))
    git.update(DATA)
    right = Hashes(
        len(DATA),
        digest_of(DATA),
        FILE.sha256,
        git.hexdigest(),
        FILE.pieces().sizes,
        FILE.pieces().digests,
        "r",
    )
    both = dataclasses.replace(FILE, git=git.hexdigest())
    assert matches(FILE, right)
    assert matches(both, right)
    assert matches(dataclasses.replace(both, sha256=""), right)
    for wrong in (
        dataclasses.replace(both, git="0" * 40),
        dataclasses.replace(both, sha256="0" * 64),
        dataclasses.replace(both, size=len(DATA) + 1),
    ):
        assert not matches(wrong, right)
