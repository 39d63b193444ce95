"""Requests that are given up while TLS is being read: what came of them is thrown away, and nobody is judged by it.

A read that is woken by a shutdown may return bytes that were never decrypted. Taken for data, they would be wrong
bytes of an honest origin, which three times puts it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import Interrupted
from diachunk.schedule.health import Fault, Health
from diachunk.schedule.schedule import Claim, Schedule
from diachunk.testing.fault_proxy import FaultProxy
from diachunk.testing.lines import Break, How, Line
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.watch import Told, fetch

pytestmark = pytest.mark.loopback


@dataclass(slots=True)
class Judged:
    """Every judgement of a source, and the requests that were cancelled, over all fetches of a test."""

    lies: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    cancelled: list[Claim] = field(default_factory=list)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    judged, lied, finish = Judged(), Health.lied, Schedule.finish

    def note_lie(self: Health, detail: str) -> None:
        judged.lies.append(detail)
        lied(self, detail)

    def note_end(
        self: Schedule, claim: Claim, fault: Fault | None = None, detail: str = "", retry_after_s: float = 0.0
    ) -> None:
        if fault is Fault.CANCELLED and claim.received_bytes:
            judged.cancelled.append(claim)
        elif fault is not None and fault is not Fault.CANCELLED:
            judged.faults.append(f"{fault}: {detail}")
        finish(self, claim, fault, detail, retry_after_s)

    monkeypatch.setattr(Health, "lied", note_lie)
    monkeypatch.setattr(Schedule, "finish", note_end)
    return judged


def test_the_loser_of_a_hedge_over_tls_is_not_judged(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: Judged
) -> None:
    with Nginx(small.root, tls=True) as server, FaultProxy(server.url, Line(down_bps=1 * MIB)) as slow:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.cafile))
        for number in range(3):
            home = tmp_path / f"store-{number}"
            done = fetch(small, slow.url, server.url, home=home)
            assert_same_files(done.snapshot.directory, small)
            assert_store_is_right(home)
            told = {each.label: each for each in done.report.sources}
            loser = told[f"127.0.0.1:{slow.port}"]
            assert (loser.bad_chunks, loser.out, loser.faults) == (0, "", 0)
            assert done.told.troubles == []
    assert judged.cancelled, "no hedge was lost in the middle of a body"
    assert judged.lies == []
    assert judged.faults == []


def test_a_fetch_that_is_stopped_while_tls_is_read_judges_nobody_and_is_resumed(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, judged: Judged
) -> None:
    with Nginx(small.root, tls=True) as server, FaultProxy(server.url) as line:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.cafile))
        for part in (1, 2, 3):
            told = Told()

            def stop(event: diachunk.Event, told: Told = told, part: int = part) -> None:
                told(event)
                if told.total_bytes > part * small.total_bytes / 5:
                    raise KeyboardInterrupt

            # under a cap a lane sleeps between reads while the kernel's buffer is full of records
            with pytest.raises(Interrupted):
                diachunk.fetch(
                    small.target, origins=[line.url], home=home, progress=stop, max_down_bps=16 * MIB
                )
            assert told.troubles == []
        before = line.down_bytes
        done = fetch(small, line.url, home=home)
        assert line.down_bytes - before < small.total_bytes, "what was verified before was kept"
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    assert judged.cancelled, "nothing was being read when it stopped"
    assert judged.lies == []
    assert judged.faults == []


@pytest.mark.usefixtures("quick")
def test_a_stall_over_tls_is_a_stall_and_no_lie(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, judged: Judged
) -> None:
    """Silent between two records and within one: the watchdog wakes the read, and what it returns is no data."""
    hang = Line(breaks=Break(How.HANG, (5 * MIB, 9 * MIB)))
    with Nginx(small.root, tls=True) as server, FaultProxy(server.url, hang, seed=5) as line:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.cafile))
        done = fetch(small, line.url, home=home, patience_s=20)
        assert line.broken
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    assert all(each.startswith(str(Fault.STALLED)) for each in judged.faults)
    assert judged.lies == []
