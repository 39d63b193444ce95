"""Disks that are full, read-only or elsewhere, and other users' directories: one clear line, nothing half there."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.errors import StoreError
from diachunk.manifest import Manifest
from fixtures.checkpoints import MIB
from fixtures.mounts import Disk, mounted
from fixtures.placing import COMMIT, CONFIG, World, assert_clean, from_hub, manifest_of, tree_of
from fixtures.users import User, need_users, shared_directory

MODEL = {"config.json": CONFIG, "model.safetensors": bytes(range(256)) * 16 * 1024}
SOMEBODY = User(54321, 54321)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with mounted("ext4", 8 * MIB) as disk:
        yield disk


def kept(world: World) -> Manifest:
    return world.keep(manifest_of(from_hub("model", MODEL)), MODEL)


def on(disk: Disk) -> dict[str, str]:
    return {"HF_HOME": str(disk.path / "hf")}


def files_below(root: Path) -> list[Path]:
    return [each for each in root.rglob("*") if not each.is_dir() and each.name != "ballast"]


def test_a_full_disk_says_so_and_nothing_is_left_of_it(world: World, disk: Disk) -> None:
    manifest = kept(world)
    ballast = disk.fill(leave_bytes=2 * MIB)
    with pytest.raises(StoreError, match="No space left") as caught:
        place_manifest(world.context, manifest, link_mode="copy", environment=on(disk))
    assert caught.value.exit_code == 6
    assert "free some space" in caught.value.hint
    assert files_below(disk.path) == []
    assert world.records.ids() == []
    disk.free(ballast)
    place_manifest(world.context, manifest, link_mode="copy", environment=on(disk))
    assert (disk.path / "hf" / "hub" / world.repository().name / "refs" / "main").read_text() == COMMIT


def test_on_a_full_disk_links_still_have_room(world: World, disk: Disk) -> None:
    manifest = kept(world)
    disk.fill(leave_bytes=MIB)
    placed = place_manifest(world.context, manifest, environment=on(disk))
    assert {each.how for each in placed.files} == {"symlink"}
    for path, data in MODEL.items():
        snapshot = disk.path / "hf" / "hub" / world.repository().name / "snapshots" / COMMIT
        assert (snapshot / path).read_bytes() == data


def test_a_read_only_cache_is_an_error_and_one_that_is_complete_is_none(world: World, disk: Disk) -> None:
    manifest = kept(world)
    (disk.path / "hf" / "hub").mkdir(parents=True)
    disk.remount("ro")
    with pytest.raises(StoreError, match=r"Read-only file system") as caught:
        place_manifest(world.context, manifest, environment=on(disk))
    assert "--into DIR" in caught.value.hint
    disk.remount("rw")
    place_manifest(world.context, manifest, link_mode="copy", environment=on(disk))
    before = tree_of(disk.path)
    disk.remount("ro")
    placed = place_manifest(world.context, manifest, environment=on(disk))
    assert {each.how for each in placed.files} == {"copy"}
    assert tree_of(disk.path) == before
    with pytest.raises(StoreError, match="Read-only"):
        undo_manifest(world.context, manifest)
    disk.remount("rw")
    assert undo_manifest(world.context, manifest).left == ()
    assert files_below(disk.path) == []


def test_a_disk_that_fails_while_it_is_written_is_an_error(world: World, disk: Disk) -> None:
    manifest = kept(world)
    (disk.path / "hf").mkdir()
    disk.abort()
    with pytest.raises(StoreError) as caught:
        place_manifest(world.context, manifest, link_mode="copy", environment=on(disk))
    assert caught.value.exit_code == 6
    disk.mend()


def test_another_users_cache_is_refused_in_one_line() -> None:
    need_users()
    with shared_directory(0o777) as directory:
        home = directory / "home"
        home.mkdir()
        os.chown(home, SOMEBODY.uid, SOMEBODY.gid)
        cache = directory / "cache"
        (cache / "hub").mkdir(parents=True)
        (cache / "hub").chmod(0o755)
        source = directory / "model"
        source.mkdir()
        for name, data in MODEL.items():
            (source / name).write_bytes(data)
        environment = {"HOME": str(home), "DIACHUNK_HOME": str(home / "store"), "XDG_CONFIG_HOME": str(home)}
        code = (
            "import sys, diachunk\n"
            "from diachunk.api.placing import place\n"
            "from diachunk.errors import DiachunkError\n"
            f"upstream = {{'kind': 'hub', 'repository': 'a/b', 'commit': '{COMMIT}'}}\n"
            f"diachunk.publish(['model={source}'], name='lab/a', upstream={{'model': upstream}}, copy=True)\n"
            "for into in sys.argv[1:]:\n"
            "    try:\n"
            "        print(place('lab/a', into=into).files[0].how)\n"
            "    except DiachunkError as error:\n"
            "        print(type(error).__name__, error.exit_code, error)\n"
        )
        into = [str(cache / "hub"), str(cache / "deeper"), str(home / "mine")]
        done = subprocess.run(
            [*SOMEBODY.prefix(), sys.executable, "-c", code, *into],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            cwd="/",
            timeout=60,
            check=True,
        )
        refused, not_made, placed = done.stdout.splitlines()
        for line in (refused, not_made):
            assert line.startswith("StoreError 6 cannot create"), line
            assert "Permission denied" in line
            assert "--into DIR" in line
        assert placed in ("hardlink", "reflink")
        assert list((cache / "hub").iterdir()) == []


def test_a_directory_that_cannot_be_made_says_which(world: World) -> None:
    manifest = kept(world)
    (world.home / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=str(world.home / "file")):
        place_manifest(world.context, manifest, [world.home / "file" / "x"])
    (world.home / "link").symlink_to("gone")
    with pytest.raises(StoreError, match=str(world.home / "link")):
        place_manifest(world.context, manifest, [world.home / "link"])
    assert_clean(world.home)


def test_more_files_than_a_process_may_open(world: World) -> None:
    files = {f"d{number % 40}/{number}.json": b"%d" % number for number in range(300)}
    manifest = world.keep(manifest_of(from_hub("model", files)), files)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        place_manifest(world.context, manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    snapshot = world.repository() / "snapshots" / COMMIT
    assert all((snapshot / name).read_bytes() == data for name, data in files.items())
