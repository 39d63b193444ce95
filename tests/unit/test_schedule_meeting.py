"""Machines that begin at one moment do not know each other yet: each asks an origin for little, and for another."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Tier
from diachunk.schedule.members import Member
from diachunk.schedule.schedule import Schedule
from schedule_world import chunks_of_4_mib

ITEMS = 1000


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Node:
    """One schedule with an origin, which expects company unless told otherwise."""

    seed: int
    company: bool = True
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        work = chunks_of_4_mib(ITEMS)
        self.schedule = Schedule(work, DEFAULT, self.clock, random.Random(self.seed), key=b"swarm")
        self.schedule.expects_more = self.company
        self.origin = self.schedule.add("origin", Tier.NETWORK)

    def claims(self) -> list[Claim]:
        """All that it would begin now."""
        found = []
        while isinstance(claim := self.schedule.claim(), Claim):
            found.append(claim)
        return found

    def ends(self, claim: Claim) -> None:
        self.schedule.received(claim, claim.size, self.clock())
        for item in claim.run.items:
            self.schedule.verified(claim, item)
        self.schedule.finish(claim)

    def meets(self, others: int) -> None:
        members = [Member(f"10.0.0.{n}:8420", frozenset({"model"}), True) for n in range(others)]
        self.schedule.members("10.0.1.1:8420", members)


def test_each_takes_something_else_while_nobody_knows_of_the_others() -> None:
    first = {Node(seed).claims()[0].run.first for seed in range(16)}
    assert len(first) >= 15


def test_an_origin_gets_one_request_until_it_has_brought_something() -> None:
    node = Node(1)
    (only,) = node.claims()
    node.ends(only)
    assert len(node.claims()) == DEFAULT.per_origin_start


def test_without_company_it_goes_from_the_start_and_all_at_once() -> None:
    claims = Node(1, company=False).claims()
    assert [each.run.first for each in claims] == list(range(DEFAULT.per_origin_start))


def test_whoever_met_nobody_goes_on_in_order() -> None:
    node = Node(1)
    node.clock.now = 6.0
    assert [each.run.first for each in node.claims()] == [0, 1]


def test_everything_is_asked_for_although_it_began_anywhere() -> None:
    node = Node(3)
    asked: set[int] = set()
    while claims := node.claims():
        for claim in claims:
            asked.update(claim.run.items)
            node.ends(claim)
        node.clock.now += 0.05
    assert asked == set(range(ITEMS))


def test_what_somebody_waits_for_still_comes_first() -> None:
    node = Node(1)
    node.schedule.hasten([7])
    assert node.claims()[0].run.first == 7


def test_few_that_meet_bring_to_an_end_what_they_began() -> None:
    node = Node(1)
    (begun,) = node.claims()
    node.schedule.received(begun, CHUNK_BYTES // 100, 1.0)
    node.meets(DEFAULT.feeders - 1)
    assert not begun.cancelled


def test_many_that_meet_leave_to_the_owners_what_has_hardly_begun() -> None:
    node = Node(1)
    (begun,) = node.claims()
    node.schedule.received(begun, CHUNK_BYTES // 100, 1.0)
    node.meets(5 * DEFAULT.feeders)
    assert begun.cancelled


def test_what_a_member_takes_may_be_heard_before_who_the_members_are() -> None:
    node = Node(1)
    (claim, *_) = node.claims()
    node.schedule.add_peer("10.0.0.1:8420", Bitmap(ITEMS))
    node.schedule.member_takes("10.0.0.1:8420", {claim.run.first: 1000})
    assert not claim.cancelled
    node.meets(2)
