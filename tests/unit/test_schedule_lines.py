"""Lines of 20, 50 and 100 Mbit/s on a virtual clock: what is asked of real ones in test_shaped_lines, exactly."""

from __future__ import annotations

from statistics import mean

import pytest

from diachunk.limits import MiB
from schedule_bench import Bench
from schedule_world import Sim, work_of

MBIT = 1_000_000 / 8
THREE_BPS = (20 * MBIT, 50 * MBIT, 100 * MBIT)
SIZES = range(100_000_000, 200_000_000, 9_000_000)


def fetched(total_bytes: int, chunk_bytes: int, *rates_bps: float) -> Bench:
    whole, rest = divmod(total_bytes, chunk_bytes)
    work = work_of([chunk_bytes] * whole + ([rest] if rest else []))
    bench = Bench(work, [Sim(str(number), bps, 0.002) for number, bps in enumerate(rates_bps)]).run()
    assert bench.why == ""
    return bench


@pytest.mark.parametrize("chunk_bytes", [MiB // 2, 1 * MiB])
def test_lines_add_up_to_the_end(chunk_bytes: int) -> None:
    for total_bytes in SIZES:
        bench = fetched(total_bytes, chunk_bytes, *THREE_BPS)
        assert total_bytes / bench.now >= 0.97 * sum(THREE_BPS), total_bytes


def test_with_the_largest_chunks_a_line_is_idle_for_less_than_its_chunk() -> None:
    """A line that cannot bring another whole chunk before the end must stop: 96% is what that leaves."""
    shares = [size / fetched(size, 4 * MiB, *THREE_BPS).now / sum(THREE_BPS) for size in SIZES]
    assert mean(shares) >= 0.95
    assert min(shares) >= 0.90


def test_a_line_at_a_hundredth_of_the_others_costs_nothing() -> None:
    for total_bytes in SIZES:
        without = fetched(total_bytes, 4 * MiB, 100 * MBIT, 100 * MBIT)
        crawling = fetched(total_bytes, 4 * MiB, 1 * MBIT, 100 * MBIT, 100 * MBIT)
        # the two first requests there are duplicated at the end, when the others are idle
        assert crawling.now <= without.now + 4 * MiB / (100 * MBIT), total_bytes
