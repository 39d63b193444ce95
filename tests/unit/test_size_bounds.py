"""The bounds on size, without a clock where that is possible: memory, system calls, how work grows.

The figures themselves are measured by `make bench`; here a bound is wide enough for any machine, and what it
tells apart is a column from an object a chunk, one pass from several, n from n squared.
"""

from __future__ import annotations

import cProfile
import pstats
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks import measure, resuming, size

import diachunk
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest import decode, strict_json
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Tier
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import Run, WorkList
from diachunk.sources.base import Flow
from diachunk.sources.directory import DirectoryOrigin
from diachunk.sources.local import LocalFiles
from diachunk.testing.checkpoint import TensorSpec
from diachunk.transfer import session
from fixtures.checkpoints import make_medium
from fixtures.settings import clean_environment


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that Python's allocator gave at most at once while `work` ran, beyond what was held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- a manifest of 1 TB ------------------------------------------------------------------------------------


def test_decoding_takes_a_bounded_memory_a_chunk() -> None:
    few, many = size.terabyte(4, 250), size.terabyte(4, 5_250)
    decode(few)
    grown = peak_of(lambda: decode(many)) - peak_of(lambda: decode(few))
    # its line of text, a list, an integer and a string of JSON: 330 or so; another copy of the text is 90
    assert grown / 20_000 < 480


def test_a_manifest_is_kept_in_columns() -> None:
    data = size.terabyte(4, 5_000)
    decode(data)
    held: list[object] = []
    tracemalloc.start()
    try:
        held.append(decode(data))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept / 20_000 < 60  # 36: a digest and a size


def test_a_work_list_is_kept_in_columns() -> None:
    work = size.work_of(size.terabyte(4, 5_000))
    held: list[object] = []
    tracemalloc.start()
    try:
        held.append(WorkList(work.blobs))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept / len(work) < 40  # 16: two indexes and an offset


def peak_of_a_fetch(folder: Path, shards: int, chunks_a_shard: int) -> int:
    """Peak resident memory of a whole `diachunk fetch` process."""
    folder.mkdir()
    made = size.small(folder, shards, chunks_a_shard)
    command = [sys.executable, "-m", "diachunk", "fetch", str(made.manifest), "--quiet"]
    environment = {"DIACHUNK_HOME": str(folder / "home")}
    command += ["--origin", str(made.root)]
    return measure.run_once(measure.Contender("fetch", command, environment=environment)).peak_bytes


def test_a_whole_fetch_takes_a_bounded_memory_a_chunk(tmp_path: Path) -> None:
    """250 MB for 250,000 chunks leaves about 750 bytes each, beside what any fetch takes."""
    few = peak_of_a_fetch(tmp_path / "few", 8, 125)
    many = peak_of_a_fetch(tmp_path / "many", 80, 1_250)
    assert few < 130e6
    assert (many - few) / 99_000 < 750  # 590


# --- scheduling --------------------------------------------------------------------------------------------


def calls_to_schedule(work: WorkList, sources: int) -> int:
    """How many Python functions are called to hand out and book every chunk once."""
    profile = cProfile.Profile()
    profile.enable()
    size.scheduling_s(work, sources)
    profile.disable()
    total: int = getattr(pstats.Stats(profile), "total_calls")  # noqa: B009 - typeshed does not know it
    return total


@pytest.mark.parametrize("sources", [1, 4])
def test_scheduling_costs_as_much_a_chunk_for_many_as_for_few(sources: int) -> None:
    few, many = (size.work_of(size.terabyte(4, count)) for count in (250, 1_000))
    a_chunk = calls_to_schedule(few, sources) / len(few)
    assert a_chunk < 200 + 10 * sources  # 126 with one, 2.5 more with each
    assert calls_to_schedule(many, sources) / len(many) < 1.2 * a_chunk


def test_scheduling_a_terabyte_is_a_matter_of_seconds() -> None:
    """The target is 50 microseconds a chunk; looking through all of them for each would be thousands."""
    work = size.work_of(size.terabyte(40, 1_250))
    assert size.scheduling_s(work) / len(work) < 400e-6


def test_scheduling_holds_no_object_a_chunk() -> None:
    work = size.work_of(size.terabyte(4, 2_500))

    def half() -> Schedule:
        schedule = Schedule(work, DEFAULT, lambda: 0.0, random.Random(1))
        schedule.add("origin", Tier.NETWORK)
        for _ in range(len(work) // 2):
            claim = schedule.claim()
            assert isinstance(claim, Claim)
            assert claim.size == CHUNK_BYTES
            schedule.verified(claim, claim.run.first)
            schedule.finish(claim)
        return schedule

    half()
    assert peak_of(half) / len(work) < 20


# --- how often a manifest is read --------------------------------------------------------------------------


@contextmanager
def parsed_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes in bytes of the documents that were parsed."""
    sizes: list[int] = []
    parse = strict_json.parse

    def counting(data: bytes, limits: object) -> dict[str, object]:
        sizes.append(len(data))
        return parse(data, DEFAULT)

    with monkeypatch.context() as patch:
        patch.setattr(strict_json, "parse", counting)
        yield sizes


def test_a_fetch_parses_its_manifest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of 1 TB takes half a second and a hundred megabytes each time."""
    made = size.small(tmp_path, 2, 100)
    with parsed_sizes(monkeypatch) as parsed:
        planned = diachunk.plan(made.manifest, origins=[str(made.root)])
        diachunk.fetch(planned, origins=[str(made.root)])
    # besides it, at most what is left of stored ones without their chunks
    assert sum(parsed) < 1.5 * made.manifest.stat().st_size


def test_a_fetch_of_what_is_here_parses_its_manifest_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = size.small(tmp_path, 2, 100)
    diachunk.fetch(made.manifest, origins=[str(made.root)])
    with parsed_sizes(monkeypatch) as parsed:
        planned = diachunk.plan(made.manifest)
        assert diachunk.fetch(planned).report.present_bytes == planned.total_bytes
    # besides it, at most what is left of stored ones without their chunks
    assert sum(parsed) < 1.5 * made.manifest.stat().st_size


# --- ls and resume -----------------------------------------------------------------------------------------

_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


def test_ls_opens_no_file_for_each_blob(tmp_path: Path) -> None:
    """200 checkpoints of 20 files are 4,000 blobs; whether one is here, its directory entry says."""
    global _opened  # noqa: PLW0603 - an audit hook stays for the life of the process, and is switched off here
    home = tmp_path / "home"
    resuming.full_store(home, 1, checkpoints=20)
    sys.addaudithook(_audit)
    _opened = []
    try:
        listing = diachunk.ls(home)
        opened = [path for path in _opened if path.startswith(str(home))]
    finally:
        _opened = None
    assert [each.complete for each in listing.held] == [True] * 20
    # of each checkpoint its manifest, its ref, and whatever else there may be of it; 400 stamps are not among them
    assert 20 <= len(opened) <= 20 * 4 + 20


@pytest.mark.parametrize("cores", [2, 64])
def test_a_resume_asks_the_network_before_it_has_read_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    """Half of 2 GiB takes longer to hash than the 0.3 s after which the first byte is to come."""
    specs = tuple(TensorSpec(f"layers.{number}.weight", "F32", (256, 300)) for number in range(40))
    made = make_medium(tmp_path / "origin", specs, "lab/resumed")
    entry = made.manifest.components[0].files[0]
    # Every other one, so that each is a request of its own: more of them than there are lanes.
    here = range(1, len(entry.chunks), 2)
    assert len(here) > 2 * DEFAULT.lanes
    here_bytes = resuming.half_complete(made.manifest, made.root / entry.path, tmp_path / "home", here)
    asked = threading.Event()
    waited: list[bool] = []
    from_network, from_here = DirectoryOrigin.fill, LocalFiles.fill

    def ask(self: DirectoryOrigin, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        asked.set()
        from_network(self, run, start, view, flow)

    def wait(self: LocalFiles, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        waited.append(all(waited) and asked.wait(6))  # less than a stall
        from_here(self, run, start, view, flow)

    monkeypatch.setattr(session, "_LOCAL_AT_ONCE", max(2, cores))
    monkeypatch.setattr(DirectoryOrigin, "fill", ask)
    monkeypatch.setattr(LocalFiles, "fill", wait)
    report = diachunk.fetch(made.target, origins=[str(made.root)], home=tmp_path / "home").report
    assert (report.reused_bytes, report.fetched_bytes) == (here_bytes, made.total_bytes - here_bytes)
    assert len(waited) >= len(here)
    assert all(waited), "nothing is asked of the network until what is here has been read"
