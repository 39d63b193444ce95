"""Blobs: what is proven, what is only claimed, and which of two manifests lies."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.errors import ManifestError, StoreError
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.ingest import ingest
from diachunk.store.stamps import Stamp, read_stamp
from diachunk.store.store import Store
from store_files import BLOCK, CHUNKS, DATA, DIGEST, PIECES, chunk_list, fill, leftovers, write

HALVES = [DATA[: 2 * BLOCK], DATA[2 * BLOCK :]]
"""Another true partition of the same file."""
LIES = [b"\x09" * BLOCK, *PIECES[1:]]
"""What a lying manifest says the file is made of."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def presence(store: Store, pieces: object = None) -> Presence:
    chunks = chunk_list(pieces) if isinstance(pieces, list) else CHUNKS
    return store.blobs.find(DIGEST, len(DATA), chunks).presence


def test_absent_then_partial_then_proven(store: Store) -> None:
    assert presence(store) is Presence.ABSENT
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    assert presence(store) is Presence.PARTIAL
    write(partial, PIECES)
    partial.complete()
    partial.close()
    holding = store.blobs.find(DIGEST, len(DATA), CHUNKS)
    assert (holding.presence, holding.path) == (Presence.PROVEN, store.layout.blob(DIGEST))
    assert not leftovers(store.root)


def test_a_blob_is_named_by_its_digest_and_read_only(store: Store) -> None:
    path = fill(store)
    assert path.name == digest_of(path.read_bytes()).hex()
    assert path.parent.name == path.name[:2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert not store.layout.partials(DIGEST)


@pytest.mark.parametrize("change", ["content", "size", "stamp", "damaged stamp"])
def test_what_was_touched_is_only_a_claim(store: Store, change: str) -> None:
    path = fill(store)
    path.chmod(0o644)
    match change:
        case "content":
            path.write_bytes(DATA)
        case "size":
            os.truncate(path, 5)
        case "stamp":
            store.layout.stamp(DIGEST).unlink()
        case "damaged stamp":
            store.layout.stamp(DIGEST).write_bytes(b"{")
    assert presence(store) is Presence.CLAIMED


def test_another_list_of_its_chunks_is_a_claim_until_it_is_proven_too(store: Store) -> None:
    fill(store)
    assert presence(store, HALVES) is Presence.CLAIMED
    holding = store.blobs.find(DIGEST, len(DATA), chunk_list(HALVES))
    store.blobs.prove(DIGEST, holding, chunk_list(HALVES).id, Stamp.of(store.layout.blob(DIGEST).stat()))
    assert presence(store, HALVES) is Presence.PROVEN
    assert presence(store) is Presence.PROVEN


def test_proving_a_touched_blob_forgets_what_was_proven_before(store: Store) -> None:
    path = fill(store)
    os.utime(path, ns=(5, 5))
    holding = store.blobs.find(DIGEST, len(DATA), CHUNKS)
    store.blobs.prove(DIGEST, holding, chunk_list(HALVES).id, Stamp.of(path.stat()))
    assert presence(store, HALVES) is Presence.PROVEN
    assert presence(store) is Presence.CLAIMED


@pytest.mark.parametrize("how", ["demoted", "finished"])
@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_what_is_no_file_in_a_blobs_place_is_no_blob_and_is_moved_aside(
    store: Store, tmp_path: Path, kind: str, how: str
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(DATA)
    own = store.layout.blob(DIGEST)
    own.parent.mkdir()
    match kind:
        case "symlink":
            own.symlink_to(mine)
        case "directory":
            (own / "x").mkdir(parents=True)
        case "fifo":
            os.mkfifo(own)
    assert presence(store) is Presence.ABSENT
    if how == "demoted":
        store.blobs.demote(DIGEST, CHUNKS)
        assert not os.path.lexists(own)
    fill(store)
    assert presence(store) is Presence.PROVEN
    assert mine.read_bytes() == DATA
    assert len([name for name in os.listdir(own.parent) if ".moved-aside-" in name]) == 1


# --- repair ------------------------------------------------------------------------------------------------


def test_a_damaged_blob_becomes_its_own_partial_with_all_its_bytes_as_claims(store: Store) -> None:
    path = fill(store)
    path.chmod(0o644)
    path.write_bytes(b"\xff" + DATA[1:])
    store.blobs.demote(DIGEST, CHUNKS)
    assert presence(store) is Presence.PARTIAL
    assert not path.exists()
    assert not store.layout.stamp(DIGEST).exists()
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    assert list(partial.claimed()) == [0, 1, 2, 3]
    write(partial, PIECES, [0])
    partial.complete()
    partial.close()
    assert path.read_bytes() == DATA
    assert presence(store) is Presence.PROVEN


def test_demoting_what_is_gone_is_nothing(store: Store) -> None:
    store.layout.blob_dir(DIGEST).mkdir()
    store.blobs.demote(DIGEST, CHUNKS)
    assert presence(store) is Presence.ABSENT


# --- two lists of chunks that claim one blob ---------------------------------------------------------------


def test_the_liar_is_refused_when_it_comes_second(store: Store) -> None:
    path = fill(store)
    with pytest.raises(ManifestError, match="chunks make up"):
        fill(store, LIES, DIGEST)
    assert path.read_bytes() == DATA
    assert presence(store) is Presence.PROVEN
    assert presence(store, LIES) is Presence.CLAIMED, "a claim that will be checked and fail"


def test_the_liar_is_refused_when_it_comes_first_while_the_other_is_being_fetched(store: Store) -> None:
    honest = store.blobs.open_partial(DIGEST, CHUNKS)
    write(honest, PIECES, [0, 1])
    with pytest.raises(ManifestError, match="chunks make up"):
        fill(store, LIES, DIGEST)
    assert presence(store) is Presence.PARTIAL
    write(honest, PIECES, [2, 3])
    honest.complete()
    honest.close()
    assert store.layout.blob(DIGEST).read_bytes() == DATA


def test_a_liar_that_came_first_and_alone_is_replaced_by_the_truth(store: Store) -> None:
    path = fill(store, LIES, DIGEST)
    assert presence(store) is Presence.CLAIMED
    fill(store)
    assert path.read_bytes() == DATA
    assert presence(store) is Presence.PROVEN
    assert presence(store, LIES) is Presence.CLAIMED
    stamp = read_stamp(store.layout.stamp(DIGEST))
    assert stamp is not None
    assert stamp.blake3 == DIGEST.hex(), "the whole file was hashed"


def test_two_true_lists_are_both_accepted(store: Store) -> None:
    fill(store)
    fill(store, HALVES)
    assert presence(store, HALVES) is Presence.PROVEN
    assert store.layout.blob(DIGEST).read_bytes() == DATA


def test_lists_that_contradict_each_other_never_share_a_partial(store: Store) -> None:
    partials = [store.blobs.open_partial(DIGEST, chunk_list(each)) for each in (PIECES, LIES, HALVES)]
    assert len({each.path for each in partials}) == 3
    assert all(each.locked for each in partials)
    for each in partials:
        each.close()


# --- adopted files and files taken in ----------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.bin"
    path.write_bytes(DATA)
    path.chmod(0o640)
    return path


def test_what_changed_while_it_was_read_is_not_stamped(store: Store) -> None:
    path = fill(store)
    holding = store.blobs.find(DIGEST, len(DATA), chunk_list(HALVES))
    before = Stamp.of(path.stat())
    os.utime(path, ns=(7, 7))
    store.blobs.prove(DIGEST, holding, chunk_list(HALVES).id, before)
    assert presence(store, HALVES) is Presence.CLAIMED


def test_an_adopted_file_is_found_and_left_alone(store: Store, mine: Path) -> None:
    before = mine.stat()
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, Stamp.of(before)))
    holding = store.blobs.find(DIGEST, len(DATA), CHUNKS)
    assert (holding.presence, holding.path) == (Presence.CLAIMED, mine)
    store.blobs.prove(DIGEST, holding, CHUNKS.id, Stamp.of(before))
    holding = store.blobs.find(DIGEST, len(DATA), CHUNKS)
    assert holding.presence is Presence.PROVEN
    assert mine.stat() == before or (mine.stat().st_mode, mine.stat().st_mtime_ns) == (
        before.st_mode,
        before.st_mtime_ns,
    )
    assert holding.adopted is not None
    store.blobs.disown(DIGEST, holding.adopted)
    assert presence(store) is Presence.ABSENT
    assert mine.read_bytes() == DATA


def test_an_adopted_file_that_changed_or_went_is_not_counted_on(store: Store, mine: Path) -> None:
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, Stamp.of(mine.stat()).adding(chunk_list=CHUNKS.id)))
    assert presence(store) is Presence.PROVEN
    mine.write_bytes(b"edited")
    assert presence(store) is Presence.ABSENT
    mine.unlink()
    assert presence(store) is Presence.ABSENT


def test_the_stores_own_proof_comes_before_an_adopted_files_and_that_before_a_claim(
    store: Store, mine: Path
) -> None:
    stamp = Stamp.of(mine.stat()).adding(chunk_list=CHUNKS.id)
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, stamp))
    own = fill(store)
    assert store.blobs.find(DIGEST, len(DATA), CHUNKS).path == own
    os.utime(own, ns=(5, 5))
    assert store.blobs.find(DIGEST, len(DATA), CHUNKS).path == mine


def test_a_file_taken_in_is_a_copy_that_was_hashed_here(store: Store, mine: Path) -> None:
    temporary = ingest(store, mine)
    assert temporary.read_bytes() == DATA
    store.blobs.take_in(DIGEST, temporary, Stamp.of(temporary.stat()).adding(chunk_list=CHUNKS.id))
    assert presence(store) is Presence.PROVEN
    assert stat.S_IMODE(store.layout.blob(DIGEST).stat().st_mode) == 0o444
    again = ingest(store, mine)
    store.blobs.take_in(DIGEST, again, Stamp.of(again.stat()).adding(chunk_list=CHUNKS.id))
    assert presence(store) is Presence.PROVEN
    assert not leftovers(store.root)


def test_what_is_taken_in_replaces_a_damaged_blob(store: Store, mine: Path) -> None:
    own = fill(store)
    own.chmod(0o644)
    damaged = b"\xff" + DATA[1:]
    own.write_bytes(damaged)
    temporary = ingest(store, mine)
    store.blobs.take_in(DIGEST, temporary, Stamp.of(temporary.stat()).adding(chunk_list=CHUNKS.id))
    assert (own.read_bytes(), presence(store)) == (DATA, Presence.PROVEN)
    assert [each.read_bytes() for each in own.parent.glob(".*moved-aside*")] == [damaged]


def test_a_file_that_cannot_be_read_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot copy"):
        ingest(store, tmp_path / "none")
    assert not leftovers(store.root)
