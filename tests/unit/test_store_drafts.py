"""Drafts: nothing counts before the whole has the digest that was stated; the journal is a hint, never a proof."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from diachunk.chunking.hashes import Hashes
from diachunk.chunking.hashing import hash_one
from diachunk.chunking.verify import BadChunk, ChunkRef, MeasuredChunk, verify
from diachunk.digest import digest_of
from diachunk.errors import StoreError
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest.stated import StatedFile
from diachunk.store.blobs import Presence
from diachunk.store.drafts import Draft, chunk_list, matches, needed_blob
from diachunk.store.partial import Partial
from diachunk.store.store import Store
from store_files import CHUNKS, PIECES, verified

DATA = os.urandom(2 * CHUNK_BYTES + 777)
FILE = StatedFile("model", "weights.bin", len(DATA), hashlib.sha256(DATA).hexdigest())
RECORD_BYTES = 40


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


def journal(store: Store) -> Path:
    return store.drafts.path(FILE).with_suffix(".sums")


def test_a_whole_that_is_what_was_stated_becomes_a_blob_with_its_stamp(store: Store) -> None:
    draft = opened(store)
    put_all(draft)
    draft.complete()
    draft.close()
    hashes = store.drafts.recall(FILE)
    assert hashes is not None
    assert hashes.blake3 == digest_of(DATA)
    holding = store.blobs.find(hashes.blake3, len(DATA), chunk_list(hashes))
    assert holding.presence is Presence.PROVEN
    assert sorted(each.suffix for each in (store.root / "drafts").iterdir()) == [".json"]
    assert needed_blob(next((store.root / "drafts").iterdir())) == hashes.blake3
    store.drafts.forget(FILE)
    assert store.drafts.recall(FILE) is None
    store.drafts.forget(FILE)


def test_a_whole_that_is_not_stays_a_draft(store: Store) -> None:
    draft = opened(store)
    put_all(draft, bytes(each ^ 1 for each in DATA))
    draft.complete()
    assert store.drafts.path(FILE).exists()
    assert list((store.root / "blobs").glob("*/*")) == []
    assert store.drafts.recall(FILE) is None
    draft.discard()
    assert list((store.root / "drafts").iterdir()) == []


def test_nothing_but_pieces_that_were_measured_goes_into_a_draft(store: Store) -> None:
    draft = opened(store)
    with pytest.raises(TypeError):
        draft.write(verified(CHUNKS, 0, PIECES[0]), 0)
    draft.close()


def test_no_partial_takes_a_piece_that_was_only_measured(store: Store) -> None:
    partial = store.blobs.open_partial(digest_of(b"".join(PIECES)), CHUNKS)
    ref = ChunkRef(CHUNKS.digest(0), len(PIECES[0]), b"", 0)
    with pytest.raises(TypeError):
        partial.write(MeasuredChunk(ref, memoryview(PIECES[0])), 0)
    partial.close()


def test_what_claims_to_be_a_piece_by_its_digest_is_none(store: Store) -> None:
    """The names of pieces are no digests: nothing verifies as one."""
    draft = opened(store)
    ref, view = piece(draft, 0)
    with pytest.raises(BadChunk):
        verify(ref, view)
    draft.close()


def test_pieces_from_here_are_compared_with_the_journal(store: Store) -> None:
    draft = opened(store)
    put(draft, 0)
    draft.close()
    again = opened(store)
    assert list(again.claimed()) == [0]
    ref, view = piece(again, 0)
    again.judge(ref, view, local=True)
    with pytest.raises(BadChunk):
        again.judge(ref, memoryview(bytes(ref.size)), local=True)
    with pytest.raises(BadChunk):
        again.judge(ref, view[:-1], local=False)
    again.close()


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"",
        b"x" * 39,
        (99).to_bytes(8, "little") + bytes(32),
        (2**64 - 1).to_bytes(8, "little") + bytes(32),
        bytes(RECORD_BYTES * 3 * 4 + 1),
        bytes(10_000_000),
    ],
    ids=["none", "empty", "half", "past", "huge index", "too long", "10 MB"],
)
def test_a_journal_that_says_nothing_of_use_claims_nothing_and_is_replaced(
    store: Store, said: bytes | None
) -> None:
    draft = opened(store)
    put(draft, 1)
    draft.close()
    if said is None:
        journal(store).unlink()
    else:
        journal(store).write_bytes(said)
    again = opened(store)
    assert 1 not in again.claimed()
    put(again, 1)
    again.close()
    third = opened(store)
    assert 1 in third.claimed()
    third.close()


def test_half_a_record_at_the_end_spoils_nothing_before_or_after_it(store: Store) -> None:
    draft = opened(store)
    put(draft, 0)
    put(draft, 1)
    draft.close()
    os.truncate(journal(store), 2 * RECORD_BYTES - 3)
    again = opened(store)
    assert list(again.claimed()) == [0]
    put(again, 2)
    again.close()
    third = opened(store)
    assert list(third.claimed()) == [0, 2]
    third.close()


@pytest.mark.parametrize("times", [4, 5, 6, 12], ids=lambda each: f"{each} of 12 records")
def test_a_journal_as_long_as_may_be_is_written_anew_before_it_is_too_long(store: Store, times: int) -> None:
    draft = opened(store)
    put(draft, 1)
    draft.close()
    journal(store).write_bytes(journal(store).read_bytes() * times)
    again = opened(store)
    assert list(again.claimed()) == [1]
    for _ in range(6):
        put(again, 2)
    again.close()
    third = opened(store)
    assert list(third.claimed()) == [1, 2]
    third.judge(*piece(third, 1), local=True)
    third.close()
    assert journal(store).stat().st_size <= RECORD_BYTES * 3 * 4


def test_the_last_word_of_the_journal_counts(store: Store) -> None:
    draft = opened(store)
    put(draft, 0, bytes(len(DATA)))
    put(draft, 0)
    draft.close()
    again = opened(store)
    again.judge(*piece(again, 0), local=True)
    again.close()


def test_where_a_draft_cannot_be_opened_it_is_said_in_words(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    store.layout.files.make_dirs(store.root / "drafts", store.root)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        opened(store)


@pytest.mark.parametrize("what", ["link", "directory", "fifo"])
def test_what_stands_in_a_drafts_place_is_moved_aside(store: Store, tmp_path: Path, what: str) -> None:
    path = store.drafts.path(FILE)
    path.parent.mkdir(exist_ok=True)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    if what == "link":
        path.symlink_to(precious)
    elif what == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    draft = opened(store)
    put_all(draft)
    draft.complete()
    draft.close()
    assert store.drafts.recall(FILE) is not None
    assert precious.read_bytes() == b"precious"


def test_only_one_of_two_has_the_lock(store: Store) -> None:
    first, second = opened(store), opened(store)
    assert (first.locked, second.locked) == (True, False)
    second.close()
    first.close()
