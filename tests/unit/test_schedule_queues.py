"""Requests that wait for their turn at a peer: when they leave its queue, and where they may go then."""

from __future__ import annotations

import random
from array import array

import pytest

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.manifest.model import ChunkList
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.members import Member
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import BlobFacts, WorkList

ONE, TWO, ME = "10.0.0.1:8420", "10.0.0.2:8420", "10.0.0.9:8420"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def schedule_of(items: int, clock: Clock) -> Schedule:
    """A node among members that feed, itself with an origin that gave it one chunk."""
    chunks = ChunkList(random.Random(1).randbytes(32 * items), array("I", [CHUNK_BYTES]) * items)
    work = WorkList([BlobFacts(b"x" * 32, items * CHUNK_BYTES, chunks, "model", "weights")])
    schedule = Schedule(work, Limits(), clock, random.Random(1), key=b"k" * 32)
    schedule.add("origin", Tier.NETWORK)
    first = schedule.claim()
    assert isinstance(first, Claim)
    arrive(schedule, first, clock)
    schedule.members(ME, [Member(each, frozenset({"model"}), True) for each in (ONE, TWO)])
    return schedule


def arrive(schedule: Schedule, claim: Claim, clock: Clock) -> None:
    clock.now += 0.3
    schedule.received(claim, claim.size, clock.now)
    for item in claim.run.items:
        schedule.verified(claim, item)
    schedule.finish(claim)


def claims(schedule: Schedule) -> list[Claim]:
    return [step for _ in range(8) if isinstance(step := schedule.claim(), Claim)]


def test_what_came_back_from_a_queue_goes_to_a_peer_that_gave_nothing_yet(clock: Clock) -> None:
    """The origin gave us something, and would be the proven home; but single flight leaves these to peers."""
    schedule = schedule_of(4, clock)
    schedule.add_peer(ONE, Bitmap.full(4))
    waiting = [each for each in claims(schedule) if each.source == 1]
    assert len(waiting) == 2
    clock.now += 1.0
    for each in waiting:
        schedule.finish(each, Fault.STALLED, "a queue")
    schedule.add_peer(TWO, Bitmap.full(4))
    assert {each.source for each in claims(schedule)} >= {2}


def test_a_request_leaves_a_queue_for_a_peer_that_holds_the_same_and_does_nothing_for_us(
    clock: Clock,
) -> None:
    schedule = schedule_of(3, clock)
    schedule.add_peer(ONE, Bitmap.full(3))
    waiting = [each for each in claims(schedule) if each.source == 1]
    assert len(waiting) == 2  # all there is: no item is free
    clock.now += 1.0
    assert not any(schedule.overdue(each, clock.now) for each in waiting)
    schedule.add_peer(TWO, Bitmap(3))
    assert not any(schedule.overdue(each, clock.now) for each in waiting)
    schedule.peer_gains(2, [waiting[0].run.first])
    assert [schedule.overdue(each, clock.now) for each in waiting] == [True, False]


def test_what_a_machine_takes_may_be_heard_before_it_is_known_to_be_a_member(clock: Clock) -> None:
    chunks = ChunkList(random.Random(1).randbytes(64), array("I", [CHUNK_BYTES]) * 2)
    work = WorkList([BlobFacts(b"x" * 32, 2 * CHUNK_BYTES, chunks, "model", "weights")])
    schedule = Schedule(work, Limits(), clock, random.Random(1), key=b"k" * 32)
    schedule.add("origin", Tier.NETWORK)
    first = schedule.claim()
    assert isinstance(first, Claim)
    schedule.add_peer(ONE, Bitmap(2))
    schedule.member_takes(ONE, dict.fromkeys(first.run.items, 1024))
    assert not first.cancelled
