"""verify --cache: what no client checks, in caches that real clients wrote."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from diachunk.api.context import Context
from diachunk.api.foreign.caches import verify_caches
from diachunk.api.foreign.report import CacheFile, CacheReport, CacheState
from diachunk.errors import UsageError
from diachunk.manifest import decode
from fixtures import damage
from fixtures.foreign import HUB_CACHE, WEIGHTS, Lab

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

MODEL = "lab/dia/model.safetensors"


def by_label(report: CacheReport) -> dict[str, CacheFile]:
    return {file.label: file for file in report.files}


def know(home: Path, *files: Path) -> None:
    """These manifests are in the store, and nothing of what they list."""
    for file in files:
        Context.make(home).store.catalog.add(decode(file.read_bytes()))


def test_a_good_cache_is_right_by_its_own_names(lab: Lab, client: str, base: Path, home: Path) -> None:
    lab.put_cache(base, client, twin=True)
    report = verify_caches(["hub"], home=home)
    assert (report.ok, report.exit_code) == (True, 0)
    assert {file.state for file in report.files} == {CacheState.OK}
    assert set(by_label(report)) == {
        MODEL,
        "lab/dia/config.json",
        "lab/dia/sub/tokens.json",
        "lab/twin/weights.safetensors",
    }
    assert report.checked_bytes == sum(file.size for file in report.files)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_is_found_by_the_digest_in_the_name(
    name: str, lab: Lab, client: str, base: Path, home: Path
) -> None:
    damage.flip(lab.blob(lab.put_cache(base, client), name), 3)
    report = verify_caches(["hub"], home=home)
    assert report.exit_code == 4
    assert [(file.label, file.state) for file in report.wrong] == [(f"lab/dia/{name}", CacheState.DAMAGED)]


def test_a_known_manifest_names_the_tensors_that_are_damaged(lab: Lab, base: Path, home: Path) -> None:
    know(home, lab.manifest_file)
    damage.flip(lab.blob(lab.put_cache(base), "model.safetensors"), 3_000_000)
    (wrong,) = verify_caches(["hub"], home=home).wrong
    (chunk,) = wrong.damage
    assert chunk.tensors
    assert chunk.offset <= 3_000_000 < chunk.offset + chunk.size
    assert wrong.known_by == lab.manifest.ref


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("harm", "state"),
    [
        (damage.cut, CacheState.CUT_OFF),
        (damage.cut_to_nothing, CacheState.CUT_OFF),
        (damage.append, CacheState.TOO_LONG),
    ],
)
def test_a_wrong_length_is_said(
    harm: Callable[[Path], None], state: CacheState, known: bool, lab: Lab, base: Path, home: Path
) -> None:
    """Without a manifest too: newer clients write down what the Hub said of sizes."""
    if known:
        know(home, lab.manifest_file)
    harm(lab.blob(lab.put_cache(base), "model.safetensors"))
    (wrong,) = verify_caches(["hub"], home=home).wrong
    assert (wrong.state, wrong.label) == (state, MODEL)


def test_a_vocoder_cut_off_is_told_in_words(base: Path, home: Path) -> None:
    """The story that this project began with, by what ships with it: 9 MB are missing of DAC's release file."""
    weights = base / WEIGHTS
    weights.parent.mkdir(parents=True)
    with weights.open("wb") as file:
        file.truncate(306_717_287 - 9_000_000)
    (wrong,) = verify_caches(["descript"], home=home).wrong
    assert wrong.state is CacheState.CUT_OFF
    assert wrong.why.startswith("9,000,000 of 306,717,287 bytes are missing at its end")
    assert "failed finding central directory" in wrong.why
    assert wrong.known_by == "dia-1.6b-native@main"


def test_descript_s_and_dia_s_files_are_checked_by_what_knows_them(lab: Lab, base: Path, home: Path) -> None:
    know(home, lab.native_file)
    weights = lab.put_weights(base)
    mine = base / ".cache" / "dia" / "vocoder" / "checkpoint.pth"
    mine.parent.mkdir(parents=True)
    shutil.copyfile(lab.weights, mine)
    damage.flip(mine, 2_000_000)
    report = verify_caches(["descript", "dia"], home=home)
    assert [file.path for file in report.wrong] == [mine]
    assert report.wrong[0].damage[0].tensors
    assert {file.path: file.state for file in report.files}[weights] is CacheState.OK


def test_what_nobody_knows_is_listed_and_is_no_error(lab: Lab, base: Path, home: Path) -> None:
    lab.put_weights(base).rename(base / WEIGHTS.replace("44khz", "24khz"))
    strange = base / ".cache" / "dia" / "notes.txt"
    strange.parent.mkdir(parents=True)
    strange.write_text("mine")
    report = verify_caches(["descript", "dia"], home=home)
    assert {file.state for file in report.files} == {CacheState.UNKNOWN}
    assert report.exit_code == 0


def test_a_stranger_of_the_same_size_is_no_damaged_vocoder(lab: Lab, base: Path, home: Path) -> None:
    """But a right one is known wherever it lies."""
    know(home, lab.native_file)
    elsewhere = base / ".cache" / "dia" / "old"
    elsewhere.mkdir(parents=True)
    shutil.copyfile(lab.weights, elsewhere / "right.pth")
    (elsewhere / "other.pth").write_bytes(bytes(lab.native.total_bytes))
    report = verify_caches(["dia"], home=home)
    states = {file.path.name: file.state for file in report.files}
    assert states == {"right.pth": CacheState.OK, "other.pth": CacheState.UNKNOWN}
    assert report.exit_code == 0


def test_links_that_lead_nowhere_are_found(lab: Lab, client: str, base: Path, home: Path) -> None:
    blob = lab.blob(lab.put_cache(base, client), "model.safetensors")
    blob.unlink()
    (wrong,) = verify_caches(["hub"], home=home).wrong
    assert wrong.state is CacheState.DANGLING
    assert wrong.path.name == "model.safetensors"
    assert blob.name in wrong.why


def test_a_link_out_of_the_cache_is_told_and_not_followed(lab: Lab, base: Path, home: Path) -> None:
    cache = lab.put_cache(base)
    link = next(cache.glob("models--lab--dia/snapshots/*/config.json"))
    link.unlink()
    link.symlink_to("/etc/hostname")
    report = verify_caches(["hub"], home=home)
    assert by_label(report)[f"lab/dia/snapshots/{lab.commit}/config.json"].state is CacheState.OUTSIDE
    assert report.exit_code == 0


def test_leftovers_and_loose_refs_are_told_and_are_no_errors(lab: Lab, base: Path, home: Path) -> None:
    repository = lab.put_cache(base) / "models--lab--dia"
    (repository / "blobs" / f"{'0' * 64}.1a2b3c4d.incomplete").write_bytes(bytes(100_000))
    (repository / "refs" / "old").write_text("1" * 40)
    (repository / "refs" / "torn").write_text(lab.commit + "\n")
    report = verify_caches(["hub"], home=home)
    states = {file.path.name: file for file in report.files}
    assert states[f"{'0' * 64}.1a2b3c4d.incomplete"].state is CacheState.LEFTOVER
    assert states[f"{'0' * 64}.1a2b3c4d.incomplete"].size >= 100_000
    assert states["old"].state is states["torn"].state is CacheState.LOOSE_REF
    assert report.exit_code == 0


def test_a_blob_in_a_shared_store_is_read_through_its_link(lab: Lab, base: Path, home: Path) -> None:
    cache = lab.put_cache(base)
    blob = lab.blob(cache, "model.safetensors")
    shared = cache / "blobs" / "ab" / "cdef"
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert verify_caches(["hub"], home=home).ok
    damage.flip(shared, 3_000_000)
    (wrong,) = verify_caches(["hub"], home=home).wrong
    assert (wrong.state, wrong.shared) == (CacheState.DAMAGED, shared)


def test_a_manifest_that_contradicts_the_hub_is_the_liar(lab: Lab, base: Path, home: Path) -> None:
    text = lab.manifest_file.read_bytes()
    entry = next(file for _, file in lab.manifest.walk() if file.path == "model.safetensors")
    chunk = entry.chunks.digest(1).hex().encode()
    lie = home.parent / "lie.json"
    lie.write_bytes(text.replace(chunk, hashlib.sha256(chunk).hexdigest().encode()))
    know(home, lie)
    lab.put_cache(base)
    report = verify_caches(["hub"], home=home)
    assert report.ok
    assert "do not use that" in by_label(report)[MODEL].why


def test_what_was_right_needs_no_second_reading(lab: Lab, base: Path, home: Path) -> None:
    know(home, lab.manifest_file)
    lab.put_cache(base)
    verify_caches(["hub"], home=home)
    store = Context.make(home).store
    held = [store.blobs.find(file.blake3, file.size, file.chunks) for _, file in lab.manifest.walk()]
    assert [each.presence.name for each in held] == ["PROVEN"] * 3


def test_damage_ends_the_trust_in_an_adopted_file(lab: Lab, base: Path, home: Path) -> None:
    know(home, lab.manifest_file)
    blob = lab.blob(lab.put_cache(base), "model.safetensors")
    verify_caches(["hub"], home=home)
    damage.flip(blob, 3_000_000)  # neither size nor time say so
    verify_caches(["hub"], home=home)
    entry = next(file for _, file in lab.manifest.walk() if file.path == "model.safetensors")
    store = Context.make(home).store
    assert store.blobs.find(entry.blake3, entry.size, entry.chunks).path is None


def test_a_cache_that_is_not_there_is_no_error(home: Path) -> None:
    report = verify_caches(["hub", "descript", "dia"], home=home)
    assert (report.exit_code, report.files) == (0, ())
    assert [there for _, _, there in report.roots] == [False] * 3


def test_no_store_is_needed_to_check(lab: Lab, base: Path, tmp_path: Path) -> None:
    damage.flip(lab.blob(lab.put_cache(base), "model.safetensors"), 3_000_000)
    no_store = tmp_path / "file"
    no_store.write_text("")
    report = verify_caches(["hub"], home=no_store)
    assert [file.label for file in report.wrong] == [MODEL]
    assert report.exit_code == 4


def test_an_unknown_kind_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="no kind of cache"):
        verify_caches(["ollama"], home=home)


def test_nothing_in_the_cache_is_changed(lab: Lab, base: Path, home: Path) -> None:
    cache = lab.put_cache(base)
    damage.flip(lab.blob(cache, "model.safetensors"), 3_000_000)

    def all_of_it() -> str:
        return subprocess.run(
            ["find", str(base / HUB_CACHE), "-printf", "%p %m %s %T@ %l\n"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    before = all_of_it()
    verify_caches(["hub"], home=home)
    assert all_of_it() == before
