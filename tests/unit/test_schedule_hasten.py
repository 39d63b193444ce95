"""What somebody waits for is handed out before all else, once, and to whoever may have it."""

from __future__ import annotations

import time
from array import array

import pytest

from diachunk.bitmap import Bitmap
from diachunk.digest import digest_of
from diachunk.limits import DEFAULT, MiB
from diachunk.manifest.model import ChunkList
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import BlobFacts, WorkList


class _Rng:
    def random(self) -> float:
        return 0.5


def schedule_of(chunks: int, chunk_bytes: int = 4 * MiB) -> Schedule:
    names = b"".join(digest_of(b"%d" % number) for number in range(chunks))
    sizes = array("I", [chunk_bytes] * chunks)
    facts = BlobFacts(digest_of(b"file"), chunks * chunk_bytes, ChunkList(names, sizes), "", "f")
    return Schedule(WorkList([facts]), DEFAULT, lambda: 0.0, _Rng())


def next_item(schedule: Schedule) -> int:
    claim = schedule.claim()
    assert isinstance(claim, Claim)
    return claim.run.first


def test_hastened_items_come_first_and_the_others_in_their_order() -> None:
    schedule = schedule_of(6)
    schedule.add("one", Tier.NETWORK, at_once=8)
    schedule.hasten([5, 3])
    assert [next_item(schedule) for _ in range(6)] == [5, 3, 0, 1, 2, 4]


def test_a_hastened_item_that_failed_is_hastened_still() -> None:
    schedule = schedule_of(4)
    schedule.add("one", Tier.NETWORK, at_once=8)
    schedule.hasten([3])
    claim = schedule.claim()
    assert isinstance(claim, Claim)
    schedule.finish(claim, Fault.MISSING, "gone")
    schedule.add("two", Tier.NETWORK, at_once=8)
    assert next_item(schedule) == 3


def test_a_source_that_has_not_got_it_gets_something_else() -> None:
    schedule = schedule_of(4)
    schedule.add("one", Tier.NETWORK, has=Bitmap(4, [0, 1]), at_once=8)
    schedule.hasten([3])
    assert next_item(schedule) == 0
    schedule.add("two", Tier.NETWORK, at_once=8)
    assert 3 in {next_item(schedule) for _ in range(3)}


def test_hastening_again_what_is_under_way_or_done_changes_nothing() -> None:
    schedule = schedule_of(3)
    schedule.add("one", Tier.NETWORK, at_once=8)
    schedule.hasten([2])
    claim = schedule.claim()
    assert isinstance(claim, Claim)
    schedule.hasten([2])
    schedule.verified(claim, 2)
    schedule.finish(claim)
    schedule.hasten([2])
    assert [next_item(schedule) for _ in range(2)] == [0, 1]


def _runs(schedule: Schedule, most: int = 1_000_000) -> list[list[int]]:
    """All there is to do, or so many of it, request by request."""
    runs: list[list[int]] = []
    while len(runs) < most and isinstance(claim := schedule.claim(), Claim):
        runs.append(list(claim.run.items))
        for item in claim.run.items:
            schedule.verified(claim, item)
        schedule.finish(claim)
    return runs


def test_what_is_hastened_is_not_asked_for_together_with_what_is_not() -> None:
    schedule = schedule_of(64, chunk_bytes=1024)
    schedule.add("one", Tier.NETWORK, at_once=8)
    schedule.hasten([0, 40, 41])
    assert _runs(schedule)[:2] == [[0], [40, 41]]


def test_what_is_not_hastened_is_asked_for_together_as_ever() -> None:
    schedule = schedule_of(64, chunk_bytes=1024)
    schedule.add("one", Tier.NETWORK, at_once=8)
    schedule.hasten([63])
    assert _runs(schedule) == [[63], list(range(63))]


def _seconds_for(items: int) -> float:
    """To hand out so many hastened ones, no two of them neighbours."""
    schedule = schedule_of(2 * items, chunk_bytes=1024)
    schedule.add("one", Tier.NETWORK, at_once=8)
    started_at = time.process_time()
    schedule.hasten(range(0, 2 * items, 2))
    assert _runs(schedule, items) == [[item] for item in range(0, 2 * items, 2)]
    return time.process_time() - started_at


@pytest.mark.timeout(60)
def test_a_hundred_thousand_hastened_items_cost_no_more_each_than_a_few() -> None:
    few = min(_seconds_for(2_000) for _ in range(3)) / 2_000
    many = _seconds_for(100_000) / 100_000
    assert many < 4 * few, f"{many * 1e6:.0f} microseconds each, of few {few * 1e6:.0f}"
