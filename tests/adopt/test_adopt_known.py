"""Every fetch finds by itself what the machine has, and takes nothing for right that it did not hash."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.api.foreign.claims import adopt_known
from diachunk.errors import StoreError
from diachunk.manifest import Manifest
from diachunk.schedule.work import BlobFacts, files_of
from diachunk.store.blobs import Presence
from diachunk.testing.hub import Hub
from fixtures import damage
from fixtures.checkpoints import assert_store_is_right, blobs_of
from fixtures.foreign import Lab

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]


def fetched_bytes(hub: Hub) -> int:
    return hub.bytes_sent("*")


def assert_right(lab: Lab, snapshot: diachunk.Snapshot) -> None:
    for path in lab.files.rglob("*.*"):
        assert snapshot.path(path.relative_to(lab.files).as_posix()).read_bytes() == path.read_bytes()


def test_a_fetch_takes_everything_from_the_cache_of_any_client(
    lab: Lab, client: str, base: Path, home: Path
) -> None:
    cache = lab.put_cache(base, client)
    snapshot = diachunk.fetch(lab.manifest_file, home=home)  # no hub answers
    assert_right(lab, snapshot)
    assert snapshot.report.fetched_bytes == 0
    assert blobs_of(home) == []  # used where it lies
    assert snapshot.path("model.safetensors").resolve() == lab.blob(cache, "model.safetensors").resolve()


def test_a_plan_says_that_nothing_is_to_be_fetched(lab: Lab, base: Path, home: Path) -> None:
    lab.put_cache(base)
    plan = diachunk.plan(lab.manifest_file, home=home)
    assert (plan.fetch_bytes, plan.disk_bytes) == (0, 0)


def test_a_damaged_file_gives_its_good_chunks_and_is_left_alone(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    damage.flip(blob, 3_000_000)
    before = blob.read_bytes()
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert_right(lab, snapshot)
    assert 0 < snapshot.report.fetched_bytes < 400_000
    assert blob.read_bytes() == before
    assert_store_is_right(home)


def test_a_file_cut_off_gives_what_it_has(lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    size = blob.stat().st_size
    os.truncate(blob, size - 700_000)
    assert diachunk.plan(lab.manifest_file, home=home).fetch_bytes > 0
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert_right(lab, snapshot)
    assert 700_000 <= snapshot.report.fetched_bytes < 1_500_000
    assert blob.stat().st_size == size - 700_000


def test_an_unfinished_download_gives_what_it_has(lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    """As a killed client of 1.18 or later leaves it: a name of its own for every run."""
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    os.truncate(blob, 3_000_000)
    blob.rename(blob.with_name(f"{blob.name}.0a1b2c3d.incomplete"))
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert_right(lab, snapshot)
    assert snapshot.report.fetched_bytes < lab.manifest.total_bytes - 2_000_000


@pytest.mark.parametrize("how", ["dangling", "directory", "loop", "fifo"])
def test_what_is_no_file_is_passed_over(how: str, lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    blob.unlink()
    match how:
        case "dangling":
            blob.symlink_to("/nowhere/at/all")
        case "directory":
            blob.mkdir()
        case "loop":
            blob.symlink_to(blob.name)
        case "fifo":
            os.mkfifo(blob)
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert_right(lab, snapshot)
    assert snapshot.report.fetched_bytes == (lab.files / "model.safetensors").stat().st_size


def test_a_blob_that_is_a_link_into_a_shared_store_is_used(lab: Lab, base: Path, home: Path) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "model.safetensors")
    shared = cache / "blobs" / "ab" / "cdef"
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert snapshot.report.fetched_bytes == 0
    assert snapshot.path("model.safetensors").resolve() == shared


def test_descript_s_file_is_found_under_its_own_name(lab: Lab, base: Path, home: Path) -> None:
    weights = lab.put_weights(base)
    snapshot = diachunk.fetch(lab.native_file, home=home)
    assert snapshot.path("vocoder/checkpoint.pth").resolve() == weights
    assert blobs_of(home) == []


def test_a_stranger_s_file_of_the_same_size_is_not_taken_for_it(lab: Lab, base: Path, home: Path) -> None:
    weights = lab.put_weights(base)
    weights.write_bytes(os.urandom(weights.stat().st_size))
    snapshot = diachunk.fetch(lab.native_file, origins=[lab.origin], home=home)
    assert snapshot.path("vocoder/checkpoint.pth").read_bytes() == lab.weights.read_bytes()
    assert_store_is_right(home)


def test_a_good_copy_is_used_where_the_first_one_is_damaged(lab: Lab, base: Path, home: Path) -> None:
    damage.flip(lab.blob(lab.put_cache(base, twin=True), "model.safetensors"), 1_000_000)
    snapshot = diachunk.fetch(lab.manifest_file, home=home)  # the twin's blob is the same file
    assert_right(lab, snapshot)
    assert (snapshot.report.fetched_bytes, blobs_of(home)) == (0, [])


def facts_of(manifest: Manifest) -> list[BlobFacts]:
    return files_of(manifest, None, merged=True)


def test_nothing_is_noted_twice_and_nothing_that_is_proven(lab: Lab, base: Path, home: Path) -> None:
    lab.put_cache(base)
    context = Context.make(home)
    facts = facts_of(lab.manifest)
    assert adopt_known(context, facts) == lab.manifest.total_bytes
    assert adopt_known(context, facts) == 0
    found = {context.store.blobs.find(each.digest, each.size, each.chunks).presence for each in facts}
    assert found == {Presence.CLAIMED}  # rumour, until it is hashed
    diachunk.fetch(lab.manifest_file, home=home)
    assert adopt_known(context, facts) == 0


def test_a_part_is_noted_as_a_part_and_counts_as_nothing(lab: Lab, base: Path, home: Path) -> None:
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    os.truncate(blob, 3_000_000)
    context = Context.make(home)
    assert adopt_known(context, facts_of(lab.manifest)) < 1000  # the small files
    entry = next(file for _, file in lab.manifest.walk() if file.path == "model.safetensors")
    (record,) = context.store.blobs.adopted.get(entry.blake3)
    assert (record.path, record.spoiled) == (blob, True)


def test_a_second_place_for_a_file_counts_once(lab: Lab, base: Path, home: Path) -> None:
    cache = lab.put_cache(base)
    context = Context.make(home)
    assert adopt_known(context, facts_of(lab.manifest)) == lab.manifest.total_bytes
    twin = cache / "models--a--twin" / "blobs" / lab.blob(cache, "model.safetensors").name
    twin.parent.mkdir(parents=True)
    twin.write_bytes((lab.files / "model.safetensors").read_bytes())
    assert adopt_known(context, facts_of(lab.manifest)) == 0


def test_a_file_that_changed_after_it_was_noted_is_not_used_unread(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    context = Context.make(home)
    adopt_known(context, facts_of(lab.manifest))
    damage.flip(blob, 1_000_000)  # as a bad disk does: neither size nor time change
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert_right(lab, snapshot)


def test_a_file_that_vanished_after_it_was_noted_is_fetched(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    cache = lab.put_cache(base)
    adopt_known(Context.make(home), facts_of(lab.manifest))
    lab.blob(cache, "model.safetensors").unlink()
    snapshot = diachunk.fetch(lab.manifest_file, home=home)
    assert_right(lab, snapshot)


def test_a_store_that_cannot_be_written_to_is_no_error(
    lab: Lab, base: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.put_cache(base)
    context = Context.make(home)

    def refuse(*args: object, **options: object) -> None:
        raise StoreError("read-only file system")

    monkeypatch.setattr(type(context.store.blobs.adopted), "put", refuse)
    assert adopt_known(context, facts_of(lab.manifest)) == 0


def test_a_claim_that_nobody_hashed_gets_no_link(lab: Lab, base: Path, home: Path) -> None:
    lab.put_cache(base)
    context = Context.make(home)
    adopt_known(context, facts_of(lab.manifest))
    snapshot = context.store.snapshots.build(lab.manifest)
    assert not list(snapshot.rglob("*.safetensors"))


def test_thousands_of_entries_take_no_time(lab: Lab, base: Path, home: Path) -> None:
    cache = lab.put_cache(base)
    for number in range(40):
        repository = cache / f"models--many--{number}"
        snapshot = repository / "snapshots" / f"{number:040x}"
        (repository / "blobs").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for file in range(100):
            name = f"{number:032x}{file:032x}"
            (repository / "blobs" / name).write_bytes(b"x")
            (snapshot / f"{file}.bin").symlink_to(f"../../blobs/{name}")
    context = Context.make(home)
    facts = facts_of(lab.manifest)
    started_s = time.process_time()
    assert adopt_known(context, facts) == lab.manifest.total_bytes
    assert time.process_time() - started_s < 1.0
