"""Races and lies that a review found: each of these once lost data, hung, or left the error family."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

import diachunk
from diachunk.digest import digest_of
from diachunk.errors import ManifestError, StoreError, UsageError
from diachunk.manifest import ChunkList, Component, FileEntry, build, encode
from diachunk.store.catalog import Catalog
from diachunk.store.store import Store
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Drip, Redirect, always
from diachunk.transfer.assemble import Assembly

MIB = 1024 * 1024
DATA = b"".join(bytes([number]) * MIB for number in range(12))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.bin").write_bytes(DATA)
    return folder


@pytest.fixture
def manifest(source: Path, tmp_path: Path) -> Path:
    out = tmp_path / "model.json"
    diachunk.publish([source], name="lab/model", out=out, store=False)
    return out


def lying_manifest(path: Path, data: bytes) -> Path:
    """A manifest that claims the blob of DATA for other chunks, and another size."""
    chunks = ChunkList.of([(len(data) // 2, digest_of(data[: len(data) // 2])), (3, digest_of(data[-3:]))])
    entry = FileEntry("model.bin", chunks.total_bytes, digest_of(DATA), chunks)
    path.write_bytes(encode(build("evil/model", "main", [Component("", (entry,))])))
    return path


def test_a_lying_manifest_cannot_make_the_store_give_up_a_good_blob(
    source: Path, manifest: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    good = diachunk.fetch(manifest, origins=[str(source)], home=home)
    evil = lying_manifest(tmp_path / "evil.json", b"abcdef")
    with pytest.raises(ManifestError, match="contradict"):
        diachunk.fetch(evil, home=home)
    assert good.path("model.bin").read_bytes() == DATA
    diachunk.fetch(manifest, home=home)


def test_a_repair_whose_partial_is_removed_under_it_starts_over(
    source: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    snapshot = diachunk.fetch(manifest, origins=[str(source)], home=home)
    blob = snapshot.path("model.bin").resolve()
    blob.chmod(0o644)
    with open(blob, "r+b") as file:
        file.seek(9 * MIB)
        file.write(b"rot")
    original = Assembly._round

    def round_after_a_neighbour_removed_it(self: Assembly, missing: list[object]) -> object:
        for partial in blob.parent.glob("*.partial"):
            partial.unlink()
        monkeypatch.setattr(Assembly, "_round", original)
        return original(self, missing)  # type: ignore[arg-type]

    monkeypatch.setattr(Assembly, "_round", round_after_a_neighbour_removed_it)
    assert diachunk.verify(repair=True, origins=[str(source)], home=home).ok
    assert snapshot.path("model.bin").read_bytes() == DATA


def test_two_checkpoints_that_share_a_damaged_blob_are_repaired_in_one_go(
    source: Path, manifest: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    second = tmp_path / "second.json"
    diachunk.publish([source], name="lab/model", revision="v2", out=second, store=False)
    for target in (manifest, second):
        snapshot = diachunk.fetch(target, origins=[str(source)], home=home)
    blob = snapshot.path("model.bin").resolve()
    blob.chmod(0o644)
    with open(blob, "r+b") as file:
        file.write(b"rot")
    report = diachunk.verify(repair=True, origins=[str(source)], home=home)
    assert report.ok
    assert len(report.files) == 2
    assert snapshot.path("model.bin").read_bytes() == DATA


def test_a_read_error_on_a_good_blob_accuses_no_manifest(
    source: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    snapshot = diachunk.fetch(manifest, origins=[str(source)], home=home)
    blob = snapshot.path("model.bin").resolve()
    real, good, failed = os.preadv, threading.Lock(), []

    def once_unreadable(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.path.samestat(os.fstat(fd), blob.stat()) and good.acquire(blocking=False):
            failed.append(offset)
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", once_unreadable)
    assert diachunk.verify(repair=True, home=home).ok
    assert len(failed) == 1
    assert blob.read_bytes() == DATA


def test_a_cap_on_the_line_does_not_slow_down_what_is_here(
    source: Path, manifest: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    diachunk.fetch(manifest, origins=[str(source)], home=home)
    shutil.rmtree(Store.open(home).root / "snapshots")
    for stamp in home.glob("blobs/*/*.stamp"):
        stamp.unlink()
    report = diachunk.fetch(manifest, home=home, max_down_bps=100_000).report
    assert (report.fetched_bytes, report.present_bytes) == (0, len(DATA))
    assert report.elapsed_s < 20


def test_when_the_mirror_behind_a_redirect_dies_the_redirector_is_asked_again(
    source: Path, manifest: Path, tmp_path: Path
) -> None:
    first, second = BadServer(source, always(Drip(20 * MIB))), BadServer(source)
    mirrors = [first, second]
    with BadServer(source, lambda request, number: Redirect(f"{mirrors[0].url}{request.path}")) as front:

        def first_dies(event: diachunk.Event) -> None:
            if isinstance(event, diachunk.Progress) and mirrors[0] is first and first.body_bytes > 2 * MIB:
                mirrors.pop(0)
                first.close()

        snapshot = diachunk.fetch(manifest, origins=[front.url], home=tmp_path / "home", progress=first_dies)
    second.close()
    assert mirrors == [second]
    assert snapshot.path("model.bin").read_bytes() == DATA


def test_many_files_of_equal_content_go_into_one_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"same-{number}.txt").write_bytes(b"the same\n")
    diachunk.publish([source], name="lab/same", out=tmp_path / "same.json", store=False)
    diachunk.fetch(tmp_path / "same.json", origins=[str(source)], to=tmp_path / "out", home=tmp_path / "home")
    assert [each.read_bytes() for each in sorted((tmp_path / "out").iterdir())] == [b"the same\n"] * 40


def test_a_file_that_appears_in_the_directory_meanwhile_is_the_users(
    source: Path, manifest: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"

    def appear(event: diachunk.Event) -> None:
        if isinstance(event, diachunk.Progress) and not (target / "model.bin").exists():
            (target / "model.bin").write_bytes(b"notes of the user's own")

    with BadServer(source, always(Drip(8 * MIB))) as origin, pytest.raises(StoreError, match="appeared"):
        diachunk.fetch(manifest, origins=[origin.url], to=target, home=tmp_path / "home", progress=appear)
    assert (target / "model.bin").read_bytes() == b"notes of the user's own"


@pytest.mark.parametrize(
    "target", ["http://[x/m.json", "file://[x", "file://elsewhere/m.json", "a\0b", "http://h:x/m"]
)
def test_a_target_that_is_no_url_is_a_usage_error(target: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        diachunk.fetch(target, home=tmp_path / "home")


@pytest.mark.parametrize("origin", ["http://[x/", "http://h.example:abc/", "file://[x", "/tmp/\0"])
def test_an_origin_that_is_no_url_is_a_usage_error(origin: str, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        diachunk.fetch(manifest, origins=[origin], home=tmp_path / "home")


def test_a_netrc_in_any_encoding_is_no_obstacle(
    source: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_bytes("machine 127.0.0.1 login me password zwölf€".encode())
    monkeypatch.setenv("NETRC", str(netrc))
    with BadServer(source) as origin:
        diachunk.fetch(manifest, origins=[origin.url], home=tmp_path / "one")
        assert all(each.request.headers.get("authorization") for each in origin.exchanges)
        netrc.write_bytes("machine 127.0.0.1 login me password zwölf".encode("latin-1"))
        diachunk.fetch(manifest, origins=[origin.url], home=tmp_path / "two")


def test_directories_that_a_cleaner_removed_from_the_store_are_made_again(
    source: Path, manifest: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    diachunk.fetch(manifest, origins=[str(source)], home=home)
    for name in ("pins", "refs", "adopted", "snapshots"):
        shutil.rmtree(home / name)
    diachunk.gc(home=home)
    assert diachunk.fetch(manifest, home=home).path("model.bin").read_bytes() == DATA


def test_a_manifest_of_tiny_chunks_ends_in_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pieces = [number.to_bytes(3, "big") for number in range(20_000)]
    data = b"".join(pieces)
    (source / "model.bin").write_bytes(data)
    chunks = ChunkList.of((3, digest_of(piece)) for piece in pieces)
    entry = FileEntry("model.bin", len(data), digest_of(data), chunks)
    target = tmp_path / "tiny.json"
    target.write_bytes(encode(build("evil/tiny", "main", [Component("", (entry,))])))
    snapshot = diachunk.fetch(target, origins=[str(source)], home=tmp_path / "home")
    assert snapshot.report.elapsed_s < 60
    assert snapshot.path("model.bin").read_bytes() == data


@pytest.mark.parametrize("hint", ["http://[x/", "http://h.example:99999/", "https://h.example/{component}/"])
def test_a_senseless_origin_in_a_manifest_does_not_refuse_the_checkpoint(
    hint: str, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "hinted.json"
    try:
        diachunk.publish([source], name="lab/hinted", origins=[hint], out=target, store=False)
    except ManifestError:
        return  # refused where it is written: better still
    snapshot = diachunk.fetch(target, origins=[str(source)], home=tmp_path / "home")
    assert snapshot.path("model.bin").read_bytes() == DATA


def test_a_publish_that_fails_leaves_the_name_where_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    first = diachunk.publish([source], name="lab/model", home=home)
    (source / "model.bin").write_bytes(b"the next version")

    def full(self: Catalog, manifest: object) -> None:
        raise StoreError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "add", full)
        with pytest.raises(StoreError):
            diachunk.publish([source], name="lab/model", force=True, home=home)
    assert diachunk.show("lab/model", home=home)[0].hex_id == first.id
