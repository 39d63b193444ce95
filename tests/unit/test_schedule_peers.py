"""One schedule and its peers: full ones, forgetful ones, those that leave, and whether more may come."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from diachunk.bitmap import Bitmap
from diachunk.limits import DEFAULT
from diachunk.schedule.claims import Claim, Ended, Pause
from diachunk.schedule.health import Fault, Health, Tier
from diachunk.schedule.schedule import Schedule
from schedule_world import chunks_of_4_mib

ONE, TWO = "10.0.0.1:8420", "10.0.0.2:8420"


class Node:
    """A schedule on a clock that tests turn; peers in it hold what they are given."""

    def __init__(self, items: int) -> None:
        self.now = 100.0
        self.items = items
        self.schedule = Schedule(chunks_of_4_mib(items), DEFAULT, lambda: self.now, random.Random(1))

    def peer(self, address: str, has: Iterable[int] | None = None) -> int:
        return self.schedule.add_peer(address, self.holding(has))

    def holding(self, has: Iterable[int] | None = None) -> Bitmap:
        return Bitmap.full(self.items) if has is None else Bitmap(self.items, has)

    def health(self, peer: int) -> Health:
        return self.schedule.health(peer)

    def claims(self) -> list[Claim]:
        """All that it would begin now."""
        found = []
        while isinstance(claim := self.schedule.claim(), Claim):
            found.append(claim)
        return found

    def claim(self) -> Claim:
        claim = self.schedule.claim()
        assert isinstance(claim, Claim)
        return claim

    def arrives(self, claim: Claim) -> bool:
        """Whether it was the first copy of any of it."""
        self.schedule.received(claim, claim.size, self.now)
        first = [self.schedule.verified(claim, item) for item in claim.run.items]
        self.schedule.finish(claim)
        return any(first)

    def asked_again_after_s(self, peer: int, most_s: float) -> float:
        """When this peer is next asked for anything; what others are asked for comes at once."""
        since = self.now
        while self.now < since + most_s:
            for claim in self.claims():
                if claim.source == peer:
                    self.schedule.finish(claim, Fault.CANCELLED)
                    return self.now - since
                self.arrives(claim)
            self.now += 0.01
        return most_s


# --- full ------------------------------------------------------------------------------------------------------


def test_a_full_peer_is_asked_again_when_it_said_and_is_no_worse_for_it() -> None:
    node = Node(40)
    full = node.peer(ONE)
    node.schedule.finish(node.claim(), Fault.BUSY, "503", retry_after_s=3.0)
    assert 3.0 <= node.asked_again_after_s(full, 10.0) <= 3.0 * 1.5 + 0.02
    health = node.health(full)
    assert (health.faults, health.faults_in_a_row, health.out) == (0, 0, "")


def test_a_full_peer_that_does_not_say_when_is_asked_more_and_more_seldom_until_it_gives() -> None:
    node = Node(40)
    full = node.peer(ONE)
    waits = []
    for _ in range(4):
        node.schedule.finish(node.claim(), Fault.BUSY, "503")
        waits.append(node.asked_again_after_s(full, 10.0))
    for least_s, waited_s in zip([0.2, 0.4, 0.8, 1.6], waits, strict=True):
        assert least_s - 0.001 <= waited_s <= 1.5 * least_s + 0.02
    node.arrives(node.claim())
    node.schedule.finish(node.claim(), Fault.BUSY, "503")
    assert node.asked_again_after_s(full, 10.0) <= 0.33


def test_nobody_can_put_off_a_node_for_hours() -> None:
    node = Node(40)
    full = node.peer(ONE)
    node.schedule.finish(node.claim(), Fault.BUSY, "503", retry_after_s=1e9)
    longest_s = 1.5 * DEFAULT.retry_after_max_s
    assert node.health(full).resume_at <= node.now + longest_s


def test_while_one_is_full_the_other_is_asked() -> None:
    node = Node(40)
    full, other = node.peer(ONE), node.peer(TWO)
    first = next(claim for claim in node.claims() if claim.source == full)
    node.schedule.finish(first, Fault.BUSY, "503", retry_after_s=5.0)
    for claim in node.schedule.claims:
        if claim.source == other:
            node.arrives(claim)
    assert {claim.source for claim in node.claims()} == {other}


# --- forgetful -------------------------------------------------------------------------------------------------


def test_what_a_peer_turns_out_not_to_have_is_not_asked_of_it_and_all_else_is() -> None:
    node = Node(8)
    node.schedule.expects_more = True
    peer = node.peer(ONE)
    missed = node.claim()
    node.schedule.finish(missed, Fault.MISSING, "404")
    asked: list[int] = []
    while claims := node.claims():
        for claim in claims:
            asked.extend(claim.run.items)
            node.arrives(claim)
    assert sorted(asked) == [item for item in range(8) if item not in missed.run.items]
    assert not node.health(peer).faults


def test_it_is_asked_again_once_it_says_that_it_has_it_but_not_for_ever() -> None:
    node = Node(1)
    node.schedule.expects_more = True
    peer = node.peer(ONE)
    asked = 0
    for _ in range(10):
        if isinstance(claim := node.schedule.claim(), Claim):
            asked += 1
            node.schedule.finish(claim, Fault.MISSING, "404")
        assert not node.claims()
        node.schedule.peer_gains(peer, [0])
    assert asked == 3
    node.schedule.peer_holds(peer, node.holding())
    assert not node.claims()


def test_what_one_has_not_got_the_other_is_asked_for() -> None:
    node = Node(1)
    node.peer(ONE)
    other = node.peer(TWO, [])
    node.schedule.finish(node.claim(), Fault.MISSING, "404")
    node.schedule.peer_gains(other, [0])
    assert node.claim().source == other


# --- leaving ---------------------------------------------------------------------------------------------------


def test_one_that_leaves_costs_what_it_had_not_brought_of_two_requests_and_nothing_else() -> None:
    node = Node(6)
    node.schedule.expects_more = True
    gone = node.peer(ONE)
    brought, lost = node.claims()
    node.schedule.peer_leaves(gone)
    assert node.arrives(brought)
    assert not node.claims()
    node.schedule.finish(lost, Fault.FAILED, "reset")
    assert not node.claims()
    other = node.peer(TWO)
    asked: list[int] = []
    while claims := node.claims():
        assert {claim.source for claim in claims} == {other}
        for claim in claims:
            asked.extend(claim.run.items)
            node.arrives(claim)
        node.now += 0.1
    assert sorted(asked) == sorted(set(range(6)) - set(brought.run.items))
    assert node.schedule.complete


def test_what_it_gains_while_it_is_away_is_asked_of_it_only_when_it_is_back() -> None:
    node = Node(4)
    node.schedule.expects_more = True
    peer = node.peer(ONE, [])
    node.schedule.peer_leaves(peer)
    node.schedule.peer_gains(peer, [0, 1, 2, 3])
    assert not node.claims()
    node.schedule.peer_returns(peer, node.holding([2]))
    assert [claim.run.first for claim in node.claims()] == [2]


# --- whether more may come -------------------------------------------------------------------------------------


def test_while_others_may_come_having_nobody_is_no_end_before_the_patience_is() -> None:
    node = Node(2)
    node.schedule.expects_more = True
    began_at = node.now
    while not isinstance(step := node.schedule.claim(), Ended):
        assert isinstance(step, Pause)
        assert step.until > node.now
        node.now = step.until
    assert step.why
    assert node.now - began_at == pytest.approx(DEFAULT.patience_s)


def test_once_nobody_can_come_having_nobody_is_the_end() -> None:
    node = Node(2)
    node.schedule.add("origin", Tier.NETWORK)
    node.schedule.finish(node.claim(), Fault.MISSING, "404")
    node.schedule.expects_more = True
    assert isinstance(node.schedule.claim(), Pause)
    node.schedule.expects_more = False
    ended = node.schedule.claim()
    assert isinstance(ended, Ended)
    assert ended.why == "no source has what is left"


def test_one_that_comes_before_the_patience_ends_is_asked() -> None:
    node = Node(2)
    node.schedule.expects_more = True
    assert isinstance(node.schedule.claim(), Pause)
    node.now += DEFAULT.patience_s - 1.0
    node.peer(ONE)
    assert len(node.claims()) == 2
