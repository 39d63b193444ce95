"""Partials, locks and leftovers: what killed and stopped runs leave in a store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.checkup import linux
from diachunk.store.store import Store
from fixtures.checkpoints import Checkpoint
from fixtures.doctored import cured, diagnose
from fixtures.gate import held_fetch
from fixtures.settings import write_config
from store_files import CHUNKS, DIGEST, PIECES, write

DAYS_S = 3 * 86400

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says who holds a lock")


def old(path: Path, seconds: float = DAYS_S) -> None:
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def fetching(target: str) -> int:
    """The process that fetches it."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        words = each.read_bytes().split(b"\0") if each.exists() else []
        if b"fetch" in words and target.encode() in words:
            return int(each.parent.name)
    raise AssertionError("nobody fetches it")


@contextlib.contextmanager
def idle_holder(path: Path) -> Iterator[int]:
    """A process that holds the lock of a file and does nothing."""
    script = (
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    )
    command = [sys.executable, "-c", f"{script}; time.sleep(60)", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def one_lane(user: Path) -> None:
    write_config(user, {"lanes": 1})


def test_a_fetch_that_was_killed_is_named_with_the_command_that_goes_on(
    user: Path, small: Checkpoint, one_lane: None
) -> None:
    with held_fetch(small.root, 4, small.target) as held:
        held.stop()
    found = diagnose("--offline")
    finding = found.the("fetched in part", "note")
    assert found.exit_code == 0
    write_config(user, {}, f'origins = ["{small.root}"]')
    assert not cured(finding).about("fetched in part")
    assert diachunk.ls().held[0].complete


def test_a_partial_that_nothing_needs(user: Path) -> None:
    store = Store.open(user / "store")
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    write(partial, PIECES, [0, 1])
    partial.close()
    assert not diagnose().about("partial")
    old(partial.path)
    finding = diagnose().the("that nothing needs", "warning")
    assert "131.1 kB in 1 partial" in finding["what"]
    assert cured(finding).worse == []
    assert not partial.path.exists()


def test_what_was_moved_aside_or_left_behind(user: Path) -> None:
    store = Store.open(user / "store")
    shelf = store.root / "blobs" / "ab"
    shelf.mkdir()
    aside = [shelf / ".abc.moved-aside-12345678", store.root / "snapshots" / ".x.moved-aside-12345678"]
    (aside[0]).write_bytes(b"x" * 100_000)
    aside[1].mkdir()
    (aside[1] / "file").write_bytes(b"y" * 5000)
    temporary = store.root / "blobs" / ".ingest-1-2.tmp"
    temporary.write_bytes(b"z")
    assert not diagnose().about("leftover")
    for each in (*aside, temporary):
        old(each)
    finding = diagnose().the("in 3 leftovers", "warning")
    assert cured(finding).worse == []
    assert not any(each.exists() for each in (*aside, temporary))


@on_linux
def test_a_fetch_at_work_is_no_trouble(small: Checkpoint, one_lane: None) -> None:
    with held_fetch(small.root, 4, small.target):
        found = diagnose("-v", "--offline")
        assert found.worse == []
        assert [each for each in found.findings if "fetches" in each["what"] and each["level"] == "ok"]


@on_linux
def test_a_stopped_process_that_holds_a_lock_is_named_and_woken(
    user: Path, small: Checkpoint, one_lane: None
) -> None:
    with held_fetch(small.root, 4, small.target):
        pid = fetching(small.target)
        os.kill(pid, signal.SIGSTOP)
        finding = diagnose("--offline").the("is stopped", "warning")
        assert f"process {pid} " in finding["what"]
        assert finding["cure"] == f"kill -CONT {pid}"
        assert not cured(finding, "--offline").about("holds the locks")


@on_linux
def test_a_lock_whose_holder_does_nothing_is_named_and_ended(user: Path) -> None:
    store = Store.open(user / "store")
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    write(partial, PIECES, [0])
    partial.close()
    with idle_holder(partial.path) as pid:
        assert diagnose("--offline").worse == []
        old(partial.path, 120)
        finding = diagnose("--offline").the("has not moved for 2 min", "warning")
        assert finding["cure"] == f"kill {pid}"
        assert cured(finding, "--offline").worse == []


@on_linux
def test_a_lock_is_only_somebodys_who_has_that_very_file_open(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    with open(tmp_path / "two", "w"):
        assert linux.has_open(os.getpid(), tmp_path / "two") is True
        assert linux.has_open(os.getpid(), tmp_path / "one") is False
    assert linux.has_open(2**22 + 1, tmp_path / "one") is None
