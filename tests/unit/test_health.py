"""One source's books: backoff, parking, Retry-After, concurrency."""

from __future__ import annotations

import pytest

from diachunk.limits import DEFAULT, MiB
from diachunk.schedule.health import Concurrency, Fault, Health, Tier


class Fixed:
    """An rng that always says the same."""

    def __init__(self, value: float = 0.999999) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def make(tier: Tier = Tier.NETWORK) -> Health:
    return Health("a", tier, DEFAULT, Concurrency(2, 8))


def waits(count: int, rng: Fixed, retry_after_s: float = 0.0) -> list[float]:
    """How long each of so many faults, one after the other, keeps the source waiting."""
    health, now, found = make(), 0.0, []
    for _ in range(count):
        health.failed(Fault.FAILED, "", now, now, rng, retry_after_s)
        found.append(round(health.resume_at - now, 1))
        now = health.resume_at
    return found


def test_backoff_doubles_then_parks() -> None:
    assert waits(7, Fixed()) == [0.5, 1.0, 2.0, 4.0, 30.0, 30.0, 30.0]


def test_backoff_has_full_jitter() -> None:
    assert waits(4, Fixed(0.0)) == [0.0, 0.0, 0.0, 0.0]
    assert waits(4, Fixed(0.5)) == [0.2, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(("asked_s", "waits_s"), [(0.1, 0.5), (40.0, 40.0), (119.0, 119.0), (1e9, 120.0)])
def test_retry_after_only_lengthens_and_is_capped(asked_s: float, waits_s: float) -> None:
    assert waits(1, Fixed(), asked_s) == [waits_s]


def test_while_no_other_is_left_a_parked_source_may_be_retried_sooner() -> None:
    health = make()
    for now in range(50, 60):
        health.failed(Fault.FAILED, "", float(now), float(now), Fixed())
    assert health.parked
    assert health.resume_at == 59 + DEFAULT.park_s
    assert health.retry_at == pytest.approx(59 + DEFAULT.patience_s / 6, abs=0.01)


def test_after_a_fault_one_probe_at_a_time_until_it_succeeds() -> None:
    health = make()
    health.in_flight = 1
    assert health.ready(0.0)
    health.failed(Fault.STALLED, "", 0.0, 1.0, Fixed())
    assert not health.ready(100.0)
    health.in_flight = 0
    assert not health.ready(1.4)
    assert health.ready(1.5)
    health.in_flight = 1
    health.succeeded(1 * MiB, 1.5, 2.0)
    assert health.ready(2.0)
    assert health.faults_in_a_row == 0
    assert health.faults == 1


def test_requests_that_were_under_way_together_and_fail_together_are_one_fault_in_a_row() -> None:
    health = make()
    for _ in range(8):
        health.failed(Fault.FAILED, "reset", 0.0, 1.0, Fixed())
    assert (health.faults, health.faults_in_a_row, health.parked) == (8, 1, False)
    assert health.resume_at == pytest.approx(1.5, abs=0.01)
    health.failed(Fault.FAILED, "reset", 2.0, 2.0, Fixed())
    assert health.faults_in_a_row == 2


def test_a_success_of_a_request_made_before_the_fault_does_not_end_the_waiting() -> None:
    health = make()
    health.failed(Fault.BUSY, "", 0.0, 1.0, Fixed(), retry_after_s=20.0)
    health.succeeded(1, 0.5, 1.5)
    assert not health.ready(20.9)
    assert health.ready(21.0)


def test_a_success_of_a_request_made_after_the_fault_ends_a_park() -> None:
    health = make()
    for now in range(6):
        health.failed(Fault.FAILED, "", float(now), float(now), Fixed())
    health.succeeded(1, 6.0, 7.0)
    assert health.ready(7.0)


def test_usable_means_without_a_fault_or_flowing_now() -> None:
    health = make()
    assert health.usable(0.0)
    health.failed(Fault.FAILED, "", 0.0, 0.0, Fixed())
    assert not health.usable(1.0)
    health.in_flight, health.last_byte_at = 1, 5.0
    assert health.usable(14.9)
    assert not health.usable(15.0)
    health.in_flight = 0
    assert not health.usable(5.0)


def test_three_bad_chunks_put_a_network_source_out_for_good() -> None:
    health = make()
    outs = []
    for detail in ("one", "two", "three"):
        health.lied(detail)
        outs.append(health.out)
    assert outs == ["", "", "three; wrong 3 times"]
    assert not health.ready(1e9)
    assert not health.usable(1e9)


def test_wrong_local_bytes_put_no_local_source_out() -> None:
    health = make(Tier.LOCAL)
    for _ in range(100):
        health.lied("stale")
    assert not health.out


def test_the_rate_follows_recent_requests() -> None:
    health = make()
    health.succeeded(10 * MiB, 0.0, 1.0)
    assert health.request_bps == 10 * MiB
    for start in range(1, 30):
        health.succeeded(1 * MiB, float(start), start + 1.0)
    assert health.request_bps == pytest.approx(1 * MiB, rel=0.01)
    health.succeeded(1 * MiB, 50.0, 50.0)
    assert health.request_bps < float("inf"), "an instant request is no infinite rate"


def settle(concurrency: Concurrency, rate_of: list[float], requests: int = 400) -> Concurrency:
    """Ends requests of 1 MiB at the limit; rate_of[n] is the goodput of n at once, in bytes a second."""
    now = 0.0
    for _ in range(requests):
        limit = concurrency.limit
        now += MiB / rate_of[limit]
        concurrency.finished(MiB, limit * MiB / rate_of[limit], limit, now)
    return concurrency


def test_concurrency_grows_as_long_as_goodput_does() -> None:
    assert settle(Concurrency(2, 8), [n * 10.0 * MiB for n in range(9)]).limit == 8


def test_concurrency_stays_where_more_brings_no_more() -> None:
    goodput = [10.0 * MiB * min(n, 4) for n in range(9)]
    assert settle(Concurrency(2, 8), goodput).limit in (4, 5)


def test_concurrency_leaves_what_makes_goodput_collapse() -> None:
    goodput = [10.0 * MiB * (n if n <= 3 else 0.5) for n in range(9)]
    assert settle(Concurrency(2, 8), goodput).limit in (3, 4)


def test_concurrency_does_not_drift_down_on_a_steady_line() -> None:
    assert settle(Concurrency(2, 8), [20.0 * MiB] * 9, 3000).limit in (2, 3)
    assert settle(Concurrency(4, 4), [20.0 * MiB] * 9, 3000).limit == 4


def test_a_request_while_fewer_are_under_way_says_nothing() -> None:
    concurrency = Concurrency(4, 8)
    for step in range(100):
        concurrency.finished(100 * MiB, 1.0, 3, float(step))
    assert concurrency.limit == 4


def test_busy_halves_down_to_one() -> None:
    concurrency = Concurrency(7, 8)
    seen = []
    for _ in range(4):
        concurrency.busy()
        seen.append(concurrency.limit)
    assert seen == [3, 1, 1, 1]
