"""Where a file may be of which only size and digest are stated."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.api.foreign.local_files import CANDIDATES_MAX, find_local, find_prefixes
from diachunk.manifest import FileEntry
from diachunk.places import Wanted
from fixtures.checkpoints import blobs_of
from fixtures.foreign import Lab

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]


def wanted_of(file: FileEntry) -> Wanted:
    return Wanted(file.size, "" if file.git else file.sha256, file.git, Path(file.path).name)


@pytest.fixture
def wanted(lab: Lab) -> list[Wanted]:
    """All files of the repository."""
    return [wanted_of(file) for _, file in lab.manifest.walk()]


def test_blobs_of_any_client_s_cache_are_found_by_digest(
    lab: Lab, client: str, base: Path, home: Path, wanted: list[Wanted]
) -> None:
    cache = lab.put_cache(base, client)
    found = find_local(Context.make(home), wanted)
    assert {path.parent for paths in found.values() for path in paths} == {
        cache / "models--lab--dia" / "blobs"
    }
    assert set(found) == set(range(len(wanted)))


def test_the_store_s_own_blobs_are_found_and_come_first(
    lab: Lab, base: Path, home: Path, wanted: list[Wanted], hub: object
) -> None:
    diachunk.fetch(f"hub:{'lab/dia'}", home=home)
    blobs = blobs_of(home)
    assert len(blobs) == len(wanted)
    lab.put_cache(base)
    found = find_local(Context.make(home), wanted)
    assert sorted(paths[0] for paths in found.values()) == blobs
    assert all(len(paths) == 2 for paths in found.values())


def test_a_blob_without_a_known_digest_is_found_by_what_a_manifest_says(
    lab: Lab, home: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy" / "checkpoint.pth"
    copy.parent.mkdir()
    shutil.copyfile(lab.weights, copy)
    diachunk.fetch(lab.native_file, origins=[lab.origin], home=home)
    (file,) = lab.native.components[0].files
    found = find_local(Context.make(home), [wanted_of(file)])
    assert found == {0: [Context.make(home).store.layout.blob(file.blake3)]}


def test_directories_are_looked_through_whatever_the_names_there(
    lab: Lab, home: Path, tmp_path: Path
) -> None:
    """DAC's release file is called weights.pth where it is downloaded by hand."""
    copy = tmp_path / "downloads" / "deep" / "weights (1).bin"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(lab.weights, copy)
    (file,) = lab.native.components[0].files
    context = Context.make(home)
    assert find_local(context, [wanted_of(file)]) == {}
    assert find_local(context, [wanted_of(file)], [tmp_path / "downloads"]) == {0: [copy]}
    assert find_local(context, [wanted_of(file)], [copy]) == {0: [copy]}


def test_small_files_need_the_right_name(lab: Lab, home: Path, tmp_path: Path) -> None:
    config = next(file for _, file in lab.manifest.walk() if file.path == "config.json")
    for name in ("other.json", "config.json", f"sha1-{config.git}"):
        (tmp_path / "some").mkdir(exist_ok=True)
        (tmp_path / "some" / name).write_bytes(b"x" * config.size)
    found = find_local(Context.make(home), [wanted_of(config)], [tmp_path / "some"])
    assert {path.name for path in found[0]} == {"config.json", f"sha1-{config.git}"}


def test_candidates_are_bounded(lab: Lab, home: Path, tmp_path: Path) -> None:
    (file,) = lab.native.components[0].files
    (tmp_path / "many").mkdir()
    for number in range(20):
        with (tmp_path / "many" / f"{number}.pth").open("wb") as trap:
            trap.truncate(file.size)
    found = find_local(Context.make(home), [wanted_of(file)], [tmp_path / "many"])
    assert len(found[0]) == CANDIDATES_MAX


def test_parts_are_found_by_digest_and_by_place(lab: Lab, base: Path, home: Path) -> None:
    entry = next(file for _, file in lab.manifest.walk() if file.path == "model.safetensors")
    (native,) = lab.native.components[0].files
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    whole = blob.read_bytes()
    old, new = blob.with_name(f"{blob.name}.incomplete"), blob.with_name(f"{blob.name}.01234567.incomplete")
    for path in (old, new):
        path.write_bytes(whole[:1_000_000])
    os.truncate(blob, 500_000)
    weights = lab.put_weights(base)
    os.truncate(weights, 2_000_000)
    context = Context.make(home)
    wanted = [wanted_of(entry), wanted_of(native)]
    parts = find_prefixes(context, wanted)
    assert set(parts[0]) == {old, new, blob}
    assert parts[1] == [weights]
    assert find_local(context, wanted) == {}


def test_an_adopted_file_that_changed_is_no_candidate(lab: Lab, home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine" / "checkpoint.pth"
    copy.parent.mkdir()
    shutil.copyfile(lab.weights, copy)
    diachunk.publish([f"vocoder={copy.parent}"], name="mine/codec", home=home)
    (file,) = lab.native.components[0].files
    context = Context.make(home)
    assert find_local(context, [wanted_of(file)]) == {0: [copy]}
    copy.write_bytes(bytes(file.size))
    assert find_local(context, [wanted_of(file)]) == {}
