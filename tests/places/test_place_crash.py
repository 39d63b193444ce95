"""Killed at any call that changes something: programs see the old or the new, and the next run makes it whole."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.manifest import Manifest
from fixtures.os_seam import Seam
from fixtures.placing import COMMIT, CONFIG, WEIGHTS, World, assert_clean, from_hub, manifest_of, tree_of

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="forks")

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/extra.json": b"{}"}
OLDER = "f" * 40
_CHILD_S = 60.0


class KilledAt:
    """The observer that kills its process at the n-th call, before or after it."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.number = number
        self.after = after
        self.calls = 0

    def observe(
        self, name: str, run: Callable[[], Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        self.calls += 1
        here = self.calls == self.number
        if here and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return run() if name not in ("fsync", "fdatasync") else None
        finally:
            if here:
                os.kill(os.getpid(), signal.SIGKILL)


def killed(call: Callable[[], object], number: int, *, after: bool) -> bool:
    """Runs it in a child that kills itself there; False if it came to its end before."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with Seam(KilledAt(number, after=after)):
                call()
            code = 0
        finally:
            os._exit(code)
    until_s = time.monotonic() + _CHILD_S
    while time.monotonic() < until_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, -signal.SIGKILL), f"failed at call {number}"
            return code != 0
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("it hung")


def assert_whole(world: World, manifest: Manifest) -> None:
    """Whatever a ref or a link leads to is there with the right bytes."""
    ref = world.repository() / "refs" / "main"
    contents = {OLDER: {"config.json": b"old"}, COMMIT: MODEL}
    if ref.exists():
        commit = ref.read_text()
        for name, data in contents[commit].items():
            assert (world.repository() / "snapshots" / commit / name).read_bytes() == data
    for path in world.hub.rglob("*"):
        if not path.name.endswith(".diachunk-tmp"):
            assert path.exists(), f"{path} leads nowhere"
        else:
            assert path.parent.name == "blobs", "clients look at it"
        if path.is_symlink() and path.exists():
            assert path.read_bytes() in {*MODEL.values(), b"old"}


@pytest.fixture
def both(world: World) -> tuple[Manifest, Manifest]:
    """An older commit, placed, and the one that is to be placed."""
    older = {"config.json": b"old"}
    before = world.keep(manifest_of(from_hub("model", older, commit=OLDER), name="lab/old"), older)
    place_manifest(world.context, before)
    return before, world.keep(manifest_of(from_hub("model", MODEL)), MODEL)


@pytest.mark.parametrize("mode", ["copy", "auto"])
@pytest.mark.parametrize("after", [False, True])
def test_placing_is_stopped_anywhere(
    world: World, both: tuple[Manifest, Manifest], mode: str, after: bool
) -> None:
    _, manifest = both
    number = 1
    while killed(lambda: place_manifest(world.context, manifest, link_mode=mode), number, after=after):
        assert_whole(world, manifest)
        place_manifest(world.context, manifest, link_mode=mode)
        assert_clean(world.hub)
        assert (world.repository() / "refs" / "main").read_text() == COMMIT
        assert_whole(world, manifest)
        undone = undo_manifest(world.context, manifest)
        assert undone.left == ()
        assert (world.repository() / "refs" / "main").read_text() == OLDER
        assert not (world.repository() / "snapshots" / COMMIT).exists()
        number += 1
    assert number > 20


@pytest.mark.parametrize("after", [False, True])
def test_undoing_is_stopped_anywhere(world: World, both: tuple[Manifest, Manifest], after: bool) -> None:
    _, manifest = both
    place_manifest(world.context, manifest, link_mode="copy")
    number = 1
    while killed(lambda: undo_manifest(world.context, manifest), number, after=after):
        assert_whole(world, manifest)
        if manifest.id in world.records.ids():
            assert undo_manifest(world.context, manifest).left == ()
        assert tree_of(world.repository())["refs"] == "/"
        assert (world.repository() / "refs" / "main").read_text() == OLDER
        assert not (world.repository() / "snapshots" / COMMIT).exists()
        assert_clean(world.hub)
        place_manifest(world.context, manifest, link_mode="copy")
        number += 1
    assert number > 5


class Journal:
    """Notes flushes and names, with the paths they were of."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def observe(
        self, name: str, run: Callable[[], Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if name in ("fsync", "fdatasync"):
            self.events.append(("flush", os.readlink(f"/proc/self/fd/{args[0]}")))
        if name == "rename" and kwargs.get("dst_dir_fd") is not None:
            target = os.readlink(f"/proc/self/fd/{kwargs['dst_dir_fd']}")
            source = os.readlink(f"/proc/self/fd/{kwargs['src_dir_fd']}")
            self.events.append(("name", f"{target}/{args[1]}"))
            if not stat.S_ISLNK(os.lstat(f"{source}/{args[0]}").st_mode):
                self.events.append(("was", f"{source}/{args[0]}"))
        return run()


def test_what_a_name_leads_to_is_flushed_before_the_name_is_given(world: World) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    journal = Journal()
    with Seam(journal):
        place_manifest(world.context, manifest, link_mode="copy")
    top = world.repository()
    at = {event: number for number, event in enumerate(journal.events)}
    for number, (what, path) in enumerate(journal.events):
        if what == "was":
            assert ("flush", path) in journal.events[:number], f"{path} took its name unflushed"
    ref = at["name", str(top / "refs" / "main")]
    last_flush = {path: number for number, (what, path) in enumerate(journal.events) if what == "flush"}
    snapshots = [str(path) for path in (top / "snapshots").rglob("*") if path.is_dir()]
    for directory in (str(top / "blobs"), *snapshots, str(top / "snapshots"), str(top), str(world.hub)):
        flushed = [each for each, event in enumerate(journal.events) if event == ("flush", directory)]
        assert any(each < ref for each in flushed), f"{directory} is not flushed before the ref"
    assert last_flush[str(top / "refs")] > ref
    record = str(world.store.root / "placed")
    assert any(event == ("flush", record) for event in journal.events[:ref])


def test_a_temporary_file_of_another_store_is_left_alone(world: World, tmp_path: Path) -> None:
    blobs = world.repository() / "blobs"
    blobs.mkdir(parents=True)
    theirs = blobs / ".0123456789abcdef-00.diachunk-tmp"
    ours = blobs / f".{world.store.layout.store_id}-00.diachunk-tmp"
    theirs.touch()
    ours.touch()
    place_manifest(world.context, world.keep(manifest_of(from_hub("model", MODEL)), MODEL))
    assert theirs.exists()
    assert not ours.exists()
