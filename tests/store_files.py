"""Small checkpoints for the tests of the store, and ways to fill one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from diachunk.chunking.verify import ChunkRef, VerifiedChunk, verify
from diachunk.digest import Digest, digest_of
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build
from diachunk.store.partial import Partial
from diachunk.store.store import Store

BLOCK = 64 * 1024
PIECES = tuple(bytes([value]) * BLOCK for value in (1, 2, 3, 4))
DATA = b"".join(PIECES)
DIGEST = digest_of(DATA)


def chunk_list(pieces: Sequence[bytes]) -> ChunkList:
    return ChunkList.of((len(piece), digest_of(piece)) for piece in pieces)


CHUNKS = chunk_list(PIECES)


def verified(chunks: ChunkList, index: int, data: bytes, blob: Digest = DIGEST) -> VerifiedChunk:
    ref = ChunkRef(chunks.digest(index), chunks.sizes[index], blob, chunks.offsets[index])
    return verify(ref, memoryview(data))


def write(partial: Partial, pieces: Sequence[bytes], indexes: Sequence[int] | None = None) -> None:
    """Writes some (all) chunks."""
    for index in range(len(pieces)) if indexes is None else indexes:
        partial.write(verified(partial.chunks, index, pieces[index]), partial.chunks.offsets[index])


def fill(store: Store, pieces: Sequence[bytes] = PIECES, digest: Digest | None = None) -> Path:
    """Makes a blob complete; `digest` is what its manifest claims, if that is not the truth."""
    digest = digest_of(b"".join(pieces)) if digest is None else digest
    partial = store.blobs.open_partial(digest, chunk_list(pieces))
    try:
        write(partial, pieces)
        partial.complete()
    finally:
        partial.close()
    return store.layout.blob(digest)


def manifest_of(name: str, files: Mapping[str, Sequence[bytes]], revision: str = "main") -> Manifest:
    """A manifest of files "component/path", each given by its chunks."""
    components: dict[str, list[FileEntry]] = {}
    for where, pieces in sorted(files.items()):
        component, _, path = where.partition("/")
        data = b"".join(pieces)
        entry = FileEntry(path, len(data), digest_of(data), chunk_list(pieces))
        components.setdefault(component, []).append(entry)
    return build(name, revision, [Component(each, tuple(entries)) for each, entries in components.items()])


def keep(store: Store, manifest: Manifest, files: Mapping[str, Sequence[bytes]]) -> None:
    """Everything that a fetch leaves behind: manifest, blobs, snapshot, name."""
    store.catalog.add(manifest)
    for pieces in files.values():
        fill(store, pieces)
    store.snapshots.build(manifest)
    store.catalog.set_ref(manifest.name, manifest.revision, manifest.id)
    store.snapshots.name(manifest.name, manifest.revision, manifest.id)


def listing(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every name below `root`, with mode, size and where a link leads."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        size = status.st_size if path.is_file() else 0
        found[str(path.relative_to(root))] = (
            status.st_mode,
            size,
            os.readlink(path) if path.is_symlink() else "",
        )
    return found


def leftovers(root: Path) -> list[str]:
    """Names that only a write under way may have."""
    return [name for name in listing(root) if ".tmp" in name or "/." in f"/{name}"]
