"""Proxies of the environment that answer themselves: login pages, wherever the client expects something else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from diachunk.errors import TransferIncomplete
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import always
from diachunk.testing.reply import Reply, Request, plain
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, assert_same_files, assert_store_is_right
from fixtures.forward_proxy import ForwardProxy
from fixtures.settings import QUICK, write_config
from fixtures.watch import failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("fair")]

STALL_S = 8.0
BOUND_S = QUICK["patience_s"] + 2 * STALL_S + 6
PAGE = b"<html><title>Sign in to the campus network</title></html>"


@pytest.fixture
def fair(base: Path) -> None:
    """Quick to retry and to give up, but a busy machine's servers may take their time to answer."""
    write_config(base, {**QUICK, "stall_s": STALL_S})


@pytest.fixture
def good(small: Checkpoint) -> Iterator[Nginx]:
    with Nginx(small.root) as nginx:
        yield nginx


@dataclass(frozen=True, slots=True)
class LoginPage:
    """What a captive portal answers to everything."""

    status: int = 200

    def apply(self, request: Request, reply: Reply) -> Reply:
        headers = {"Content-Type": "text/html; charset=utf-8"}
        if self.status == 302:
            headers["Location"] = "http://127.0.0.1:1/login"
        if self.status == 407:
            headers["Proxy-Authenticate"] = 'Basic realm="campus"'
        if self.status == 206:
            first, last = map(int, (request.range or "bytes=0-0").removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/*"
            return plain(206, (PAGE * ((last - first) // len(PAGE) + 1))[: last - first + 1], headers)
        return plain(self.status, PAGE, headers)


PORTALS = {200: "HTML", 206: "wrong bytes", 302: "redirects", 407: "407"}


@pytest.mark.parametrize("status", PORTALS)
def test_a_proxy_that_answers_with_a_login_page_is_named_and_stops_no_one_else(
    small: Checkpoint, home: Path, good: Nginx, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with BadServer(small.root, always(LoginPage(status))) as portal:
        monkeypatch.setenv("http_proxy", portal.url)
        started_at = time.monotonic()
        error = failed_fetch(small, "http://checkpoints.example", home=home)
        assert time.monotonic() - started_at < BOUND_S
        assert PORTALS[status] in error.message.partition("checkpoints.example")[2]
        assert portal.exchanges
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        done = fetch(small, "http://checkpoints.example", good.url, home=home)
        assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)


@pytest.mark.parametrize("status", [200, 302, 407])
def test_a_proxy_that_answers_connect_with_a_login_page_is_told_apart_from_the_origin(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """With 200 it means the tunnel, and the page comes where TLS should."""
    with BadServer(small.root, always(LoginPage(status))) as portal:
        monkeypatch.setenv("https_proxy", portal.url)
        error = failed_fetch(small, "https://checkpoints.example", home=home)
        assert {each.request.method for each in portal.exchanges} == {"CONNECT"}
    words = error.message.partition("checkpoints.example: ")[2]
    assert words
    if status != 200:
        assert words.startswith(f"the proxy: {status}")


def test_a_proxy_whose_session_expires_in_the_middle_loses_nothing(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BadServer(small.root) as origin, ForwardProxy() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        origin.script = lambda request, number: LoginPage() if 4 <= number < 6 else None
        with contextlib.suppress(TransferIncomplete):
            fetch(small, origin.url, home=home)
        assert len(origin.exchanges) >= 4
        # at the worst it said so, and is run again by someone who has signed in
        origin.script = None
        done = fetch(small, origin.url, home=home)
        assert done.report.fetched_bytes < small.total_bytes
    assert_same_files(done.snapshot.directory, small)
