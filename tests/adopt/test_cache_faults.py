"""Caches that may not be read or written, lie on other file systems, and commands that are stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.foreign.caches import verify_caches
from diachunk.api.foreign.report import CacheState
from diachunk.testing.hub import Hub
from fixtures import damage
from fixtures.checkpoints import MIB, assert_store_is_right, blobs_of
from fixtures.command_line import events_of, run
from fixtures.foreign import HUB_CACHE, WEIGHTS, Lab
from fixtures.mounts import mounted
from fixtures.users import User, need_users, shared_directory

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

ANN = User(61001, 61001)


@pytest.fixture
def shared(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home directory that Ann may enter, with a cache in it which is not hers."""
    need_users()
    with shared_directory(0o755) as directory:
        lab.put_cache(directory)
        (directory / "store").mkdir(mode=0o777)
        (directory / "store").chmod(0o777)
        for file in (lab.manifest_file, lab.native_file):
            shutil.copyfile(file, directory / file.name)
        monkeypatch.setenv("HOME", str(directory))
        monkeypatch.setenv("DIACHUNK_HOME", str(directory / "store" / "hers"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(directory / "config"))
        yield directory


def test_a_file_that_may_not_be_read_is_said_and_exits_6(lab: Lab, shared: Path) -> None:
    lab.blob(shared / HUB_CACHE, "model.safetensors").chmod(0o600)
    done = ANN.run("verify", "--cache", "hub")
    assert done.returncode == 6
    assert "lab/dia/model.safetensors: unreadable" in done.stdout
    assert "Permission denied" in done.stdout


@pytest.mark.parametrize("mode", [0o700, 0o744])
@pytest.mark.parametrize("name", ["blobs", "snapshots", ""])
def test_a_directory_that_may_not_be_read_is_said_and_exits_6(
    name: str, mode: int, lab: Lab, shared: Path
) -> None:
    """Behind it all may be wrong: silence would be a lie. 0o744: names may be seen, and nothing else."""
    locked = shared / HUB_CACHE / "models--lab--dia" / name
    locked.chmod(mode)
    try:
        done = ANN.run("verify", "--cache", "hub")
    finally:
        locked.chmod(0o755)
    assert done.returncode == 6
    assert "unreadable" in done.stdout


def test_a_file_that_may_not_be_read_is_fetched_instead(lab: Lab, shared: Path, hub: Hub) -> None:
    lab.blob(shared / HUB_CACHE, "model.safetensors").chmod(0o600)
    done = ANN.run("fetch", shared / lab.manifest_file.name, "--json", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert events_of(done.stdout)[-1]["fetched_bytes"] == (lab.files / "model.safetensors").stat().st_size


def test_a_cache_of_somebody_else_is_not_repaired_and_exits_6(lab: Lab, shared: Path, hub: Hub) -> None:
    blob = lab.blob(shared / HUB_CACHE, "model.safetensors")
    damage.flip(blob, 3_000_000)
    before = blob.read_bytes()
    done = ANN.run("verify", "--cache", "hub", "--repair", HF_ENDPOINT=hub.url)
    assert done.returncode == 6
    assert "not writable for you: nothing was changed there" in done.stdout
    assert blob.read_bytes() == before
    assert hub.bytes_sent("*") == 0  # nothing is fetched in vain


def test_a_file_in_somebody_else_s_cache_is_used_as_it_lies(lab: Lab, shared: Path) -> None:
    done = ANN.run("fetch", shared / lab.manifest_file.name, "--json")
    assert done.returncode == 0, done.stderr
    assert events_of(done.stdout)[-1]["fetched_bytes"] == 0


def test_a_read_only_cache_is_checked_and_not_repaired(lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        cache = disk.path / "hub"
        shutil.copytree(lab.caches / "2", cache, symlinks=True)
        shutil.rmtree(cache / "models--lab--twin")
        damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)
        disk.remount("ro")
        environment = {**os.environ, "HF_HUB_CACHE": str(cache)}
        report = verify_caches(["hub"], repair=True, home=home, environment=environment)
        assert report.exit_code == 6
        assert report.repair_error is not None
        assert "read-only" in report.repair_error.message


def test_a_cache_on_another_file_system_is_used_and_mended(
    lab: Lab, base: Path, home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        cache = disk.path / "hub"
        shutil.copytree(lab.caches / "2", cache, symlinks=True)
        shutil.rmtree(cache / "models--lab--twin")
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        snapshot = diachunk.fetch(lab.manifest_file, home=home)
        assert (snapshot.report.fetched_bytes, blobs_of(home)) == (0, [])
        blob = lab.blob(cache, "model.safetensors")
        damage.flip(blob, 3_000_000)
        report = verify_caches(["hub"], repair=True, home=home)
        assert report.exit_code == 0
        assert blob.read_bytes() == (lab.files / "model.safetensors").read_bytes()
        assert blob.stat().st_dev == cache.stat().st_dev
        assert_store_is_right(home)


def test_a_disk_that_fails_is_not_called_damage(
    lab: Lab, base: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted("ext4", 64 * MIB) as disk:
        cache = disk.path / "hub"
        shutil.copytree(lab.caches / "2", cache, symlinks=True)
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        blob = lab.blob(cache, "model.safetensors")
        with disk.broken_from(blob, 4 * MIB):
            report = verify_caches(["hub"], home=home)
        states = {file.path: file.state for file in report.files}
        assert states[blob] is CacheState.UNREADABLE
        assert report.exit_code == 6


def test_ctrl_c_ends_a_check_at_once(base: Path) -> None:
    """Ten gigabytes of hole take many seconds to hash."""
    blobs = base / HUB_CACHE / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / ("ab" * 32)).open("wb") as file:
        file.truncate(40_000_000_000)
    command = [sys.executable, "-m", "diachunk", "verify", "--cache", "hub", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it is at work
        process.send_signal(signal.SIGINT)
        started_s = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - started_s < 20
    assert process.returncode == 130


def test_the_command_line_tells_file_by_file_and_how_to_cure(lab: Lab, base: Path, hub: Hub) -> None:
    cache = lab.put_cache(base)
    damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)
    weights = lab.put_weights(base)
    done = run("verify", "--cache", "hub", "--cache", "descript")
    assert done.returncode == 4
    assert "lab/dia/model.safetensors: damaged" in done.stdout
    assert f"{Path(WEIGHTS).name}: cut off" in done.stdout
    assert "2 of 4 files not right" in done.stdout
    assert "run `diachunk verify --cache hub --cache descript --repair`" in done.stdout
    weights.unlink()
    done = run("verify", "--cache", "hub", "--repair", "--json", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    events = events_of(done.stdout)
    (file,) = [each for each in events if each["event"] == "file" and each["repaired"]]
    assert (file["label"], file["state"]) == ("lab/dia/model.safetensors", "damaged")
    assert (events[-1]["ok"], events[-1]["repaired"], events[-1]["wrong"]) == (True, 1, 0)
    done = run("verify", "--cache", "hub", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_cache_and_a_target_are_not_checked_together(base: Path) -> None:
    done = run("verify", "something", "--cache", "hub")
    assert done.returncode == 2
    assert "--cache checks a whole cache" in done.stderr
    assert run("verify", "--cache", "torch").returncode == 2
