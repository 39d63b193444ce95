"""Doctor itself: changes nothing, never hangs, survives its own bugs, and says things in order."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.checkup.base import Area, Finding, Group, Level, Online, Patient
from diachunk.api.checkup.bounded import examine
from diachunk.api.checkup.doctor import doctor, exit_code
from diachunk.testing.bad_server import BadServer
from diachunk.within import within
from fixtures.checkpoints import Checkpoint
from fixtures.doctored import call, diagnose
from store_files import listing

PATIENT = Patient({})


def fine(patient: Patient) -> Iterator[Finding]:
    yield Finding(Level.OK, Area.STORE, "fine")


def hangs(patient: Patient, *, seconds: float = 60.0) -> Iterator[Finding]:
    yield Finding(Level.NOTE, Area.STORE, "before")
    threading.Event().wait(seconds)
    yield Finding(Level.NOTE, Area.STORE, "after")


def has_a_bug(patient: Patient) -> Iterator[Finding]:
    yield Finding(Level.NOTE, Area.STORE, "first")
    raise KeyError("x")


def is_refused(patient: Patient) -> Iterator[Finding]:
    yield Finding(Level.OK, Area.STORE, "first")
    open("/nowhere/file")


def test_a_group_that_hangs_says_what_it_found_and_what_it_did_not_look_at() -> None:
    slow = Group(Area.STORE, "the store /nfs", (fine, functools.partial(hangs), fine), 0.3)
    other = Group(Area.NETWORK, "x", (fine,), 5.0)
    started_at = time.monotonic()
    found = examine([slow, other], PATIENT)
    assert time.monotonic() - started_at < 5
    whats = [each.what for each in found]
    assert whats[:2] == ["fine", "before"]
    assert whats[2] == "the store /nfs gave no answer in 0.3 s; not looked at: hangs, fine"
    assert found[2].level is Level.FAULT
    assert found[2].cure.startswith("export DIACHUNK_HOME=")
    assert whats[3:] == ["fine"]


def test_a_check_with_a_bug_silences_no_other() -> None:
    found = examine([Group(Area.STORE, "x", (has_a_bug, fine))], PATIENT)
    assert [each.level for each in found] == [Level.NOTE, Level.WARNING, Level.OK]
    assert "“has a bug” itself failed: KeyError" in found[1].what


def test_what_the_system_refuses_is_a_fault_of_that_area() -> None:
    found = examine([Group(Area.MACHINE, "x", (is_refused, fine))], PATIENT)
    assert [each.level for each in found] == [Level.OK, Level.FAULT, Level.OK]
    assert "/nowhere/file" in found[1].what


def test_within_hands_on_what_comes_of_it() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        within(0.05, lambda: threading.Event().wait(30))


def test_a_finding_is_one_line_without_secrets() -> None:
    finding = Finding(Level.NOTE, Area.STORE, "a\nb https://me:pw@x/y?token=t \x1b[31m", "rm a\nb")
    assert finding.what == "a b https://x/y?… \N{REPLACEMENT CHARACTER}[31m"
    assert finding.cure == "rm a b"


@pytest.mark.parametrize(
    ("areas", "code"),
    [
        ((), 0),
        (("caches",), 4),
        (("network", "caches"), 5),
        (("store", "network"), 6),
        (("machine",), 6),
        (("store", "settings"), 2),
    ],
)
def test_the_exit_code_is_that_of_what_is_to_be_mended_first(areas: tuple[str, ...], code: int) -> None:
    faults = [Finding(Level.FAULT, Area(each), "x") for each in areas]
    assert exit_code([*faults, Finding(Level.WARNING, Area.SETTINGS, "y")]) == code


@pytest.fixture
def dead_mount(tmp_path: Path) -> Iterator[Path]:
    """A file system whose server never answers: FUSE, and nobody reads its requests."""
    if sys.platform != "linux" or os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("a mount that hangs needs root, Linux and FUSE")
    libc = ctypes.CDLL(None, use_errno=True)
    point = tmp_path / "dead"
    point.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"dead", os.fsencode(point), b"fuse", 0, options) != 0:
        os.close(device)
        pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
    try:
        yield point
    finally:
        os.close(device)  # which ends every wait
        libc.umount2(os.fsencode(point), 2)


def test_a_mount_that_hangs_ends_in_a_fault_and_holds_up_no_other(user: Path, dead_mount: Path) -> None:
    started_at = time.monotonic()
    with BadServer(user) as server:
        found = diagnose(DIACHUNK_HOME=str(dead_mount / "store"), DIACHUNK_ORIGINS=server.url)
    assert time.monotonic() - started_at < 30
    assert len([each for each in found.findings if "gave no answer" in each["what"]]) == 3, found.worse
    assert found.about("a disk with adopted files gave no answer")
    assert found.about("a disk with placed files gave no answer")
    finding = found.the("gave no answer in 10 s; not looked at: access", "fault")
    assert found.exit_code == 6
    assert {"machine", "caches", "network"} <= {each["area"] for each in found.findings}
    home = finding["cure"].partition("=")[2].split()[0]
    assert diagnose("--offline", DIACHUNK_HOME=home).worse == []


def test_changes_nothing(user: Path, small: Checkpoint) -> None:
    diachunk.fetch(small.target, origins=[str(small.root)])
    before = listing(user), {path: path.lstat().st_mtime_ns for path in user.rglob("*")}
    doctor(online=False)
    diagnose("-v")
    assert (listing(user), {path: path.lstat().st_mtime_ns for path in user.rglob("*")}) == before


def test_reads_no_large_file(user: Path, small: Checkpoint) -> None:
    diachunk.fetch(small.target, origins=[str(small.root)])
    for blob in (user / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.stat().st_size > 100_000:
            os.utime(blob, (1, 1))
    times = {
        path: path.stat().st_atime_ns for path in (user / "store" / "blobs").rglob("*") if path.is_file()
    }
    doctor(online=False)
    for path, atime in times.items():
        if path.stat().st_size > 100_000:
            assert path.stat().st_atime_ns == atime


def test_faults_come_first_then_warnings_and_notes() -> None:
    done = call(
        "diachunk", "doctor", "-v", "--offline", DIACHUNK_MAX_DOWN="x", DIACHUNK_X="1", HF_HUB_OFFLINE="1"
    )
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    levels = [line.split()[0] for line in lines[:-1] if not line.startswith(" ")]
    assert levels == sorted(levels, key=["fault", "warning", "note", "ok"].index)
    assert levels[:3] == ["fault", "warning", "note"]
    assert lines[1] == "         unset DIACHUNK_MAX_DOWN"
    assert lines[-1] == "1 fault, 1 warning"


def test_without_anything_wrong_one_line_says_so() -> None:
    done = call("diachunk", "doctor", "--offline")
    assert re.fullmatch(r"nothing wrong found: \d+ checks\n", done.stdout)
    assert done.returncode == 0
    assert call("diachunk", "doctor", "--offline", "-q").stdout == ""


def test_the_library_gives_the_same() -> None:
    found = doctor(online=False)
    assert all(isinstance(each, Finding) for each in found)
    assert exit_code(found) == 0
    assert doctor(online=Online.OFF)


def test_online_and_offline_exclude_each_other() -> None:
    assert call("diachunk", "doctor", "--online", "--offline").returncode == 2


def test_the_help_tells_the_exit_codes() -> None:
    said = " ".join(call("diachunk", "doctor", "--help").stdout.split())
    for words in ("2 settings", "6 the store", "5 the network", "4 a damaged cache"):
        assert words in said
