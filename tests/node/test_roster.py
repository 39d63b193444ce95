"""Who is known, for how long, and who is passed on. P9, P14 and P16 of docs/protocol.md."""

from __future__ import annotations

import pytest

from diachunk.digest import digest_of
from diachunk.limits import DEFAULT, Limits
from diachunk.node.around.roster import PER_INFORMANT_MAX, How, Roster
from diachunk.node.model import Address, Want
from diachunk.schedule.feeders import hash_of

ID, OTHER_ID = digest_of(b"one"), digest_of(b"two")
WANT = Want(ID, ("model",), True)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def roster(clock: Clock) -> Roster:
    return Roster(DEFAULT, clock, "feed")


def at(number: int, port: int = 8420) -> Address:
    return Address(f"10.0.{number >> 8}.{number & 255}", port)


def announce(roster: Roster, number: int, *wants: Want, store: str = "abcd") -> None:
    roster.announced(at(number).host, 8420, f"{number:032x}", store, wants)


def known(roster: Roster) -> list[Address]:
    return [each.address for each in roster]


def test_who_is_not_heard_of_for_90_seconds_is_forgotten(roster: Roster, clock: Clock) -> None:
    announce(roster, 1)
    roster.note(at(2), How.EXCHANGE, informant="10.0.0.9", age_s=60)
    clock.now += 29
    assert roster.expire() == []
    clock.now += 2
    assert roster.expire() == [at(2)]
    roster.heard(at(1))
    clock.now += 89
    assert known(roster) == [at(1)]
    clock.now += 2
    assert roster.expire() == [at(1)]


def test_hearsay_does_not_make_a_node_live_longer_than_its_informants_saw_it(
    roster: Roster, clock: Clock
) -> None:
    for _ in range(10):
        roster.note(at(1), How.EXCHANGE, informant="10.0.0.9", age_s=80)
        clock.now += 20
        roster.expire()
    roster.note(at(1), How.EXCHANGE, informant="10.0.0.9", age_s=90)
    assert known(roster) == []


def test_whom_the_user_named_is_never_forgotten(roster: Roster, clock: Clock) -> None:
    roster.note(at(1), How.EXCHANGE, informant="10.0.0.9")
    roster.note(at(1), How.NAMED)
    roster.note(at(1), How.EXCHANGE, informant="10.0.0.9")
    clock.now += 10_000
    assert roster.expire() == []
    one = roster.get(at(1))
    assert one is not None
    assert (one.how, one.informant) == (How.NAMED, "")


def test_a_node_of_our_own_store_is_no_peer_whatever_its_address(roster: Roster, clock: Clock) -> None:
    announce(roster, 1, store="feed")
    roster.note(at(2), How.MDNS)
    assert not roster.answered(at(2), "n", "feed")
    assert known(roster) == []
    assert not roster.note(at(2), How.EXCHANGE, informant="10.0.0.9")
    clock.now += 61
    assert roster.note(at(2), How.EXCHANGE, informant="10.0.0.9"), "the address may be another's by now"


def test_who_does_not_share_is_not_entered(roster: Roster) -> None:
    roster.announced("10.0.0.1", None, "ab" * 16, "abcd", [WANT])
    assert known(roster) == []


def test_one_informant_fills_64_places_at_most_and_one_machine_no_more_with_its_ports(roster: Roster) -> None:
    for number in range(1000):
        roster.note(at(number), How.EXCHANGE, informant="10.9.9.9")
        roster.announced("10.9.9.8", 1024 + number, "ab" * 16, "abcd", [])
    assert roster.count == 2 * PER_INFORMANT_MAX
    roster.forget_from("10.9.9.9")
    assert roster.count == PER_INFORMANT_MAX
    roster.note(at(5), How.EXCHANGE, informant="10.9.9.9")
    assert roster.count == PER_INFORMANT_MAX + 1


def test_a_flood_of_hearsay_puts_out_nobody_who_was_met_named_or_announced(clock: Clock) -> None:
    roster = Roster(Limits(peers_known_max=100), clock)
    for number in range(50):
        announce(roster, number, WANT)
        roster.answered(at(number), "n", "abcd")
    for number in range(1000, 11_000):
        roster.note(at(number), How.EXCHANGE, informant=f"10.200.0.{number // 40}")
    assert roster.count == 100
    assert set(known(roster)) >= {at(number) for number in range(50)}
    assert roster.note(at(60), How.NAMED), "room is made for whom the user names"
    announce(roster, 61, WANT)
    assert {at(60), at(61)} <= set(known(roster))
    assert roster.count == 100


def test_feeders_of_what_is_wanted_are_passed_on_first_at_most_64_and_only_who_spoke(
    roster: Roster, clock: Clock
) -> None:
    for number in range(200):
        announce(roster, number, Want(ID if number % 2 else OTHER_ID, ("model",), number % 4 == 1))
    roster.note(at(900), How.EXCHANGE, informant="10.0.0.9")
    clock.now += 5
    passed = roster.others("10.0.0.1", [ID])
    assert len(passed) == 64
    assert {age for _, age in passed} == {5.0}
    feeders = sorted((at(n) for n in range(1, 200, 4)), key=lambda each: hash_of(ID, str(each)))
    assert [address for address, _ in passed[:50]] == feeders
    assert all(address != at(900) for address, _ in passed)


def test_two_nodes_that_know_the_same_pass_on_the_same_feeders(clock: Clock) -> None:
    one, two = Roster(DEFAULT, clock), Roster(DEFAULT, clock)
    for number in range(300):
        announce(one, number, WANT)
        announce(two, 299 - number, WANT)
    assert one.others("10.1.0.1", [ID]) == two.others("10.1.0.1", [ID])


def test_the_asker_is_not_told_of_itself(roster: Roster) -> None:
    announce(roster, 1, WANT)
    announce(roster, 2, WANT)
    assert [address for address, _ in roster.others(at(1).host, [ID], 8420)] == [at(2)]


def test_changes_are_told_once(roster: Roster) -> None:
    changes: list[int] = []
    roster.on_change = lambda: changes.append(roster.count)
    announce(roster, 1, WANT)
    before = len(changes)
    announce(roster, 1, WANT)
    assert len(changes) == before
    announce(roster, 1)
    assert len(changes) == before + 1
