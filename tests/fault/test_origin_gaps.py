"""Origins at their worst, what the other files leave out: links that expire, login pages, crowds, wrong names."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.fault_proxy import FaultProxy
from diachunk.testing.faults import Fault, Redirect, Script, always
from diachunk.testing.reply import Request
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.settings import QUICK, write_config
from fixtures.watch import Watched, failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("fair")]

STALL_S = 8.0
BOUND_S = QUICK["patience_s"] + 2 * STALL_S + 6


@pytest.fixture
def fair(base: Path) -> None:
    """Quick to retry and to give up, but a busy machine's servers may take their time to answer."""
    write_config(base, {**QUICK, "stall_s": STALL_S})


PAGE = b"<html><title>Sign in to the campus network</title></html>"


@pytest.fixture
def good(small: Checkpoint) -> Iterator[Nginx]:
    """As slow as makes the other origin worth its while."""
    with Nginx(small.root, rate_bps=6 * MIB) as nginx:
        yield nginx


def label(server: BadServer | Nginx | FaultProxy) -> str:
    return f"127.0.0.1:{server.port}"


def verified_by(done: Watched, server: BadServer | Nginx | FaultProxy) -> int:
    told: dict[str, int] = {each.label: each.verified_bytes for each in done.report.sources}
    return told[label(server)]


def right(done: Watched, small: Checkpoint, home: Path) -> Watched:
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    return done


# --- beside a good origin, what was only tried alone ---------------------------------------------------------

HELPS: dict[str, Script] = {
    "5xx now and then": faults.every(4, faults.Status(500)),
    "502, 503 and 504 in turns": lambda request, number: (
        faults.Status((502, 503, 504)[number % 3]) if number % 4 == 0 else None
    ),
    "chunked": always(faults.Chunked()),
    "cut in the body": always(faults.Close(1 * MIB)),
}


@pytest.mark.parametrize("name", HELPS)
def test_an_origin_that_is_some_use_is_used_beside_a_good_one(
    small: Checkpoint, home: Path, good: Nginx, name: str
) -> None:
    with BadServer(small.root, HELPS[name]) as some_use:
        done = right(fetch(small, some_use.url, good.url, home=home), small, home)
        assert verified_by(done, some_use) > small.total_bytes / 10
        assert some_use.body_bytes + good.bytes_sent() <= 1.15 * small.total_bytes + 16 * MIB


def test_an_origin_is_left_alone_for_as_long_as_it_asked(small: Checkpoint, home: Path) -> None:
    asked_at: list[float] = []

    def once_busy(request: Request, number: int) -> Fault | None:
        asked_at.append(time.monotonic())
        return faults.RetryAfter(2) if number <= 2 else None

    with BadServer(small.root, once_busy) as busy:
        right(fetch(small, busy.url, home=home, patience_s=20), small, home)
    first = asked_at[0]
    # the second may have started with the first; what follows them kept away
    assert all(at - first >= 2.0 for at in asked_at[2:])


def test_a_file_that_changes_mid_fetch_comes_from_the_origin_that_kept_it(
    small: Checkpoint, home: Path, good: Nginx
) -> None:
    name = "/model/model-00002-of-00003.safetensors"
    other = bytes(small.file(name[1:]).stat().st_size)
    with BadServer(small.root) as changing:
        changing.script = lambda request, number: (
            faults.ChangeFile(other) if request.path == name and number > 2 else None
        )
        right(fetch(small, changing.url, good.url, home=home), small, home)


# --- redirects -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ExpiringLinks:
    """A front that hands out links, and a store that honours each for a number of requests, then says `status`."""

    store: BadServer
    uses: int
    status: int
    handed_out: int = 0
    used: dict[str, int] = field(default_factory=dict)
    expired: int = 0

    def hand_out(self, request: Request, number: int) -> Fault:
        self.handed_out += 1
        return Redirect(f"{self.store.url}{request.path}?sig={number}")

    def honour(self, request: Request, number: int) -> Fault | None:
        link = request.path
        self.used[link] = self.used.get(link, 0) + 1
        if self.used[link] <= self.uses:
            return None
        self.expired += 1
        return faults.Status(self.status)


@pytest.mark.parametrize(
    ("status", "company"),
    [(401, "alone"), (403, "alone"), (404, "alone"), (410, "alone"), (403, "beside a good origin")],
)
def test_a_link_that_expires_is_fresh_again_through_the_first_url(
    small: Checkpoint, home: Path, good: Nginx, status: int, company: str
) -> None:
    with BadServer(small.root) as store, BadServer(small.root) as front:
        links = ExpiringLinks(store, 2, status)
        front.script, store.script = links.hand_out, links.honour
        origins = [front.url] if company == "alone" else [front.url, good.url]
        done = right(fetch(small, *origins, home=home), small, home)
        assert verified_by(done, front) > 0
        if company == "alone":
            assert links.expired > 0
            assert verified_by(done, front) == small.total_bytes
    assert done.told.troubles == [], "an expired link is nobody's fault"


def test_a_link_that_is_stale_from_the_start_is_a_denial_and_no_endless_loop(
    small: Checkpoint, home: Path
) -> None:
    with BadServer(small.root) as store, BadServer(small.root) as front:
        links = ExpiringLinks(store, 0, 403)
        front.script, store.script = links.hand_out, links.honour
        started_at = time.monotonic()
        error = failed_fetch(small, front.url, home=home)
        assert time.monotonic() - started_at < BOUND_S
        assert len(front.exchanges) < 60
    assert "403 Forbidden" in error.message


def test_credentials_stay_at_home_when_a_redirect_leads_elsewhere_beside_a_good_origin(
    small: Checkpoint, home: Path, good: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login ada password s3cret-word\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    with BadServer(small.root) as elsewhere, BadServer(small.root) as front:
        front.script = lambda request, number: Redirect(f"http://localhost:{elsewhere.port}{request.path}")
        right(fetch(small, front.url, good.url, home=home), small, home)
        assert all("authorization" in each.request.headers for each in front.exchanges)
        assert elsewhere.exchanges
        assert not any("authorization" in each.request.headers for each in elsewhere.exchanges)
        assert not any("s3cret-word" in str(each.request) for each in elsewhere.exchanges)


# --- names and certificates ----------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/net").exists(), reason="127.0.0.2 is an address on Linux only")
@pytest.mark.parametrize("company", ["alone", "beside a good origin"])
def test_a_trusted_certificate_for_another_name_is_refused(
    small: Checkpoint, home: Path, good: Nginx, monkeypatch: pytest.MonkeyPatch, company: str
) -> None:
    with Nginx(small.root, tls=True) as origin, FaultProxy(origin.url, host="127.0.0.2") as other_name:
        monkeypatch.setenv("SSL_CERT_FILE", str(origin.cafile))
        if company == "alone":
            error = failed_fetch(small, other_name.url, home=home)
            assert f"127.0.0.2:{other_name.port}: certificate refused: " in error.message
        else:
            right(fetch(small, other_name.url, good.url, home=home), small, home)
        assert origin.bytes_sent() == 0


@pytest.mark.usefixtures("quick")
def test_a_name_server_that_never_answers_holds_up_nothing(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up blocks in the C library, where nothing can wake it: its lane is given up."""
    released = threading.Event()
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "mute.invalid":
            released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return original(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        started_at = time.monotonic()
        error = failed_fetch(small, "http://mute.invalid", home=home)
        assert "mute.invalid: " in error.message
        assert time.monotonic() - started_at < BOUND_S + 4
        with Nginx(small.root) as good:
            started_at = time.monotonic()
            done = fetch(small, "http://mute.invalid", good.url, home=home)
            assert time.monotonic() - started_at < BOUND_S + 4
        right(done, small, home)
    finally:
        released.set()
        _wait_for_lanes()


def _wait_for_lanes() -> None:
    """Lanes that were given up end once they can; a test must not leave them to the next."""
    until = time.monotonic() + 10
    while any(each.name == "diachunk-lane" for each in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


# --- and after it all ----------------------------------------------------------------------------------------


def test_nothing_that_was_here_is_lost_when_every_origin_is_gone(
    small: Checkpoint, home: Path, good: Nginx, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    shutil.copytree(small.root / "model", part / "model")
    with Nginx(part) as half:
        failed_fetch(small, half.url, home=home)
    done = fetch(small, good.url, home=home)
    right(done, small, home)
    assert done.report.fetched_bytes <= small.total_bytes - sum(
        each.stat().st_size for each in (part / "model").iterdir()
    )
