"""Origins, redirects and manifests that mean harm: bounded, named, and without a wrong byte in the store."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import ManifestError, TransferIncomplete, UsageError
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Redirect, always
from diachunk.testing.reply import Reply, Request
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    published,
)
from fixtures.raw_answers import RAW
from fixtures.raw_server import Answer, RawServer
from fixtures.settings import QUICK
from fixtures.watch import Told, failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 4
SECRET = "hunter2-hunter2"


# --- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("liars", [1, 3])
def test_liars_are_put_out_and_named_and_no_wrong_byte_stays(
    small: Checkpoint, home: Path, liars: int
) -> None:
    servers = [BadServer(small.root, always(faults.Flip(-1))) for _ in range(liars)]
    try:
        with Nginx(small.root, rate_bps=12 * MIB) as good:
            done = fetch(small, *(each.url for each in servers), good.url, home=home)
        told = {each.label: each for each in done.report.sources}
        for server in servers:
            health = told[f"127.0.0.1:{server.port}"]
            assert health.bad_chunks  # of a run of several chunks only the last one is wrong
            assert "wrong bytes for" in health.last_fault
            assert len(server.exchanges) <= 3 + QUICK.get("per_origin_start", 2)
    finally:
        for server in servers:
            server.close()
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)


def test_an_origin_that_is_wrong_in_one_place_only_is_still_used(small: Checkpoint, home: Path) -> None:
    def script(request: Request, number: int) -> faults.Fault | None:
        return faults.FlipInFile(9 * MIB) if request.path.endswith("00001-of-00003.safetensors") else None

    drip = always(faults.Drip(3 * MIB))
    with BadServer(small.root, script) as mostly, BadServer(small.root, drip) as slow:
        done = fetch(small, mostly.url, slow.url, home=home)
        told = {each.label: each for each in done.report.sources}
        health = told[f"127.0.0.1:{mostly.port}"]
    assert health.verified_bytes > small.total_bytes / 2
    assert health.out == ""
    assert_same_files(done.snapshot.directory, small)


def test_an_origin_that_is_wrong_in_one_place_leaves_just_that_missing(small: Checkpoint, home: Path) -> None:
    with BadServer(small.root, always(faults.FlipInFile(9 * MIB))) as mostly:
        error = failed_fetch(small, mostly.url, home=home)
    assert "wrong bytes for model/model-0000" in error.message
    with Nginx(small.root) as good:
        fetch(small, good.url, home=home)
        assert good.bytes_sent() <= 3 * 4 * MIB


@dataclass(frozen=True, slots=True)
class Unannounced:
    """More than was asked for, without a Content-Length: the connection's end is the body's."""

    extra_bytes: int

    def apply(self, request: Request, reply: Reply) -> Reply:
        longer = reply.with_body(reply.body + bytes(self.extra_bytes)).with_headers(Content_Length=None)
        return faults.Close(len(longer.body)).apply(request, longer)


@pytest.mark.parametrize("extra_bytes", [1, 40 * MIB])
def test_bytes_after_the_range_are_refused_however_many(
    small: Checkpoint, home: Path, extra_bytes: int
) -> None:
    with BadServer(small.root, always(Unannounced(extra_bytes))) as origin:
        error = failed_fetch(small, origin.url, home=home)
    assert "more bytes than were asked for" in error.message
    assert blobs_of(home) == []


# --- HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", RAW, ids=lambda each: each.__name__)
def test_an_answer_that_is_no_http_ends_in_time_and_is_named(
    small: Checkpoint, home: Path, answer: Answer
) -> None:
    with RawServer(answer) as origin:
        started_at = time.monotonic()
        error = failed_fetch(small, origin.url, home=home)
        assert time.monotonic() - started_at < BOUND_S
        assert f"127.0.0.1:{origin.port}: " in error.message
        assert len(error.message) < 500
    assert blobs_of(home) == []


@pytest.mark.parametrize("answer", RAW, ids=lambda each: each.__name__)
def test_an_answer_that_is_no_http_does_not_stop_a_good_origin(
    small: Checkpoint, home: Path, answer: Answer
) -> None:
    with RawServer(answer) as origin, Nginx(small.root) as good:
        started_at = time.monotonic()
        done = fetch(small, origin.url, good.url, home=home)
        assert time.monotonic() - started_at < BOUND_S
    assert_same_files(done.snapshot.directory, small)


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://[bad]/x",
        "http://127.0.0.1:99999999/x",
        "http://127.0.0.1:port/x",
        "http:///x",
        "http://",
        "//",
        "ftp://127.0.0.1/x",
        "javascript:alert(1)",
        "gopher://127.0.0.1/x",
        "data:text/plain,x",
        "http://\x7f\x80/",
        "http://" + "a" * 300 + ".invalid/",
        "http://a..b.invalid/",
        "http://xn--\xfc/",
    ],
)
def test_a_redirect_to_nonsense_is_a_fault_of_that_origin(
    small: Checkpoint, home: Path, location: str
) -> None:
    with BadServer(small.root, always(Redirect(location))) as origin:
        error = failed_fetch(small, origin.url, home=home)
        assert f"127.0.0.1:{origin.port}: " in error.message
        assert error.message.isprintable()


# --- where a manifest may lead -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001"]
)
def test_no_spelling_of_a_private_address_lets_a_manifest_reach_it(
    small: Checkpoint, home: Path, tmp_path: Path, host: str
) -> None:
    with BadServer(small.root) as inner:
        pointing = published(
            small.root, origins=[f"http://{host}:{inner.port}"], out=tmp_path / "pointing.json"
        )
        failed_fetch(pointing, home=home)
        assert inner.exchanges == []


@pytest.mark.parametrize(
    "origin", ["file:///etc", "/etc", "ftp://example.org", "../x", "http://u:p@example.org"]
)
def test_a_manifest_that_names_another_kind_of_origin_is_refused(
    small: Checkpoint, home: Path, tmp_path: Path, origin: str
) -> None:
    document = json.loads(small.manifest_file.read_bytes())
    document.setdefault("hints", {})["origins"] = [origin]
    out = tmp_path / "pointing.json"
    out.write_text(json.dumps(document))
    with pytest.raises((ManifestError, UsageError)):
        diachunk.fetch(out, home=home)


def test_secrets_in_an_origin_stay_out_of_everything_that_is_said(small: Checkpoint, home: Path) -> None:
    told = Told()
    with BadServer(small.root, always(faults.Status(500))) as origin:
        error = None
        try:
            diachunk.fetch(
                small.target,
                origins=[f"{origin.url}/{{component}}/{{path}}?token={SECRET}"],
                home=home,
                progress=told,
            )
        except TransferIncomplete as caught:
            error = caught
        assert SECRET in origin.exchanges[0].request.path
    assert error is not None
    assert SECRET not in f"{error} {error!r} {error.args} {error.hint}"
    assert SECRET not in repr(told.events)
    assert not any(SECRET.encode() in each.read_bytes() for each in home.rglob("*") if each.is_file())


def test_a_login_in_an_origins_url_is_refused_without_repeating_it(small: Checkpoint, home: Path) -> None:
    with pytest.raises(UsageError, match="netrc") as caught:
        diachunk.fetch(small.target, origins=[f"http://ada:{SECRET}@127.0.0.1/"], home=home)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "origin", ["", "no/such/directory", "http://", "https:///x", "nosuch://x", "http://x/{component}"]
)
def test_an_origin_that_is_none_is_refused_before_anything_else(
    small: Checkpoint, home: Path, origin: str
) -> None:
    with pytest.raises(UsageError) as caught:
        diachunk.fetch(small.target, origins=[origin], home=home)
    assert caught.value.exit_code == 2
