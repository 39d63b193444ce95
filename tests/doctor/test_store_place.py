"""Where the store lies: not there, not to be written, read-only, full, not this user's, not a store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import StoreError
from diachunk.store.store import Store
from fixtures.checkpoints import MIB, Checkpoint
from fixtures.doctored import call, cured, diagnose, examined
from fixtures.mounts import mounted
from fixtures.users import User, need_users, shared_directory

GROUP = 61100
ANN = User(61101, 61101, (GROUP,))
BOB = User(61102, 61102, (GROUP,))


def test_a_new_machine_has_nothing_wrong(user: Path) -> None:
    found = diagnose()
    assert found.worse == []
    assert found.exit_code == 0
    assert not (user / "store").exists()


def test_a_store_that_works_has_nothing_wrong(small: Checkpoint) -> None:
    diachunk.fetch(small.target, origins=[str(small.root)])
    found = diagnose()
    assert found.worse == []
    assert found.exit_code == 0


def test_a_link_to_a_directory_that_is_gone(user: Path) -> None:
    (user / "store").symlink_to(user / "disk" / "store")
    finding = diagnose().the("which is not there", "fault")
    assert cured(finding).worse == []


def test_a_file_where_the_store_belongs(user: Path) -> None:
    (user / "store").write_text("mine\n")
    found = diagnose()
    assert found.exit_code == 6
    assert cured(found.the("is not a directory", "fault")).worse == []
    assert (user / "store").read_text() == "mine\n"


def test_a_directory_that_holds_something_else(user: Path) -> None:
    (user / "store").mkdir()
    (user / "store" / "thesis.tex").write_text("mine\n")
    finding = diagnose().the("is not a diachunk store: it holds thesis.tex", "fault")
    assert cured(finding).worse == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"diachunk_store": "x"}', b"\xff" * 9000])
def test_a_damaged_mark_is_made_anew_and_the_store_works(
    user: Path, small: Checkpoint, damage: bytes
) -> None:
    diachunk.fetch(small.target, origins=[str(small.root)])
    (user / "store" / "store.json").write_bytes(damage)
    assert call("diachunk", "ls").returncode == 6
    assert cured(diagnose().the("is damaged", "fault")).worse == []
    assert json.loads(call("diachunk", "ls", "--json").stdout)["checkpoints"][0]["complete"]


def test_a_store_of_a_newer_diachunk(user: Path, small: Checkpoint) -> None:
    diachunk.fetch(small.target, origins=[str(small.root)])
    (user / "store" / "store.json").write_text('{"diachunk_store": 99, "store_id": "ab"}')
    found = diagnose()
    assert found.exit_code == 6
    finding = found.the("made by a newer diachunk", "fault")
    upgrade, _, instead = finding["cure"].partition("  # or: ")
    assert upgrade.endswith("-m pip install --upgrade diachunk")
    assert cured({**finding, "cure": instead}).worse == []


def test_no_permission_to_write_it() -> None:
    need_users()
    with shared_directory(0o755) as place:
        environment = {"DIACHUNK_HOME": str(place / "s"), "HOME": "/nowhere"}
        found = examined(ANN, **environment)
        assert found.exit_code == 6
        finding = found.the("no permission to write", "fault")
        home = finding["cure"].partition("DIACHUNK_HOME=")[2].split()[0]
        environment = {"DIACHUNK_HOME": home, "HOME": "/nowhere"}
        assert not examined(ANN, **environment).about("permission")


def test_a_store_in_ones_own_home_that_sudo_made(small: Checkpoint) -> None:
    need_users()
    with shared_directory(0o777) as home:
        diachunk.fetch(small.target, origins=[str(small.root)], home=home / "store")
        for directory in [home / "store", *(home / "store").iterdir()]:
            if directory.is_dir():
                os.chown(directory, ANN.uid, ANN.gid)
        environment = {"DIACHUNK_HOME": str(home / "store"), "HOME": str(home)}
        finding = examined(ANN, **environment).the("in the store belong to others", "fault")
        assert finding["cure"].startswith("sudo chown -R")
        as_root = finding["cure"].removeprefix("sudo ").replace("$(id -u):$(id -g)", f"{ANN.uid}:{ANN.gid}")
        assert call("sh", "-c", as_root).returncode == 0
        assert examined(ANN, **environment).worse == []


def test_a_shared_store_that_somebody_closed_to_the_group(small: Checkpoint) -> None:
    need_users()
    with shared_directory(0o777) as place:
        home = place / "site"
        home.mkdir()
        os.chown(home, 0, GROUP)
        home.chmod(0o2775)
        diachunk.fetch(small.target, origins=[str(small.root)], home=home)
        environment = {"DIACHUNK_HOME": str(home), "HOME": str(place)}
        assert examined(BOB, **environment).worse == []
        shut = next(each for each in (home / "blobs").iterdir() if each.is_dir())
        shut.chmod(0o755)
        blob = next(each for each in (home / "blobs").rglob("*") if each.is_file() and each.parent != shut)
        blob.chmod(0o400)
        blob_status = blob.stat()
        finding = examined(BOB, **environment).the("are not the group's to use", "fault")
        assert "1 directory and 1 file" in finding["what"]
        done = call("sh", "-c", finding["cure"].replace("sudo ", ""))
        assert done.returncode == 0, done.stderr
        assert examined(BOB, **environment).worse == []
        assert blob.stat().st_mode & 0o777 == 0o440
        assert blob.stat().st_mtime_ns == blob_status.st_mtime_ns


def test_a_read_only_file_system_is_remounted() -> None:
    with mounted("ext4", 16 * MIB) as disk:
        disk.remount("ro")
        found = diagnose(DIACHUNK_HOME=str(disk.path / "store"))
        assert found.exit_code == 6
        finding = found.the("mounted read-only", "fault")
        again = cured(finding, DIACHUNK_HOME=str(disk.path / "store"))
        assert not again.about("read-only")


def test_a_disk_without_room_is_warned_of_and_another_cures_it(user: Path) -> None:
    with mounted("ext4", 16 * MIB) as disk:
        finding = diagnose(DIACHUNK_HOME=str(disk.path)).the("too little for a checkpoint", "warning")
        elsewhere = finding["cure"].partition(": ")[2].partition(",")[0]
        again = cured({**finding, "cure": elsewhere}, DIACHUNK_HOME=str(disk.path))
        assert not again.about("too little")


def test_a_disk_without_inodes() -> None:
    with mounted("ext4", 8 * MIB) as disk:
        left = os.statvfs(disk.path).f_favail
        for number in range(left - 10):
            (disk.path / f".{number}").touch()
        found = diagnose(DIACHUNK_HOME=str(disk.path))
        finding = found.the("out of inodes", "fault")
        assert not cured(finding, DIACHUNK_HOME=str(disk.path)).about("inodes")


def test_what_is_still_to_come_does_not_fit(small: Checkpoint) -> None:
    with mounted("ext4", 24 * MIB) as disk:
        home = disk.path / "store"
        with pytest.raises(StoreError):
            diachunk.fetch(small.target, origins=[str(small.root)], home=home)
        manifest = small.manifest
        Store.open(home).catalog.set_ref(manifest.name, manifest.revision, manifest.id)
        found = diagnose(DIACHUNK_HOME=str(home))
        finding = found.the("still to come", "fault")
        assert found.exit_code == 6
        assert finding["cure"].startswith("diachunk gc")


def test_a_quota_that_is_nearly_used_up() -> None:
    need_users()
    with mounted("ext4", 32 * MIB, "usrquota") as disk:
        limit = call(
            "sh",
            "-c",
            f"cd {disk.path} && quotacheck -cum . && quotaon . && setquota -u 0 0 20000 0 0 .",
        )
        if limit.returncode != 0:
            pytest.skip(f"no quotas of users here: {limit.stderr.strip()[-120:]}")
        assert diagnose(DIACHUNK_HOME=str(disk.path)).the("quota on", "warning")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_file_system_that_keeps_no_files() -> None:
    found = diagnose(DIACHUNK_HOME="/proc/store")
    assert found.exit_code == 6
    assert cured(found.the("keeps no files", "fault"), DIACHUNK_HOME="/proc/store").worse == []
