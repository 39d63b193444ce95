"""How long it takes to show 6.7 GB to other programs, where links are possible and where they are not."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.digest import digest_of, hasher
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build
from diachunk.store.stamps import Stamp, write_stamp
from diachunk.store.store import Store

_SIZES = {
    "model": {
        "config.json": 2_100,
        "model-1.safetensors": 4_961_000_000,
        "model-2.safetensors": 1_483_715_000,
    },
    "vocoder": {"config.json": 400, "model.safetensors": 306_700_000},
}
"""As Dia's: 6.75 GB in two components."""


def placing(folder: Path, rounds: int, size_mib: int) -> str:
    """A checkpoint of Dia's size, of nothing but zeros: links do not look at bytes. Sizes are fixed."""
    del folder, size_mib  # memory is too small for a copy, and shares no blocks
    with tempfile.TemporaryDirectory(prefix="diachunk-bench-") as directory:
        home = Path(directory)
        context, environment = Context.make(home / "store"), {"HOME": str(home)}
        manifest = _checkpoint(context.store)
        rows = []

        def times(name: str, mode: str, before: Callable[[], object], times: int = rounds) -> None:
            seconds = []
            for _ in range(times):
                before()
                started_at = time.perf_counter()
                placed = place_manifest(context, manifest, link_mode=mode, environment=environment)
                seconds.append(time.perf_counter() - started_at)
            how = ", ".join(sorted({file.how for file in placed.files}))
            rows.append(f"| {name} | {how} | **{statistics.median(seconds):.3f} s** |")

        def clear() -> None:
            shutil.rmtree(home / ".cache", ignore_errors=True)
            shutil.rmtree(context.store.root / "placed", ignore_errors=True)

        times("links, all digests known", "auto", clear)
        times("symbolic links", "symlink", clear)
        times("again: all there already", "auto", lambda: None)
        started_at = time.perf_counter()
        undo_manifest(context, manifest, environment=environment)
        rows.append(f"| undo | | **{time.perf_counter() - started_at:.3f} s** |")

        def forget() -> None:
            clear()
            _stamp(context.store, manifest, digests=False)

        times("links, digests computed first (once ever)", "auto", forget, 1)
    size = f"{manifest.total_bytes / 1e9:.2f} GB"
    return f"### Placing {size} into the Hub cache\n\n| | by | takes |\n|---|---|---|\n" + "\n".join(rows)


def _checkpoint(store: Store) -> Manifest:
    """In the store, complete, as after a fetch that computed every digest: sparse files."""
    components = []
    for name, sizes in _SIZES.items():
        entries = [_zeros(path, size) for path, size in sizes.items()]
        upstream = {
            "kind": "hub",
            "repository": f"bench/{name}",
            "commit": hashlib.sha1(name.encode()).hexdigest(),
        }
        components.append(Component(name, tuple(entries), upstream))
    manifest = build("bench/dia", "main", components)
    for _, file in manifest.walk():
        blob = store.layout.blob(file.blake3)
        blob.parent.mkdir(exist_ok=True)
        blob.touch()
        os.truncate(blob, file.size)
        blob.chmod(0o444)
    _stamp(store, manifest, digests=True)
    return manifest


def _stamp(store: Store, manifest: Manifest, *, digests: bool) -> None:
    for _, file in manifest.walk():
        stamp = Stamp.of(store.layout.blob(file.blake3).stat()).adding(chunk_list=file.chunks.id)
        if digests:
            stamp = replace(stamp, sha256=file.sha256)
        write_stamp(store.layout.files, store.layout.stamp(file.blake3), stamp)


def _zeros(path: str, size: int) -> FileEntry:
    zeros = bytes(CHUNK_BYTES)
    sizes = [CHUNK_BYTES] * (size // CHUNK_BYTES) + ([size % CHUNK_BYTES] if size % CHUNK_BYTES else [])
    digests = {each: digest_of(zeros[:each]) for each in set(sizes)}
    whole, sha256 = hasher(), hashlib.sha256()
    for each in sizes:
        whole.update(zeros[:each])
        sha256.update(zeros[:each])
    chunks = ChunkList.of((each, digests[each]) for each in sizes)
    return FileEntry(path, size, whole.digest(), chunks, sha256.hexdigest())


if __name__ == "__main__":
    print(placing(Path(), 5, 0))
