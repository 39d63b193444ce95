"""A peer as a source: the suite that every source passes, and what is special about a peer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from diachunk.schedule.health import Fault
from diachunk.sources.base import Source, SourceFault
from diachunk.sources.context import SourceContext
from diachunk.sources.peer import PeerSource
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Script, StallAfter, always
from diachunk.testing.recording_flow import RecordingFlow
from diachunk.testing.reply import Request, Resource
from diachunk.testing.source_contract import SourceContract

WORK = SourceContract.work


class StandIn(BadServer):
    """Answers P7 and P8 over the suite's files; what lies there now is what it serves, right or wrong."""

    def __init__(self, root: Path, script: Script | None = None, *, knows: bool = True) -> None:
        self._files = root
        self._knows = knows
        super().__init__(root, script)

    def _resource(self, path: str) -> Resource | None:
        match = re.fullmatch(r"/v1/(blobs|chunks)/([0-9a-f]{64})", path)
        if match is None or (match[1] == "blobs" and not self._knows):
            return None
        digest = bytes.fromhex(match[2])
        if match[1] == "blobs":
            number = next(n for n, facts in enumerate(WORK.blobs) if facts.digest == digest)
            return self._bytes_of(number, 0, None)
        item = next(item for item in range(len(WORK)) if WORK.digest(item) == digest)
        return self._bytes_of(WORK.blob_of(item), WORK.offset(item), WORK.size(item))

    def _bytes_of(self, number: int, start: int, size: int | None) -> Resource | None:
        facts = WORK.blobs[number]
        try:
            content = (self._files / facts.component / facts.path).read_bytes()
        except OSError:
            return None
        content = content[start:] if size is None else content[start : start + size]
        return Resource(content, '"x"', "Thu, 01 Jan 1970 00:00:00 GMT")


class TestPeer(SourceContract):
    knows: ClassVar[bool] = True
    by_chunks: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _stopping(self) -> Iterator[None]:
        self.servers: list[StandIn] = []
        yield
        for server in self.servers:
            server.close()

    def make_stalled_source(self, root: Path) -> Source | None:
        self.servers.append(StandIn(root, always(StallAfter(70_000))))
        return PeerSource(f"127.0.0.1:{self.servers[-1].port}", SourceContext(), by_chunks=self.by_chunks)

    def make_source(self, root: Path) -> Source:
        self.servers.append(StandIn(root, knows=self.knows))
        return PeerSource(f"127.0.0.1:{self.servers[-1].port}", SourceContext(), by_chunks=self.by_chunks)


class TestPeerThatOffersNoRanges(TestPeer):
    """Its partial has the chunks elsewhere: each range is 404, each chunk is there."""

    knows = False
    checks_file_size = False


class TestPeerThatKnowsOtherManifestsOnly(TestPeer):
    by_chunks = True
    checks_file_size = False

    def test_it_is_asked_for_chunks_alone(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            self._check_fill(source, WORK.run(0, 3))
        assert {each.request.path[:11] for each in self.servers[0].exchanges} == {"/v1/chunks/"}


# --- one peer, one request -----------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for facts in WORK.blobs:
        path = tmp_path / facts.component / facts.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(facts.size))
    return tmp_path


def fault_of(server: StandIn, authorize: Callable[[str, str], str | None] | None = None) -> SourceFault:
    source = PeerSource(f"127.0.0.1:{server.port}", SourceContext(), authorize=authorize)
    run = WORK.run(4, 2)
    try:
        with pytest.raises(SourceFault) as caught:
            source.fill(run, 0, memoryview(bytearray(run.size)), RecordingFlow())
    finally:
        source.close()
    return caught.value


def test_a_full_peer_is_busy_for_as_long_as_it_says(root: Path) -> None:
    with StandIn(root, always(faults.Status(503, {"Retry-After": "7"}))) as server:
        fault = fault_of(server)
    assert (fault.fault, fault.retry_after_s) == (Fault.BUSY, 7.0)


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest", "//169.254.169.254/x", "http://\x1b[31m"])
def test_a_redirect_is_a_lie_that_names_where_it_leads_and_is_not_followed(root: Path, to: str) -> None:
    with StandIn(root, always(faults.Redirect(to))) as server:
        fault = fault_of(server)
        assert len(server.exchanges) == 1
    assert fault.fault is Fault.GARBLED
    assert fault.detail.isprintable()
    assert "redirects to" in fault.detail
    assert "169.254" not in to or "169.254.169.254" in fault.detail


def test_a_redirect_back_to_itself_is_not_followed_either(root: Path) -> None:
    with StandIn(root, always(faults.Redirect("/v1/node"))) as server:
        assert fault_of(server).fault is Fault.GARBLED
        assert len(server.exchanges) == 1


def test_no_proxy_of_the_environment_is_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with StandIn(root) as server:
        source = PeerSource(f"127.0.0.1:{server.port}", SourceContext())
        run = WORK.run(4, 2)
        source.fill(run, 0, memoryview(bytearray(run.size)), RecordingFlow())
        source.close()
        assert source.given.size_bytes == run.size


def test_no_login_of_the_netrc_is_sent_but_the_proof_of_this_very_request(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    asked: list[tuple[str, str]] = []

    def authorize(method: str, target: str) -> str:
        asked.append((method, target))
        return f"Diachunk {len(asked)}"

    def script(request: Request, number: int) -> None:
        sent.append((request.path, request.headers.get("authorization", "")))

    sent: list[tuple[str, str]] = []
    with StandIn(root, script, knows=False) as server:
        source = PeerSource(f"127.0.0.1:{server.port}", SourceContext(), authorize=authorize)
        run = WORK.run(4, 2)
        source.fill(run, 0, memoryview(bytearray(run.size)), RecordingFlow())
        source.close()
    assert asked == [("GET", path) for path, _ in sent]
    assert [proof for _, proof in sent] == ["Diachunk 1", "Diachunk 2", "Diachunk 3"]


def test_a_refused_range_costs_no_new_connection(root: Path) -> None:
    with StandIn(root, knows=False) as server:
        source = PeerSource(f"127.0.0.1:{server.port}", SourceContext())
        run = WORK.run(4, 2)
        source.fill(run, 0, memoryview(bytearray(run.size)), RecordingFlow())
        source.close()
        assert {each.connection for each in server.exchanges} == {1}
