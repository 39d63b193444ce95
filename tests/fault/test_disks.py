"""Disks that are full, limited, read-only or failing: exit 6, one line that says so, and nothing verified is lost."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import diachunk
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    published,
    tree,
)
from fixtures.command_line import run
from fixtures.gate import held_fetch
from fixtures.mounts import mounted, quota, set_quota
from fixtures.settings import QUICK, write_config
from fixtures.users import one_line

pytestmark = pytest.mark.loopback

HELD_AFTER = 4
FULL = "No space left on device"
READ_ONLY = "Read-only file system"
BROKEN = "Input/output error"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Chunks of 4 MiB, six of them in one file."""
    files = {"model/weights.bin": os.urandom(22 * MIB + 123), "model/config.json": b"{}"}
    return published(tree(tmp_path_factory.mktemp("disks") / "served", files))


@pytest.fixture(autouse=True)
def one_lane(base: Path) -> None:
    """So that what was sent before a request was verified and written when it comes."""
    write_config(base, {"lanes": 1})


def resumes_exactly(
    large: Checkpoint,
    home: Path,
    harm: Callable[[], object],
    cure: Callable[[], object],
    why: str,
    to: Path | None = None,
) -> None:
    """Harm in the middle of a fetch ends it with 6; after the cure the same command fetches just the rest."""
    words = [large.target, *(("--to", to) if to else ())]
    with held_fetch(large.root, HELD_AFTER, *words, DIACHUNK_HOME=str(home)) as held:
        harm()
        code, said = held.go_on()
        verified_bytes = held.sent_bytes(HELD_AFTER)
    assert code == 6, said
    # what the fetch said before it failed comes first
    error = said[said.index("diachunk: ") :]
    assert one_line(error), said
    assert why in error
    cure()
    with Nginx(large.root) as origin:
        done = run("fetch", *words, "--origin", origin.url, DIACHUNK_HOME=str(home))
        assert done.returncode == 0, done.stderr
        assert origin.bytes_sent() == large.total_bytes - verified_bytes
    assert_same_files(to or Path(done.stdout.strip()), large)
    assert_store_is_right(home)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_store_whose_disk_fills_up_meanwhile_resumes_once_there_is_space(
    large: Checkpoint, kind: str
) -> None:
    with mounted(kind, 64 * MIB) as disk:
        resumes_exactly(large, disk.path / "store", disk.fill, lambda: disk.free(disk.path / "ballast"), FULL)


def test_a_directory_whose_disk_fills_up_meanwhile_resumes_once_there_is_space(
    large: Checkpoint, home: Path
) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        to = disk.path / "out"
        resumes_exactly(large, home, disk.fill, lambda: disk.free(disk.path / "ballast"), FULL, to)


def test_a_quota_that_is_used_up_meanwhile_resumes_once_there_is_more(large: Checkpoint) -> None:
    with mounted("btrfs", 128 * MIB) as disk, quota(disk, 100 * MIB) as limited:
        resumes_exactly(
            large,
            limited / "store",
            lambda: set_quota(disk, limited, 2 * MIB),
            lambda: set_quota(disk, limited, 100 * MIB),
            "Disk quota exceeded",
        )


def test_a_disk_that_turns_read_only_meanwhile_resumes_once_it_is_writable(large: Checkpoint) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        resumes_exactly(large, disk.path / "store", disk.abort, disk.mend, READ_ONLY)


@pytest.mark.parametrize("where", ["store", "directory"])
def test_too_small_a_disk_is_told_before_the_first_byte(large: Checkpoint, home: Path, where: str) -> None:
    with mounted("ext4", 64 * MIB) as disk, Nginx(large.root) as origin:
        ballast = disk.fill(leave_bytes=8 * MIB)
        words: list[str | Path] = ["fetch", large.target, "--origin", origin.url]
        words += ["--to", disk.path / "out"] if where == "directory" else []
        store = home if where == "directory" else disk.path / "store"
        done = run(*words, "-q", DIACHUNK_HOME=str(store))
        assert done.returncode == 6
        assert one_line(done.stderr)
        assert f"needs {large.total_bytes:,} bytes of disk" in done.stderr
        assert origin.requests() == []
        disk.free(ballast)
        assert run(*words, "-q", DIACHUNK_HOME=str(store)).returncode == 0
        assert_store_is_right(store)


@pytest.fixture
def kept(large: Checkpoint, tmp_path: Path) -> Path:
    """A store that holds the checkpoint, to be copied onto a disk."""
    home = tmp_path / "kept"
    diachunk.publish([f"model={large.root / 'model'}"], name="lab/small", copy=True, home=home)
    return home


def test_a_read_only_store_serves_what_it_holds_and_refuses_the_rest(
    large: Checkpoint, kept: Path, tmp_path: Path
) -> None:
    other = published(tree(tmp_path / "other", {"w.bin": os.urandom(MIB)}), "lab/other")
    with mounted("ext4", 64 * MIB) as disk:
        home = disk.path / "store"
        shutil.copytree(kept, home, symlinks=True)
        assert run("verify", DIACHUNK_HOME=str(home)).returncode == 0
        disk.remount("ro")
        for words in (
            ["ls"],
            ["show", "lab/small"],
            ["verify"],
            ["verify", "lab/small"],
            ["fetch", "lab/small"],
        ):
            done = run(*words, DIACHUNK_HOME=str(home))
            assert done.returncode == 0, (words, done.stderr)
        for words in (
            ["fetch", other.target, "--origin", str(other.root), "-q"],
            ["publish", "--name", "lab/x", str(other.root), "-q"],
            ["publish", "--copy", "--name", "lab/x", str(other.root), "-q"],
            ["rm", "lab/small"],
            ["gc", "--max-size", "0"],
        ):
            done = run(*words, DIACHUNK_HOME=str(home))
            assert done.returncode == 6, (words, done.stderr)
            assert one_line(done.stderr), (words, done.stderr)
            assert READ_ONLY in done.stderr
        disk.remount("rw")
        assert diachunk.verify(["lab/small"], home=home).ok
        assert run("fetch", other.target, "--origin", other.root, DIACHUNK_HOME=str(home)).returncode == 0
        assert_store_is_right(home)


def test_a_new_store_on_a_read_only_disk_is_refused_in_one_line(large: Checkpoint) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        disk.remount("ro")
        done = run("fetch", large.target, "--origin", large.root, DIACHUNK_HOME=str(disk.path / "store"))
        assert done.returncode == 6
        assert one_line(done.stderr)
        assert READ_ONLY in done.stderr
        assert "DIACHUNK_HOME" in done.stderr


def test_a_blob_that_the_disk_cannot_read_is_told_apart_from_rot_and_mended(
    large: Checkpoint, kept: Path, base: Path
) -> None:
    write_config(base, QUICK)
    with mounted("ext4", 64 * MIB) as disk:
        home = disk.path / "store"
        shutil.copytree(kept, home, symlinks=True)
        blob = max(blobs_of(home), key=lambda each: each.stat().st_size)
        with disk.broken_from(blob, 17 * MIB):
            done = run("verify", "lab/small", DIACHUNK_HOME=str(home))
            assert "model/weights.bin" in done.stdout
            assert "chunk 4" in done.stdout
            assert BROKEN in done.stdout + done.stderr
            assert done.returncode == 6
        # the disk is well again
        assert run("verify", "lab/small", DIACHUNK_HOME=str(home)).returncode == 0
        with disk.broken_from(blob, 17 * MIB), Nginx(large.root) as origin:
            words = ["verify", "lab/small", "--repair", "--origin", origin.url]
            assert run(*words, DIACHUNK_HOME=str(home)).returncode == 0
            assert origin.bytes_sent() == large.total_bytes - 16 * MIB - 2
        assert run("verify", "lab/small", DIACHUNK_HOME=str(home)).returncode == 0
        assert_store_is_right(home)


def test_a_source_that_the_disk_cannot_read_is_not_published(large: Checkpoint, home: Path) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        mine = Path(shutil.copytree(large.root / "model", disk.path / "mine"))
        with disk.broken_from(mine / "weights.bin", 10 * MIB):
            more: list[str]
            for more in ([], ["--copy"], ["--no-store"]):
                done = run("publish", "--name", "lab/x", mine, *more, "-q", DIACHUNK_HOME=str(home))
                assert done.returncode == 6, done.stderr
                assert one_line(done.stderr), done.stderr
                assert BROKEN in done.stderr
        assert blobs_of(home) == []
        assert run("publish", "--name", "lab/x", mine, "-q", DIACHUNK_HOME=str(home)).returncode == 0


def test_an_origin_directory_that_the_disk_cannot_read_is_named_and_another_steps_in(
    large: Checkpoint, home: Path, base: Path
) -> None:
    write_config(base, QUICK)
    with mounted("ext4", 64 * MIB) as disk:
        bad = Path(shutil.copytree(large.root, disk.path / "served"))
        with disk.broken_from(bad / "model/weights.bin", 10 * MIB):
            done = run("fetch", large.target, "--origin", bad, DIACHUNK_HOME=str(home))
            assert done.returncode == 5
            assert BROKEN in done.stderr
            assert "unexpected" not in done.stderr
            with Nginx(large.root) as origin:
                words = ["--origin", str(bad), "--origin", origin.url]
                done = run("fetch", large.target, *words, DIACHUNK_HOME=str(home))
                assert done.returncode == 0, done.stderr
                assert origin.bytes_sent() <= large.total_bytes - 8 * MIB
    assert_store_is_right(home)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_publishing_with_copy_shares_the_bytes_where_the_file_system_can(
    large: Checkpoint, kind: str
) -> None:
    with mounted(kind, 64 * MIB) as disk:
        mine = Path(shutil.copytree(large.root / "model", disk.path / "mine"))
        home = disk.path / "store"
        os.sync()
        before = disk.free_bytes()
        assert run("publish", "--name", "lab/x", "--copy", mine, DIACHUNK_HOME=str(home)).returncode == 0
        os.sync()
        taken = before - disk.free_bytes()
        assert (taken < 4 * MIB) == (kind != "ext4"), taken
        assert_store_is_right(home)
        # one's own file may change from here on: the store's bytes are its own
        with (mine / "weights.bin").open("r+b") as file:
            file.write(b"changed")
        assert run("verify", DIACHUNK_HOME=str(home)).returncode == 0
        (blob,) = (each for each in blobs_of(home) if each.stat().st_size > MIB)
        assert filecmp.cmp(blob, large.file("model/weights.bin"), shallow=False)
