"""Several at once: with locks, without, and beside somebody who writes there too."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from diachunk.api.context import Context
from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.errors import StoreError
from diachunk.manifest import Manifest
from diachunk.places.prepare import Preparer
from diachunk.places.records import Records
from diachunk.places.tree import Tree
from fixtures.placing import (
    COMMIT,
    CONFIG,
    WEIGHTS,
    World,
    assert_clean,
    component,
    etag,
    from_hub,
    manifest_of,
    tree_of,
)

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/extra.json": b"{}"}
_PATIENCE_S = 60.0


def _place_often(home: Path, manifest: Manifest, mode: str, locks: bool, times: int, said: Any) -> None:
    if not locks:
        fcntl.flock = lambda fd, kind: None
    try:
        for _ in range(times):
            place_manifest(Context.make(home), manifest, link_mode=mode)
            time.sleep(0.001)
        said.put("")
    except BaseException as error:
        said.put(repr(error))
        raise


def _at_once(world: World, jobs: list[tuple[Manifest, str]], *, locks: bool, times: int = 5) -> None:
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    home = world.store.root
    workers = [
        context.Process(target=_place_often, args=(home, manifest, mode, locks, times, said))
        for manifest, mode in jobs
    ]
    for worker in workers:
        worker.start()
    try:
        assert [said.get(timeout=_PATIENCE_S) for _ in workers] == [""] * len(workers)
    finally:
        for worker in workers:
            worker.join(5)
            worker.kill()


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("mode", ["auto", "copy", "symlink"])
def test_two_that_place_the_same_both_end_well(world: World, locks: bool, mode: str) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    _at_once(world, [(manifest, mode)] * 3, locks=locks)
    for path, data in MODEL.items():
        assert (world.repository() / "snapshots" / COMMIT / path).read_bytes() == data
    if locks:
        assert_clean(world.home)
    undone = undo_manifest(world.context, manifest)
    assert undone.left == ()
    if locks:
        assert tree_of(world.hub) == {}


def test_different_checkpoints_of_one_repository_at_once(world: World) -> None:
    jobs = []
    for number in range(3):
        files = {"config.json": b"%d" % number, "model.safetensors": WEIGHTS}
        made = manifest_of(from_hub("model", files, commit=f"{number}" * 40), name=f"lab/n{number}")
        jobs.append((world.keep(made, files), "auto"))
    _at_once(world, jobs, locks=True)
    commit = (world.repository() / "refs" / "main").read_text()
    assert commit in {f"{number}" * 40 for number in range(3)}
    for number in range(3):
        snapshot = world.repository() / "snapshots" / (f"{number}" * 40)
        assert (snapshot / "config.json").read_bytes() == b"%d" % number
    for manifest, _ in jobs:
        undo_manifest(world.context, manifest)
    assert tree_of(world.hub) == {}


def when_put(monkeypatch: pytest.MonkeyPatch, name: str, then: Any) -> None:
    """Calls `then` once, just before something takes that name."""
    real = Tree.look
    done: list[str] = []

    def looking(self: Tree, where: str) -> Any:
        # the first look after all was made ready under temporary names
        ready = list((self.root / where).parent.glob(".*.diachunk-tmp"))
        if where.endswith(name) and ready and not done:
            done.append(where)
            then(self.root / where)
        return real(self, where)

    monkeypatch.setattr(Tree, "look", looking)


def test_a_file_that_a_client_completes_meanwhile_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    name = etag("model.safetensors", WEIGHTS)
    when_put(monkeypatch, name, lambda path: path.write_bytes(WEIGHTS))
    placed = place_manifest(world.context, manifest)
    assert {each.path: each.how for each in placed.files}["model.safetensors"] == "there already"
    assert (world.repository() / "blobs" / name).stat().st_nlink == 1
    assert_clean(world.home)


def test_a_wrong_file_that_appears_meanwhile_is_not_overwritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(component("model", MODEL)), MODEL)
    when_put(monkeypatch, "model.safetensors", lambda path: path.write_bytes(b"theirs"))
    with pytest.raises(StoreError, match="in the way"):
        place_manifest(world.context, manifest, [world.home / "x"])
    assert (world.home / "x" / "model" / "model.safetensors").read_bytes() == b"theirs"
    assert_clean(world.home)


def test_what_another_run_places_between_is_still_ours_to_undo(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    real, between = Preparer.prepare, [manifest]

    def prepare(self: Preparer, item: Any) -> Any:
        made = real(self, item)
        if item.where.endswith("refs/main") and between:
            place_manifest(world.context, between.pop(), link_mode="copy")
        return made

    monkeypatch.setattr(Preparer, "prepare", prepare)
    placed = place_manifest(world.context, manifest, link_mode="copy")
    assert {each.how for each in placed.files} == {"copy"}
    assert undo_manifest(world.context, manifest).left == ()
    assert tree_of(world.hub) == {}


def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(component("model", MODEL)), MODEL)
    theirs = world.home / "x" / "model" / "model.safetensors"
    real = Records.add

    def add(self: Records, *arguments: Any) -> None:
        real(self, *arguments)
        theirs.write_bytes(b"theirs")

    monkeypatch.setattr(Records, "add", add)
    with pytest.raises(StoreError, match="in the way"):
        place_manifest(world.context, manifest, [world.home / "x"])
    assert theirs.read_bytes() == b"theirs"
    undo_manifest(world.context, manifest)
    assert theirs.read_bytes() == b"theirs"
    assert_clean(world.home)


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.keep(manifest_of(component("model", MODEL)), MODEL)
    outside = world.home / "outside"
    outside.mkdir()

    def swap(path: Path) -> None:
        os.rename(path.parent, world.home / "away")
        path.parent.symlink_to(outside)

    when_put(monkeypatch, "model.safetensors", swap)
    with pytest.raises(StoreError, match="is a link"):
        place_manifest(world.context, manifest, [world.home / "x"], link_mode="copy")
    assert list(outside.iterdir()) == []


def test_who_cannot_get_the_lock_goes_on_after_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = world.keep(manifest_of(from_hub("model", MODEL)), MODEL)
    monkeypatch.setattr("diachunk.places.records._LOCK_S", 0.2)
    (world.store.root / "placed").mkdir()
    for name in (".place.lock", ".record.lock"):
        fd = os.open(world.store.root / "placed" / name, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
    place_manifest(world.context, manifest)
    assert (world.repository() / "refs" / "main").read_text() == COMMIT
