"""Origins in trouble, alone and in company: without ranges, slow, dead, dying, changing, coming back."""

from __future__ import annotations

import os
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
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    published,
    tree,
)
from fixtures.settings import QUICK
from fixtures.watch import Told, failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 2


@pytest.fixture
def bad(small: Checkpoint) -> Iterator[BadServer]:
    with BadServer(small.root) as server:
        yield server


def label(server: BadServer | Nginx) -> str:
    return f"127.0.0.1:{server.port}"


@dataclass(frozen=True, slots=True)
class _Both:
    """One fault on top of another."""

    one: Fault
    two: Fault

    def apply(self, request: Request, reply: Reply) -> Reply:
        return self.two.apply(request, self.one.apply(request, reply))


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


def test_a_slow_line_is_no_stall(tmp_path: Path, home: Path) -> None:
    slow_bps = 300_000
    assert slow_bps * QUICK["stall_s"] < 200_000, "less than a slice within the stall time"
    checkpoint = published(tree(tmp_path / "served", {"w.bin": os.urandom(600_000)}))
    with BadServer(checkpoint.root, always(faults.Drip(slow_bps))) as slow:
        done = fetch(checkpoint, slow.url, home=home)
        assert len(slow.exchanges) == 1
    assert done.told.troubles == []


def test_a_reset_in_the_body_beside_a_good_origin_costs_little(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    bad.script = always(faults.Reset(3 * MIB))
    with Nginx(small.root) as good:
        done = fetch(small, bad.url, good.url, home=home)
        assert good.bytes_sent() <= small.total_bytes + 8 * MIB
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)


def test_an_origin_without_ranges_helps_beside_a_slow_one(
    small: Checkpoint, home: Path, bad: BadServer
) -> None:
    bad.script = always(faults.IgnoreRange())
    with BadServer(small.root, always(faults.Drip(2 * MIB))) as slow:
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
