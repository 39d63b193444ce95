"""A follower hashes a file while it is filled, in any order, and never waits for what will not come."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.bitmap import Bitmap
from diachunk.chunking.hashes import Hashes
from diachunk.chunking.hashing import hash_one
from diachunk.chunking.verify import ChunkRef, MeasuredChunk
from diachunk.errors import StoreError
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest.stated import StatedFile
from diachunk.schedule.board import FLIGHT, Board, Candidate
from diachunk.schedule.health import Concurrency, Health, Tier
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.store.drafts import Draft
from diachunk.store.files import Files
from diachunk.store.partial import Abandoned
from diachunk.transfer.following import Follower, publishing, turns
from fixtures.hub_world import model_files

WAIT_S = 20.0


def stated(data: bytes, name: str = "f") -> StatedFile:
    return StatedFile("c", name, len(data), hashlib.sha256(data).hexdigest())


class Filled:
    """A draft of some bytes, and a follower of it."""

    def __init__(self, directory: Path, data: bytes, name: str = "f", *, git: bool = False) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.draft = Draft(directory / f"{name}.partial", stated(data, name).pieces(), Files(0o755))
        self.follower = publishing(self.draft, turns(), name, lambda a, b: self.asked.append((a, b)), git=git)

    def put(self, index: int) -> None:
        chunks = self.draft.chunks
        offset, size = chunks.offsets[index], chunks.sizes[index]
        view = memoryview(self.data)[offset : offset + size]
        self.draft.write(MeasuredChunk(ChunkRef(chunks.digest(index), size, b"", offset), view), offset)

    def close(self) -> None:
        self.follower.stop()
        self.draft.close()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[list[Filled]]:
    made: list[Filled] = []
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("name", sorted(model_files()))
@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_whatever_the_order_the_digests_are_those_of_the_file_on_disk(
    tmp_path: Path, filled: list[Filled], name: str, order: str
) -> None:
    data = model_files()[name]
    one = Filled(tmp_path, data, name.replace("/", "_"), git=True)
    filled.append(one)
    one.follower.start()
    indexes = list(range(len(one.draft.chunks)))
    if order == "backward":
        indexes.reverse()
    elif order == "shuffled":
        random.Random(name).shuffle(indexes)
    for index in indexes:
        one.put(index)
    found = one.follower.result()
    path = tmp_path / name.replace("/", "_")
    path.write_bytes(data)
    right = hash_one(path, git=True)
    assert found is not None
    for field in Hashes.__dataclass_fields__:
        assert getattr(found, field) == getattr(right, field), field


def test_the_directory_at_the_end_is_asked_for_before_the_middle(
    tmp_path: Path, filled: list[Filled]
) -> None:
    data = model_files()["weights.pth"]
    one = Filled(tmp_path, data, "weights.pth")
    filled.append(one)
    asked = threading.Event()
    one.asked = _Telling(asked, len(data))
    one.follower.start()
    one.put(0)
    assert asked.wait(WAIT_S), "the end is hastened while nothing but the start is here"


class _Telling(list[tuple[int, int]]):
    def __init__(self, event: threading.Event, size: int) -> None:
        super().__init__()
        self._event = event
        self._size = size

    def append(self, each: tuple[int, int]) -> None:
        super().append(each)
        if each[1] == self._size:
            self._event.set()


@pytest.mark.parametrize("name", ["weights.pth", "plain.bin"])
def test_stopping_ends_the_wait_and_blames_no_reader(
    tmp_path: Path, filled: list[Filled], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = Filled(tmp_path, model_files()[name], name)
    filled.append(one)
    with caplog.at_level(logging.WARNING):
        one.follower.start()
        one.put(0)
        stopper = threading.Thread(target=one.follower.stop)
        stopper.start()
        stopper.join(WAIT_S)
        assert not stopper.is_alive()
    assert caplog.records == []
    with pytest.raises(StoreError, match="cannot read back"):
        one.follower.result()


def test_stopping_before_anything_came_or_twice_is_no_matter(tmp_path: Path, filled: list[Filled]) -> None:
    one = Filled(tmp_path, os.urandom(2 * CHUNK_BYTES), "f")
    filled.append(one)
    one.follower.start()
    one.follower.stop()
    one.follower.stop()


def test_more_large_files_than_are_hashed_at_once_all_end(tmp_path: Path, filled: list[Filled]) -> None:
    """Of each the first piece is here, so that each holds or awaits a place; then the rest comes, last file first."""
    for number in range(9):
        filled.append(Filled(tmp_path, os.urandom(CHUNK_BYTES + 5), str(number)))
        filled[-1].follower.start()
        filled[-1].put(0)
    for one in reversed(filled):
        one.put(1)
    for one in filled:
        found = one.follower.result()
        assert found is not None
        assert found.sha256 == hashlib.sha256(one.data).hexdigest()


def test_all_that_are_half_here_end_when_they_are_stopped(tmp_path: Path, filled: list[Filled]) -> None:
    for number in range(9):
        filled.append(Filled(tmp_path, os.urandom(CHUNK_BYTES + 5), str(number)))
        filled[-1].follower.start()
        filled[-1].put(0)
    threads = [threading.Thread(target=one.follower.stop) for one in filled]
    for each in threads:
        each.start()
    for each in threads:
        each.join(WAIT_S)
    assert not any(each.is_alive() for each in threads)


def test_waiting_for_what_was_abandoned_is_an_error_of_the_file(tmp_path: Path) -> None:
    one = Filled(tmp_path, os.urandom(2 * CHUNK_BYTES), "f")
    one.put(0)
    one.draft.wait_for(0, CHUNK_BYTES)
    one.draft.abandon()
    one.draft.wait_for(0, CHUNK_BYTES)
    with pytest.raises(Abandoned):
        one.draft.wait_for(CHUNK_BYTES - 1, CHUNK_BYTES + 1)
    assert issubclass(Abandoned, OSError), "or the readers of formats would swallow it"
    one.draft.close()


def test_a_job_that_fails_is_an_error_of_the_store(tmp_path: Path) -> None:
    one = Filled(tmp_path, os.urandom(10), "f")

    def job() -> int:
        raise OSError(5, "Input/output error")

    follower = Follower(one.draft, turns(), job)
    follower.start()
    with pytest.raises(StoreError, match="Input/output error"):
        follower.result()
    one.draft.close()


# --- what is urgent -------------------------------------------------------------------------------------------


def board(pieces: int = 10) -> Board:
    data = stated(bytes(pieces * CHUNK_BYTES))
    return Board(WorkList([BlobFacts(data.key, data.size, data.pieces(), "c", "f")]))


def candidate(tier: Tier = Tier.NETWORK, has: Bitmap | None = None) -> Candidate:
    return Candidate(Health("s", tier, DEFAULT, Concurrency(2, 8)), has)


def test_what_is_urgent_is_taken_first_and_then_what_follows() -> None:
    one, source = board(), candidate()
    one.add(source)
    one.hasten([7, 9])
    taken = []
    while (item := one.next_item(source)) is not None:
        assert one.take(item)
        taken.append(item)
    assert taken == [7, 9, *range(7), 8]


def test_a_source_is_not_asked_for_what_is_urgent_and_it_has_not() -> None:
    one = board()
    source = candidate(has=Bitmap(10, [0, 1]))
    one.add(source)
    one.hasten([9])
    assert one.next_item(source) == 0


def test_what_is_urgent_and_claimed_here_is_left_to_local_sources() -> None:
    one = board()
    local, network = candidate(Tier.LOCAL, Bitmap(10, [9])), candidate()
    one.add(local)
    one.add(network)
    one.hasten([9])
    assert one.next_item(network) == 0
    assert one.next_item(local) == 9


def test_what_is_urgent_and_comes_back_is_taken_first_again() -> None:
    one, source = board(), candidate()
    one.add(source)
    one.hasten([9])
    assert one.take(9)
    assert one.state(9) == FLIGHT
    assert one.next_item(source) == 0
    one.give_back(9)
    assert one.next_item(source) == 9


def test_what_is_done_is_forgotten_and_nothing_is_urgent_twice() -> None:
    one = board()
    one.hasten([3, 4, 3])
    one.hasten([4])
    assert sorted(set(one.urgent)) == [3, 4]
    one.complete_item(3)
    one.hasten([])
    assert 3 not in one.urgent
    assert len(one.urgent) <= 2
