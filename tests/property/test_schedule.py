"""Whatever the work, the sources and their faults: the schedule ends in time and loses nothing.

The rules of every single step (nothing asked twice at once, no bad (source, chunk) again, runs in one blob,
hedges only at the tail and within budget, nothing given up that somebody could still bring) are the bench's.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from diachunk.limits import CHUNK_BYTES, DEFAULT, KiB, MiB
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import WorkList
from schedule_bench import Bench
from schedule_world import GOOD, SILENT, Answer, Request, Script, Sim, blob_facts

SIZES = st.sampled_from([1, 1000, 300 * KiB, 1 * MiB, 3 * MiB, CHUNK_BYTES - 1, CHUNK_BYTES])
FILES = st.lists(
    st.lists(st.tuples(SIZES, st.integers(0, 30)), min_size=1, max_size=25), min_size=1, max_size=4
)
LOCAL_FAULTS = [Fault.MISSING, Fault.FAILED]
FAULTS = [Fault.MISSING, Fault.DENIED, Fault.BUSY, Fault.FAILED, Fault.GARBLED, Fault.NO_RANGES]


@st.composite
def works(draw: st.DrawFn) -> WorkList:
    """Files with chunks in common; some chunks were verified before."""
    blobs = []
    for number, chunks in enumerate(draw(FILES)):
        keys = [f"{size}-{key}" for size, key in chunks]
        blobs.append(blob_facts(f"f{number}", [size for size, _ in chunks], keys))
    return WorkList(blobs)


def script_of(seed: int, badness: float, kinds: list[Fault], until_s: float) -> Script:
    """Each request goes wrong with probability `badness`, in a way that its number decides, until a time."""

    def script(request: Request) -> Answer:
        rng = random.Random(seed * 1_000_003 + request.number)
        if request.started_at > until_s or rng.random() >= badness:
            return GOOD
        after_bytes = rng.choice([0, 1, 2 * MiB, 10**12])
        match rng.randrange(3):
            case 0:
                return Answer(bad=frozenset(each for each in request.items if rng.random() < 0.5))
            case 1:
                return replace(SILENT, after_bytes=after_bytes)
        return Answer(rng.choice(kinds), after_bytes, retry_after_s=rng.choice([0.0, 0.0, 7.0, 1e9]))

    return script


@st.composite
def sources(draw: st.DrawFn, count: int) -> list[Sim]:
    sims = []
    for number in range(draw(st.integers(0, 5))):
        local = draw(st.integers(0, 3)) == 0
        kinds = LOCAL_FAULTS if local else FAULTS
        some = frozenset(draw(st.sets(st.integers(0, count - 1))))
        sims.append(
            Sim(
                f"s{number}",
                draw(st.sampled_from([0.2, 5.0, 100.0])) * MiB,
                draw(st.sampled_from([0.0, 0.01, 0.3])),
                script_of(
                    draw(st.integers(0, 10**6)),
                    draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
                    draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)),
                    draw(st.sampled_from([2.0, 60.0, 1e9])),
                ),
                Tier.LOCAL if local else Tier.NETWORK,
                some if local or draw(st.booleans()) else None,
                local or draw(st.integers(0, 4)) > 0,
                at_once=draw(st.sampled_from([None, 1, 4])),
            )
        )
    return sims


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_it_always_ends_and_loses_nothing(data: st.DataObject) -> None:
    work = data.draw(works())
    sims = data.draw(sources(len(work)))
    done = data.draw(st.sets(st.integers(0, len(work) - 1)))
    limits = replace(DEFAULT, lanes=data.draw(st.integers(1, 12)))
    bench = Bench(work, sims, limits=limits, seed=data.draw(st.integers(0, 99)), done=sorted(done)).run()
    missing = set(bench.schedule.missing())
    assert done.isdisjoint(missing)
    assert set(bench.first_copies) | done | missing == set(range(len(work)))
    assert len(bench.first_copies) + len(done) + len(missing) == len(work)
    network = [each for each in bench.schedule.healths() if each.tier is Tier.NETWORK]
    brought = sum(each.verified_bytes for each in bench.schedule.healths())
    assert brought == sum(work.size(item) for item in bench.first_copies)
    assert sum(each.wasted_bytes for each in network) == bench.wasted_bytes
    event(bench.why or "complete")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_beside_one_good_source_no_crowd_can_make_it_fail_or_keep_it_for_ever(data: st.DataObject) -> None:
    work = data.draw(works())
    good = Sim("good", 50 * MiB)
    sims = [*data.draw(sources(len(work))), good]
    bench = Bench(work, sims).run()
    assert bench.why == ""
    alone = Bench(work, [good]).run().now
    stalls = 2 * DEFAULT.stall_s * len(sims)
    slow_streams = sum(4.0 + facts.size / (0.2 * MiB) for facts in work.blobs)
    assert bench.now <= alone + stalls + slow_streams
