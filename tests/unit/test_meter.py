"""The meter: what limits a transfer, and who brings how much."""

from __future__ import annotations

import pytest

from diachunk.limits import DEFAULT
from diachunk.schedule.health import Concurrency, Health, Tier
from diachunk.transfer.meter import Meter, Spent


def source(label: str, tier: Tier = Tier.NETWORK) -> Health:
    return Health(label, tier, DEFAULT, Concurrency(2, 8))


def test_nothing_measured_says_nothing() -> None:
    meter = Meter()
    meter.sample(0.0, 0, [])
    assert (meter.rate_bps, meter.source_rates_bps(), meter.limited_by()) == (0.0, {}, (Spent.NETWORK, ""))


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        (Spent.HASHING, "hashing"),
        (Spent.WRITING, "disk"),
        (Spent.READING, "reading the disk"),
        (Spent.CAP, "the cap"),
    ],
)
def test_what_took_most_of_the_lanes_time_limits(spent: Spent, words: str) -> None:
    meter = Meter()
    meter.sample(0.0, 0, [])
    for each in Spent:
        meter.add(each, 2.0 if each is spent else 1.0)
    meter.sample(1.0, 10, [])
    assert meter.limited_by() == (spent, words)


def test_the_network_is_named_by_the_source_that_gives_most() -> None:
    meter, slow, fast, disk = Meter(), source("slow"), source("fast"), source("disk", Tier.LOCAL)
    meter.sample(0.0, 0, [slow, fast, disk])
    meter.add(Spent.NETWORK, 1.0)
    slow.received_bytes, disk.received_bytes = 10, 1000
    meter.sample(1.0, 10, [slow, fast, disk])
    assert meter.limited_by() == (Spent.NETWORK, "slow")
    fast.received_bytes = 50
    meter.sample(2.0, 60, [slow, fast, disk])
    assert meter.limited_by() == (Spent.NETWORK, "fast and 1 more")
    assert meter.source_rates_bps() == {"slow": 5.0, "fast": 25.0}


def test_rates_are_of_the_last_seconds_only() -> None:
    meter = Meter()
    for tick in range(400):
        now = tick / 4
        meter.sample(now, int(now * 100) if now < 50 else 5000 + int((now - 50) * 7), [])
    assert meter.rate_bps == pytest.approx(7, rel=0.1)


def test_a_source_that_came_later_counts_from_zero() -> None:
    meter, late = Meter(), source("late")
    meter.sample(0.0, 0, [])
    late.received_bytes = 8
    meter.sample(2.0, 8, [late])
    assert meter.source_rates_bps() == {"late": 4.0}
