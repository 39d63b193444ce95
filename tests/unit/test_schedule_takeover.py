"""Who asks the origin: the owner, whoever comes after it once it gets nowhere, and nobody meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, DEFAULT, KiB
from diachunk.schedule.claims import Claim
from diachunk.schedule.feeders import SingleFlight
from diachunk.schedule.health import Tier
from diachunk.schedule.members import Member
from diachunk.schedule.schedule import Schedule
from schedule_world import chunks_of_4_mib

KEY = b"k" * 32
NAMES = tuple(f"10.0.0.{number}:8420" for number in range(1, 5))
STEP_S = 0.05
SOON_S = 1.0
"""Within it whoever has nothing to wait for has begun: feeders do so one after the other."""


def member(address: str, *, feeds: bool = True) -> Member:
    return Member(address, frozenset({"model"}), feeds)


def ranked(items: int) -> list[tuple[str, ...]]:
    """For each chunk the machines in their order: its owner first."""
    flight = SingleFlight(KEY, chunks_of_4_mib(items), DEFAULT)
    flight.members(NAMES[0], [member(name) for name in NAMES[1:]], True, 0.0)
    return [flight.ranked(item) for item in range(items)]


class Node:
    """A machine with an origin, among all of NAMES."""

    def __init__(self, me: str, items: int = 1) -> None:
        self.now = 0.0
        self.items = items
        self.schedule = Schedule(chunks_of_4_mib(items), DEFAULT, lambda: self.now, random.Random(1), key=KEY)
        self.schedule.expects_more = True
        self.schedule.add("origin", Tier.NETWORK)
        self.others = [name for name in NAMES if name != me]
        self.peers = {name: self.schedule.add_peer(name, Bitmap(items)) for name in self.others}
        self.schedule.members(me, [member(name) for name in self.others])

    def asks_after_s(self, most_s: float, meanwhile: Callable[[Node], None] = lambda node: None) -> float:
        """When it asks the origin; `most_s` if not before."""
        while self.now < most_s:
            meanwhile(self)
            if isinstance(self.schedule.claim(), Claim):
                return self.now
            self.now += STEP_S
        return most_s


def takes(name: str, size_bytes: int) -> Callable[[Node], None]:
    """It said once that it takes the first chunk, and so much of that it has."""
    said: list[Node] = []

    def tell(node: Node) -> None:
        if not said:
            node.schedule.member_takes(name, {0: size_bytes})
            said.append(node)

    return tell


def advances(name: str) -> Callable[[Node], None]:
    """It says all the time that it has more of the first chunk, and never holds it."""
    return lambda node: node.schedule.member_takes(name, {0: int(node.now * 64 * KiB) % CHUNK_BYTES})


def test_machines_begin_with_chunks_that_they_own_and_so_with_different_ones() -> None:
    order = ranked(64)
    for me in NAMES:
        node = Node(me, 64)
        node.now = SOON_S
        for _ in range(6):
            claim = node.schedule.claim()
            assert isinstance(claim, Claim)
            assert all(order[item][0] == me for item in claim.run.items)
            node.schedule.received(claim, claim.size, node.now)
            for item in claim.run.items:
                node.schedule.verified(claim, item)
            node.schedule.finish(claim)
            node.now += 0.3


def test_the_owner_asks_at_once() -> None:
    assert Node(ranked(1)[0][0]).asks_after_s(60.0) < SOON_S


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_after_an_owner_that_gets_nowhere_it_is_one_after_the_others_turn(rank: int) -> None:
    order = ranked(1)[0]
    turn_s = DEFAULT.takeover_s + 1.5 * (rank - 1)
    asked_s = Node(order[rank]).asks_after_s(60.0, takes(order[0], 1))
    assert turn_s <= asked_s <= turn_s + 0.5


@pytest.mark.parametrize("rank", [1, 2])
def test_an_owner_that_gets_on_is_left_alone_but_not_for_ever(rank: int) -> None:
    """A machine that lies about it costs the others half a minute."""
    order = ranked(1)[0]
    asked_s = Node(order[rank]).asks_after_s(90.0, advances(order[0]))
    longest_s = 6 * DEFAULT.takeover_s
    assert longest_s - 0.1 <= asked_s <= longest_s + DEFAULT.takeover_s + 2.0


def test_what_another_machine_holds_is_not_asked_of_an_origin_even_by_its_owner() -> None:
    order = ranked(1)[0]
    node = Node(order[0])
    node.schedule.peer_gains(node.peers[order[1]], [0])
    node.now = SOON_S
    claim = node.schedule.claim()
    assert isinstance(claim, Claim)
    assert claim.source == node.peers[order[1]]


def test_an_owner_that_is_gone_is_followed_at_once() -> None:
    order = ranked(1)[0]
    node = Node(order[1])
    tell = takes(order[0], 1)

    def leaves(node: Node) -> None:
        tell(node)
        if node.now >= 2.0:
            node.schedule.members(order[1], [member(name) for name in order[2:]])

    assert node.asks_after_s(60.0, leaves) <= 2.0 + SOON_S


def test_the_first_of_two_that_take_the_same_goes_on_and_the_other_stops() -> None:
    order = ranked(1)[0]
    for me, other, stops in ((order[0], order[1], False), (order[1], order[0], True)):
        node = Node(me)
        node.now = SOON_S + DEFAULT.takeover_s + 1.0
        claim = node.schedule.claim()
        assert isinstance(claim, Claim)
        node.schedule.member_takes(other, {0: 100})
        assert claim.cancelled == stops
