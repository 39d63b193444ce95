"""The schedule in a simulated world: load follows speed, faults cost little, and it always ends in time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from diachunk.limits import CHUNK_BYTES, DEFAULT, KiB, MiB
from diachunk.schedule.health import Fault
from schedule_bench import Bench
from schedule_world import GOOD, SILENT, Answer, Request, Script, Sim, chunks_of_4_mib, work_of

PATIENCE_S = DEFAULT.patience_s


def always(fault: Fault, *, retry_after_s: float = 0.0) -> Script:
    return lambda request: Answer(fault, retry_after_s=retry_after_s)


def between(start_s: float, end_s: float, answer: Answer) -> Script:
    return lambda request: answer if start_s <= request.started_at < end_s else GOOD


def lies(request: Request) -> Answer:
    return Answer(bad=frozenset(request.items))


# --- without faults ----------------------------------------------------------------------------------------


def test_without_faults_every_item_is_asked_for_and_brought_exactly_once() -> None:
    bench = Bench(work_of([CHUNK_BYTES] * 40, [1000] * 500, [300 * KiB, 5]), [Sim("a"), Sim("b")]).run()
    assert bench.why == ""
    asked = [item for each in bench.requests if not each.claim.hedge for item in each.items]
    assert sorted(asked) == list(range(542))
    assert bench.wasted_bytes == 0


def test_nothing_to_do_ends_at_once() -> None:
    bench = Bench(work_of([CHUNK_BYTES] * 3), [Sim("a")], done=[0, 1, 2]).run()
    assert (bench.why, bench.now, bench.requests) == ("", 0.0, [])


def test_what_is_done_is_not_asked_for() -> None:
    bench = Bench(chunks_of_4_mib(10), [Sim("a")], done=[0, 3, 9]).run()
    assert {item for each in bench.requests for item in each.items} == {1, 2, 4, 5, 6, 7, 8}


def test_load_follows_speed() -> None:
    sims = [Sim(str(rate), rate * MiB, latency_s=0.001) for rate in (20, 50, 100)]
    bench = Bench(chunks_of_4_mib(600), sims).run()
    assert bench.now < 1.05 * 2400 / 170
    for rate in (20, 50, 100):
        share = bench.brought_bytes(str(rate)) / bench.work.total_bytes
        assert share == pytest.approx(rate / 170, rel=0.1)


@pytest.mark.parametrize("count", [30, 300])
def test_a_source_at_one_percent_of_the_others_costs_nothing(count: int) -> None:
    fast = [Sim("a"), Sim("b")]
    alone = Bench(chunks_of_4_mib(count), fast).run().now
    with_slow = Bench(chunks_of_4_mib(count), [Sim("slow", 1 * MiB), *fast]).run().now
    one_chunk_s = CHUNK_BYTES / (50 * MiB) + 0.01
    assert with_slow <= alone + max(0.02 * alone, one_chunk_s) + 1e-6


def test_runs_are_adjacent_in_one_blob_and_at_most_one_buffer() -> None:
    sizes = [100 * KiB] * 100
    bench = Bench(work_of(sizes, sizes, [CHUNK_BYTES, 1, CHUNK_BYTES]), [Sim("a")], done=[20]).run()
    runs = [each.items for each in bench.requests]
    assert runs[:3] == [range(20), range(21, 61), range(61, 100)], "the rules of every run are the bench's"
    assert runs[-3:] == [range(200, 201), range(201, 202), range(202, 203)]


def test_concurrency_grows_while_goodput_grows() -> None:
    sim = Sim("a", 80 * MiB, request_bps=10 * MiB)
    bench = Bench(chunks_of_4_mib(400), [sim]).run()
    assert bench.health("a").concurrency.limit == 8
    assert bench.now < 1.25 * 1600 / 80


def test_concurrency_does_not_grow_for_nothing() -> None:
    bench = Bench(chunks_of_4_mib(400), [Sim("a", 20 * MiB, latency_s=0.001)]).run()
    assert bench.health("a").concurrency.limit <= 3
    assert bench.now < 1.02 * 1600 / 20


def test_concurrency_falls_when_the_source_is_busy_and_grows_back() -> None:
    limits_seen: list[int] = []

    def script(request: Request) -> Answer:
        limits_seen.append(bench.health("a").concurrency.limit)
        return Answer(Fault.BUSY) if 10 <= request.started_at < 10.5 else GOOD

    bench = Bench(chunks_of_4_mib(1500), [Sim("a", 80 * MiB, request_bps=10 * MiB, script=script)])
    bench.run()
    at_its_peak = limits_seen.index(8)
    assert min(limits_seen[at_its_peak:]) <= 4
    assert limits_seen[-1] == 8


# --- faults of a source ------------------------------------------------------------------------------------


def test_a_liar_is_out_after_three_bad_chunks_and_others_bring_them() -> None:
    bench = Bench(chunks_of_4_mib(60), [Sim("liar", script=lies), Sim("good")]).run()
    assert bench.why == ""
    assert bench.health("liar").bad_chunks >= 3
    assert "wrong bytes" in bench.health("liar").out
    assert len(bench.of("liar")) <= 4, "two were under way when the third came"
    assert bench.brought_bytes("good") == bench.work.total_bytes
    assert bench.health("liar").wasted_bytes == bench.wasted_bytes > 0


def test_one_bad_chunk_is_not_asked_for_again_there_and_costs_no_more() -> None:
    def script(request: Request) -> Answer:
        return Answer(bad=frozenset({7}))

    bench = Bench(work_of([100 * KiB] * 40), [Sim("a", script=script), Sim("b", 5 * MiB)]).run()
    assert bench.why == ""
    assert bench.first_copies[7].source == "b"
    assert bench.health("a").out == ""
    good = sum(size for name, size in ((s.name, bench.brought_bytes(s.name)) for s in bench.sims))
    assert sum(each.verified_bytes for each in bench.schedule.healths()) == good == bench.work.total_bytes


def test_something_else_in_place_of_the_file_counts_as_lying() -> None:
    bench = Bench(chunks_of_4_mib(20), [Sim("html", script=always(Fault.GARBLED))]).run()
    assert bench.why == "no source has what is left"
    assert bench.now < 1.0
    assert bench.health("html").out


def test_a_missing_file_is_asked_for_elsewhere_without_penalty() -> None:
    def script(request: Request) -> Answer:
        return Answer(Fault.MISSING) if request.claim.run.blob.path == "f0" else GOOD

    bench = Bench(
        work_of([CHUNK_BYTES] * 10, [CHUNK_BYTES] * 10), [Sim("half", script=script), Sim("all")]
    ).run()
    assert bench.why == ""
    assert {bench.first_copies[item].source for item in range(10)} == {"all"}
    health = bench.health("half")
    assert (health.faults, health.faults_in_a_row, health.missing_blobs) == (0, 0, {0})
    assert len([each for each in bench.of("half") if each.ended]) <= 2, "those under way at once"


def test_denied_twice_is_left_for_that_file_alone() -> None:
    def script(request: Request) -> Answer:
        return Answer(Fault.DENIED) if request.claim.run.blob.path == "f0" else GOOD

    limits = replace(DEFAULT, lanes=1)
    work = work_of([CHUNK_BYTES] * 4, [CHUNK_BYTES] * 4)
    bench = Bench(work, [Sim("a", script=script)], limits=limits).run()
    assert bench.why == "no source has what is left"
    assert len([each for each in bench.of("a") if each.ended is Fault.DENIED]) == 2
    assert set(bench.first_copies) == {4, 5, 6, 7}


def test_denied_once_as_when_a_link_expires_is_asked_again() -> None:
    def script(request: Request) -> Answer:
        return Answer(Fault.DENIED) if request.number == 3 else GOOD

    assert Bench(chunks_of_4_mib(9), [Sim("a", script=script)]).run().why == ""


def test_a_source_that_stalls_is_left_alone_and_rejoins() -> None:
    slow, fast = Sim("other", 10 * MiB), Sim("a", script=between(1.0, 8.0, SILENT))
    bench = Bench(chunks_of_4_mib(600), [fast, slow]).run()
    assert bench.why == ""
    stalled = [each for each in bench.of("a") if each.ended is Fault.STALLED]
    assert stalled
    assert all(each.ended_at - each.started_at == pytest.approx(10, abs=0.1) for each in stalled)
    back = [each for each in bench.of("a") if each.started_at > stalled[0].ended_at and not each.ended]
    assert back[0].started_at < stalled[0].ended_at + 1.0, "backoff is short at first"
    assert bench.brought_bytes("a") > bench.brought_bytes("other")


def test_a_source_that_keeps_failing_is_parked_and_tried_every_thirty_seconds() -> None:
    dead, good = Sim("dead", script=always(Fault.FAILED)), Sim("good", 10 * MiB)
    bench = Bench(chunks_of_4_mib(500), [dead, good]).run()
    assert bench.why == ""
    times = [each.started_at for each in bench.of("dead")][6:]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) >= 4
    assert all(30.0 <= gap < 31.0 for gap in gaps)


def test_connections_that_break_together_are_one_fault() -> None:
    sim = Sim("a", 80 * MiB, request_bps=10 * MiB, script=between(4.0, 5.0, Answer(Fault.FAILED, 2 * MiB)))
    bench = Bench(chunks_of_4_mib(400), [sim]).run()
    broken = [each for each in bench.requests if each.ended]
    assert len(broken) >= 4
    assert bench.now < 1.25 * 1600 / 80 + 3.0, "not parked for 30 s"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("away_s", [3.0, 10.0, 20.0])
def test_the_only_origin_is_found_again_when_it_comes_back(away_s: float, seed: int) -> None:
    sim = Sim("a", script=between(5.0, 5.0 + away_s, Answer(Fault.FAILED)))
    bench = Bench(chunks_of_4_mib(300), [sim], seed=seed).run()
    assert bench.why == ""
    undisturbed_s = Bench(chunks_of_4_mib(300), [Sim("a")]).run().now
    assert bench.now < undisturbed_s + away_s + 7.0


def test_retry_after_is_obeyed() -> None:
    def script(request: Request) -> Answer:
        return Answer(Fault.BUSY, retry_after_s=40.0) if request.number <= 2 else GOOD

    bench = Bench(chunks_of_4_mib(200), [Sim("a", script=script), Sim("b", 10 * MiB)]).run()
    assert 40.0 <= bench.of("a")[2].started_at < 41.0


def test_retry_after_is_obeyed_only_up_to_the_cap() -> None:
    def script(request: Request) -> Answer:
        return Answer(Fault.BUSY, retry_after_s=1e6) if request.number <= 2 else GOOD

    bench = Bench(chunks_of_4_mib(500), [Sim("a", script=script), Sim("b", 10 * MiB)]).run()
    assert 120.0 <= bench.of("a")[2].started_at < 121.0


def test_a_retry_after_is_not_cut_short_by_giving_up_last() -> None:
    sim = Sim("a", script=always(Fault.BUSY, retry_after_s=20.0))
    bench = Bench(chunks_of_4_mib(2), [sim]).run()
    assert [round(each.started_at) for each in bench.requests] == [0, 0, 20]
    assert bench.now >= PATIENCE_S


# --- a crowd -----------------------------------------------------------------------------------------------


def test_a_crowd_of_stalling_origins_is_tried_once_each_before_any_is_tried_twice() -> None:
    crowd = [Sim(f"dead{number}", script=lambda request: SILENT) for number in range(49)]
    bench = Bench(chunks_of_4_mib(300), [*crowd, Sim("good")]).run()
    alone = Bench(chunks_of_4_mib(300), [Sim("good")]).run().now
    first_bytes_s = bench.of("good")[0].started_at
    assert first_bytes_s <= 49 // DEFAULT.lanes * DEFAULT.stall_s + 0.1
    assert bench.now - first_bytes_s < 1.25 * alone + 2.0, "once it is known, the dead take few lanes"


def test_a_crowd_of_refusing_origins_costs_next_to_nothing() -> None:
    crowd = [Sim(f"dead{number}", script=always(Fault.FAILED)) for number in range(49)]
    bench = Bench(chunks_of_4_mib(300), [*crowd, Sim("good")]).run()
    assert bench.of("good")[0].started_at < 0.2
    assert bench.now < Bench(chunks_of_4_mib(300), [Sim("good")]).run().now + 1.0


@pytest.mark.parametrize("park_s", [0.3, 30.0])
@pytest.mark.parametrize("dead", [1, 4, 12])
def test_the_last_chunks_are_not_passed_on_among_dead_origins(dead: int, park_s: float) -> None:
    limits = replace(DEFAULT, park_s=park_s, backoff_first_s=0.02, backoff_max_s=0.2)
    crowd = [Sim(f"dead{number}", script=lambda request: SILENT) for number in range(dead)]
    bench = Bench(chunks_of_4_mib(7), [*crowd, Sim("good")], limits=limits).run()
    assert bench.why == ""
    assert bench.now < (1 + dead // limits.lanes) * 2 * limits.stall_s


# --- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.FAILED, Fault.BUSY])
def test_no_usable_source_ends_with_the_patience(fault: Fault) -> None:
    bench = Bench(chunks_of_4_mib(100), [Sim("a", script=between(2.0, 1e9, Answer(fault)))]).run()
    last = max(each.ended_at for each in bench.requests if each.first_copies)
    assert bench.why == "no source gave anything for 30 s"
    assert bench.now == pytest.approx(last + PATIENCE_S, abs=0.1)


def test_a_source_that_only_stalls_ends_within_patience_and_one_stall() -> None:
    bench = Bench(chunks_of_4_mib(100), [Sim("a", script=lambda request: SILENT)]).run()
    assert bench.why == "no source gave anything for 30 s"
    assert PATIENCE_S <= bench.now <= PATIENCE_S + DEFAULT.stall_s


def test_patience_never_ends_while_a_source_is_alive() -> None:
    slow = Sim("slow", 50 * KiB)
    bench = Bench(chunks_of_4_mib(3), [slow, Sim("dead", script=always(Fault.FAILED))]).run()
    assert bench.why == ""
    assert bench.now > 2 * PATIENCE_S


@pytest.mark.parametrize("script", [always(Fault.MISSING), always(Fault.DENIED), lies])
def test_when_all_sources_are_out_it_ends_at_once(script: Script) -> None:
    bench = Bench(work_of([CHUNK_BYTES] * 9), [Sim("a", script=script), Sim("b", script=script)]).run()
    assert bench.why == "no source has what is left"
    assert bench.now < 1.0


def test_no_source_at_all_ends_at_once() -> None:
    assert Bench(chunks_of_4_mib(1), []).run().why == "no source has what is left"


# --- a crowd -------------------------------------------------------------------------------------------------


def test_one_good_origin_among_fifty_silent_ones_is_found_before_long() -> None:
    sims = [*(Sim(f"mute {number}", script=lambda request: SILENT) for number in range(49)), Sim("good")]
    bench = Bench(chunks_of_4_mib(10), sims).run()
    first = bench.of("good")[0]
    assert bench.why == ""
    assert first.started_at <= 49 / DEFAULT.lanes * DEFAULT.first_byte_s + 0.1
    assert all(each.started_at - first.started_at < 5 for each in bench.of("good"))


def test_an_origin_that_answers_late_is_not_cut_short_while_no_other_waits() -> None:
    slow = Sim("slow", latency_s=3 * DEFAULT.first_byte_s)
    bench = Bench(chunks_of_4_mib(4), [slow]).run()
    assert [each.ended for each in bench.requests] == [None] * len(bench.requests)


def test_a_proven_origin_may_be_silent_as_long_as_any_other() -> None:
    sims = [Sim("good", script=between(2, 60, SILENT)), *(Sim(f"dead {n}") for n in range(20))]
    bench = Bench(chunks_of_4_mib(400), sims).run()
    stalled = [each for each in bench.of("good") if each.ended is Fault.STALLED]
    assert all(each.ended_at - each.started_at >= DEFAULT.stall_s - 1e-6 for each in stalled)
