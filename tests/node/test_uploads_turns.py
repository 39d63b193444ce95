"""P17 on a clock of the test's own: whose turn it is, and how much at once."""

from __future__ import annotations

import pytest

from diachunk.limits import KiB, MiB
from diachunk.node.serving.turns import WAITING_MAX, WAITING_PER_ADDRESS_MAX, Bucket, Stage, Turn, Turns


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asked(turns: Turns, address: str) -> Turn:
    turn = turns.ask(address)
    if turn is None:
        raise AssertionError(f"{address} was refused")
    turns.grant()
    return turn


def test_slots_are_given_until_there_are_no_more(clock: Clock) -> None:
    turns = Turns(2, clock)
    first, second, third = (asked(turns, f"10.0.0.{number}") for number in range(3))
    assert [each.stage for each in (first, second, third)] == [Stage.ACTIVE, Stage.ACTIVE, Stage.WAITING]
    turns.end(first)
    assert turns.grant() == [third]
    assert (turns.active, turns.waiting) == (2, 0)


def test_who_got_least_lately_is_next_whoever_asked_first(clock: Clock) -> None:
    turns = Turns(1, clock)
    running = asked(turns, "10.0.0.1")
    turns.sent(running, 64 * MiB)
    greedy, modest = asked(turns, "10.0.0.1"), asked(turns, "10.0.0.2")
    turns.end(running)
    assert turns.grant() == [modest]
    turns.end(modest)
    assert turns.grant() == [greedy]


def test_what_was_got_long_ago_does_not_count(clock: Clock) -> None:
    turns = Turns(1, clock)
    running = asked(turns, "10.0.0.1")
    turns.sent(running, 64 * MiB)
    clock.now += 600.0
    first, second = asked(turns, "10.0.0.1"), asked(turns, "10.0.0.2")
    turns.sent(running, 0)
    turns.end(running)
    assert turns.grant()[0] in (first, second)
    assert turns.lately("10.0.0.1") < 1 * MiB


def test_one_address_does_not_take_all_slots_of_a_moment(clock: Clock) -> None:
    turns = Turns(2, clock)
    for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        turns.ask(address)
    assert sorted(each.address for each in turns.grant()) == ["10.0.0.1", "10.0.0.2"]


def test_too_many_of_one_address_are_refused_and_too_many_in_all(clock: Clock) -> None:
    turns = Turns(1, clock)
    asked(turns, "10.0.0.1")
    for _ in range(WAITING_PER_ADDRESS_MAX):
        asked(turns, "10.0.0.1")
    assert turns.ask("10.0.0.1") is None
    for number in range(WAITING_MAX - WAITING_PER_ADDRESS_MAX):
        asked(turns, f"10.1.{number // 250}.{number % 250}")
    assert turns.ask("10.2.0.1") is None
    assert turns.waiting == WAITING_MAX


def test_who_does_not_read_gives_the_slot_away_and_comes_back_behind_the_others(clock: Clock) -> None:
    turns = Turns(1, clock)
    still = asked(turns, "10.0.0.1")
    turns.sent(still, 1 * MiB)
    other = asked(turns, "10.0.0.2")
    turns.park(still)
    assert turns.grant() == [other]
    assert (turns.active, turns.parked) == (1, 1)
    turns.rejoin(still)
    assert turns.grant() == []
    turns.end(other)
    assert turns.grant() == [still]
    turns.end(still)
    assert (turns.active, turns.parked, turns.waiting) == (0, 0, 0)


def test_a_turn_is_never_up_while_nobody_waits_and_short_while_many_do(clock: Clock) -> None:
    turns = Turns(1, clock)
    running = asked(turns, "10.0.0.1")
    turns.sent(running, 512 * MiB)
    assert not turns.is_up(running)
    asked(turns, "10.0.0.2")
    assert turns.is_up(running)
    running.sent_bytes = 1 * MiB
    assert not turns.is_up(running)
    for number in range(100):
        asked(turns, f"10.1.0.{number}")
    assert turns.is_up(running)


def test_two_hundred_readers_get_alike(clock: Clock) -> None:
    turns = Turns(4, clock)
    running = [asked(turns, f"10.0.0.{number}") for number in range(200)]
    got = dict.fromkeys(running, 0)
    for _ in range(20_000):
        clock.now += 0.0005
        for turn in [each for each in running if each.stage is Stage.ACTIVE]:
            turns.sent(turn, 64 * KiB)
            got[turn] += 64 * KiB
            if turns.is_up(turn):
                turns.rejoin(turn)
        turns.grant()
    assert max(got.values()) <= 1.2 * min(got.values())


def test_addresses_are_forgotten_so_that_memory_stays_bounded(clock: Clock) -> None:
    turns = Turns(1, clock)
    for number in range(20_000):
        clock.now += 0.001
        turns.end(asked(turns, f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}"))
    assert len(turns.rates()) <= 4096
    assert len(turns._lately) <= 4096


def test_a_cap_holds_over_all_that_take_from_it(clock: Clock) -> None:
    bucket, sent = Bucket(1 * MiB, clock), 0
    started_at = clock.now
    while clock.now < started_at + 30:
        clock.now += bucket.take(64 * KiB) + 0.001
        sent += 64 * KiB
    assert 0.9 * 30 * MiB <= sent <= 30 * MiB + MiB // 4 + 64 * KiB


def test_what_was_not_used_is_not_saved_up(clock: Clock) -> None:
    bucket = Bucket(1 * MiB, clock)
    clock.now += 3600.0
    waited = sum(bucket.take(64 * KiB) > 0 for _ in range(16))
    assert waited >= 11
