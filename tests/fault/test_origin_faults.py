"""Each way in which an origin can fail: beside a good one the fetch ends well, alone it ends in time and says why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import diachunk
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer, refused_port
from diachunk.testing.faults import Fault, always
from diachunk.testing.reply import Reply, Request
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.settings import QUICK
from fixtures.watch import Told, failed_fetch, fetch

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
    assert told[label(good)].verified_bytes == small.total_bytes
    assert told[label(bad)].verified_bytes == 0
    assert told[label(bad)].last_fault or told[label(bad)].out


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
    bad.script = faults.every(2, fault)
    done = fetch(small, bad.url, home=home, patience_s=20)
    assert_same_files(done.snapshot.directory, small)


def test_an_origin_without_ranges_is_read_once_from_start_to_end(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    bad.script = always(faults.IgnoreRange())
    done = fetch(small, bad.url, home=home)
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    whole = [each.request.path for each in bad.exchanges if each.request.range is None]
    large = {f"/{part.name}/{file.path}" for part, file in small.manifest.walk() if file.size > 4 * MIB}
    assert len(whole) == len(set(whole))
    assert large <= set(whole)


def test_a_real_server_without_ranges_is_enough(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, ranges=False) as origin:
        done = fetch(small, origin.url, home=home)
        assert origin.bytes_sent() < 2 * small.total_bytes
    assert_same_files(done.snapshot.directory, small)


def test_an_origin_without_ranges_that_breaks_off_is_read_again(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    broken: set[str] = set()

    def once(request: Request, number: int) -> Fault:
        if request.range is None and request.path not in broken and request.path.endswith("safetensors"):
            broken.add(request.path)
            return _Both(faults.IgnoreRange(), faults.Reset(6 * MIB))
        return faults.IgnoreRange()

    bad.script = once
    done = fetch(small, bad.url, home=home)
    assert len(broken) == 3
    assert_same_files(done.snapshot.directory, small)


def test_a_line_that_slows_down_after_a_burst_is_no_stall(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, rate_bps=int(1.5 * MIB)) as slow:
        done = fetch(small, slow.url, home=home)
        # nothing was given up and asked for again
        assert slow.bytes_sent() == small.total_bytes
    assert done.told.troubles == []
    assert_same_files(done.snapshot.directory, small)


def test_a_reset_in_the_body_beside_a_good_origin_costs_little(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    bad.script = always(faults.Reset(3 * MIB))
    with Nginx(small.root) as good:
        done = fetch(small, bad.url, good.url, home=home)
        assert good.bytes_sent() <= small.total_bytes + 8 * MIB
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)


def test_an_origin_without_ranges_helps_beside_a_slow_one(small: Checkpoint, home: Path, bad: BadServer) -> None:
    bad.script = always(faults.IgnoreRange())
    with Nginx(small.root, rate_bps=2 * MIB) as slow:
        done = fetch(small, bad.url, slow.url, home=home)
    told = {each.label: each.verified_bytes for each in done.report.sources}
    assert told[label(bad)] > told[label(slow)] > 0
    assert_same_files(done.snapshot.directory, small)


def test_refused_is_named_and_ends_in_time(small: Checkpoint, home: Path) -> None:
    port = refused_port()
    started_at = time.monotonic()
    error = failed_fetch(small, f"http://127.0.0.1:{port}", home=home)
    assert time.monotonic() - started_at < BOUND_S
    assert f"127.0.0.1:{port}: connection refused" in error.message
    with Nginx(small.root) as good:
        done = fetch(small, f"http://127.0.0.1:{port}", good.url, home=home)
    assert_same_files(done.snapshot.directory, small)


def test_a_name_that_does_not_resolve_is_named(small: Checkpoint, home: Path) -> None:
    error = failed_fetch(small, "http://host.invalid/dia", home=home)
    assert "host.invalid/dia: host name not found" in error.message
    done = fetch(small, "http://host.invalid/dia", str(small.root), home=home)
    assert_same_files(done.snapshot.directory, small)


def test_a_wrong_certificate_does_not_stop_the_others(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, tls=True) as untrusted, Nginx(small.root) as good:
        done = fetch(small, untrusted.url, good.url, home=home)
        assert untrusted.bytes_sent() == 0
    assert_same_files(done.snapshot.directory, small)


def test_every_dead_origin_is_named_with_its_own_fault(small: Checkpoint, home: Path, bad: BadServer) -> None:
    bad.script = always(faults.NotFound())
    port = refused_port()
    with BadServer(small.root, always(faults.Flip())) as liar:
        error = failed_fetch(
            small, bad.url, f"http://127.0.0.1:{port}", liar.url, "http://host.invalid", home=home
        )
    for words in (
        f"{label(bad)}: 404 Not Found",
        f"127.0.0.1:{port}: connection refused",
        f"{label(liar)}: ",
        "host.invalid: host name not found",
    ):
        assert words in error.message
    assert "wrong bytes" in error.message.partition(label(liar))[2]


def test_a_crowd_of_dead_origins_does_not_keep_the_good_one_waiting(small: Checkpoint, home: Path) -> None:
    def mute() -> BadServer:
        return BadServer(small.root, always(faults.StallBeforeHeader()))

    with mute() as one, mute() as two, mute() as three, mute() as four, Nginx(small.root) as good:
        started_at = time.monotonic()
        fetch(small, one.url, two.url, three.url, four.url, good.url, home=home)
        assert time.monotonic() - started_at < 2 * QUICK["stall_s"] + 2


def test_an_origin_with_some_of_the_files_gives_those(small: Checkpoint, home: Path, bad: BadServer) -> None:
    bad.script = lambda request, number: faults.NotFound() if "vocoder" in request.path else None
    error = failed_fetch(small, bad.url, home=home)
    assert "vocoder/" in error.message
    assert "404" in error.message
    with Nginx(small.root) as rest:
        fetch(small, rest.url, home=home)
        assert {each.path.split("/")[1] for each in rest.requests()} == {"vocoder"}


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_changes_under_the_fetch_is_found_and_what_came_is_kept(
    small: Checkpoint, home: Path, bad: BadServer, tmp_path: Path, same_size: bool
) -> None:
    name = "model/model-00001-of-00003.safetensors"
    served = tmp_path / "served"
    shutil.copytree(small.root, served)
    other = bytes(small.file(name).stat().st_size - (0 if same_size else 1))

    def changing(request: Request, number: int) -> Fault | None:
        return faults.ChangeFile(other) if request.path == f"/{name}" and number > 3 else None

    bad.script = changing
    error = failed_fetch(small, bad.url, home=home)
    assert label(bad) in error.message
    with Nginx(small.root) as good:
        done = fetch(small, good.url, home=home)
        assert good.bytes_sent() < small.total_bytes
    assert_same_files(done.snapshot.directory, small)


def test_a_good_origin_that_dies_in_the_middle_is_replaced_by_another(small: Checkpoint, home: Path) -> None:
    told = Told()
    with Nginx(small.root, rate_bps=12 * MIB) as mortal, Nginx(small.root, rate_bps=12 * MIB) as other:

        def kill_in_the_middle(event: diachunk.Event) -> None:
            told(event)
            if told.total_bytes > small.total_bytes / 4:
                mortal.stop()

        origins = [mortal.url, other.url]
        done = diachunk.fetch(small.target, origins=origins, home=home, progress=kill_in_the_middle)
    assert told.total_bytes == small.total_bytes
    assert_same_files(done.directory, small)


def test_an_origin_that_comes_back_is_used_again(small: Checkpoint, home: Path) -> None:
    told = Told()
    with Nginx(small.root, rate_bps=12 * MIB) as origin:

        def restart(event: diachunk.Event) -> None:
            told(event)
            if told.troubles:
                origin.start()
            elif told.total_bytes > small.total_bytes / 3:
                origin.stop()

        done = diachunk.fetch(small.target, origins=[origin.url], home=home, progress=restart)
    assert told.troubles
    assert told.total_bytes == small.total_bytes
    assert_same_files(done.directory, small)


@dataclass(frozen=True, slots=True)
class _Both:
    """One fault on top of another."""

    one: Fault
    two: Fault

    def apply(self, request: Request, reply: Reply) -> Reply:
        return self.two.apply(request, self.one.apply(request, reply))
