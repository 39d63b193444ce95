"""What lies in the store: damaged manifests, names without one, links that dangle, adopted files that changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import bundled_manifests
from diachunk.store.store import Store
from fixtures import damage
from fixtures.checkpoints import Checkpoint, published, tree
from fixtures.doctored import call, cure, cured, diagnose
from fixtures.settings import write_config

NAME = "lab/small"


@pytest.fixture
def store(user: Path, small: Checkpoint) -> Store:
    """With one checkpoint that has a name."""
    diachunk.publish([f"model={small.root / 'model'}"], name=NAME, copy=True)
    return Store.open(user / "store")


def manifest_file(store: Store) -> Path:
    return next((store.root / "manifests").iterdir())


@pytest.fixture
def away(user: Path, tmp_path: Path) -> Checkpoint:
    """A checkpoint published from the user's own files, and an origin with a copy of them."""
    mine = published(
        tree(user / "mine", {"model/weights.bin": os.urandom(300_000), "model/config.json": b"{}\n"}), NAME
    )
    shutil.copytree(mine.root, tmp_path / "copy")
    write_config(user, {}, f'origins = ["{tmp_path / "copy"}"]')
    diachunk.publish([f"model={mine.root / 'model'}"], name=NAME)
    return mine


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_manifest_and_the_name_that_stands_for_it(
    store: Store, small: Checkpoint, damage: str
) -> None:
    path = manifest_file(store)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[: len(data) // 2], "other": small.manifest_file.read_bytes(), "empty": b""}[damage]
    )
    found = diagnose()
    assert found.exit_code == 6
    again = cured(found.the("the manifest of lab/small@main", "fault"))
    assert again.worse == []
    assert call("diachunk", "gc", "-n").returncode == 0


def test_a_name_whose_manifest_is_gone(store: Store) -> None:
    manifest_file(store).unlink()
    found = diagnose()
    assert found.exit_code == 6
    assert cured(found.the("whose manifest is not here", "fault")).worse == []


def test_a_shipped_checkpoint_is_fetched_again_by_its_name(user: Path) -> None:
    store = Store.open(user / "store")
    demo = next(iter(bundled_manifests()))
    store.catalog.set_ref(demo.name, demo.revision, demo.id)
    finding = diagnose("--offline").the("whose manifest is not here", "fault")
    assert finding["cure"].endswith(f"diachunk fetch {demo.ref}")
    cure({**finding, "cure": finding["cure"].replace("fetch ", "fetch --dry-run ")})


def test_a_name_that_nobody_can_read(store: Store) -> None:
    (store.root / "refs" / "lab" / "small@main").write_text("what?\n")
    assert cured(diagnose().the("cannot be read", "fault")).worse == []


def test_a_file_that_a_snapshot_leads_to_was_moved(user: Path, away: Checkpoint) -> None:
    call("diachunk", "fetch", NAME)
    away.root.rename(user / "archive")
    found = diagnose()
    assert found.exit_code == 6
    finding = found.the("the file that it leads to was moved or removed", "fault")
    assert "model/" in finding["what"]
    assert "1 other" in finding["what"]
    assert cured(finding).worse == []
    snapshot = diachunk.fetch(NAME)
    assert Path(snapshot.path("model/config.json")).read_bytes() == b"{}\n"


def test_what_a_repair_set_aside_was_not_moved_or_removed(store: Store) -> None:
    blob = max((store.root / "blobs").rglob("*"), key=lambda each: each.stat().st_size)
    damage.flip(blob, 1000)
    assert not diachunk.verify(repair=True).ok
    found = diagnose()
    finding = found.the(
        "the file that it leads to is not whole: what mends or fetches it did not end", "fault"
    )
    assert not any("moved or removed" in each["what"] for each in found.findings)
    assert finding["cure"]


def test_an_adopted_file_was_changed(user: Path, away: Checkpoint) -> None:
    with open(away.root / "model" / "weights.bin", "ab") as file:
        file.write(b"more")
    found = diagnose()
    finding = found.the("changed since adopted", "warning")
    assert found.exit_code == 0
    assert not cured(finding).about("changed since adopted")
    assert (away.root / "model" / "weights.bin").stat().st_size == 300_004


def test_a_name_whose_directory_is_gone(store: Store) -> None:
    ref = store.catalog.refs()[0]
    shutil.rmtree(store.layout.snapshot(ref.manifest_id))
    found = diagnose()
    assert found.exit_code == 6
    finding = found.the("lab/small@main: the directory that programs are given leads nowhere", "fault")
    assert not any("none of them dangling" in each["what"] for each in found.findings)
    assert cured(finding).worse == []
    assert Path(store.layout.named_snapshot(ref.name, ref.revision), "model").is_dir()


def test_a_link_that_dangles_is_not_said_to_be_complete_beside_it(store: Store) -> None:
    ref = store.catalog.refs()[0]
    link = next(each for each in store.layout.snapshot(ref.manifest_id).rglob("*") if each.is_symlink())
    link.unlink()
    link.symlink_to("nowhere")
    found = diagnose()
    finding = found.the("the file that it leads to was moved or removed", "fault")
    assert not any("complete" in each["what"] for each in found.findings)
    assert [
        each for each in found.findings if each["what"] == "no file of a named checkpoint is still to come"
    ]
    assert cured(finding).worse == []


def test_names_of_which_nobody_can_tell_what_they_lack_are_counted(store: Store) -> None:
    manifest_file(store).unlink()
    whats = [each["what"] for each in diagnose().findings]
    assert "of 1 named checkpoint nobody can tell what is still to come: its manifest cannot be read" in whats
    assert "no file of a named checkpoint is still to come" not in whats


def test_adopted_files_that_are_gone_are_a_note_until_gc(user: Path, away: Checkpoint) -> None:
    (away.root / "model" / "weights.bin").unlink()
    found = diagnose()
    finding = found.the("moved or removed since adopted", "note")
    assert not cured(finding).about("moved or removed since adopted")


def test_publishing_a_new_version_of_a_file_is_no_change(user: Path, away: Checkpoint) -> None:
    call("diachunk", "rm", NAME)
    (away.root / "model" / "weights.bin").write_bytes(b"new")
    diachunk.publish([f"model={away.root / 'model'}"], name=NAME, revision="v2")
    assert not diagnose().about("changed since adopted")


@pytest.mark.parametrize("kind", ["gone", "no store"])
def test_a_site_store_that_is_not_mounted_is_a_warning(user: Path, tmp_path: Path, kind: str) -> None:
    site = tmp_path / "site"
    if kind == "no store":
        site.mkdir()
    write_config(user, {}, f'stores = ["{site}"]')
    assert diagnose().the("the site store:", "warning")
    Store.open(site)
    assert diagnose().worse == []
