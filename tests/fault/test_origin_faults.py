"""Each way in which an origin can fail: beside a good one the fetch ends well, alone it ends in time and says why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer, refused_port
from diachunk.testing.faults import Fault, always
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
)
from fixtures.settings import QUICK
from fixtures.watch import failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 2

FAULTS: dict[str, tuple[Fault, str]] = {
    "404": (faults.NotFound(), "404 Not Found"),
    "410": (faults.Status(410), "410 Gone"),
    "403": (faults.Status(403), "403 Forbidden"),
    "401": (faults.Unauthorized(), "401 Unauthorized"),
    "416": (faults.Status(416), "416"),
    "500": (faults.Status(500), "status 500"),
    "429 with Retry-After": (faults.RetryAfter(1), "429 Too Many Requests"),
    "503 with Retry-After": (faults.RetryAfter(1, 503), "503 Service Unavailable"),
    "429 with a Retry-After of a day": (faults.RetryAfter(86400), "429 Too Many Requests"),
    "reset before the header": (faults.Reset(), "reset"),
    "reset at the first byte": (faults.Reset(0), "reset"),
    "close before the header": (faults.Close(), "closed the connection"),
    "nothing after the header": (faults.Close(0), "early"),
    "short body": (faults.ShortBody(), "early"),
    "long body": (faults.LongBody(), "announces"),
    "HTML with 200": (faults.Html(), "sent an HTML page"),
    "HTML with 206": (faults.Html(206), "wrong bytes"),
    "flipped bytes": (faults.Flip(), "wrong bytes"),
    "stall before the header": (faults.StallBeforeHeader(), "no "),
    "stall in the body": (faults.StallAfter(10), "no data"),
    "a byte a second": (faults.Drip(1), "no data"),
    "another range": (faults.WrongContentRange(), "sent bytes"),
    "wrong Content-Length": (faults.WrongContentLength(), "announces"),
    "gzip": (faults.Gzip(), "gzip-encoded"),
    "redirect loop": (faults.RedirectLoop(), "redirects"),
    "another file": (faults.ChangeFile(b"something else"), "the file there"),
    "not HTTP": (faults.Status(999), "status 999"),
}


@pytest.fixture
def bad(small: Checkpoint) -> Iterator[BadServer]:
    with BadServer(small.root) as server:
        yield server


def label(server: BadServer | Nginx) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("name", FAULTS)
def test_alone_it_ends_in_time_and_the_error_names_origin_and_fault(
    small: Checkpoint, home: Path, bad: BadServer, name: str
) -> None:
    fault, words = FAULTS[name]
    bad.script = always(fault)
    started_at = time.monotonic()
    error = failed_fetch(small, bad.url, home=home)
    assert time.monotonic() - started_at < BOUND_S
    assert f"{label(bad)}: " in error.message
    assert words in error.message.partition(label(bad))[2]
    assert "resume" in error.hint
    # it did not hammer a server that is unwell
    assert len(bad.exchanges) < 40 * (11 if isinstance(fault, faults.RedirectLoop) else 1)


ONLINE = "`diachunk doctor --online` looks at the network"


def test_where_nobody_answers_at_all_the_last_word_names_who_looks_at_the_network(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    bad.script = always(faults.StallBeforeHeader())
    refuses, unknown = f"http://127.0.0.1:{refused_port()}", "http://nobody.invalid"
    error = failed_fetch(small, bad.url, refuses, unknown, home=home)
    assert ONLINE in error.hint
    assert error.hint.startswith("what is verified is kept: run the same again to resume")


def test_where_one_of_them_answers_it_is_not_the_network(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    bad.script = always(faults.Status(500))
    error = failed_fetch(small, bad.url, f"http://127.0.0.1:{refused_port()}", home=home)
    assert ONLINE not in error.hint


@pytest.mark.parametrize("name", FAULTS)
def test_beside_a_good_origin_the_fetch_ends_well(
    small: Checkpoint, home: Path, bad: BadServer, name: str
) -> None:
    bad.script = always(FAULTS[name][0])
    started_at = time.monotonic()
    with Nginx(small.root) as good:
        done = fetch(small, bad.url, good.url, home=home)
    assert time.monotonic() - started_at < BOUND_S
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    told = {each.label: each for each in done.report.sources}
    by_bad = told[label(bad)].verified_bytes
    assert told[label(good)].verified_bytes == small.total_bytes - by_bad
    assert by_bad == 0 or name == "short body", "a body that is cut may still have held whole chunks"
    # silence may have been outrun by a hedge before it was a fault
    assert told[label(bad)].last_fault or name in ("stall in the body", "a byte a second")


PASSING: dict[str, Fault] = {
    "close in the body": faults.Close(1 * MIB),
    "slow but steady": faults.Drip(4 * MIB),
    "chunked": faults.Chunked(),
    "chunked in odd pieces": faults.Chunked(4097),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_brings_something_each_time_brings_everything(
    small: Checkpoint, home: Path, bad: BadServer, name: str
) -> None:
    bad.script = always(PASSING[name])
    done = fetch(small, bad.url, home=home)
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    assert bad.body_bytes <= 1.1 * small.total_bytes + 8 * MIB


@pytest.mark.parametrize(
    "name",
    [
        "500",
        "429 with Retry-After",
        "reset before the header",
        "reset at the first byte",
        "short body",
        "close before the header",
        "stall before the header",
        "stall in the body",
    ],
)
def test_an_origin_that_fails_now_and_then_is_enough(
    small: Checkpoint, home: Path, bad: BadServer, name: str
) -> None:
    # asks for no wait, so that the test need not
    fault = faults.RetryAfter(0) if name.startswith("429") else FAULTS[name][0]
    bad.script = faults.every(3, fault)
    done = fetch(small, bad.url, home=home, patience_s=20)
    assert_same_files(done.snapshot.directory, small)
