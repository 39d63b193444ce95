"""verify --cache --repair: right bytes take the place of wrong ones, by one rename, through no link."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import diachunk
from diachunk.api.foreign import known_files
from diachunk.api.foreign.caches import verify_caches
from diachunk.api.foreign.report import CacheReport, CacheState
from diachunk.testing.hub import Hub
from fixtures import damage
from fixtures.checkpoints import assert_store_is_right
from fixtures.foreign import CLIENTS, WEIGHTS, Lab
from fixtures.programs import run, said

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

LOADED = """
import hashlib, huggingface_hub as h
path = h.snapshot_download("lab/dia", local_files_only=True)
print(hashlib.sha256(open(path + "/model.safetensors", "rb").read()).hexdigest())
"""


def mended(report: CacheReport) -> list[tuple[CacheState, str]]:
    return [(file.state, file.label) for file in report.files if file.repaired]


def assert_right(lab: Lab, cache: Path) -> None:
    snapshot = cache / "models--lab--dia" / "snapshots" / lab.commit
    for path in lab.files.rglob("*.*"):
        assert (snapshot / path.relative_to(lab.files)).read_bytes() == path.read_bytes()
    assert not list(cache.rglob("*.diachunk-tmp"))


def test_a_manifest_that_only_ships_with_diachunk_saves_as_much(
    lab: Lab, base: Path, home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has never heard of it."""
    monkeypatch.setattr(known_files, "bundled_manifests", lambda: iter([lab.manifest]))
    cache = lab.put_cache(base)
    damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)
    report = verify_caches(["hub"], repair=True, home=home)
    assert report.exit_code == 0
    assert 0 < report.fetched_bytes < 400_000
    assert_right(lab, cache)


@pytest.mark.parametrize(
    "harm", [lambda path: damage.flip(path, 3), damage.cut, damage.cut_to_nothing, damage.append, os.unlink]
)
def test_what_no_manifest_knows_comes_from_the_hub(
    harm: Callable[[Path], None], lab: Lab, client: str, base: Path, home: Path, hub: Hub
) -> None:
    """Found by the digest in its own name, and fetched by the commit that its cache says it is of."""
    cache = lab.put_cache(base, client)
    for name in ("model.safetensors", "config.json"):
        harm(lab.blob(cache, name))
    report = verify_caches(["hub"], repair=True, home=home)
    assert (report.exit_code, len(mended(report))) == (0, 2)
    assert_right(lab, cache)
    assert_store_is_right(home)
    hub.close()
    found = said(run(CLIENTS[client], LOADED, base, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1"))
    assert found == lab.blob(cache, "model.safetensors").name


def test_what_a_manifest_knows_costs_only_its_bad_chunks(lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    cache = lab.put_cache(base)
    diachunk.fetch(lab.manifest_file, home=home)  # adopts: nothing is in the store
    damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)
    report = verify_caches(["hub"], repair=True, home=home)
    assert report.exit_code == 0
    assert 0 < report.fetched_bytes < 400_000
    assert_right(lab, cache)


def test_a_copy_elsewhere_on_this_machine_is_enough(lab: Lab, client: str, base: Path, home: Path) -> None:
    """The twin's blob is the same file; no hub answers."""
    cache = lab.put_cache(base, client, twin=True)
    twin = next((cache / "models--lab--twin" / "blobs").iterdir())
    twin.chmod(0o444)
    damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)
    report = verify_caches(["hub"], repair=True, home=home)
    assert (report.exit_code, report.fetched_bytes) == (0, 0)
    assert_right(lab, cache)
    assert not os.path.samefile(twin, lab.blob(cache, "model.safetensors"))  # the user's own is not linked to


def test_a_copy_that_is_damaged_too_is_no_cure(lab: Lab, base: Path, home: Path, quick: None) -> None:
    cache = lab.put_cache(base, twin=True)
    blob = lab.blob(cache, "model.safetensors")
    damage.flip(blob, 3_000_000)
    damage.flip(next((cache / "models--lab--twin" / "blobs").iterdir()), 4_000_000)
    before = blob.read_bytes()
    report = verify_caches(["hub"], repair=True, home=home)
    assert (report.exit_code, mended(report)) == (4, [])
    assert blob.read_bytes() == before


def test_a_vocoder_cut_off_is_cured_from_an_origin(lab: Lab, base: Path, home: Path) -> None:
    """The story that this project began with: descript's own loader never looks again at a file that is there."""
    diachunk.fetch(lab.native_file, origins=[lab.origin], to=base / "elsewhere", home=home)
    (base / "elsewhere" / "vocoder" / "checkpoint.pth").unlink()
    weights = lab.put_weights(base)
    os.truncate(weights, weights.stat().st_size - 900_000)
    report = verify_caches(["descript"], repair=True, origins=[lab.origin], home=home)
    assert mended(report) == [(CacheState.CUT_OFF, f"descript/{weights.name}")]
    assert weights.read_bytes() == lab.weights.read_bytes()
    assert report.fetched_bytes < 1_300_000  # the rest was in the file that was cut off
    assert verify_caches(["descript"], home=home).ok


def test_a_shared_blob_is_replaced_and_what_it_led_to_is_left_alone(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "model.safetensors")
    shared = cache / "blobs" / "ab" / "cdef"
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    damage.flip(shared, 3_000_000)
    before = shared.read_bytes()
    report = verify_caches(["hub"], repair=True, home=home)
    (file,) = [each for each in report.files if each.repaired]
    assert str(shared) in file.why
    assert shared.read_bytes() == before
    assert not blob.is_symlink()
    assert_right(lab, cache)


def test_who_has_the_old_file_open_keeps_it(lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "model.safetensors")
    damage.flip(blob, 3_000_000)
    before = blob.read_bytes()
    with blob.open("rb") as file:
        assert verify_caches(["hub"], repair=True, home=home).ok
        assert file.read() == before
    assert_right(lab, cache)


def test_a_placed_file_is_mended_although_the_store_has_the_same_damage(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    """Placed by hard link it is one file under two names, and neither its size nor its time tell."""
    diachunk.fetch(lab.manifest_file, home=home)
    diachunk.place(str(lab.manifest_file), link_mode="hardlink", home=home)
    cache = base / ".cache" / "huggingface" / "hub"
    damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)
    report = verify_caches(["hub"], repair=True, home=home)
    assert report.exit_code == 0
    assert_right(lab, cache)
    assert_store_is_right(home)


def test_a_placed_file_that_was_mended_can_still_be_taken_away(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    diachunk.fetch(lab.manifest_file, home=home)
    diachunk.place(str(lab.manifest_file), link_mode="copy", home=home)
    cache = base / ".cache" / "huggingface" / "hub"
    blob = lab.blob(cache, "model.safetensors")
    blob.unlink()
    blob.write_bytes(bytes(100))
    assert verify_caches(["hub"], repair=True, home=home).exit_code == 0
    assert_right(lab, cache)
    diachunk.place(str(lab.manifest_file), undo=True, home=home)
    assert not blob.exists()


def test_without_any_source_it_says_so_and_changes_nothing(
    lab: Lab, base: Path, home: Path, quick: None
) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "model.safetensors")
    damage.flip(blob, 3_000_000)
    before = blob.read_bytes()
    report = verify_caches(["hub"], repair=True, home=home)
    assert report.exit_code == 4
    assert report.repair_error is not None
    assert "127.0.0.1:9" in report.repair_error.message
    assert blob.read_bytes() == before


def test_a_hub_that_gives_wrong_bytes_mends_nothing(
    lab: Lab, base: Path, home: Path, hub: Hub, quick: None
) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "model.safetensors")
    damage.flip(blob, 3_000_000)
    hub.damage("model.safetensors", at_byte=5000)
    report = verify_caches(["hub"], repair=True, home=home)
    assert report.exit_code == 4
    assert not mended(report)


def test_one_that_cannot_be_had_keeps_none_of_the_others(
    lab: Lab, base: Path, home: Path, hub: Hub, quick: None
) -> None:
    cache = lab.put_cache(base)
    for name in ("model.safetensors", "config.json"):
        damage.flip(lab.blob(cache, name), 3)
    hub.damage("model.safetensors", at_byte=5000)
    report = verify_caches(["hub"], repair=True, home=home)
    assert report.exit_code == 4
    assert [file.label for file in report.wrong] == ["lab/dia/model.safetensors"]


def test_two_repairs_at_once_leave_a_right_cache(lab: Lab, base: Path, home: Path, hub: Hub) -> None:
    cache = lab.put_cache(base)
    for name in ("model.safetensors", "config.json"):
        damage.flip(lab.blob(cache, name), 3)
    reports: list[CacheReport] = []

    def repair() -> None:
        reports.append(verify_caches(["hub"], repair=True, home=home))

    threads = [threading.Thread(target=repair) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.exit_code for report in reports] == [0, 0]
    assert_right(lab, cache)


def test_a_directory_where_the_blob_belongs_is_not_removed(
    lab: Lab, base: Path, home: Path, hub: Hub
) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "config.json")
    blob.unlink()
    blob.mkdir()
    (blob / "mine").write_text("precious")
    report = verify_caches(["hub"], repair=True, home=home)
    assert (blob / "mine").read_text() == "precious"
    assert not mended(report)


def test_the_recipe_that_ships_knows_where_the_vocoder_can_be_had(
    base: Path, home: Path, quick: None
) -> None:
    weights = base / WEIGHTS
    weights.parent.mkdir(parents=True)
    with weights.open("wb") as file:
        file.truncate(306_717_287)  # the right size, and nothing in it
    (wrong,) = verify_caches(["descript"], repair=True, home=home).wrong
    assert "github.com" in wrong.why
    assert wrong.state is CacheState.DAMAGED
