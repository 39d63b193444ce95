"""`ls`: what it says of a store, and what it takes care not to read."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

import diachunk
from diachunk.errors import StoreError, UsageError
from diachunk.manifest import Manifest, codec, write
from diachunk.store import catalog, usage
from diachunk.store.adopted import AdoptedFile
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from store_files import CHUNKS, DATA, DIGEST, PIECES, fill, keep, manifest_of
from store_files import write as write_chunks

ONE = manifest_of("lab/a", {"model/a.bin": PIECES, "vocoder/b.bin": PIECES[:2]})
ONLY = manifest_of("lab/b", {"model/a.bin": PIECES})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def present(store: Store) -> int:
    (held,) = diachunk.ls(store.root).held
    assert held.complete == (held.present_bytes == held.total_bytes)
    return held.present_bytes


def test_a_checkpoint_is_shown_as_its_manifest_says(store: Store) -> None:
    keep(store, ONE, {"a": PIECES, "b": PIECES[:2]})
    store.catalog.set_ref("my/name", "v2", ONE.id)
    store.catalog.pin(ONE.id)
    os.utime(store.layout.manifest(ONE.id), (5, 5))
    (held,) = diachunk.ls(store.root).held
    assert (held.id, held.hex_id, held.ref) == (ONE.id, ONE.hex_id, ONE.ref)
    assert (held.name, held.revision, held.total_bytes) == ("lab/a", "main", ONE.total_bytes)
    assert (held.names, held.pinned, held.used_at) == (("lab/a@main", "my/name@v2"), True, 5.0)
    assert (held.present_bytes, held.complete) == (ONE.total_bytes, True)
    assert held.manifest == ONE
    assert held.manifest is held.manifest


def test_no_manifest_is_decoded_before_it_is_asked_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def watched(data: bytes) -> Manifest:
        decoded.append(data)
        return codec.decode(data)

    for manifest in (ONE, ONLY):
        store.catalog.add(manifest)
    monkeypatch.setattr(catalog, "decode", watched)
    held = {each.name: each for each in diachunk.ls(store.root).held}
    assert decoded == []
    assert held["lab/b"].manifest == ONLY
    assert len(decoded) == 1


@pytest.mark.parametrize(
    "spell", [write.compact, write.readable, lambda manifest: write.readable(manifest)[:-1]]
)
def test_a_manifest_of_any_spelling_is_listed(store: Store, spell: Callable[[Manifest], bytes]) -> None:
    store.layout.manifest(ONE.id).write_bytes(spell(ONE))
    (held,) = diachunk.ls(store.root).held
    assert (held.ref, held.total_bytes, held.manifest) == (ONE.ref, ONE.total_bytes, ONE)


def test_a_damaged_manifest_is_passed_over_or_found_out_when_it_is_read(store: Store) -> None:
    for manifest in (ONE, ONLY):
        store.catalog.add(manifest)
    damaged = store.layout.manifest(ONE.id)
    text = damaged.read_bytes()
    damaged.write_bytes(text[:-20])
    assert [each.name for each in diachunk.ls(store.root).held] == ["lab/b"]
    # Nobody looks into chunk lists for a listing: this is only a claim until it is read.
    damaged.write_bytes(text.replace(CHUNKS.digest(3).hex().encode(), CHUNKS.digest(2).hex().encode(), 1))
    held = {each.name: each for each in diachunk.ls(store.root).held}["lab/a"]
    with pytest.raises(StoreError, match="holds another manifest"):
        _ = held.manifest
    damaged.unlink()
    with pytest.raises(UsageError, match="no manifest"):
        _ = held.manifest


def test_only_complete_files_count(store: Store) -> None:
    store.catalog.add(ONLY)
    assert present(store) == 0
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    write_chunks(partial, PIECES)
    assert present(store) == 0, "whole, but not flushed and named"
    partial.complete()
    partial.close()
    assert present(store) == len(DATA)


@pytest.mark.parametrize("wrong", ["shorter", "longer", "link", "directory", "elsewhere"])
def test_what_is_no_file_of_that_size_under_its_name_does_not_count(
    store: Store, tmp_path: Path, wrong: str
) -> None:
    store.catalog.add(ONLY)
    own = fill(store)
    own.unlink()
    match wrong:
        case "shorter":
            own.write_bytes(DATA[:-1])
        case "longer":
            own.write_bytes(DATA + b"x")
        case "link":
            (tmp_path / "there").write_bytes(DATA)
            own.symlink_to(tmp_path / "there")
        case "directory":
            own.mkdir()
        case "elsewhere":
            (store.root / "blobs" / "zz").mkdir()
            (store.root / "blobs" / "zz" / own.name).write_bytes(DATA)
    assert present(store) == 0
    assert not store.blobs.holds(DIGEST, len(DATA))


def test_a_link_is_no_blob_also_if_it_has_the_size_of_one(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "there"
    pieces = [b"x" * len(str(target))]
    store.catalog.add(manifest_of("lab/small", {"model/a.bin": pieces}))
    own = fill(store, pieces)
    assert present(store) == len(pieces[0])
    own.rename(target)
    own.symlink_to(target)
    assert own.lstat().st_size == target.stat().st_size
    assert present(store) == 0


def test_an_adopted_file_counts_while_it_is_unchanged(store: Store, tmp_path: Path) -> None:
    store.catalog.add(ONLY)
    mine = tmp_path / "mine.bin"
    mine.write_bytes(DATA)
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, Stamp.of(mine.stat())))
    assert present(store) == 0, "nobody has read it yet"
    stamp = Stamp.of(mine.stat()).adding(blake3=DIGEST.hex())
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, stamp))
    listing = diachunk.ls(store.root)
    assert (listing.held[0].complete, listing.disk_bytes) == (True, 0), "it takes no space of the store"
    assert store.blobs.holds(DIGEST, len(DATA))
    assert not store.blobs.holds(DIGEST, len(DATA) - 1)
    os.utime(mine, ns=(5, 5))
    assert present(store) == 0
    assert not store.blobs.holds(DIGEST, len(DATA))
    fill(store)
    assert store.blobs.holds(DIGEST, len(DATA))
    assert not store.blobs.holds(DIGEST, len(DATA) + 1)


def test_the_disk_space_is_that_of_everything_below_blobs(store: Store) -> None:
    fill(store)
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    write_chunks(partial, PIECES, [0])
    partial.close()
    files = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert diachunk.ls(store.root).disk_bytes == sum(path.stat().st_blocks * 512 for path in files) > 0


def test_a_file_that_goes_while_they_are_counted_is_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fill(store)
    scandir = os.scandir

    @contextlib.contextmanager
    def racing(directory: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(directory) as entries:
            found = list(entries)
        if own.exists() and directory.name == own.parent.name:
            own.rename(own.with_name("another-name"))
        yield found

    monkeypatch.setattr(usage, "os", mock.Mock(wraps=os, scandir=racing))
    stamp = store.layout.stamp(DIGEST).stat()
    assert diachunk.ls(store.root).disk_bytes == stamp.st_blocks * 512
    assert not own.exists()


def test_ls_imports_nothing_that_only_transfers_need(store: Store) -> None:
    store.catalog.add(ONE)
    code = """
import sys
sys.argv = ["diachunk", "ls"]
from diachunk.cli.main import run
try:
    run()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "DIACHUNK_HOME": str(store.root)},
    )
    assert done.returncode == 0, done.stderr
    assert "lab/a@main" in done.stdout
    loaded = {name for name in done.stderr.split() if "." not in name or name.startswith("diachunk.")}
    assert "diachunk.api.care" in loaded
    needless = {
        "urllib3",
        "aiohttp",
        "asyncio",
        "http",
        "ssl",
        "requests",
        "rich",
        "torch",
        "numpy",
        "safetensors",
    }
    assert not loaded & needless
    assert not [name for name in loaded if name.startswith(("diachunk.transfer", "diachunk.formats"))]
