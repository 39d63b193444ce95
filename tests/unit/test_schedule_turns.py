"""Which peer is asked next, kept in order as peers change; and what all of them bring, kept up likewise."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from diachunk.bitmap import Bitmap
from diachunk.limits import DEFAULT
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Concurrency, Fault, Health, Tier
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.turns import Turns
from schedule_world import chunks_of_4_mib

_PEERS = 12


def _health() -> Health:
    return Health("peer", Tier.NETWORK, DEFAULT, Concurrency(2, 2), peer=True)


def test_the_order_is_what_sorting_would_give_after_any_changes() -> None:
    rng = random.Random(3)
    turns, healths = Turns(rng), [_health() for _ in range(_PEERS)]
    for number, health in enumerate(healths):
        turns.place(number, health)
    for _ in range(500):
        number = rng.randrange(_PEERS)
        healths[number].in_flight = rng.randrange(3)
        healths[number].request_bps = rng.choice([0.0, 1e6, 5e6, rng.random() * 1e7])
        turns.place(number, healths[number])
        order = [(healths[each].in_flight, -(healths[each].request_bps or float("inf"))) for each in turns]
        assert len(order) == _PEERS
        assert order == sorted(order)


def test_among_equals_each_is_the_first_about_as_often() -> None:
    firsts: Counter[int] = Counter()
    for seed in range(600):
        turns = Turns(random.Random(seed))
        for number in range(6):
            turns.place(number, _health())
        firsts[next(iter(turns))] += 1
    assert len(firsts) == 6
    assert max(firsts.values()) < 2 * min(firsts.values())


def _peers(items: int, count: int, seed: int = 1) -> tuple[Schedule, list[float]]:
    """A schedule beside peers that hold everything, and its clock."""
    now = [0.0]
    schedule = Schedule(chunks_of_4_mib(items), DEFAULT, lambda: now[0], random.Random(seed))
    for number in range(count):
        schedule.add_peer(f"10.0.0.{number}:8420", Bitmap.full(items))
    return schedule, now


def _claim(schedule: Schedule) -> Claim:
    claim = schedule.claim()
    assert isinstance(claim, Claim)
    return claim


def _arrives(schedule: Schedule, claim: Claim, now: list[float]) -> None:
    schedule.received(claim, claim.size, now[0])
    for item in claim.run.items:
        schedule.verified(claim, item)
    schedule.finish(claim)


def test_the_idle_are_asked_before_the_busy_and_of_the_idle_the_fastest() -> None:
    schedule, now = _peers(400, 3)
    claims = [_claim(schedule) for _ in range(3)]
    assert {each.source for each in claims} == {0, 1, 2}
    for claim in claims:  # one a second: the first is the fastest
        now[0] += 1.0
        _arrives(schedule, claim, now)
    fastest_first = [each.source for each in claims]
    again = [_claim(schedule) for _ in range(6)]
    assert [each.source for each in again] == fastest_first * 2
    now[0] += 1.0
    _arrives(schedule, again[2], now)
    assert _claim(schedule).source == again[2].source


def test_a_peer_without_anything_more_is_passed_over_until_it_gains_something() -> None:
    schedule, now = _peers(40, 1)
    number = schedule.add_peer("10.0.0.9:8420", Bitmap(40, [7]))
    while (claim := _claim(schedule)).source != number:
        _arrives(schedule, claim, now)
        now[0] += 0.1
    assert claim.run.first == 7
    _arrives(schedule, claim, now)
    taken = [_claim(schedule) for _ in range(2)]
    assert {each.source for each in taken} == {0}
    free = next(item for item in range(40) if not schedule.is_done(item) and item != taken[0].run.first)
    schedule.peer_gains(number, [free])
    schedule.finish(taken[0], Fault.CANCELLED)
    schedule.finish(taken[1], Fault.CANCELLED)
    assert number in {_claim(schedule).source for _ in range(3)}


@pytest.mark.parametrize("seed", range(3))
def test_what_all_bring_is_the_sum_of_what_each_does(seed: int) -> None:
    rng = random.Random(seed)
    schedule, now = _peers(400, _PEERS, seed)
    under_way: list[Claim] = []
    for _ in range(300):
        now[0] += rng.random()
        if under_way and rng.random() < 0.6:
            claim = under_way.pop(rng.randrange(len(under_way)))
            if rng.random() < 0.2:
                schedule.finish(claim, Fault.STALLED, "simulated")
            else:
                _arrives(schedule, claim, now)
        elif isinstance(step := schedule.claim(), Claim):
            under_way.append(step)
    healths = list(schedule.healths())
    assert schedule._rates.total_bps == pytest.approx(sum(each.goodput_bps for each in healths))
    assert schedule._rates.sources == sum(each.goodput_bps > 0 for each in healths) > 1
