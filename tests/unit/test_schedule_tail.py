"""The tail of a transfer: bounded duplicates; local sources first; origins without ranges."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from diachunk.limits import CHUNK_BYTES, DEFAULT, KiB, MiB
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.schedule import Schedule
from schedule_bench import Bench
from schedule_world import GOOD, SILENT, Answer, Request, Sim, chunks_of_4_mib, work_of


def stuck(number: int) -> Sim:
    """Good until a moment before the end, then silent."""
    return Sim(
        f"stuck{number}", script=lambda request: SILENT if request.started_at > 0.5 else GOOD, at_once=2
    )


def asked(step: object) -> Claim:
    assert isinstance(step, Claim)
    return step


# --- hedging: that it waits until nothing is unassigned and keeps to its budget is checked by the bench -----


def test_the_last_chunk_does_not_wait_for_a_slow_source() -> None:
    bench = Bench(chunks_of_4_mib(30), [Sim("slow", 0.5 * MiB), Sim("a"), Sim("b")]).run()
    assert len(bench.hedges) == 2
    assert bench.now < 1.5, "8 s each at the slow source"


def test_the_last_chunk_does_not_wait_for_a_stall() -> None:
    bench = Bench(chunks_of_4_mib(60), [stuck(0), Sim("a"), Sim("b")]).run()
    assert bench.hedges
    assert bench.now < DEFAULT.stall_s / 2


def test_the_loser_of_a_hedge_is_cancelled_and_its_bytes_are_counted_as_wasted() -> None:
    bench = Bench(chunks_of_4_mib(30), [Sim("slow", 0.5 * MiB), Sim("a"), Sim("b")]).run()
    losers = [each for each in bench.of("slow") if each.ended is Fault.CANCELLED]
    assert len(losers) == 2
    assert {item for each in losers for item in each.items} == {
        item for each in bench.hedges for item in each.items
    }
    assert bench.health("slow").wasted_bytes == bench.wasted_bytes > 0
    assert bench.health("slow").faults == 0, "losing is no fault"


@pytest.mark.parametrize(("chunks", "hedges"), [(40, 2), (400, 8)])
def test_duplicates_are_at_most_two_percent_or_two_chunks(chunks: int, hedges: int) -> None:
    sims = [*(stuck(number) for number in range(9)), Sim("a", 300 * MiB)]
    bench = Bench(chunks_of_4_mib(chunks), sims, limits=replace(DEFAULT, lanes=24)).run()
    assert bench.why == ""
    assert len(bench.hedges) <= hedges
    assert bench.schedule.hedged_bytes <= max(0.02 * bench.work.total_bytes, 2 * CHUNK_BYTES)


def test_a_single_source_is_not_hedged_for_being_slow() -> None:
    bench = Bench(chunks_of_4_mib(6), [Sim("a", 1 * MiB)]).run()
    assert not bench.hedges


def test_a_request_is_doubled_at_its_own_source_only_when_nothing_comes_any_more() -> None:
    clock = [0.0]
    schedule = Schedule(chunks_of_4_mib(2), DEFAULT, lambda: clock[0], random.Random(1))
    schedule.add("a", Tier.NETWORK)
    slow, quick = asked(schedule.claim()), asked(schedule.claim())
    clock[0] = 0.1
    schedule.received(slow, 1000, 0.1)
    schedule.received(quick, CHUNK_BYTES, 0.1)
    schedule.verified(quick, quick.run.first)
    schedule.finish(quick)
    for second in range(1, 5):
        clock[0] = float(second)
        schedule.received(slow, 1000, clock[0])
        assert not isinstance(schedule.claim(), Claim), "slow, but its line is what it is"
    clock[0] = 5.5
    assert asked(schedule.claim()).hedge


def test_a_hedge_that_fails_loses_nothing() -> None:
    def fails_as_hedge(request: Request) -> Answer:
        return Answer(Fault.FAILED) if request.claim.hedge else GOOD

    bench = Bench(chunks_of_4_mib(30), [Sim("slow", 2 * MiB), Sim("a", script=fails_as_hedge)]).run()
    assert bench.hedges
    assert bench.why == ""


def test_when_a_hedged_request_breaks_off_its_items_stay_with_the_hedge() -> None:
    clock = [0.0]
    schedule = Schedule(chunks_of_4_mib(2), replace(DEFAULT, lanes=4), lambda: clock[0], random.Random(1))
    for label in ("a", "b"):
        schedule.add(label, Tier.NETWORK, at_once=1)
    slow, quick = asked(schedule.claim()), asked(schedule.claim())
    clock[0] = 0.1
    schedule.received(quick, CHUNK_BYTES, 0.1)
    assert schedule.verified(quick, quick.run.first)
    schedule.finish(quick)
    clock[0] = 2.0
    hedge = asked(schedule.claim())
    assert hedge.hedge
    assert hedge.run.items == slow.run.items
    schedule.finish(slow, Fault.FAILED)
    assert not isinstance(schedule.claim(), Claim), "the hedge is still on its way"
    schedule.finish(hedge, Fault.FAILED)
    clock[0] = 10.0
    assert asked(schedule.claim()).run.items == slow.run.items


# --- local sources -----------------------------------------------------------------------------------------


def local(has: frozenset[int], *, name: str = "local", **more: object) -> Sim:
    sim = Sim(name, 2000 * MiB, 0.0, tier=Tier.LOCAL, has=has, at_once=2)
    for key, value in more.items():
        setattr(sim, key, value)
    return sim


def test_what_is_local_crosses_no_network() -> None:
    bench = Bench(chunks_of_4_mib(40), [Sim("a"), local(frozenset(range(10, 30)))]).run()
    assert {bench.first_copies[item].source for item in range(10, 30)} == {"local"}
    assert bench.brought_bytes("a") == 20 * CHUNK_BYTES
    assert bench.requests[0].source == "local", "asked first"
    assert bench.requests[2].source == "a", "while the others fetch the rest already"


@pytest.mark.parametrize("fault", [Fault.MISSING, Fault.FAILED])
def test_what_a_local_source_cannot_give_is_fetched(fault: Fault) -> None:
    broken = local(frozenset(range(20)), script=lambda request: Answer(fault))
    bench = Bench(chunks_of_4_mib(40), [Sim("a"), broken]).run()
    assert bench.why == ""
    assert bench.brought_bytes("a") == bench.work.total_bytes
    assert len(bench.of("local")) == 20, "each was tried once"


def test_a_stale_local_claim_is_fetched_and_does_not_put_the_source_out() -> None:
    wrong = frozenset(range(0, 40, 2))
    claims = local(frozenset(range(40)), script=lambda request: Answer(bad=wrong))
    bench = Bench(chunks_of_4_mib(40), [claims, Sim("a")]).run()
    assert bench.why == ""
    assert {each for each in range(40) if bench.first_copies[each].source == "a"} == wrong
    assert bench.health("local").out == ""


def test_a_second_local_source_is_asked_before_the_network() -> None:
    first = local(frozenset({0, 1}), script=lambda request: Answer(bad=frozenset({0})))
    bench = Bench(chunks_of_4_mib(3), [first, local(frozenset({0}), name="donor"), Sim("a")]).run()
    assert bench.first_copies[0].source == "donor"


def test_without_a_network_what_local_files_lack_is_named_missing_at_once() -> None:
    bench = Bench(chunks_of_4_mib(5), [local(frozenset({0, 1, 4}))]).run()
    assert bench.why == "no source has what is left"
    assert list(bench.schedule.missing()) == [2, 3]
    assert bench.now < 0.1


# --- origins without ranges --------------------------------------------------------------------------------


def test_an_origin_without_ranges_is_read_once_a_file() -> None:
    bench = Bench(work_of([CHUNK_BYTES] * 9 + [5], [7 * KiB] * 9), [Sim("a", ranges=False)]).run()
    assert bench.why == ""
    assert [(each.claim.run.blob.path, each.ended) for each in bench.requests if each.claim.stream] == [
        ("f0", None),
        ("f1", None),
    ]
    assert bench.health("a").faults == 0


def test_a_stream_keeps_only_what_nobody_else_brought() -> None:
    bench = Bench(chunks_of_4_mib(60), [Sim("whole", 50 * MiB, ranges=False), Sim("a", 50 * MiB)]).run()
    assert bench.why == ""
    shares = [bench.brought_bytes(name) for name in ("whole", "a")]
    assert sum(shares) == bench.work.total_bytes
    assert min(shares) > 0


def test_a_stream_that_breaks_is_read_again_at_most_three_times() -> None:
    def script(request: Request) -> Answer:
        return Answer(Fault.FAILED, after_bytes=5 * CHUNK_BYTES + 7)

    bench = Bench(chunks_of_4_mib(20), [Sim("a", ranges=False, script=script)]).run()
    assert bench.why == "no source has what is left"
    assert len([each for each in bench.requests if each.claim.stream]) == 3
    assert sorted(bench.first_copies) == [0, 1, 2, 3, 4]


def test_bad_bytes_in_a_stream_are_not_taken_from_it_again() -> None:
    def script(request: Request) -> Answer:
        return Answer(bad=frozenset({3}))

    bench = Bench(chunks_of_4_mib(8), [Sim("a", ranges=False, script=script)]).run()
    assert list(bench.schedule.missing()) == [3]
    assert bench.health("a").bad_chunks == 1
