"""A session in company: peers come while lanes run, are asked for what they hold, and count for nothing afterwards."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest, digest_of
from diachunk.limits import DEFAULT
from diachunk.manifest.model import ChunkList
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.members import Member
from diachunk.schedule.work import BlobFacts, Run, WorkList
from diachunk.sources.base import Flow, SourceFault, Stream
from diachunk.store.files import Files
from diachunk.store.partial import Partial
from diachunk.transfer.company import NOBODY, Company
from diachunk.transfer.session import Offer, Outcome, Session

_CHUNKS = 6
_DATA = random.Random(5).randbytes(_CHUNKS * 1000)
_WAIT_S = 20.0


class Memory:
    """A source that gives what it has, slice by slice; `asked` are the first items of its requests."""

    tier = Tier.NETWORK

    def __init__(self, label: str, data: bytes = _DATA) -> None:
        self.label = label
        self.asked: list[int] = []
        self.closed = False
        self._data = data

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        self.asked.append(run.first)
        at = run.offset + start
        while view:
            size = min(len(view), flow.slice_bytes())
            view[:size] = self._data[at : at + size]
            flow.advance(size)
            at, view = at + size, view[size:]

    def stream(self, run: Run, flow: Flow) -> Stream:
        raise SourceFault(Fault.FAILED, "no streams")

    def close(self) -> None:
        self.closed = True


class Useless(Memory):
    """An origin that has none of it."""

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        flow.slice_bytes()
        raise SourceFault(Fault.MISSING, "404 Not Found")


class Silent(Memory):
    """An origin that answers nothing, and whose connection notices that it is woken."""

    def __init__(self) -> None:
        super().__init__("origin")
        self.reads = threading.Event()
        self.woken: list[bool] = []

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        self.asked.append(run.first)
        woken = threading.Event()
        flow.on_cancel(woken.set)
        self.reads.set()
        self.woken.append(woken.wait(_WAIT_S))
        flow.slice_bytes()
        raise SourceFault(Fault.FAILED, "nobody woke it")


class Neighbours:
    """A `Swarm` whose machines come `when` it says so, on a thread of its own as a node's loop is."""

    manifest_id: Digest = b"m" * 32

    def __init__(self, *peers: tuple[Memory, list[int]], hopeful: bool = True) -> None:
        self.peers = peers
        self.hopeful = hopeful
        self.company: Company | None = None
        self.numbers: list[int] = []
        self.ended_with: Company | None = None
        self._thread: threading.Thread | None = None

    def began(self, company: Company) -> None:
        self.company = company
        self._thread = threading.Thread(target=self._come)
        self._thread.start()

    def _come(self) -> None:
        assert self.company is not None
        for source, items in self.peers:
            has = Bitmap(len(self.company.work), items)
            self.numbers.append(self.company.add_peer(source, has))
        if not self.hopeful:
            self.company.expects_more(False)

    def ended(self, company: Company) -> None:
        self.ended_with = company
        if self._thread:
            self._thread.join(_WAIT_S)


def _work() -> WorkList:
    pieces = [_DATA[at : at + 1000] for at in range(0, len(_DATA), 1000)]
    chunks = ChunkList.of((len(each), digest_of(each)) for each in pieces)
    return WorkList([BlobFacts(digest_of(_DATA), len(_DATA), chunks, "model", "weights")])


def _run(directory: Path, swarm: Neighbours, *origins: Memory, patience_s: float = 5.0) -> Outcome:
    work = _work()
    partial = Partial(directory / "weights.partial", work.blobs[0].chunks, Files(0o755))
    limits = DEFAULT.from_mapping({"patience_s": patience_s})
    try:
        session = Session(work, [partial], [Offer(each) for each in origins], limits, swarm=swarm)
        outcome = session.run()
    finally:
        partial.close()
    if not outcome.why:
        assert (directory / "weights.partial").read_bytes() == _DATA
    return outcome


def test_a_fetch_without_any_origin_is_complete_from_peers_that_come_while_it_waits(tmp_path: Path) -> None:
    one, other = Memory("10.0.0.1:8420"), Memory("10.0.0.2:8420")
    outcome = _run(tmp_path, Neighbours((one, [0, 1, 2]), (other, [3, 4, 5])))
    assert outcome.why == ""
    assert set(one.asked) <= {0, 1, 2}
    assert set(other.asked) <= {3, 4, 5}
    assert {each.label for each in outcome.sources} == {"10.0.0.1:8420", "10.0.0.2:8420"}
    assert one.closed
    assert other.closed


def test_wrong_bytes_of_a_peer_come_from_another_and_its_name_is_said(tmp_path: Path) -> None:
    liar, honest = Memory("10.0.0.1:8420", bytes(len(_DATA))), Memory("10.0.0.2:8420")
    every = list(range(_CHUNKS))
    outcome = _run(tmp_path, Neighbours((liar, every), (honest, every)))
    assert outcome.why == ""
    health = {each.label: each for each in outcome.sources}
    assert not health[honest.label].bad_chunks
    assert health[honest.label].verified_bytes == len(_DATA)
    assert not liar.asked or health[liar.label].bad_chunks


def test_while_machines_may_come_having_no_source_is_no_end_and_then_it_is(tmp_path: Path) -> None:
    hopeless = Neighbours(hopeful=False)
    outcome = _run(tmp_path, hopeless, Useless("origin"), patience_s=60.0)
    assert outcome.why == "no source has what is left"
    assert outcome.elapsed_s < 30.0


def test_company_after_the_end_does_nothing_and_closes_what_is_brought(tmp_path: Path) -> None:
    swarm = Neighbours((Memory("10.0.0.1:8420"), list(range(_CHUNKS))))
    _run(tmp_path, swarm)
    company = swarm.company
    assert company is not None
    assert swarm.ended_with is company
    late = Memory("10.0.0.9:8420")
    assert company.add_peer(late, Bitmap(_CHUNKS)) == NOBODY
    assert late.closed
    company.gains(0, [1])
    company.leaves(NOBODY)
    company.members("10.0.0.3:8420", [Member("10.0.0.4:8420", frozenset({"model"}), True)])
    assert company.taking() == {}
    assert not company.feeds


def test_a_peer_that_left_is_asked_no_more_until_it_returns(tmp_path: Path) -> None:
    gone = Memory("10.0.0.1:8420")
    every = list(range(_CHUNKS))

    class Moody(Neighbours):
        before: list[int] | None = None

        def _come(self) -> None:
            assert self.company is not None
            work = self.company.work
            number = self.company.add_peer(gone, Bitmap(len(work)))
            self.company.leaves(number)
            self.company.gains(number, every)
            self.before = list(gone.asked)
            self.company.returns(number, Bitmap(len(work), every))

    swarm = Moody()
    outcome = _run(tmp_path, swarm)
    assert outcome.why == ""
    assert swarm.before == []
    assert gone.asked


def test_a_silent_origin_is_left_at_once_when_another_machine_takes_the_same(tmp_path: Path) -> None:
    """No byte comes on which the lane would look up, and the watchdog must not take it for stopped."""
    silent, peer = Silent(), Memory("10.0.0.1:8420")
    every = range(_CHUNKS)

    class Taking(Neighbours):
        def _come(self) -> None:
            assert self.company is not None
            assert silent.reads.wait(_WAIT_S)
            self.company.members("", [Member(peer.label, frozenset({"model"}), True)])
            self.company.member_takes(peer.label, dict.fromkeys(every, 500))
            self.company.add_peer(peer, Bitmap(_CHUNKS, every))

    outcome = _run(tmp_path, Taking(), silent, patience_s=2 * _WAIT_S)
    assert outcome.why == ""
    assert silent.woken == [True]
    assert outcome.elapsed_s < _WAIT_S / 2
