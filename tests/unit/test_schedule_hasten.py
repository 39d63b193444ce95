"""What somebody waits for is handed out before all else, once, and to whoever may have it."""

from __future__ import annotations

from array import array

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


def schedule_of(chunks: int) -> Schedule:
    names = b"".join(digest_of(bytes([number])) for number in range(chunks))
    facts = BlobFacts(
        digest_of(b"file"), chunks * 4 * MiB, ChunkList(names, array("I", [4 * MiB] * chunks)), "", "f"
    )
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
