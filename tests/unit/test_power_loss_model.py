"""The recorder misses nothing, and the model of power loss drops what POSIX lets a disk drop, and no more."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from diachunk.store.stamps import Stamp
from fixtures.os_seam import NAMES as CALLS
from fixtures.os_seam import Seam
from fixtures.power_cut import (
    BYTES,
    EVERYTHING,
    NAMES,
    NAMES_AND_SIZES,
    NOTHING,
    PAGE,
    Keeping,
    all_but_bytes_of,
    at_risk,
    muted,
    power_cut,
    some,
)
from fixtures.power_journal import Flushed, Inode, Wrote
from fixtures.power_loss import Recorder, Unmodelled

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="knows the calls of Linux alone")

DATA = os.urandom(3 * PAGE + 100)


@dataclass(slots=True)
class Bench:
    """A directory with a durable file `old`, and what is done to it."""

    root: Path
    graveyard: Path

    def record(self, act: Callable[[Path], None]) -> Recorder:
        recorder = Recorder(self.root, self.graveyard)
        with Seam(recorder):
            act(self.root)
        return recorder

    def after(
        self, recorder: Recorder, keeping: Keeping, count: int | None = None
    ) -> dict[str, bytes | str | None]:
        """What is there after the cut: bytes of files, targets of links, None for directories."""
        power_cut(recorder.top, recorder.events[:count], keeping).lay_out(self.root, self.graveyard)
        return look(self.root)


def look(root: Path) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    for name in ("root", "graveyard"):
        (tmp_path / name).mkdir()
    (tmp_path / "root" / "old").write_bytes(b"old")
    return Bench(tmp_path / "root", tmp_path / "graveyard")


def put(path: Path, data: bytes, *, flush: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.pwrite(fd, data, 0)
    if flush:
        os.fdatasync(fd)
    os.close(fd)


def flush_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def everything_there_is(root: Path) -> None:
    """One of each way that changes a directory tree."""
    with open(root / "opened", "wb") as file:
        file.write(DATA)
    (root / "text").write_text("text\n", "utf-8")
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "touched").touch()
    put(root / "a" / "cut", DATA)
    os.truncate(root / "a" / "cut", PAGE + 1)
    with open(root / "text", "wb") as file:
        file.write(b"new text\n")
    os.symlink("a/cut", root / "link")
    os.link(root / "a" / "cut", root / "second name")
    os.rename(root / "opened", root / "a" / "moved")
    (root / "old").replace(root / "a" / "cut")
    here = os.open(root / "a", os.O_RDONLY)
    os.mkdir("c", dir_fd=here)
    fd = os.open("inside", os.O_RDWR | os.O_CREAT, 0o640, dir_fd=here)
    os.ftruncate(fd, 5 * PAGE)
    os.pwrite(fd, DATA, PAGE)
    os.fchmod(fd, 0o444)
    os.utime(fd, ns=(10**18, 10**18))
    os.symlink("inside", "to inside", dir_fd=here)
    os.link("inside", "inside too", src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
    appending = os.open("inside", os.O_WRONLY | os.O_APPEND, dir_fd=here)
    os.write(appending, b"one")
    os.write(appending, b"two")
    os.close(appending)
    os.rename("inside", "outside", src_dir_fd=here, dst_dir_fd=here)
    os.close(fd)
    os.close(here)
    shutil.rmtree(root / "a" / "b")
    (root / "link").unlink()


def test_with_everything_kept_the_disk_is_as_it_was(bench: Bench) -> None:
    recorder = bench.record(everything_there_is)
    before = look(bench.root), (bench.root / "a" / "outside").stat()
    bench.after(recorder, EVERYTHING)
    again = (bench.root / "a" / "outside").stat()
    assert look(bench.root) == before[0]
    assert Stamp.of(again) == Stamp.of(before[1])
    assert (again.st_mode, again.st_blocks) == (before[1].st_mode, before[1].st_blocks)


def test_any_moment_can_be_laid_out_again(bench: Bench) -> None:
    recorder = bench.record(everything_there_is)
    assert bench.after(recorder, EVERYTHING, 0) == {"old": b"old"}
    for count in range(len(recorder.events) + 1):
        for keeping in (
            NOTHING,
            NAMES_AND_SIZES,
            NAMES,
            BYTES,
            some(count),
            *at_risk(recorder.events[:count]),
        ):
            bench.after(recorder, keeping, count)
            assert bench.after(recorder, NOTHING, count) == {"old": b"old"}


def test_unflushed_bytes_are_lost_or_zeros_or_there_without_a_name(bench: Bench) -> None:
    recorder = bench.record(lambda root: put(root / "new", DATA))
    assert bench.after(recorder, NOTHING) == {"old": b"old"}
    assert bench.after(recorder, NAMES) == {"old": b"old", "new": b""}
    assert bench.after(recorder, NAMES_AND_SIZES) == {"old": b"old", "new": bytes(len(DATA))}
    assert bench.after(recorder, BYTES) == {"old": b"old"}


def test_a_flushed_file_keeps_its_bytes_and_a_flushed_directory_its_names(bench: Bench) -> None:
    def act(root: Path) -> None:
        put(root / "new", DATA, flush=True)
        flush_dir(root)
        os.rename(root / "new", root / "newer")

    recorder = bench.record(act)
    assert bench.after(recorder, NOTHING) == {"old": b"old", "new": DATA}
    for keeping in (NAMES, NAMES_AND_SIZES):
        assert bench.after(recorder, keeping) == {"old": b"old", "newer": DATA}


def test_a_new_directory_is_lost_with_all_that_is_in_it_until_its_parent_is_flushed(bench: Bench) -> None:
    def act(root: Path) -> None:
        os.mkdir(root / "d")
        put(root / "d" / "new", DATA, flush=True)
        flush_dir(root / "d")
        flush_dir(root)

    recorder = bench.record(act)
    assert bench.after(recorder, NOTHING, -1) == {"old": b"old"}
    assert bench.after(recorder, NOTHING) == {"old": b"old", "d": None, "d/new": DATA}


def test_two_names_of_one_file_are_durable_each_with_its_own_directory(bench: Bench) -> None:
    def act(root: Path) -> None:
        os.mkdir(root / "d")
        flush_dir(root)
        os.link(root / "old", root / "d" / "linked")
        os.link(root / "old", root / "beside")
        flush_dir(root / "d")

    recorder = bench.record(act)
    assert bench.after(recorder, NOTHING) == {"old": b"old", "d": None, "d/linked": b"old"}
    assert (bench.root / "d" / "linked").samefile(bench.root / "old")


def test_what_is_appended_is_where_the_file_ended(bench: Bench) -> None:
    def act(root: Path) -> None:
        fd = os.open(root / "old", os.O_WRONLY | os.O_APPEND)
        os.write(fd, b" and new")
        os.fdatasync(fd)
        os.close(fd)

    recorder = bench.record(act)
    assert bench.after(recorder, NOTHING) == {"old": b"old and new"}


def test_what_is_written_after_a_flush_is_not_flushed(bench: Bench) -> None:
    def act(root: Path) -> None:
        fd = os.open(root / "old", os.O_WRONLY)
        os.pwrite(fd, b"NEW", 0)
        os.fdatasync(fd)
        os.pwrite(fd, b"newer", 0)
        os.close(fd)

    recorder = bench.record(act)
    assert bench.after(recorder, NOTHING) == {"old": b"NEW"}
    assert bench.after(recorder, NAMES_AND_SIZES) == {"old": b"NEW\0\0"}
    assert bench.after(recorder, BYTES) == {"old": b"newer"}


def test_a_file_that_lost_its_bytes_can_still_match_its_stamp(bench: Bench) -> None:
    recorder = bench.record(lambda root: put(root / "new", DATA))
    stamp = Stamp.of((bench.root / "new").stat())
    inode = next(event.inode for event in recorder.events if isinstance(event, Wrote))
    assert bench.after(recorder, all_but_bytes_of(inode))["new"] == bytes(len(DATA))
    assert stamp.matches((bench.root / "new").stat())


def test_each_unflushed_thing_is_lost_alone(bench: Bench) -> None:
    def act(root: Path) -> None:
        put(root / "one", DATA, flush=True)
        put(root / "two", DATA)
        os.mkdir(root / "d")

    recorder = bench.record(act)
    labels = [keeping.label for keeping in at_risk(recorder.events)]
    two = next(node for node in recorder.now[recorder.top].items() if node[0] == "two")[1]
    assert isinstance(two, Inode)
    assert labels == ["everything but the names in /", f"everything but the bytes of {two.number}"]


def test_a_seed_always_draws_the_same(bench: Bench) -> None:
    recorder = bench.record(everything_there_is)
    disks = [power_cut(recorder.top, recorder.events, some(seed)).fingerprint for seed in (1, 1, 2, 3, 4)]
    assert disks[0] == disks[1]
    assert len(set(disks)) > 2


def test_a_muted_flush_is_none(bench: Bench) -> None:
    def act(root: Path) -> None:
        put(root / "new", DATA, flush=True)
        flush_dir(root)

    recorder = bench.record(act)
    sites = {event.site for event in recorder.events if isinstance(event, Flushed)}
    assert sites == {""}  # nobody of the library
    silent = muted(recorder.events, "")
    assert power_cut(recorder.top, silent, NOTHING).tree[recorder.top].keys() == {"old"}


@pytest.mark.parametrize("name", ["mkfifo", "copy_file_range"])
def test_a_way_to_change_files_that_nobody_taught_is_refused(bench: Bench, name: str) -> None:
    def act(root: Path) -> None:
        if name == "copy_file_range":
            with open(root / "old", "rb") as file:
                os.copy_file_range(file.fileno(), file.fileno(), 1)
        else:
            getattr(os, name)(root / "new")

    with pytest.raises(Unmodelled):
        bench.record(act)


def test_the_seam_is_gone_afterwards(bench: Bench) -> None:
    before = [getattr(os, name, None) for name in CALLS], open
    bench.record(lambda root: None)
    assert before == ([getattr(os, name, None) for name in CALLS], open)
