"""The cap on the rate: average kept, bursts small, whoever books."""

from __future__ import annotations

import pytest

from diachunk.transfer.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("piece", [1, 999, 250_000, 4_000_000])
def test_who_waits_as_told_keeps_the_rate(piece: int) -> None:
    clock = Clock()
    throttle = Throttle(1_000_000, clock)
    for _ in range(50):
        clock.now += throttle.book(piece)
    assert clock.now - 100.0 == pytest.approx(50 * piece / 1e6, abs=0.26)


def test_after_a_pause_at_most_a_quarter_of_a_second_comes_at_once() -> None:
    clock = Clock()
    throttle = Throttle(1_000_000, clock)
    clock.now += 3600
    assert throttle.book(250_000) == 0.0
    assert throttle.book(100_000) == pytest.approx(0.1)


def test_lanes_share_one_cap() -> None:
    clock = Clock()
    throttle = Throttle(1_000_000, clock)
    assert [round(throttle.book(1_000_000), 6) for _ in range(3)] == [1.0, 2.0, 3.0]
